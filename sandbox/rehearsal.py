"""An app of ours that the fork server runs before it forks: what that makes Python allocate is shared by all sandboxes.

Worth half a megabyte and some milliseconds of each sandbox.
"""

from __future__ import annotations

from typing import Final

import orjson

from sandbox.app import load_app
from sandbox.chain import Chain, ChainLimits, Mode
from sandbox.invocation import Context, Effects, HostCall
from sandbox.page import Page

_SOURCE: Final = """
import json
import re
from datetime import datetime

WORD = re.compile('[a-z]+')

class Count:
    def __init__(self):
        self.total = 0
    def add(self, text):
        self.total += len(WORD.findall(text))

def setupPlugin(meta):
    console.log('ready', {'config': meta.config})

def processEvent(event, meta):
    count = Count()
    for key, value in list(event['properties'].items()):
        if isinstance(value, str):
            count.add(value)
            event['properties'][f'{key}_length'] = len(value)
    event['properties']['words'] = count.total
    event['properties']['copy'] = json.loads(json.dumps({'a': [1, 2.5, None]}))
    event['properties']['year'] = datetime.fromisoformat('2026-01-01T00:00:00').year
    posthog.capture('counted', {'total': count.total})
    return event if event['event'] != 'wrong' else 1 / 0
"""
_APPS: Final = 3
_EVENTS: Final = 20


def rehearse() -> None:
    """Load that app a few times over and run it on some events, one of which fails."""
    page = Page()
    context = Context(_no_call, page)
    install = {"name": "rehearsal", "file_name": "main.py", "source": _SOURCE, "config": {"a": "b"}, "failed": None}
    apps = [load_app({"id": number, **install}, {}, context, 100, "0") for number in range(1, _APPS + 1)]
    assert [app.error for app in apps] == [None] * _APPS, "the rehearsal's app is broken"
    chain, mode = Chain(1, apps, ChainLimits(1.0, 2**28, 2**20, 1_000_000), page), Mode()
    for number in range(_EVENTS):
        data = {"event": "wrong" if number == 1 else "right", "properties": {"a": "b c", "n": number}}
        envelope = {"uuid": "u", "distinct_id": "d", "now": "2026-01-01T00:00:00Z", "data": orjson.dumps(data).decode()}
        raw = orjson.dumps(envelope)
        context.effects = effects = Effects(number)
        for _ in chain.run(chain.open(raw, mode), raw, effects, {}, mode):
            raise AssertionError("the rehearsal waits for nobody")
    context.effects = None
    page.leave()


def _no_call(*_: object) -> HostCall:
    raise AssertionError("the rehearsal asks for nothing")
