"""Ids that come out the same when the same work runs again (DESIGN 3.3, Ids)."""

from __future__ import annotations

import uuid

_NAMESPACE = uuid.UUID("6f1a1b0e-6b0f-5c58-9f0e-3a6d6b1c4a77")


def capture_uuid(project_id: int, parent_uuid: str, source: str, install_id: int, hook: str, number: int) -> str:
    """The uuid of the `number`-th capture (from 0, in program order) of one hook of one install for one event.

    `source` is the `topic-partition-offset` of the event's record in ingestion or a job's id, never the attempt.
    """
    return str(uuid.uuid5(_NAMESPACE, f"{project_id}|{parent_uuid}|{source}|{install_id}|{hook}|{number}"))


def idempotency_key(project_id: int, parent_uuid: str, source: str, install_id: int, hook: str, number: int) -> str:
    """The `Idempotency-Key` of the `number`-th call to the host (from 0, in program order): the same whenever it is sent again."""
    return str(uuid.uuid5(_NAMESPACE, f"http|{project_id}|{parent_uuid}|{source}|{install_id}|{hook}|{number}"))


def job_id(project_id: int, parent_uuid: str, source: str, install_id: int, hook: str, number: int) -> str:
    """The id of the `number`-th job that a hook starts: it is stored once, however often the hook runs again."""
    return str(uuid.uuid5(_NAMESPACE, f"job|{project_id}|{parent_uuid}|{source}|{install_id}|{hook}|{number}"))
