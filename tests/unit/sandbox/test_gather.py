"""`gather`: host calls and coroutines of an app side by side, within one run."""

from __future__ import annotations

import pytest

from tests.unit.sandbox.asking import Asking, refusal_of, result_of
from tests.unit.sandbox.child import Child

STEPS = """
async def step(name, *seconds):
    for number in seconds:
        await sleep(number)
        console.log(name, number)
    return name
async def fails(text, *seconds):
    for number in seconds:
        await sleep(number)
    raise ValueError(text)
"""


def answer_in(asking: Asking, *places: int) -> None:
    """Answer the calls at these places among all that were made, in this order."""
    for place in places:
        asking.child.answer(asking.child.calls[place][0], place)


def test_host_calls_start_at_once_and_their_answers_come_in_order():
    asking = Asking("return await gather(sleep(1), sleep(2), sleep(3))")
    assert len(asking.asked) == 3
    answer_in(asking, 2, 0, 1)
    assert asking.returned == "[[0,1,2]]"


def test_nothing_to_wait_for_is_an_empty_list():
    assert result_of("return await gather()") == "[[]]"
    assert result_of("return await gather(posthog.capture('x'))") == "[[null]]"


def test_coroutines_run_side_by_side():
    asking = Asking("return await gather(step('a', 1, 2), step('b', 3), step('c'))", STEPS)
    assert [arguments for _, arguments in asking.asked] == [[1], [3]]
    answer_in(asking, 1)
    assert len(asking.asked) == 2
    answer_in(asking, 0)
    assert [arguments for _, arguments in asking.asked] == [[1], [3], [2]]
    answer_in(asking, 2)
    assert asking.returned == '[["a","b","c"]]'
    assert asking.logged[:-1] == ["b 3", "a 1", "a 2"]


def test_a_coroutine_goes_on_as_soon_as_its_own_call_is_answered():
    asking = Asking("return await gather(sleep(9), step('a', 1, 2, 3))", STEPS)
    answer_in(asking, 1)
    answer_in(asking, 2)
    assert [arguments for _, arguments in asking.asked] == [[9], [1], [2], [3]]
    answer_in(asking, 3, 0)
    assert asking.returned == '[[0,"a"]]'


def test_gathers_may_be_nested():
    body = "return await gather(gather(step('a', 1), step('b', 2)), gather(sleep(3), gather(step('c', 4))), step('d'))"
    asking = Asking(body, STEPS)
    assert len(asking.asked) == 4
    answer_in(asking, 3, 1, 2, 0)
    assert asking.returned == '[[["a","b"],[0,["c"]],"d"]]'


def test_the_first_error_is_raised_when_all_have_ended():
    body = """
try:
    await gather(step('a', 1), fails('first', 2), fails('second'))
except ValueError as error:
    return str(error)
"""
    asking = Asking(body, STEPS)
    answer_in(asking, 1)
    assert asking.child.done == []
    answer_in(asking, 0)
    assert asking.returned == '["first"]'
    assert asking.logged[0] == "a 1"


def test_an_error_of_a_host_call_is_raised_and_all_were_awaited():
    asking = Asking("await gather(sleep(1), sleep(2), sleep(3))")
    for place in (2, 0):
        asking.child.refuse(asking.child.calls[place][0], f"no {place}", "fetch")
    answer_in(asking, 1)
    assert asking.failure[:2] == ["app", "FetchError: no 0"]
    assert [line for line in asking.logged if "nobody awaited" in line] == []


def test_the_line_of_an_error_is_that_of_the_coroutine():
    child = Child(
        "async def inner():\n    await sleep(1)\n    return 1 / 0\n\nasync def onEvent(event, meta):\n    await gather(inner())\n"
    )
    child.invoke(1, "onEvent", {})
    child.answer(child.calls[0][0])
    assert child.done[0][1] == ["app", "ZeroDivisionError: division by zero", 3, False]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("5", "gather: int cannot be awaited"),
        ("[sleep]", "gather: list cannot be awaited: write gather(*calls)"),
        ("step", "gather: function cannot be awaited: call the function"),
        ("None", "gather: NoneType cannot be awaited"),
        ("(n for n in [1])", "gather: generator cannot be awaited"),
        ("object()", "gather: object cannot be awaited"),
        ("meta", "gather: meta cannot be awaited"),
    ],
)
def test_what_cannot_be_awaited_is_refused(arguments, message):
    assert message in refusal_of(f"await gather({arguments})", STEPS)


