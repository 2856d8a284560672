from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit


def names(text):
    return [part.strip() for part in text.split(",") if part.strip()]


def is_stripped(parameter, patterns):
    for pattern in patterns:
        if pattern.endswith("*"):
            if parameter.startswith(pattern[:-1]):
                return True
        elif parameter == pattern:
            return True
    return False


def clean(url, patterns):
    parts = urlsplit(url)
    if not parts.scheme or not parts.netloc:
        return url
    user, at, host = parts.netloc.rpartition("@")
    query = parts.query
    pairs = parse_qsl(query, keep_blank_values=True)
    kept = [(name, value) for name, value in pairs if not is_stripped(name, patterns)]
    if len(kept) < len(pairs):  # otherwise the query stays as it was written
        query = urlencode(kept)
    return urlunsplit((parts.scheme.lower(), user + at + host.lower(), parts.path, query, parts.fragment))


def processEvent(event, meta):
    properties = event.get("properties") or {}
    patterns = names(meta.config["parameters"])
    for name in names(meta.config["properties"]):
        url = properties.get(name)
        if isinstance(url, str):
            try:
                properties[name] = clean(url, patterns)
            except ValueError:
                pass  # no URL after all, such as http://[: it stays as it is
    return event
