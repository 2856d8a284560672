"""hashlib, hmac, base64, zlib, uuid."""

# ruff: noqa: SIM905 - word lists read better than columns of quoted names

from __future__ import annotations

import base64
import hashlib
import hmac
import types
import uuid
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NoReturn

from sandbox.modules.exact import data_only

_DECOMPRESSED_LIMIT_BYTES = 8 * 2**20
_KEY_ITERATIONS_LIMIT = 100_000
"""Of pbkdf2_hmac, which runs in C: about 50 ms."""

_ALGORITHMS = (
    "md5", "sha1", "sha224", "sha256", "sha384", "sha512", "sha3_224", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s",
)  # fmt: skip
# Not the shake functions (digests of any length) and scrypt (memory of any size).


def _constructor(name: str) -> Callable[..., Any]:
    make = getattr(hashlib, name)

    def constructor(data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
        return make(data, usedforsecurity=usedforsecurity)

    constructor.__name__ = constructor.__qualname__ = name
    return constructor


_CONSTRUCTORS = {name: _constructor(name) for name in _ALGORITHMS}
_NAMES: Mapping[Any, str] = {constructor: name for name, constructor in _CONSTRUCTORS.items()}


def _algorithm(name: object) -> str:
    # Exactly these: hashlib calls a callable digestmod, and asks OpenSSL for any other name.
    if type(name) is str:
        name = name.lower().replace("-", "_") if name.lower().startswith("sha3") else name.lower().replace("-", "")
    known = name if type(name) is str else _NAMES.get(name) if isinstance(name, types.FunctionType) else None
    if known is None or known not in _CONSTRUCTORS:
        raise ValueError(f"the digest is one of {', '.join(_ALGORITHMS)}")
    return known


def _new(name: str, data: bytes = b"", *, usedforsecurity: bool = True) -> Any:
    return _CONSTRUCTORS[_algorithm(name)](data, usedforsecurity=usedforsecurity)


def _pbkdf2_hmac(hash_name: str, password: bytes, salt: bytes, iterations: int, dklen: int | None = None) -> bytes:
    name = _algorithm(hash_name)
    if type(iterations) is not int or type(dklen) not in (int, type(None)):
        raise TypeError("iterations and dklen are whole numbers")
    block = hashlib.new(name, usedforsecurity=False).digest_size
    if iterations * -(-(dklen or block) // block) > _KEY_ITERATIONS_LIMIT:  # each block of the key costs that many
        raise ValueError(f"at most {_KEY_ITERATIONS_LIMIT} iterations, for each {block} bytes of the key")
    return hashlib.pbkdf2_hmac(name, password, salt, iterations, dklen)


HASHLIB: Mapping[str, object] = _CONSTRUCTORS | {"new": _new, "pbkdf2_hmac": _pbkdf2_hmac}


def warm_up_digests() -> None:
    """OpenSSL finds each algorithm at its first use, and reads its configuration at the first of all."""
    for name in _ALGORITHMS:
        _new(name, b"x").hexdigest()
        hmac.digest(b"x", b"x", name)
        hmac.new(b"x", b"x", name).hexdigest()
        hashlib.pbkdf2_hmac(name, b"x", b"x", 1)


class _Hmac:
    """hmac.HMAC without what a Python class shows of its workings."""

    __slots__ = ("_made", "block_size", "digest_size", "name")

    def __init__(self, made: hmac.HMAC, block_size: int) -> None:
        self._made = made
        self.block_size, self.digest_size, self.name = block_size, made.digest_size, made.name

    def update(self, msg: bytes) -> None:
        self._made.update(msg)

    def digest(self) -> bytes:
        return self._made.digest()

    def hexdigest(self) -> str:
        return self._made.hexdigest()

    def copy(self) -> _Hmac:
        return _Hmac(self._made.copy(), self.block_size)  # the library's copy has none


def _hmac_new(key: bytes, msg: bytes | None = None, digestmod: object = "") -> _Hmac:
    made = hmac.new(key, msg, _algorithm(digestmod))
    return _Hmac(made, made.block_size)


def _hmac_digest(key: bytes, msg: bytes, digest: object) -> bytes:
    return hmac.digest(key, msg, _algorithm(digest))


HMAC: Mapping[str, object] = {"new": _hmac_new, "digest": _hmac_digest, "compare_digest": hmac.compare_digest}

BASE64: Mapping[str, object] = {
    name: data_only(getattr(base64, name))
    for name in """
    a85decode a85encode b16decode b16encode b32decode b32encode b64decode b64encode b85decode b85encode standard_b64decode
    standard_b64encode urlsafe_b64decode urlsafe_b64encode
    """.split()
}


# zlib. Only whole buffers: a decompressor object would get round the limit.


def _decompress(data: bytes, /, wbits: int = zlib.MAX_WBITS) -> bytes:
    machine = zlib.decompressobj(wbits)
    out = machine.decompress(data, _DECOMPRESSED_LIMIT_BYTES)
    if machine.unconsumed_tail:
        raise ValueError(f"the data is larger than {_DECOMPRESSED_LIMIT_BYTES >> 20} MiB when decompressed")
    if not machine.eof:
        raise zlib.error("Error -5 while decompressing data: incomplete or truncated stream")
    return out


ZLIB: Mapping[str, object] = {
    "compress": zlib.compress,
    "decompress": _decompress,
    "crc32": zlib.crc32,
    "adler32": zlib.adler32,
    "error": zlib.error,
    "MAX_WBITS": zlib.MAX_WBITS,
}


# uuid. No uuid1 and getnode: they tell the machine's address, and start programs to find it.


_TEXT, _BYTES, _NUMBER = (str, type(None)), (bytes, type(None)), (int, type(None))


class UUID:
    """As uuid.UUID, but no JSON encoder knows it: an id in an event is text, and forgetting str() is an error, not a guess."""

    __slots__ = ("bytes", "hex", "int", "urn", "variant", "version")
    if TYPE_CHECKING:
        hex: str
        int: Any

    def __init__(self, hex: str | None = None, bytes: Any = None, int: Any = None) -> None:  # noqa: A002
        for given, kinds in ((hex, _TEXT), (bytes, _BYTES), (int, _NUMBER)):
            if type(given) not in kinds:
                raise TypeError("a UUID is made from text, bytes or a number")
        made = uuid.UUID(hex=hex, bytes=bytes, int=int)
        for name in self.__slots__:
            object.__setattr__(self, name, getattr(made, name))

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError("UUIDs are read-only")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError("UUIDs are read-only")

    def __str__(self) -> str:
        return str(uuid.UUID(int=self.int))

    def __repr__(self) -> str:
        return f"UUID({str(self)!r})"

    def __int__(self) -> Any:
        return self.int

    def __hash__(self) -> Any:
        return hash(self.int)

    def __eq__(self, other: object) -> bool:
        return self.int == other.int if isinstance(other, UUID) else NotImplemented

    def __lt__(self, other: UUID) -> bool:
        return bool(self.int < other.int) if isinstance(other, UUID) else NotImplemented

    def __le__(self, other: UUID) -> bool:
        return bool(self.int <= other.int) if isinstance(other, UUID) else NotImplemented

    def __gt__(self, other: UUID) -> bool:
        return bool(self.int > other.int) if isinstance(other, UUID) else NotImplemented

    def __ge__(self, other: UUID) -> bool:
        return bool(self.int >= other.int) if isinstance(other, UUID) else NotImplemented


def _uuid4() -> UUID:
    return UUID(int=uuid.uuid4().int)


def _uuid3(namespace: UUID, name: str) -> UUID:
    return UUID(int=uuid.uuid3(_real(namespace), name).int)


def _uuid5(namespace: UUID, name: str) -> UUID:
    return UUID(int=uuid.uuid5(_real(namespace), name).int)


def _real(namespace: object) -> uuid.UUID:
    if not isinstance(namespace, UUID):
        raise TypeError("the namespace is a UUID")
    return uuid.UUID(int=namespace.int)


UUIDS: Mapping[str, object] = {"UUID": UUID, "uuid3": _uuid3, "uuid4": _uuid4, "uuid5": _uuid5} | {
    name: UUID(int=getattr(uuid, name).int)
    for name in ("NAMESPACE_DNS", "NAMESPACE_OID", "NAMESPACE_URL", "NAMESPACE_X500")
}
