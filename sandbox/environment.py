"""The globals of an install: everything its code can reach."""

from __future__ import annotations

import codecs
import contextlib
import encodings.aliases
import importlib
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from sandbox.builtins import app_builtins
from sandbox.guards import (
    ALIVE_GUARD,
    ATTRIBUTE_GUARD,
    CATCHABLE,
    CLASS_GUARD,
    DELEGATE_GUARD,
    IMPORT_GUARD,
    TIMEOUT_GUARD,
    WRITE_GUARD,
    AppType,
    alive_guard,
    delegate_guard,
    guarded_attribute,
    timeout_guard,
    write_guard,
)
from sandbox.modules.catalogue import importer, module_names
from sandbox.modules.digests import warm_up_digests
from sandbox.modules.times import warm_up_dates

__all__ = ["app_globals", "warm_up"]


def app_globals(
    injected: Mapping[str, object],
    *,
    clock: Callable[[], float] = time.time,
    is_running: Callable[[], bool] = lambda: True,
) -> dict[str, object]:
    """Fresh globals for one install, to run code of `compile_app` in. Nothing in them is shared but frozen facades.

    `injected` is added as it is; its values must be facades, plain functions, JSON data of the install's own or exception
    classes (which apps may extend). `print` goes to the `log` of an injected `console`. `clock` (seconds since 1970) drives
    `datetime` and `time`. `is_running` says whether it is this install's code that runs now.
    """
    return {
        "__name__": "app",
        "__builtins__": app_builtins(_line_writer(injected.get("console"))),
        ALIVE_GUARD: alive_guard(is_running),
        ATTRIBUTE_GUARD: guarded_attribute,
        CATCHABLE: Exception,
        CLASS_GUARD: AppType,
        DELEGATE_GUARD: delegate_guard,
        IMPORT_GUARD: importer(clock),
        TIMEOUT_GUARD: timeout_guard,
        WRITE_GUARD: write_guard,
        **injected,
    }


def _line_writer(console: Any) -> Callable[[str], object]:
    return console.log if console is not None else lambda _line: None


def warm_up() -> None:
    """Loads whatever apps' code makes Python load later. To be called before the process loses its file system. May block."""
    for name in (
        "_strptime",
        "heapq",
        "stringprep",
        "unicodedata",
        *(("_pylong",) if sys.version_info >= (3, 12) else ()),
    ):
        importlib.import_module(name)
    for encoding in sorted(
        {*encodings.aliases.aliases.values(), "idna", "punycode", "raw_unicode_escape", "unicode_escape"}
    ):
        with contextlib.suppress(LookupError):  # of another platform
            codecs.lookup(encoding)
    warm_up_digests()
    warm_up_dates()
    module_names()
