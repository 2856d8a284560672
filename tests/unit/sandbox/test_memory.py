"""The question whether memory is left, asked after each load and set-up."""

from __future__ import annotations

import resource

from sandbox import memory
from sandbox.memory import end_if_used_up
from sandbox.wire import OUT_OF_MEMORY_STATUS

_PAGE = resource.getpagesize()


def test_asking_writes_to_none_of_the_memory_it_asks_for():
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    end_if_used_up(2**30)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults < 2**28 // _PAGE // 100


def test_a_process_without_that_much_memory_ends(monkeypatch):
    ended: list[int] = []
    monkeypatch.setattr(memory.os, "_exit", ended.append)
    end_if_used_up(2**64)
    assert ended == [OUT_OF_MEMORY_STATUS]
