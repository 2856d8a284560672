"""What a sandbox was given and has not answered: each answer is taken whole, or a violation that takes nothing."""

from __future__ import annotations

from typing import Any

import pytest

from plugin_server.model.errors import ProtocolViolation
from plugin_server.runtime.chain import Chain
from plugin_server.runtime.in_flight import InFlight
from plugin_server.runtime.replies import ChainResult, InvocationReply, Notes
from plugin_server.runtime.work import Work
from sandbox.wire import EventOutcome
from tests.unit.runtime.doubles import Sink, chain, emitted, invocation

EMIT = emitted()
WHOLE = ChainResult(EventOutcome.WHOLE, "", "", "", "", "{}", None)
DROP = ChainResult(EventOutcome.DROP, "", "", "", "", "", Notes(dropped_by=1))
INVALID = ChainResult(EventOutcome.INVALID, "", "", "", "", "", Notes(error=("a", "b")))


def works(count: int) -> list[Work[Any]]:
    sink = Sink()
    return [Work(number, b"raw", sink) for number in range(count)]


def flight(*batches: int, of: Chain | None = None) -> InFlight:
    """With batches of so many events, from sequence number 1 on."""
    made = InFlight()
    for count in batches:
        made.add_batch(of or chain(1, 2), works(count))
    return made


def done(sequence: int) -> InvocationReply:
    return InvocationReply(sequence, None, None, Notes())


def test_batches_get_numbers_one_after_the_other():
    in_flight, of = InFlight(), chain(1)
    given = works(5)
    assert in_flight.add_batch(of, given[:3]) == 1
    assert in_flight.add_batch(of, given[3:]) == 4
    assert list(in_flight.runs) == [1, 2, 3, 4, 5]
    assert all(work.chain is of for work in given)
    assert [list(batch.sequences) for batch in in_flight.batches] == [[1, 2, 3], [4, 5]]


def test_results_in_any_order_give_their_events_in_that_order():
    in_flight = flight(3)
    given = list(in_flight.runs.values())
    batch, taken = in_flight.take_results(1, [(3, EMIT), (1, DROP), (2, INVALID)])
    assert batch is not None
    assert (batch.first, batch.events) == (1, 3)
    assert taken == [given[2], given[0], given[1]]
    assert in_flight.runs == {}
    assert not in_flight.batches


def test_a_batch_may_end_before_its_last_event_and_after_others():
    in_flight = flight(2, 1)
    batch, taken = in_flight.take_results(1, [(2, EMIT)])
    assert batch is not None
    assert batch.first == 1
    assert len(taken) == 1
    batch, _ = in_flight.take_results(1, [])
    assert batch is not None
    assert batch.first == 3
    assert in_flight.take_results(0, [(1, EMIT), (3, EMIT)])[0] is None
    assert in_flight.runs == {}


def test_whole_events_are_taken_where_they_were_asked_for():
    in_flight = flight(3, of=chain(1, whole=True))
    in_flight.take_results(1, [(1, WHOLE), (2, DROP), (3, INVALID)])
    assert in_flight.runs == {}


async def test_what_is_no_honest_answer_is_a_violation_and_takes_nothing():
    in_flight = flight(2, 1)
    in_flight.add_invocation(invocation(chain(1), 1))
    in_flight.add_batch(chain(1, whole=True), works(1))
    before = dict(in_flight.runs)
    for batches_ended, results in (
        (0, []),
        (2, [(1, EMIT)]),
        (-1, [(1, EMIT)]),
        (4, []),
        (1, [(1, EMIT), (1, EMIT)]),
        (0, [(1, EMIT), (2, EMIT), (1, DROP)]),
        (1, [(1, EMIT), (4, EMIT)]),
        (1, [(4, DROP)]),
        (1, [(1, EMIT), (2, WHOLE)]),
        (1, [(1, EMIT), (5, EMIT)]),
    ):
        with pytest.raises(ProtocolViolation):
            in_flight.take_results(batches_ended, results)
        assert in_flight.runs == before
        assert len(in_flight.batches) == 3


