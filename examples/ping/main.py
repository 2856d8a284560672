def processEvent(event, meta):
    if event["event"] == "pong":
        posthog.capture("ping", {"distinct_id": event["distinct_id"]})
    return event
