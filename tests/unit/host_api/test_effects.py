"""The effects of one run: by install, forgotten when a hook begins again, handed on to the run that takes its place."""

from __future__ import annotations

import pytest

from plugin_server.host_api.effects import JobRequest, RunEffects
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage_values import Key, Write
from plugin_server.model.errors import DatabaseUnavailable
from plugin_server.model.origin import Origin
from plugin_server.model.project import Project
from plugin_server.runtime.replies import HookFailure
from plugin_server.runtime.work import Answered

ORIGIN = Origin("events-0-1", "u", "processEvent")


@pytest.fixture
def effects() -> RunEffects:
    made = RunEffects(Project(2, "p", "phc_p"), ORIGIN)
    for install_id in (1, 2):
        made.of(install_id).jobs.append(JobRequest("mail", b"{}", None))
        made.storage.writes[install_id, "k"] = Write(b"1")
        made.storage.reads[install_id, "k"] = 5
        made.storage.increments[install_id, 0] = ((install_id, "n"), 5)
    return made


def test_what_an_install_asked_for_is_kept_by_install(effects):
    assert effects.of(1) is effects.of(1)
    assert effects.jobs == 2


def test_when_a_hook_begins_again_nothing_of_its_install_is_left_and_all_of_the_others(effects):
    effects.forget([1])
    assert list(effects.by_install) == [2]
    assert list(effects.storage.writes) == list(effects.storage.reads) == [(2, "k")]
    assert list(effects.storage.increments) == [(2, 0)]


def test_trouble_of_one_install_is_not_over_when_another_begins_again(effects):
    error = DatabaseUnavailable("gone")
    assert effects.trouble is None
    effects.note_trouble(1, error)
    effects.forget([2])
    assert effects.trouble is error
    effects.forget([1])
    assert effects.trouble is None


def test_the_run_that_takes_its_place_is_answered_from_outside_as_before_and_has_nothing_else(effects):
    effects.journal[1, 0] = Answered(b"d", [True, 1])
    effects.storage.order = 7
    following = effects.again()
    assert following.journal is effects.journal
    assert following.origin is ORIGIN
    assert (following.by_install, following.trouble) == ({}, None)
    assert following.storage.is_empty
    assert (following.storage.order, following.storage.tries) == (7, 1)
    assert effects.storage.finished.is_set()


async def test_storage_of_one_run_is_shared_by_its_installs_and_kept_apart_by_key():
    async def read(_keys: list[Key]) -> dict[Key, object]:
        return {}

    ledger = Ledger(read)  # type: ignore[arg-type]
    effects = RunEffects(Project(2, "p", "phc_p"), ORIGIN)
    ledger.set(effects.storage, (1, "k"), b"1")
    assert await ledger.get(effects.storage, (2, "k")) is None
    assert await ledger.get(effects.storage, (1, "k")) == b"1"


def test_who_cost_a_sandbox_is_left_out_of_the_run_that_takes_its_place_too():
    effects = RunEffects(Project(2, "p", "phc_p"), ORIGIN)
    failure = HookFailure(1, "timeout", "too long", 3)
    effects.left_out[1] = failure
    effects.forget([1])
    assert effects.again().again().left_out == {1: failure}
