"""Personal API keys are kept as hashes: of a key that nobody can guess, a plain SHA-256 gives nothing away."""

from __future__ import annotations

import hashlib

API_KEY_CHARACTERS = 24
"""A key has at least so many; fewer could be guessed from the hash."""


def hash_api_key(key: str) -> bytes:
    """What is kept of a key."""
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
