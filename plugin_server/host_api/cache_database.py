"""The cache in the database, where no Redis is configured.

A change reads the key, decides (cache_operations) and writes it, in one transaction with the changes that came at the
same time. On SQLite there is one writer; on Postgres an advisory lock for each key, which also covers keys that are not
there yet, taken in one order by all. Rows whose time has come are as good as gone; `prune` deletes them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import orjson
from sqlalchemy import and_, bindparam, delete, select, text, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from plugin_server.database.engine import Database
from plugin_server.database.errors import database_errors
from plugin_server.database.insert import insert_into
from plugin_server.database.tables import cache
from plugin_server.host_api.cache import VALUE_BYTES, Cache
from plugin_server.host_api.cache_groups import Call, Groups, Place, attempt
from plugin_server.host_api.cache_operations import READS, Entry, Operation, apply
from plugin_server.model.errors import LimitReached

_GROUP_CALLS: Final = 100
_PRUNED_ROWS: Final = 500
_NAME_BYTES: Final = 1000
"""Of a scope or a key as it is: Postgres refuses more than 2,700 bytes in an index"""
_LOCKS: Final = text("SELECT pg_advisory_xact_lock(number) FROM unnest(CAST(:numbers AS bigint[])) AS number")
_LIST: Final = b'{"list":'
_VALUE: Final = b'{"value":'


class DatabaseCache(Cache):
    """See Cache. Raises DatabaseUnavailable when the database is away. `now_ms` is the time since the epoch."""

    def __init__(self, database: Database, now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000) -> None:
        self._database = database
        self._now_ms = now_ms
        self._reads = Groups(self._read, _GROUP_CALLS)
        self._writes = Groups(self._write, _GROUP_CALLS)
        insert = insert_into(cache, is_sqlite=database.is_sqlite)
        self._upsert = insert.on_conflict_do_update(
            index_elements=[cache.c.scope, cache.c.key],
            set_={"value": insert.excluded.value, "expires_at_ms": insert.excluded.expires_at_ms},
        )

    async def do(self, scope: str, key: str, operation: Operation) -> Any:
        """See Cache.do."""
        place = Place(_name(scope), _name(key))
        # A read goes behind the writes of its key that came before, and past all others.
        is_read = isinstance(operation, READS) and not self._writes.is_busy_with(place)
        return await (self._reads if is_read else self._writes).call(place, operation)

    async def close(self) -> None:
        """See Cache.close. Leaves the database open."""
        await self._reads.close()
        await self._writes.close()

    async def prune(self) -> int:
        """Delete what has expired, a few rows at a time; how many went. Raises DatabaseUnavailable."""
        is_old = cache.c.expires_at_ms <= self._now_ms()
        some = select(cache.c.scope, cache.c.key).where(is_old).limit(_PRUNED_ROWS)
        deleted = 0
        while True:
            with database_errors("cannot prune the cache"):
                async with self._database.write() as connection:
                    places = [tuple(row) for row in await connection.execute(some)]
                    if places:
                        old = and_(tuple_(cache.c.scope, cache.c.key).in_(places), is_old)
                        deleted += (await connection.execute(delete(cache).where(old))).rowcount
            if len(places) < _PRUNED_ROWS:
                return deleted

    async def _read(self, calls: Sequence[Call]) -> Sequence[Any]:
        with database_errors("cannot read the cache"):
            async with self._database.read() as connection:
                entries = await self._load(connection, {call.place for call in calls})
        now_ms = self._now_ms()
        return [attempt(_look, entries, call, now_ms) for call in calls]

    async def _write(self, calls: Sequence[Call]) -> Sequence[Any]:
        places = {call.place for call in calls}
        with database_errors("cannot write to the cache"):
            async with self._database.write() as connection:
                if not self._database.is_sqlite:
                    await connection.execute(_LOCKS, {"numbers": sorted(map(_lock_number, places))})
                before = await self._load(connection, places)
                entries: dict[Place, Entry | None] = dict(before)
                now_ms = self._now_ms()
                answers = [attempt(_change, entries, call, now_ms) for call in calls]
                await self._store(connection, before, entries)
        return answers

    async def _load(self, connection: AsyncConnection, places: Iterable[Place]) -> dict[Place, Entry]:
        query = select(cache).where(tuple_(cache.c.scope, cache.c.key).in_([tuple(place) for place in places]))
        found = {
            Place(row.scope, row.key): Entry(_decoded(row.value), row.expires_at_ms)
            for row in await connection.execute(query)
        }
        now_ms = self._now_ms()
        return {place: entry for place, entry in found.items() if not entry.is_gone(now_ms)}

    async def _store(
        self, connection: AsyncConnection, before: Mapping[Place, Entry], after: Mapping[Place, Entry | None]
    ) -> None:
        changed = {place: entry for place, entry in after.items() if entry != before.get(place)}
        gone = [{"in_scope": place.scope, "in_key": place.key} for place, entry in changed.items() if entry is None]
        kept = [
            {
                "scope": place.scope,
                "key": place.key,
                "value": _encoded(entry.content),
                "expires_at_ms": entry.expires_at_ms,
            }
            for place, entry in changed.items()
            if entry is not None
        ]
        if gone:
            await connection.execute(_DELETE, gone)
        if kept:
            await connection.execute(self._upsert, kept)


_DELETE: Final = delete(cache).where(cache.c.scope == bindparam("in_scope"), cache.c.key == bindparam("in_key"))


def _look(entries: Mapping[Place, Entry], call: Call, now_ms: int) -> Any:
    return apply(entries.get(call.place), call.operation, now_ms)[1]


def _change(entries: dict[Place, Entry | None], call: Call, now_ms: int) -> Any:
    after, answer = apply(entries.get(call.place), call.operation, now_ms)
    if after is not None and isinstance(after.content, tuple) and _size(after.content) > VALUE_BYTES:
        raise LimitReached(
            f"cache.lpush: a list in the database takes at most {VALUE_BYTES} bytes: take some items out with lpop or "
            "lrem first, or let the operator configure Redis (CACHE_URL)"
        )
    entries[call.place] = after
    return answer


def _size(items: tuple[str, ...]) -> int:
    return sum(len(item.encode()) for item in items)


def _encoded(content: bytes | tuple[str, ...]) -> bytes:
    if isinstance(content, bytes):
        return _VALUE + content + b"}"
    return _LIST + orjson.dumps(content) + b"}"


def _decoded(raw: bytes) -> bytes | tuple[str, ...]:
    if raw.startswith(_LIST):
        return tuple(orjson.loads(raw[len(_LIST) : -1]))
    return bytes(raw[len(_VALUE) : -1])


def _name(given: str) -> str:
    """As it is, or a digest of what Postgres cannot take: NUL, and what is too long for an index."""
    raw = given.encode()
    return given if len(raw) <= _NAME_BYTES and b"\0" not in raw else f"\1{hashlib.sha256(raw).hexdigest()}"


def _lock_number(place: Place) -> int:
    digest = hashlib.blake2b(f"{place.scope}\0{place.key}".encode(), digest_size=8, person=b"cache").digest()
    return int.from_bytes(digest, "big", signed=True)
