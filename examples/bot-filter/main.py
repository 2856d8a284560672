def names(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def processEvent(event, meta):
    if event["event"] in names(meta.config["keepEvents"]):
        return event
    properties = event.get("properties") or {}
    bots = names(meta.config["bots"].lower())
    for name in ("$user_agent", "$raw_user_agent", "$browser"):
        value = properties.get(name)
        if isinstance(value, str):
            value = value.lower()
            for bot in bots:
                if bot in value:
                    return None  # drops the event; later apps do not see it
    return event