@pytest.mark.filterwarnings("ignore:coroutine")
def test_the_same_coroutine_twice_is_refused():
    assert "the same coroutine twice" in refusal_of("c = step('a')\nawait gather(c, c)", STEPS)


def test_a_coroutine_that_was_awaited_already_is_an_error():
    assert "cannot reuse" in refusal_of("c = step('a')\nawait c\nawait gather(c)", STEPS)


def test_the_same_host_call_may_be_awaited_more_than_once():
    asking = Asking("c = sleep(1)\nreturn [await gather(c, c), await c]")
    answer_in(asking, 0)
    assert asking.returned == "[[[0,0],0]]"


def test_a_coroutine_that_gathers_itself_is_an_error():
    body = "box = []\nasync def f():\n    await gather(box[0])\nbox.append(f())\nawait gather(box[0])"
    assert "already executing" in refusal_of(body)


def test_one_coroutine_in_two_gathers_ends_without_a_wrong_answer():
    body = "c = step('a', 1)\nreturn await gather(gather(c), gather(c))"
    asking = Asking(body, STEPS)
    answer_in(asking, 0)
    assert "cannot reuse" in asking.failure[1]


def test_a_hook_that_is_cancelled_ends_what_it_gathers():
    body = "await gather(guarded('a'), guarded('b'))"
    before = (
        "async def guarded(name):\n    try:\n        await sleep(1)\n    finally:\n        console.log('end', name)\n"
    )
    asking = Asking(body, before)
    asking.child.cancel(1, "ran longer than 1 s")
    assert asking.failure[:2] == ["timeout", "ran longer than 1 s"]
    assert asking.logged[:2] == ["end a", "end b"]


@pytest.mark.parametrize("end", ["finally:\n        await sleep(5)", "except Exception:\n        await sleep(5)"])
def test_a_time_out_cannot_be_caught_or_held_up_by_what_is_gathered(end):
    before = f"async def stubborn():\n    try:\n        await sleep(1)\n    {end}\n"
    body = "try:\n    await gather(stubborn(), stubborn())\nexcept Exception:\n    return 'caught'"
    asking = Asking(body, before)
    asking.child.cancel(1, "ran longer than 1 s")
    assert asking.failure[0] == "timeout"


def test_a_wait_for_what_belongs_to_another_event_is_an_error():
    source = """
kept = []
async def waits():
    await kept[0]
async def processEvent(event, meta):
    if not kept:
        kept.append(sleep(1))
        await kept[0]
    elif event['event'] == 'call':
        await gather(kept[0])
    else:
        await gather(waits())
    return event
"""
    child = Child(source)
    child.run(("x", "ada", 1), ("call", "eve", 2), ("coroutine", "bob", 3))
    assert [row[0] for row in child.rows] == [2, 3]
    for row in child.rows:
        assert "only what the host gives for this event can be awaited" in row[7]["failed"][0][2]
    child.answer(child.calls[0][0])
    assert child.rows[-1][0] == 1
    assert "failed" not in (child.rows[-1][7] or {})


def test_a_gather_is_awaited_in_the_event_in_which_it_was_called():
    source = """
kept = []
async def processEvent(event, meta):
    if not kept:
        kept.append(gather(sleep(1)))
        return event
    await kept[0]
    return event
"""
    child = Child(source)
    child.run(("x", "ada", 1), ("y", "eve", 2))
    child.answer(child.calls[0][0])
    failures = [row[7]["failed"] for row in child.rows if row[0] == 2]
    assert "await it in the event in which it was called" in failures[0][0][2]


def test_other_events_go_on_while_one_gathers():
    source = """
async def one(n):
    return await sleep(n)
async def processEvent(event, meta):
    event['properties']['slept'] = await gather(one(event['properties']['n']), sleep(0))
    return event
"""
    child = Child(source)
    child.run(("x", "ada", 1), ("y", "eve", 2))
    calls = list(child.calls)
    # In order of the events: each starts its plain call first, then what its coroutine calls.
    for call in reversed(calls):
        child.answer(call[0], call[0])
    assert child.order == [2, 1]
    slept = {row[0]: properties["slept"] for row, properties in child.results}
    assert sorted(slept[1] + slept[2]) == sorted(call[0] for call in calls)


def test_a_thousand_calls_may_be_gathered():
    asking = Asking(
        "return sum(await gather(*[one(n) for n in range(999)]))", "async def one(n):\n    return await sleep(n)\n"
    )
    for call in list(asking.child.calls):
        asking.child.answer(call[0], 1)
    assert asking.returned == "[999]"
