"""The workload: events of about 1.1 KB as SDKs send them, and three small apps, the last of which drops 1 %."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import orjson

TOKEN = "phc_benchmark"
PROJECT_ID = 2
DROPPED_SHARE = 0.01

APPS = {
    "remove-properties": """
REMOVE = ("$ip", "$device_id", "$initial_referrer")


def processEvent(event, meta):
    properties = event["properties"]
    for key in REMOVE:
        if key in properties:
            del properties[key]
    return event
""",
    "clean-url": """
def processEvent(event, meta):
    properties = event["properties"]
    url = properties.get("$current_url")
    if url:
        url = url.lower()
        if url.endswith("/"):
            url = url[:-1]
        properties["$current_url"] = url
    return event
""",
    "drop-and-mark": """
def processEvent(event, meta):
    if event["distinct_id"].endswith("37"):
        return None
    event["properties"]["$processed_by"] = "t3"
    return event
""",
}
PATHS = ("/Pricing/", "/docs/Getting-Started/", "/insights", "/Dashboard/42/", "/", "/signup", "/Blog/Kafka-At-Scale/")


def write_projects(folder: Path, apps: int = 3) -> Path:
    """A projects file with these apps, and the apps."""
    installs = []
    for order, (name, source) in enumerate(list(APPS.items())[:apps], 1):
        app = folder / name
        app.mkdir(parents=True, exist_ok=True)
        (app / "plugin.json").write_text(f'{{"name": "{name}"}}')
        (app / "main.py").write_text(source)
        installs.append({"id": order, "app": f"./{name}", "order": order})
    projects = folder / "projects.yaml"
    document = {"projects": [{"id": PROJECT_ID, "name": "benchmark", "token": TOKEN, "installs": installs}]}
    projects.write_bytes(orjson.dumps(document))
    return projects


def make_events(count: int, seed: int = 1) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) of messages of the ingestion topic."""
    source = random.Random(seed)
    for number in range(count):
        distinct_id = f"user-{number % 100_000:06d}"
        moment = f"2026-11-23T02:{(number // 60) % 60:02d}:{number % 60:02d}.{number % 1000:03d}Z"
        path = source.choice(PATHS)
        properties = {
            "$os": source.choice(("Mac OS X", "Windows", "Linux")),
            "$browser": source.choice(("Chrome", "Firefox", "Safari")),
            "$browser_version": source.randint(80, 120),
            "$device_type": "Desktop",
            "$current_url": f"https://App.Example.com{path}",
            "$host": "App.Example.com",
            "$pathname": path,
            "$screen_height": 1080,
            "$screen_width": 1920,
            "$viewport_height": 937,
            "$viewport_width": 1680,
            "$lib": "web",
            "$lib_version": "1.14.3",
            "$insert_id": f"{source.getrandbits(64):016x}",
            "$time": 1763863200.123 + number,
            "distinct_id": distinct_id,
            "$device_id": f"17c8{source.getrandbits(48):012x}",
            "$ip": "203.0.113.7",
            "$initial_referrer": "https://www.google.com/",
            "$referrer": "https://www.google.com/",
            "$active_feature_flags": ["new-nav", "beta-insights"],
            "$set": {"email": f"{distinct_id}@example.com", "plan": source.choice(("free", "pro"))},
        }
        data = {
            "event": source.choice(("$pageview", "$autocapture", "signed_up")),
            "properties": properties,
            "timestamp": moment,
            "offset": source.randint(0, 3000),
        }
        envelope = {
            "uuid": str(uuid.UUID(int=source.getrandbits(128), version=4)),
            "distinct_id": distinct_id,
            "ip": "203.0.113.7",
            "site_url": "https://app.example.com",
            "data": orjson.dumps(data).decode(),
            "team_id": PROJECT_ID,
            "now": moment,
            "sent_at": moment,
            "token": TOKEN,
        }
        yield f"{TOKEN}:{distinct_id}".encode(), orjson.dumps(envelope)
