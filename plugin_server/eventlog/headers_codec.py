"""Record headers as one blob: for each, the lengths of name and value as two little-endian uint32, then both."""

from __future__ import annotations

import struct

from plugin_server.eventlog.port import Headers

_LENGTHS = struct.Struct("<II")


def encode_headers(headers: Headers) -> bytes | None:
    """None for no headers, which is the usual case."""
    if not headers:
        return None
    parts: list[bytes] = []
    for name, value in headers:
        raw_name = name.encode()
        parts += (_LENGTHS.pack(len(raw_name), len(value)), raw_name, value)
    return b"".join(parts)


def decode_headers(blob: bytes | None) -> tuple[tuple[str, bytes], ...]:
    """The reverse. Raises ValueError on a blob that `encode_headers` did not make."""
    if not blob:
        return ()
    headers = []
    start = 0
    while start < len(blob):
        name_at = start + _LENGTHS.size
        if name_at > len(blob):
            raise ValueError("headers end within a length")
        name_length, value_length = _LENGTHS.unpack_from(blob, start)
        value_at = name_at + name_length
        start = value_at + value_length
        if start > len(blob):
            raise ValueError("headers end within a value")
        headers.append((blob[name_at:value_at].decode(), blob[value_at:start]))
    return tuple(headers)
