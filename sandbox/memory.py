"""What becomes of a sandbox whose apps have used up its memory."""

from __future__ import annotations

import os
from typing import Final

from sandbox.wire import OUT_OF_MEMORY_STATUS

_ROOM: Final = 4
"""A sandbox goes on after an app ran out of memory if this part of it is free again"""


def end_if_used_up(memory_bytes: int) -> None:
    """End this process if an app has used up its memory and keeps it: the next one to ask for some is innocent."""
    try:
        bytes(memory_bytes // _ROOM)  # address space alone: a bytearray would be written to, 50 ms of each load
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
