"""What the owner of an app reads, of what the app says and of what goes wrong."""

from __future__ import annotations

import pytest

from plugin_server.testing import AppHarness
from tests.behaviours.hooks import EVENT, hook, messages


async def test_console_makes_one_line_of_its_arguments_at_five_levels():
    body = """
    for write in (console.debug, console.log, console.info, console.warn, console.error):
        write('a', 'b')
        write()
        write('number =', 987)
        write(ValueError('something'))
        write({'a': 1})
        write([99, 79])
    """
    lines = ["a b", "", "number = 987", "ValueError: something", '{"a":1}', "[99,79]"]
    async with AppHarness(source=hook("onEvent", body)) as app:
        logs = (await app.run("onEvent", EVENT)).logs
        expected = [(level, line) for level in ("DEBUG", "LOG", "INFO", "WARN", "ERROR") for line in lines]
        assert [(log["level"], log["message"]) for log in logs] == expected
        assert {log["source"] for log in logs} == {"CONSOLE"}


async def test_an_app_that_throws_each_time_loses_no_event_and_its_owner_reads_each_error():
    source = "def processEvent(event, meta):\n    raise ValueError('error thrown in plugin')\n"
    async with AppHarness(source=source) as app:
        for _ in range(4):
            run = await app.run("processEvent", EVENT)
            assert run.event == EVENT
            assert (run.error.kind, run.error.message, run.error.line) == (
                "app",
                "ValueError: error thrown in plugin",
                2,
            )
            (log,) = run.logs
            assert (log["level"], log["source"]) == ("ERROR", "PLUGIN")
            assert "error thrown in plugin" in log["message"]


async def test_an_error_that_nobody_awaited_is_told_to_the_app_that_caused_it_and_fails_nothing():
    careless = hook("processEvent", "fetch('https://gone.example.com/')\nreturn event")
    innocent = hook("processEvent", "await sleep(0.01)\nevent['properties']['innocent'] = True\nreturn event")
    mocks = [{"url": "https://gone.example.com/", "network_error": "no such host"}]
    async with AppHarness(source=[innocent, careless, innocent], http=mocks) as app:
        run = await app.run("processEvent", EVENT)
        assert run.error is None
        assert run.event["properties"] == {"a": 1, "innocent": True}
        (log,) = run.logs
        assert (log["level"], log["source"]) == ("ERROR", "PLUGIN")
        assert "nobody awaited it" in log["message"]
        assert "no such host" in log["message"]


async def test_a_coroutine_that_nobody_awaits_does_not_run_and_harms_nobody():
    more = "async def later(meta):\n    console.log('never')\n    raise ValueError('never')\n"
    async with AppHarness(source=hook("processEvent", "later(meta)\nreturn event", more)) as app:
        for _ in range(2):
            run = await app.run("processEvent", EVENT)
            assert (run.event, run.error, messages(run)) == (EVENT, None, [])


@pytest.mark.parametrize("where", ["processEvent", "onEvent"])
async def test_nul_in_an_error_or_a_line_becomes_the_replacement_character(where):
    source = hook(where, "console.log('a\\0b')\nraise RetryError('bad ' + event['properties']['text'])")
    async with AppHarness(source=source) as app:
        run = await app.run(where, EVENT | {"properties": {"text": "\0\0"}})
        assert messages(run) == ["a\ufffdb"]
        assert run.error.message == "RetryError: bad \ufffd\ufffd"
        assert not any("\0" in log["message"] for log in run.logs)


async def test_an_app_with_a_syntax_error_or_an_unknown_import_does_not_run_and_the_others_do():
    adds = "def processEvent(event, meta):\n    event['properties']['n'] = event['properties'].get('n', 0) + 1\n    return event\n"
    for broken, said in (("def processEvent(event, meta:\n", "line 1"), ("import kea\n" + adds, "kea")):
        async with AppHarness(source=[adds, broken, adds]) as app:
            run = await app.run("processEvent", EVENT)
            assert run.event["properties"] == {"a": 1, "n": 2}
            assert said in str(app.setup_error)
