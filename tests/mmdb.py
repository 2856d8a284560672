"""Writes MaxMind databases for tests, from the format's specification (maxmind.github.io/MaxMind-DB)."""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_EMPTY = -1
_MARKER = b"\xab\xcd\xefMaxMind.com"


class Uint128(int):
    """A number of the format's widest type."""


class Uint16(int):
    """Of the type that readers want in the file's description."""


class Uint32(int):
    """Likewise."""


_UNSIGNED: dict[type[int], int] = {Uint16: 5, Uint32: 6, int: 9, Uint128: 10}


def write_mmdb(path: Path, records: Mapping[str, Any], *, ip_version: int = 6) -> Path:
    """A database of these networks ("203.0.113.0/24"); IPv4 ones lie under ::/96, as in MaxMind's own."""
    nodes: list[list[int]] = [[_EMPTY, _EMPTY]]
    data = b""
    leaves: dict[tuple[int, int], int] = {}
    for network, record in records.items():
        node, bits = 0, _bits(network, ip_version)
        for bit in bits[:-1]:
            if nodes[node][bit] == _EMPTY:
                nodes.append([_EMPTY, _EMPTY])
                nodes[node][bit] = len(nodes) - 1
            node = nodes[node][bit]
        leaves[node, bits[-1]] = len(data)
        data += _encoded(record)
    tree = b""
    for node, children in enumerate(nodes):
        for bit, child in enumerate(children):
            place = leaves.get((node, bit))
            target = len(nodes) + 16 + place if place is not None else len(nodes) if child == _EMPTY else child
            tree += target.to_bytes(3, "big")
    metadata = {
        "node_count": Uint32(len(nodes)),
        "record_size": Uint16(24),
        "ip_version": Uint16(ip_version),
        "database_type": "Test-City",
        "languages": ["en"],
        "binary_format_major_version": Uint16(2),
        "binary_format_minor_version": Uint16(0),
        "build_epoch": 1_700_000_000,
        "description": {"en": "for tests"},
    }
    path.write_bytes(tree + bytes(16) + data + _MARKER + _encoded(metadata))
    return path


def _bits(network: str, ip_version: int) -> list[int]:
    parsed = ipaddress.ip_network(network)
    width = 32 if ip_version == 4 else 128
    length = parsed.prefixlen + width - parsed.max_prefixlen
    address = int(parsed.network_address)
    return [address >> (width - 1 - place) & 1 for place in range(length)]


def _encoded(value: Any) -> bytes:
    match value:
        case bool():
            return _control(14, int(value))
        case int():
            raw = value.to_bytes(16, "big").lstrip(b"\0")
            return _control(_UNSIGNED[type(value)], len(raw)) + raw
        case float():
            return _control(3, 8) + struct.pack(">d", value)
        case str():
            return _control(2, len(value.encode())) + value.encode()
        case bytes():
            return _control(4, len(value)) + value
        case dict():
            return _control(7, len(value)) + b"".join(_encoded(key) + _encoded(item) for key, item in value.items())
        case list():
            return _control(11, len(value)) + b"".join(_encoded(item) for item in value)
        case _:
            raise TypeError(f"the format has no {type(value).__name__}")


def _control(kind: int, size: int) -> bytes:
    if size >= 29:
        assert size < 29 + 256
        head, tail = 29, bytes([size - 29])
    else:
        head, tail = size, b""
    return (bytes([head, kind - 7]) if kind > 7 else bytes([kind << 5 | head])) + tail
