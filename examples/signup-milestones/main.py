async def onEvent(event, meta):
    if event["event"] != meta.config["signupEvent"]:
        return
    # What is written to storage counts only if this returns: a sign-up that is tried again is counted once.
    count = await meta.storage.increment("signups")
    if count % int(meta.config["every"]) == 0:
        res = await posthog.api.post(
            "/api/projects/@current/annotations",
            {"data": {"content": f"{count} sign-ups", "scope": "project", "date_marker": event["timestamp"]}},
        )
        if not res.ok:
            raise RetryError(f"the annotation was answered {res.status}")
    await meta.jobs.oneDayLater({"distinct_id": event["distinct_id"]}).runIn(1, "day")


def one_day_later(payload, meta):
    posthog.capture("one day after sign-up", {"distinct_id": payload["distinct_id"]})


jobs = {"oneDayLater": one_day_later}
