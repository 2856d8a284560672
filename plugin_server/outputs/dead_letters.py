"""Records for the dead letter queue: the original bytes as value, all else in bounded headers (docs/decisions/010)."""

from __future__ import annotations

import hashlib
from typing import Final

from plugin_server.eventlog.port import Headers, OutputRecord
from plugin_server.model.outcome import DeadLetter

TRUNCATED_BYTES: Final = 64 * 1024
_HEADER_BYTES: Final = 1_024
_ORIGINAL_HEADERS_BYTES: Final = 8 * 1_024


def dead_letter_record(
    topic: str,
    letter: DeadLetter,
    *,
    key: bytes | None,
    value: bytes,
    headers: Headers,
    source: str,
    record_bytes: int,
) -> OutputRecord:
    """The record that keeps a refused message.

    `headers` are the message's own, kept as far as they fit, before those of the dead letter (step, reason, error,
    project, install, app_version, source). `source` is the message's `topic-partition-offset`. A value that would not
    fit into `record_bytes` with its headers is cut to its first 64 KiB, with `truncated`, `length` and `sha256`.
    """
    added = [
        ("step", letter.step),
        ("reason", letter.reason),
        ("error", letter.error),
        ("project", "" if letter.project_id is None else str(letter.project_id)),
        ("install", "" if letter.install_id is None else str(letter.install_id)),
        ("app_version", letter.app_version or ""),
        ("source", source),
    ]
    kept = [
        *_bounded(headers),
        *((name, text.encode(errors="replace")[:_HEADER_BYTES]) for name, text in added if text),
    ]
    key = key if key is not None and len(key) <= _HEADER_BYTES else None
    size = len(value) + len(key or b"") + sum(_header_size(name, content) for name, content in kept)
    if size > record_bytes:
        kept += [
            ("truncated", b"true"),
            ("length", str(len(value)).encode()),
            ("sha256", hashlib.sha256(value).hexdigest().encode()),
        ]
        value = value[: min(TRUNCATED_BYTES, max(0, record_bytes - (size - len(value)) - 256))]
    return OutputRecord(topic, None, key, value, kept)


def _header_size(name: str, content: bytes) -> int:
    """What a header takes in a record, with its lengths, as a bound."""
    return len(name.encode(errors="replace")) + len(content) + 16


def _bounded(headers: Headers) -> list[tuple[str, bytes]]:
    """The first of them that fit together."""
    kept: list[tuple[str, bytes]] = []
    room = _ORIGINAL_HEADERS_BYTES
    for name, content in headers:
        room -= _header_size(name, content or b"")
        if room < 0:
            break
        kept.append((name, content or b""))
    return kept
