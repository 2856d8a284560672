FOLLOW_UP = "signup followed up"


def processEvent(event, meta):
    # A captured event runs through every app again, this one included: FOLLOW_UP itself must not be answered.
    if event["event"] == meta.config["signupEvent"] and event["event"] != FOLLOW_UP:
        posthog.capture(FOLLOW_UP, {"distinct_id": event["distinct_id"]})
    return event