def test_a_batch_that_was_not_given_cannot_end():
    in_flight = flight(1)
    in_flight.take_results(1, [])
    with pytest.raises(ProtocolViolation, match="ended a batch"):
        in_flight.take_results(1, [(1, EMIT)])
    assert list(in_flight.runs) == [1]


async def test_bounds_are_those_of_the_chain_that_it_was_given_to():
    one, other = chain(1), chain(2, 3, number=2)
    in_flight = InFlight()
    in_flight.add_batch(one, works(1))
    in_flight.add_batch(other, works(1))
    in_flight.add_invocation(invocation(other, 2))
    assert in_flight.bounds_of(1) is one.bounds
    assert in_flight.bounds_of(2) is other.bounds
    assert in_flight.bounds_of(3) is other.bounds


async def test_a_call_with_a_limit_of_its_own_may_capture_so_much():
    in_flight = flight(1)
    called = invocation(chain(1), 1)
    called.max_captures = 10_000
    in_flight.add_invocation(called)
    assert in_flight.bounds_of(2) == called.chain.bounds._replace(captures=10_000)


@pytest.mark.parametrize("sequence", [0, -1, 3, 2**31, 2**63])
def test_what_was_never_given_has_no_bounds(sequence):
    with pytest.raises(ProtocolViolation, match="was not given"):
        flight(2).bounds_of(sequence)


def test_what_was_answered_has_no_bounds_any_more():
    in_flight = flight(2)
    in_flight.take_results(0, [(1, EMIT)])
    with pytest.raises(ProtocolViolation, match="a second one"):
        in_flight.bounds_of(1)


async def test_an_invocation_is_taken_once():
    in_flight = flight(1)
    called = invocation(chain(1), 1)
    assert in_flight.add_invocation(called) == 2
    assert in_flight.take_invocation(done(2)) is called
    with pytest.raises(ProtocolViolation):
        in_flight.bounds_of(2)


def test_an_event_that_is_answered_as_an_invocation_is_a_violation():
    in_flight = flight(1)
    with pytest.raises(ProtocolViolation, match="as an invocation"):
        in_flight.take_invocation(done(1))
    assert list(in_flight.runs) == [1]


def test_an_event_that_is_alone_in_the_sandbox_is_the_suspect():
    in_flight = flight(1)
    assert in_flight.suspects() == list(in_flight.runs.values())


def test_among_several_nobody_is_the_suspect():
    assert flight(2).suspects() == []
    assert flight(1, 1).suspects() == []


def test_the_only_event_of_a_batch_is_no_suspect_once_it_is_answered():
    in_flight = flight(1)
    in_flight.take_results(0, [(1, EMIT)])
    assert in_flight.suspects() == []


async def test_when_all_that_ran_has_ended_those_that_wait_are_the_suspects():
    in_flight = flight(3)
    in_flight.add_invocation(invocation(chain(1), 1))
    in_flight.take_results(1, [(2, EMIT)])
    assert in_flight.suspects() == list(in_flight.runs.values())
    assert len(in_flight.suspects()) == 3


async def test_everything_is_taken_back_in_the_order_in_which_it_was_given():
    in_flight = flight(2, 1)
    called = invocation(chain(1), 1)
    in_flight.add_invocation(called)
    given = list(in_flight.runs.values())
    in_flight.take_results(0, [(2, EMIT)])
    assert in_flight.take_all() == [given[0], given[2], called]
    assert in_flight.runs == {}
    assert not in_flight.batches
    assert in_flight.add_batch(chain(1), works(1)) == 5


def test_sequence_numbers_begin_again_before_they_outgrow_the_page():
    in_flight = InFlight()
    in_flight._next_sequence = 2**31
    assert in_flight.add_batch(chain(1), works(500)) == 2**31
    assert max(in_flight.runs) < 2**32
    assert in_flight.add_batch(chain(1), works(2)) == 1
