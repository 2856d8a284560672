"""`str.format` for apps: item access in fields, no attribute access.

The native method walks attributes in C, past every check of ours (CVE-2023-41039); `string.Formatter` does too (CVE-2024-47532).
"""

from __future__ import annotations

import _string  # type: ignore[import-not-found] # the parser that string.Formatter uses
from collections.abc import Sequence
from typing import Any

_MAX_DEPTH = 2
"""As in str.format: a format spec may hold fields, the specs of those may not."""


def format_template(template: str, args: Sequence[object] | None, fields: Any) -> str:
    """`template.format(*args, **fields)`, or without `args` `template.format_map(fields)`.

    Raises ValueError for a field with an attribute, besides what str.format raises.
    """
    if "." not in template and "[" not in template:
        # No field can reach into its value without one of these.
        return template.format_map(fields) if args is None else template.format(*args, **fields)
    return _Formatting(args, fields).render(template, _MAX_DEPTH)


class _Formatting:
    def __init__(self, args: Sequence[object] | None, fields: Any) -> None:
        self._args = args
        self._fields = fields
        self._next_index: int | None = 0
        """The index of the next `{}`; None once a field gave its own index."""

    def render(self, template: str, depth: int) -> str:
        if depth < 1:
            raise ValueError("Max string recursion exceeded")
        parts: list[str] = []
        for text, field, spec, conversion in _string.formatter_parser(template):
            parts.append(text)
            if field is not None:
                value = _converted(self._value(field), conversion)
                parts.append(format(value, self.render(spec, depth - 1) if spec else ""))
        return "".join(parts)

    def _value(self, field: str) -> Any:
        first, rest = _string.formatter_field_name_split(field)
        value = self._argument(first)
        for is_attribute, key in rest:
            if is_attribute:
                raise ValueError(f'format() reads items, not attributes: write f"{{…}}" instead of {{{field}}}')
            value = value[key]
        return value

    def _argument(self, first: str | int) -> Any:
        if first == "":
            if self._next_index is None:
                raise ValueError("cannot switch from manual field specification to automatic field numbering")
            first, self._next_index = self._next_index, self._next_index + 1
        elif isinstance(first, int):
            if self._next_index:
                raise ValueError("cannot switch from automatic field numbering to manual field specification")
            self._next_index = None
        if isinstance(first, str):
            return self._fields[first]
        if self._args is None:
            raise ValueError("Format string contains positional fields")
        if first >= len(self._args):
            raise IndexError(f"Replacement index {first} out of range for positional args tuple")
        return self._args[first]


def _converted(value: object, conversion: str | None) -> object:
    match conversion:
        case None | "":
            return value
        case "s":
            return str(value)
        case "r":
            return repr(value)
        case "a":
            return ascii(value)
        case _:
            raise ValueError(f"Unknown conversion specifier {conversion!r}")
