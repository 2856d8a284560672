"""Storage as runs see it: what is stale and what is not, who waits for whom, what is kept and what is read again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import pytest

from plugin_server.host_api import contended as contended_module
from plugin_server.host_api import ledger as module
from plugin_server.host_api.ledger import CONTENDED_SECONDS, FRESH_SECONDS, KEPT_SECONDS, Ledger, Unit
from plugin_server.host_api.storage_transaction import StorageTransaction
from plugin_server.host_api.storage_values import MISSING, Add, Key, Stored, Write
from plugin_server.model.errors import DatabaseUnavailable, InvalidArgument

K: Key = (1, "k")
OTHER: Key = (1, "other")
_LARGEST_FLOAT = b"1.7976931348623157e+308"


class Bench:
    """A ledger over a dict, with a clock that stands."""

    def __init__(self, **values: bytes) -> None:
        self.rows: dict[Key, Stored] = {(1, key): Stored(value, 1) for key, value in values.items()}
        self.now = 1_000.0
        self.reads: list[list[Key]] = []
        self.fault: Exception | None = None
        self.may_read = asyncio.Event()
        self.may_read.set()
        self.versions = 1
        self.ledger = Ledger(self._read, clock=lambda: self.now)

    async def _read(self, keys: Sequence[Key]) -> Mapping[Key, Stored]:
        self.reads.append(list(keys))
        found = {key: self.rows[key] for key in keys if key in self.rows}
        await self.may_read.wait()
        if self.fault is not None:
            raise self.fault
        return found

    def foreign(self, key: Key, value: bytes) -> None:
        """Another worker writes."""
        self.versions += 1
        self.rows[key] = Stored(value, self.versions)

    def store(self, *units: Unit | None) -> None:
        """As the committer does it."""
        written: dict[Key, Stored] = {}
        for unit in units:
            assert unit is not None
            for key, operation in unit.writes.items():
                value = operation.apply(written.get(key, self.rows.get(key, MISSING)).value)
                self.versions += 1
                written[key] = MISSING if value is None else Stored(value, self.versions)
        self.rows |= written
        self.ledger.stored([unit for unit in units if unit is not None], written)

    def finish(self, transaction: StorageTransaction, unheard: Sequence[int] = ()) -> Unit | None:
        """None: it was stale, or left nothing."""
        transaction.look_at_increments([(1, number) for number in unheard])
        return None if self.ledger.is_stale(transaction) else self.ledger.finish(transaction)

    async def get(self, transaction: StorageTransaction, key: Key = K) -> bytes | None:
        return await self.ledger.get(transaction, key)

    async def increment(self, transaction: StorageTransaction, by: float = 1, number: int = 0) -> float:
        return await self.ledger.increment(transaction, K, by, (1, number))


async def write(bench: Bench, value: bytes | None, key: Key = K) -> Unit:
    run = StorageTransaction()
    bench.ledger.set(run, key, value)
    unit = bench.finish(run)
    assert unit is not None
    return unit


async def settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_run_sees_its_own_writes_and_what_finished_runs_wrote_before_they_are_stored():
    bench = Bench(k=b"1")
    first, second = StorageTransaction(), StorageTransaction()
    assert await bench.get(first) == b"1"
    bench.ledger.set(first, K, b"2")
    assert await bench.get(first) == b"2"
    assert await bench.get(StorageTransaction()) == b"1"
    assert bench.finish(first) is not None
    assert await bench.get(second) == b"2"


async def test_a_run_whose_read_has_changed_is_stale_and_one_that_wrote_blindly_is_not():
    bench = Bench(k=b"1")
    reader, writer = StorageTransaction(), StorageTransaction()
    await bench.get(reader)
    bench.ledger.set(writer, K, b"3")
    await write(bench, b"2")
    assert bench.ledger.is_stale(reader)
    assert not bench.ledger.is_stale(writer)


async def test_a_write_of_the_same_value_makes_a_reader_stale_no_more_than_storing_does():
    bench = Bench(k=b"1")
    reader = StorageTransaction()
    unit = await write(bench, b"2")
    await bench.get(reader)
    bench.store(unit)
    assert not bench.ledger.is_stale(reader)


async def test_increments_that_nobody_looked_at_are_never_stale_and_all_count():
    bench = Bench(k=b"10")
    runs = [StorageTransaction() for _ in range(20)]
    for run in runs:
        await bench.increment(run)
        await bench.increment(run, 2, number=1)
    units = [bench.finish(run, unheard=[0, 1]) for run in runs]
    bench.store(*units)
    assert bench.rows[K].value == b"70"


async def test_an_increment_that_was_looked_at_is_a_read():
    bench = Bench(k=b"10")
    heard, half = StorageTransaction(), StorageTransaction()
    assert await bench.increment(heard) == 11
    await bench.increment(half)
    await bench.increment(half, number=1)
    await write(bench, b"20")
    assert bench.finish(heard) is None
    assert bench.finish(half, unheard=[0]) is None


async def test_an_increment_that_was_looked_at_is_stale_though_the_key_was_read_again_since():
    bench = Bench(k=b"10")
    run = StorageTransaction()
    assert await bench.increment(run) == 11
    await write(bench, b"20")
    assert await bench.get(run) == b"21"
    assert bench.finish(run) is None


async def test_the_increments_of_a_run_add_up_on_what_it_wrote_itself():
    bench = Bench(k=b"10")
    run = StorageTransaction()
    await bench.increment(run, 5)
    assert await bench.get(run) == b"15"
    bench.ledger.set(run, K, b"100")
    assert await bench.increment(run, 1, number=1) == 101
    assert run.writes == {K: Write(b"101")}
    bench.ledger.set(run, K, None)
    assert await bench.increment(run, 0.5, number=2) == 0.5


async def test_what_is_no_number_cannot_be_incremented():
    bench = Bench(k=b'"x"')
    with pytest.raises(InvalidArgument, match="not a number but str"):
        await bench.increment(StorageTransaction())


@pytest.mark.parametrize(
    ("value", "by", "result"),
    [
        (b'"became text"', 2, b"2"),
        (b"true", 2, b"2"),
        (None, 0.5, b"0.5"),
        (b"9223372036854775807", 1, b"9.223372036854776e+18"),
        (b"1e308", 1e308, _LARGEST_FLOAT),
        (b"-1e308", float("-inf"), b"-" + _LARGEST_FLOAT),
    ],
)
def test_a_delta_is_added_to_whatever_it_finds(value, by, result):
    assert Add(by).apply(value) == result


async def test_deltas_that_overflow_together_stop_at_the_largest_number_and_harm_nobody():
    bench = Bench()
    runs = [StorageTransaction() for _ in range(3)]
    for run in runs:
        await bench.increment(run, 1e308)
    bench.store(*[bench.finish(run, unheard=[0]) for run in runs])
    assert bench.rows[K].value == _LARGEST_FLOAT
    with pytest.raises(InvalidArgument, match="too large"):
        await bench.increment(StorageTransaction(), 1e308)


async def test_calls_of_one_run_on_a_key_are_answered_in_the_order_in_which_they_were_made():
    bench = Bench(k=b"10")
    bench.may_read.clear()
    run = StorageTransaction()
    calls = [
        bench.get(run),
        bench.increment(run, 1),
        bench.get(run),
        bench.ledger.set_in_turn(run, K, b"5"),
        bench.increment(run, 1, number=1),
        bench.ledger.set_in_turn(run, K, None),
        bench.ledger.set_if_absent(run, K, b"7"),
        bench.ledger.set_if_absent(run, K, b"8"),
        bench.get(run),
    ]
    tasks = [asyncio.create_task(call) for call in calls]  # type: ignore[arg-type]
    await settle()
    bench.may_read.set()
    assert await asyncio.gather(*tasks) == [b"10", 11, b"11", None, 6, None, True, False, b"7"]
    assert bench.reads == [[K]]


async def test_what_is_asked_for_together_is_read_in_one_statement():
    bench = Bench(a=b"1", b=b"2")
    keys = [(1, "a"), (1, "b"), (1, "c"), (2, "a")]
    run = StorageTransaction()
    assert await asyncio.gather(*(bench.get(run, key) for key in keys)) == [b"1", b"2", None, None]
    assert bench.reads == [keys]


async def test_a_database_that_is_away_is_the_error_of_all_who_asked_and_of_none_later():
    bench = Bench(k=b"1")
    bench.fault = DatabaseUnavailable("gone")
    asked = await asyncio.gather(*(bench.get(StorageTransaction()) for _ in range(3)), return_exceptions=True)
    assert [type(error) for error in asked] == [DatabaseUnavailable] * 3
    bench.fault = None
    assert await bench.get(StorageTransaction()) == b"1"


async def test_one_who_asked_and_was_cancelled_spoils_nothing_for_the_others():
    bench = Bench(k=b"1")
    bench.may_read.clear()
    first, second = (asyncio.create_task(bench.get(StorageTransaction())) for _ in range(2))
    await settle()
    first.cancel()
    await settle()
    bench.may_read.set()
    assert await second == b"1"


# What another worker does


async def test_what_another_worker_wrote_is_seen_when_the_value_is_not_fresh_any_more():
    bench = Bench(k=b"1")
    early = StorageTransaction()
    await bench.get(early)
    bench.foreign(K, b"2")
    bench.now += FRESH_SECONDS
    assert await bench.get(StorageTransaction()) == b"1"
    bench.now += 0.1
    assert await bench.get(StorageTransaction()) == b"2"
    assert bench.ledger.is_stale(early)


async def test_a_value_that_is_read_anew_and_is_the_same_makes_nobody_stale():
    bench = Bench(k=b"1")
    early = StorageTransaction()
    await bench.get(early)
    bench.now += FRESH_SECONDS + 1
    await bench.get(StorageTransaction())
    assert len(bench.reads) == 2
    assert not bench.ledger.is_stale(early)


async def test_what_is_pending_is_not_replaced_by_what_the_database_has():
    bench = Bench(k=b"1")
    unit = await write(bench, b"2")
    bench.now += FRESH_SECONDS + 1
    assert await bench.get(StorageTransaction()) == b"2"
    assert bench.reads == []
    bench.store(unit)
    bench.now += FRESH_SECONDS + 1
    bench.foreign(K, b"3")
    assert await bench.get(StorageTransaction()) == b"3"


async def test_what_was_read_before_something_was_stored_does_not_replace_it():
    bench = Bench(k=b"1")
    await bench.get(StorageTransaction())
    bench.now += FRESH_SECONDS + 1
    bench.may_read.clear()
    reader = StorageTransaction()
    reading = asyncio.create_task(bench.get(reader))
    await settle()
    bench.store(await write(bench, b"2"))
    bench.may_read.set()
    assert await reading == b"2"
    assert not bench.ledger.is_stale(reader)
    assert await bench.get(StorageTransaction()) == b"2"


async def test_what_the_committer_found_changed_makes_stale_all_that_depended_on_it_and_no_other():
    bench = Bench(k=b"1", other=b"1")
    counted, blind, dependent, apart = (StorageTransaction() for _ in range(4))
    await bench.get(counted)
    bench.ledger.set(counted, K, b"2")
    first = bench.finish(counted)
    bench.ledger.set(blind, (1, "z"), b"0")
    second = bench.finish(blind)
    await bench.get(dependent)
    bench.ledger.set(dependent, OTHER, b"9")
    third = bench.finish(dependent)
    bench.ledger.set(apart, OTHER, b"8")
    fourth = bench.finish(apart)
    running = StorageTransaction()
    assert await bench.get(running) == b"2"
    bench.foreign(K, b"5")
    bench.ledger.read_anew({K: bench.rows[K]})
    assert bench.ledger.withdraw((), [K]) == [first, third]
    assert bench.ledger.is_stale(running)
    bench.store(second, fourth)
    assert await bench.get(StorageTransaction()) == b"5"
    assert await bench.get(StorageTransaction(), OTHER) == b"8"


async def test_what_is_withdrawn_takes_along_whoever_read_from_it_in_turn():
    bench = Bench()
    first = await write(bench, b"1")
    runs = [StorageTransaction() for _ in range(3)]
    units = []
    for place, run in enumerate(runs):
        await bench.get(run, (1, f"k{place}") if place else K)
        bench.ledger.set(run, (1, f"k{place + 1}"), b"1")
        units.append(bench.finish(run))
    assert bench.ledger.withdraw([first]) == units
    assert [await bench.get(StorageTransaction(), (1, f"k{place}")) for place in range(1, 4)] == [None] * 3
    assert await bench.get(StorageTransaction()) is None


async def test_when_the_database_fails_nothing_that_was_not_stored_counts():
    bench = Bench(k=b"1")
    run = StorageTransaction()
    await bench.get(run)
    bench.ledger.set(run, K, b"2")
    unit = bench.finish(run)
    running = StorageTransaction()
    assert await bench.get(running) == b"2"
    assert bench.ledger.forget() == [unit]
    assert bench.ledger.is_stale(running)
    assert await bench.get(StorageTransaction()) == b"1"


async def test_what_the_database_took_before_it_failed_is_seen_afterwards():
    bench = Bench(k=b"1")
    await write(bench, b"2")
    bench.foreign(K, b"2")  # it was this worker's own commit, whose answer was lost
    bench.ledger.forget()
    assert await bench.get(StorageTransaction()) == b"2"


async def test_a_run_that_only_read_waits_for_what_it_read_from_and_for_nothing_else():
    bench = Bench(k=b"1")
    reader = StorageTransaction()
    await bench.get(reader)
    assert bench.finish(reader) is None
    first = await write(bench, b"2")
    follower = StorageTransaction()
    await bench.get(follower)
    unit = bench.finish(follower)
    assert unit is not None
    assert bench.ledger.withdraw([first]) == [unit]


# Contended keys


async def test_a_hundred_runs_that_count_in_turn_run_about_twice_each():
    bench = Bench()
    runs = 0

    async def count() -> None:
        nonlocal runs
        run = StorageTransaction()
        while True:
            runs += 1
            number = await bench.get(run)
            await asyncio.sleep(0)
            bench.ledger.set(run, K, str(int(number or b"0") + 1).encode())
            unit = bench.finish(run)
            if unit is not None:
                return
            run = run.again()

    await asyncio.gather(*(count() for _ in range(100)))
    assert await bench.get(StorageTransaction()) == b"100"
    assert runs <= 220


async def contended(bench: Bench) -> None:
    """Make the key so."""
    stale = StorageTransaction()
    await bench.get(stale)
    bench.store(await write(bench, b"0"))
    assert bench.ledger.is_stale(stale)
    stale.abandon()


async def test_a_reader_of_a_contended_key_waits_for_an_earlier_one_and_no_longer_than_the_key_is_contended():
    bench = Bench()
    await contended(bench)
    first, second, third = (StorageTransaction() for _ in range(3))
    await bench.get(first)
    waiting = asyncio.create_task(bench.get(second))
    await settle()
    assert not waiting.done()
    bench.ledger.set(first, K, b"1")
    bench.finish(first)
    assert await waiting == b"1"
    bench.now += CONTENDED_SECONDS + 1
    assert await bench.get(third) == b"1"


async def test_runs_that_read_two_contended_keys_in_other_orders_do_not_wait_for_each_other():
    bench = Bench()
    await contended(bench)
    stale = StorageTransaction()
    await bench.get(stale, OTHER)
    bench.store(await write(bench, b"0", OTHER))
    assert bench.ledger.is_stale(stale)
    first, second = StorageTransaction(), StorageTransaction()
    await bench.get(first)
    await bench.get(second, OTHER)
    assert await bench.get(first, OTHER) == b"0"
    waiting = asyncio.create_task(bench.get(second))
    await settle()
    assert not waiting.done()
    first.abandon()
    assert await waiting == b"0"


async def test_nobody_waits_twice_for_a_run_that_never_ends(monkeypatch):
    monkeypatch.setattr(contended_module, "WAIT_SECONDS", 0.01)
    bench = Bench()
    await contended(bench)
    lost = StorageTransaction()
    await bench.get(lost)
    assert await bench.get(StorageTransaction()) == b"0"
    assert lost.finished.is_set()


async def test_of_many_that_wait_each_has_its_turn_and_one_that_is_cancelled_holds_up_none():
    bench = Bench()
    await contended(bench)
    first = StorageTransaction()
    await bench.get(first)
    runs = [StorageTransaction() for _ in range(6)]
    tasks = [asyncio.create_task(bench.get(run)) for run in runs]
    await settle()
    for place in (0, 3):
        tasks[place].cancel()
    await settle()
    first.abandon()
    went_on: list[int] = []
    for _ in range(4):
        await settle()
        now = [place for place, task in enumerate(tasks) if task.done() and not task.cancelled()]
        assert len(now) == len(went_on) + 1
        went_on.append(next(place for place in now if place not in went_on))
        runs[went_on[-1]].abandon()
    assert went_on == [1, 2, 4, 5]


async def test_one_that_is_to_lead_and_is_cancelled_in_that_moment_passes_it_on():
    bench = Bench()
    await contended(bench)
    runs = [StorageTransaction() for _ in range(4)]
    await bench.get(runs[0])
    tasks = [asyncio.create_task(bench.get(run)) for run in runs[1:]]
    await settle()
    tasks[0].cancel()
    await asyncio.sleep(0)
    tasks[1].cancel()
    await settle()
    runs[0].abandon()
    assert await tasks[2] == b"0"


async def test_a_run_that_was_stale_is_waited_for_by_all_that_began_after_it():
    bench = Bench()
    await contended(bench)
    slow, later = StorageTransaction(), StorageTransaction()
    await bench.get(slow)
    slow.finished.set()  # the others did not wait for it any longer
    await bench.get(later)
    bench.ledger.set(later, K, b"1")
    bench.finish(later)
    assert bench.ledger.is_stale(slow)
    slow = slow.again()
    newest = StorageTransaction()
    await bench.get(newest, OTHER)
    assert slow.order < newest.order
    assert slow.tries == 1
    await bench.get(slow)
    waiting = asyncio.create_task(bench.get(newest))
    await settle()
    assert not waiting.done()
    slow.abandon()
    await waiting


# What is kept


async def test_what_nobody_asked_for_lately_is_forgotten_when_there_is_much(monkeypatch):
    monkeypatch.setattr(module, "KEPT_ENTRIES", 10)
    bench = Bench()
    pending = await write(bench, b"1", (2, "pending"))
    for number in range(20):
        await bench.get(StorageTransaction(), (1, str(number)))
    assert len(bench.ledger._entries) == 21
    bench.now += KEPT_SECONDS + 1
    bench.store(await write(bench, b"1"))
    assert set(bench.ledger._entries) == {(2, "pending"), K}
    bench.store(pending)


async def test_large_values_are_dropped_and_read_again_and_whoever_has_read_them_is_not_stale(monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 300)
    large = b'"' + b"x" * 400 + b'"'
    bench = Bench(a=large, b=large, k=b"5")
    reader, adder = StorageTransaction(), StorageTransaction()
    await bench.get(reader, (1, "a"))
    await bench.increment(adder)
    bench.now += FRESH_SECONDS + 1
    await bench.get(StorageTransaction(), (1, "b"))
    assert bench.ledger._entries[1, "a"].is_hollow
    assert bench.ledger._entries[K].is_hollow
    assert not bench.ledger.is_stale(reader)
    unit = bench.finish(adder, unheard=[0])
    assert await bench.get(StorageTransaction()) == b"6"
    assert await bench.get(StorageTransaction(), (1, "a")) == large
    assert not bench.ledger.is_stale(reader)
    bench.store(unit)
    assert bench.rows[K].value == b"6"


async def test_a_dropped_value_that_another_worker_has_changed_is_found_out_by_its_version(monkeypatch):
    monkeypatch.setattr(module, "KEPT_BYTES", 10)
    bench = Bench(k=b"5", other=b'"' + b"x" * 100 + b'"')
    reader = StorageTransaction()
    await bench.get(reader)
    bench.ledger.set(reader, K, b"6")
    bench.now += FRESH_SECONDS + 1
    await bench.get(StorageTransaction(), OTHER)
    assert bench.ledger._entries[K].is_hollow
    version = bench.ledger.base_version(K)
    assert bench.finish(reader) is not None
    bench.foreign(K, b"9")
    assert await bench.get(StorageTransaction()) == b"6"
    assert bench.ledger.base_version(K) == version


async def test_an_increment_of_a_key_that_was_forgotten_meanwhile_is_not_taken_for_all_that_is_there():
    bench = Bench(k=b"112")
    adder, reader = StorageTransaction(), StorageTransaction()
    await bench.ledger.increment(adder, K, 1, (1, 0))
    bench.ledger._entries.clear()  # as pruning does, a minute later
    unit = bench.finish(adder, unheard=[0])
    assert await bench.ledger.get(reader, K) == b"113"
    bench.store(unit)
    assert not bench.ledger.is_stale(reader)
