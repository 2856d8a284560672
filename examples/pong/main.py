def processEvent(event, meta):
    if event["event"] == "ping":
        posthog.capture("pong", {"distinct_id": event["distinct_id"]})
    return event
