"""Mistakes in files that people write, collected so that all are shown at once, each with the place and the cure."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from plugin_server.model.errors import ConfigurationError


class Problems:
    """Collects the problems of one file. `where` is a key path such as `projects[0].installs[1].order`, or empty."""

    def __init__(self, file: Path | str) -> None:
        self.file = file
        self.texts: list[str] = []

    def add(self, where: str, text: str) -> None:
        self.texts.append(f"{where}: {text}" if where else text)

    def add_invalid(self, error: ValidationError, root: type[BaseModel]) -> None:
        """Every error of a pydantic model, in the words of the model's own field docstrings and examples."""
        for details in error.errors(include_url=False, include_context=False, include_input=False):
            self.add(key_path(details["loc"]), _explain(details, root))

    def raise_if_any(self) -> None:
        """Raise ConfigurationError that names the file and lists all problems."""
        if len(self.texts) == 1:
            raise ConfigurationError(f"{self.file}: {self.texts[0]}")
        if self.texts:
            lines = "".join(f"\n  {text}" for text in self.texts)
            raise ConfigurationError(f"{self.file} has {len(self.texts)} problems:{lines}")


def key_path(location: Iterable[str | int]) -> str:
    """`("projects", 0, "order")` as `projects[0].order`."""
    path = ""
    for part in location:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else part
    return path


def nearest(name: str, known: Iterable[str], cutoff: float = 0.6) -> str | None:
    """The known name that `name` may have been meant to be, else None."""
    by_lower = {word.lower(): word for word in known}
    matches = difflib.get_close_matches(name.lower(), list(by_lower), n=1, cutoff=cutoff)
    return by_lower[matches[0]] if matches else None


def unknown_key(name: str, known: Sequence[str]) -> str:
    """What to say of a key that does not exist."""
    meant = nearest(name, known)
    hint = f"Write `{meant}` instead" if meant else "Remove it"
    return f"is not a known key. {hint}; known are: {', '.join(known) or 'none'}."


def _explain(details: ErrorDetails, root: type[BaseModel]) -> str:
    location = details["loc"]
    model = _model_at(root, location[:-1])
    fields = {field.alias or name: field for name, field in model.model_fields.items()} if model else {}
    name = str(location[-1]) if location else ""
    if details["type"] == "extra_forbidden":
        return unknown_key(name, list(fields))
    if details["type"] == "missing":
        message = "is missing"
    else:
        message = details["msg"].removeprefix("Value error, ").removeprefix("Input ").replace("should", "must", 1)
    return f"{message}.{_example(name, fields.get(name))}"


def _example(name: str, field: FieldInfo | None) -> str:
    if field is None:
        return ""
    if field.examples:
        return f" Write, for example, `{name}: {field.examples[0]}`."
    return "" if field.is_required() else f" Its default is {field.get_default(call_default_factory=True)}."


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if isinstance(part, int) or current is None:
            continue
        field = next((f for name, f in current.model_fields.items() if part in (name, f.alias)), None)
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for part in get_args(annotation) if (found := _model_in(part))), None)
