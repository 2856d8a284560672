"""The JSON in a body, however an SDK wrapped it: as a form's field, in base64, in gzip. The content type never says which."""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote_to_bytes

from plugin_server.capture.refusal import invalid, too_large

UNPACKED_BYTES: Final = 20 * 2**20
_GZIP_MAGIC: Final = b"\x1f\x8b\x08"
_GZIP_WINDOW: Final = 16 + zlib.MAX_WBITS
_FORM: Final = "application/x-www-form-urlencoded"
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def unpack(body: bytes, query: Mapping[str, str], content_type: str) -> bytes:
    """The payload of a request: `data` of the query if it is there, else of a form, else the body. Raises Refusal."""
    if query.get("data"):
        raw = query["data"].encode("utf-8", "surrogatepass")
    elif content_type.partition(";")[0].strip().lower() == _FORM and b"data=" in body:
        raw = _form_field(body, b"data")
    else:
        raw = body
    if not raw.strip():
        raise invalid("The request has no event. Send JSON in the body.")
    if not raw.startswith(_GZIP_MAGIC) and raw.lstrip()[:1] not in (b"{", b"["):
        raw = _from_base64(raw)
    return _gunzip(raw) if raw.startswith(_GZIP_MAGIC) else raw


def _form_field(body: bytes, name: bytes) -> bytes:
    for part in body.split(b"&"):
        key, _, value = part.partition(b"=")
        if key == name:
            return unquote_to_bytes(value.replace(b"+", b" "))
    return b""


def _from_base64(raw: bytes) -> bytes:
    """Decoded if it can be base64, in which a space stands for the + of a form; else as it is."""
    text = raw.strip().replace(b" ", b"+")
    if not _BASE64.fullmatch(text):
        return raw
    try:
        return base64.b64decode(text.replace(b"-", b"+").replace(b"_", b"/") + b"=" * (-len(text) % 4), validate=True)
    except binascii.Error:
        return raw


def _gunzip(raw: bytes) -> bytes:
    unpacker = zlib.decompressobj(_GZIP_WINDOW)
    try:
        unpacked = unpacker.decompress(raw, UNPACKED_BYTES + 1)
    except zlib.error:
        raise invalid("The body is no valid gzip.") from None
    if len(unpacked) > UNPACKED_BYTES:
        raise too_large(f"The body unpacks to more than {UNPACKED_BYTES} bytes.")
    if not unpacker.eof:
        raise invalid("The gzip of the body ends too early.")
    return unpacked
