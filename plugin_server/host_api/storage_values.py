"""What is stored under a key, and what a run does to it."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import orjson

from plugin_server.model.errors import InvalidArgument

Key = tuple[int, str]
"""Install and key"""
_LARGEST: Final = 2**63 - 1


class Stored(NamedTuple):
    """A key as the database has it. `value` is JSON, None where there is none; `version` is 0 then."""

    value: bytes | None
    version: int


MISSING: Final = Stored(None, 0)


@dataclass(frozen=True, slots=True)
class Write:
    """Set to this JSON; None deletes."""

    value: bytes | None

    def apply(self, value: bytes | None) -> bytes | None:
        del value
        return self.value


@dataclass(frozen=True, slots=True)
class Add:
    """Add to the number that is there. What is no number (it was one when the app looked) counts as 0.

    Nobody hears the sum, so one that is too large stays the largest there is.
    """

    by: float

    def apply(self, value: bytes | None) -> bytes | None:
        found = None if value is None else orjson.loads(value)
        total = (found if type(found) is int or type(found) is float else 0) + self.by
        return encode_number(min(max(total, -sys.float_info.max), sys.float_info.max))


Operation = Write | Add


def number_of(value: bytes | None) -> Any:
    """The number that the JSON is, 0 where there is none. Raises InvalidArgument."""
    if value is None:
        return 0
    number = orjson.loads(value)
    if type(number) is int or type(number) is float:
        return number
    raise InvalidArgument(f"storage.increment: the value there is not a number but {type(number).__name__}")


def encode_number(number: float) -> bytes:
    """Its JSON. Raises InvalidArgument for what no JSON number can be."""
    if type(number) is int and abs(number) > _LARGEST:
        number = float(number)
    if not math.isfinite(number):
        raise InvalidArgument("storage.increment: the number is too large")
    return orjson.dumps(number)
