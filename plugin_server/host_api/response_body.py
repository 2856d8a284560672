"""A response's body as it arrives: unpacked, and bounded as sent and as unpacked."""

from __future__ import annotations

import zlib
from typing import Final, Protocol

from plugin_server.model.errors import FetchFailed

ACCEPT_ENCODING: Final = "gzip, deflate"
_AUTOMATIC: Final = zlib.MAX_WBITS | 32
"""zlib's or gzip's header, whichever comes"""
_GZIP_MEMBERS: Final = 1_000


class _Decompress(Protocol):
    """A zlib decompression object; its type has no public name."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    @property
    def unconsumed_tail(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = 0, /) -> bytes: ...


class ResponseBody:
    """Collects chunks. Raises FetchFailed as soon as there is more than `limit_bytes`, packed or unpacked."""

    def __init__(self, content_encoding: str, limit_bytes: int) -> None:
        """`content_encoding` as the header has it. Raises FetchFailed for one that was not asked for."""
        encoding = content_encoding.strip().lower()
        if encoding not in ("", "identity", "gzip", "x-gzip", "deflate"):
            raise FetchFailed(f"the answer is packed as {encoding[:40]!r}, which was not asked for ({ACCEPT_ENCODING})")
        self.is_packed = encoding not in ("", "identity")
        self._limit_bytes = limit_bytes
        self._body = bytearray()
        self._packed_bytes = 0
        self._members = 0
        self._may_be_raw = encoding == "deflate"
        self._unpacker: _Decompress | None = None

    def __len__(self) -> int:
        return len(self._body)

    def feed(self, chunk: bytes) -> None:
        """Add what has arrived."""
        if not self.is_packed:
            self._body += chunk
        elif chunk:
            self._packed_bytes += len(chunk)
            self._unpack(chunk)
        if max(len(self._body), self._packed_bytes) > self._limit_bytes:
            raise FetchFailed(
                f"the answer is larger than the {self._limit_bytes} bytes that are read: ask for less of it"
            )

    def finish(self) -> bytes:
        """The whole body. Raises FetchFailed when it ends in the middle."""
        if self._unpacker is not None and not self._unpacker.eof:
            raise FetchFailed("the packed answer ends in the middle")
        return bytes(self._body)

    def _unpack(self, data: bytes) -> None:
        while data and len(self._body) <= self._limit_bytes:
            if self._unpacker is None or self._unpacker.eof:
                self._members += 1
                if self._members > _GZIP_MEMBERS:
                    raise FetchFailed(f"the packed answer has more than {_GZIP_MEMBERS} members")
                self._unpacker = zlib.decompressobj(_AUTOMATIC)
            room = self._limit_bytes - len(self._body) + 1
            try:
                self._body += self._unpacker.decompress(data, room)
            except zlib.error:
                if not self._may_be_raw or self._body:
                    raise FetchFailed("the answer is not packed as its Content-Encoding says") from None
                self._may_be_raw = False  # some servers leave out zlib's header
                self._unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
                continue
            data = self._unpacker.unused_data if self._unpacker.eof else self._unpacker.unconsumed_tail
