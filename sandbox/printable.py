"""Text for logs and failures, from values that apps chose."""

from __future__ import annotations


def printable(text: str) -> str:
    """Without control characters but line breaks and tabs, and without lone surrogates, which no log store takes."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() or character in "\n\t" else "\ufffd" for character in text)
