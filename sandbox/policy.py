"""From an app's source to code that keeps the rules (`dialect.py`), or to what its author should write instead."""

from __future__ import annotations

import ast
import types
import warnings
from collections.abc import Sequence

from sandbox.dialect import AppPolicy, bound_names

SOURCE_LIMIT_BYTES = 256 * 1024
_NO_FILE = "\ud800"
"""Name of the source while it is compiled. To quote the line of a syntax error Python opens the file of that name, which
kills a confined process; text that cannot be encoded names no file, so it takes the line from the source."""
_PROBLEMS_SHOWN = 10
_MESSAGE_LIMIT = 8000
"""Characters: a name in the source can be as long as the source."""


class AppSyntaxError(Exception):
    """The source is not in the dialect. `message` is for the author: line, reason, and what to write instead."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


def compile_app(source: str, file_name: str) -> types.CodeType:
    """Code of a module, to be run once with `exec(code, app_globals(…))`. Raises AppSyntaxError and nothing else.

    Runs no code of the app, but may take the time and memory that parsing does: call it inside the sandbox.
    """
    try:
        if len(source.encode()) > SOURCE_LIMIT_BYTES:
            raise AppSyntaxError(f"the source is larger than {SOURCE_LIMIT_BYTES // 1024} KiB; split the app")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they would go to the child's stderr, not to the author
            return _compiled(source, file_name)
    except SyntaxError as error:
        raise AppSyntaxError(_located(error.lineno, error.msg), error.lineno) from None
    except (RecursionError, MemoryError):
        raise AppSyntaxError("the source is nested too deeply; split the expression or the block") from None
    except UnicodeEncodeError:
        raise AppSyntaxError("the source is not valid Unicode text; save it as UTF-8") from None
    except ValueError as error:
        raise AppSyntaxError(f"the source cannot be read: {error}; remove the character") from None


def _compiled(source: str, file_name: str) -> types.CodeType:
    tree = ast.parse(source, _NO_FILE)
    policy = AppPolicy(bound_names(tree))
    restricted = policy.visit(tree)
    if policy.problems:
        raise _joined(policy.problems)
    # dont_inherit: this module's own `from __future__` is not the app's.
    code = compile(ast.fix_missing_locations(restricted), _NO_FILE, "exec", dont_inherit=True)
    assert isinstance(code, types.CodeType)
    return _renamed(code, file_name)


def _renamed(code: types.CodeType, file_name: str) -> types.CodeType:
    constants = tuple(
        _renamed(value, file_name) if isinstance(value, types.CodeType) else value for value in code.co_consts
    )
    return code.replace(co_filename=file_name, co_consts=constants)


def _located(line: int | None, text: str) -> str:
    return text if line is None else f"line {line}: {text}"


def _joined(problems: Sequence[tuple[int | None, str]]) -> AppSyntaxError:
    ordered = sorted(dict.fromkeys(problems), key=lambda problem: problem[0] or 0)
    lines = [_located(line, text) for line, text in ordered[:_PROBLEMS_SHOWN]]
    if len(ordered) > _PROBLEMS_SHOWN:
        lines.append(f"… and {len(ordered) - _PROBLEMS_SHOWN} more")
    return AppSyntaxError("\n".join(lines)[:_MESSAGE_LIMIT], ordered[0][0])
