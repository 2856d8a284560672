"""The host's side of `meta.storage` and `meta.utils.cursor`: JSON values of one install, read and written in its run's transaction."""

from __future__ import annotations

import math
from typing import Any, Final

from plugin_server.host_api.calls import CallContext, Handler
from plugin_server.host_api.ledger import Ledger
from plugin_server.host_api.storage_values import Key
from plugin_server.model.errors import InvalidArgument
from sandbox import codec

KEY_BYTES: Final = 2 * 1024
"""What an index of Postgres takes"""
VALUE_BYTES: Final = 10 * 2**20


def storage_handlers(ledger: Ledger) -> dict[str, Handler]:
    """The handlers of `storage.get`, `.set`, `.delete`, `.increment` and `.set_if_absent`, by the names of the calls.

    Each raises InvalidArgument for arguments that it cannot have, and Transient when the database is away.
    """

    async def get(context: CallContext, arguments: list[Any]) -> list[Any]:
        (key,) = _read("storage.get", arguments, 1)
        raw = await ledger.get(context.effects.storage, _key("storage.get", context, key))
        return [False, None] if raw is None else [True, codec.loads_of_any_depth(raw)]

    async def set_(context: CallContext, arguments: list[Any]) -> None:
        key, value = _read("storage.set", arguments, 2)
        place = _key("storage.set", context, key)
        encoded = None if value is None else encode_value("storage.set", value)
        await ledger.set_in_turn(context.effects.storage, place, encoded)

    async def delete(context: CallContext, arguments: list[Any]) -> None:
        (key,) = _read("storage.delete", arguments, 1)
        await ledger.set_in_turn(context.effects.storage, _key("storage.delete", context, key), None)

    async def increment(context: CallContext, arguments: list[Any]) -> int | float:
        key, by = _read("storage.increment", arguments, 2)
        place = _key("storage.increment", context, key)
        if type(by) not in (int, float) or not math.isfinite(by):
            raise InvalidArgument(f"storage.increment: by must be a finite number, not {_named(by)}")
        return await ledger.increment(context.effects.storage, place, by, (context.install.id, context.number))

    async def set_if_absent(context: CallContext, arguments: list[Any]) -> bool:
        key, value = _read("storage.set_if_absent", arguments, 2)
        place = _key("storage.set_if_absent", context, key)
        if value is None:
            raise InvalidArgument("storage.set_if_absent: None is what an absent key has: store another value")
        encoded = encode_value("storage.set_if_absent", value)
        return await ledger.set_if_absent(context.effects.storage, place, encoded)

    return {
        "storage.get": get,
        "storage.set": set_,
        "storage.delete": delete,
        "storage.increment": increment,
        "storage.set_if_absent": set_if_absent,
    }


def encode_value(call: str, value: Any) -> bytes:
    """A value's JSON. Raises InvalidArgument for what is no JSON, too deep or too large; the message begins with `call`."""
    try:
        encoded = codec.dumps(value)
    except (codec.NotJson, codec.TooDeep) as error:
        raise InvalidArgument(f"{call}: {error}") from None
    if len(encoded) > VALUE_BYTES:
        raise InvalidArgument(
            f"{call}: the value has {len(encoded)} bytes as JSON, more than {VALUE_BYTES}: store it in parts"
        )
    return encoded


def _read(call: str, arguments: list[Any], count: int) -> list[Any]:
    if len(arguments) != count:
        raise InvalidArgument(f"{call}: {len(arguments)} arguments instead of {count}")
    return arguments


def _key(call: str, context: CallContext, untrusted: Any) -> Key:
    if type(untrusted) is not str:
        raise InvalidArgument(f"{call}: the key must be text, not {_named(untrusted)}: use str(…)")
    if "\0" in untrusted:
        raise InvalidArgument(f"{call}: the key has a NUL character, which no database stores: remove it")
    try:
        size = len(untrusted.encode())
    except UnicodeEncodeError:
        raise InvalidArgument(f"{call}: the key has half of a surrogate pair, which is no character") from None
    if size > KEY_BYTES:
        raise InvalidArgument(f"{call}: the key has {size} bytes, more than {KEY_BYTES}: use a hash of it")
    return context.install.id, untrusted


def _named(value: Any) -> str:
    return "None" if value is None else type(value).__name__
