"""How much memory a piece of work takes at its peak, where the system can tell, and whether an error is lack of it."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

_PROCESS = Path("/proc/self")


@dataclass
class Peak:
    """What ``peak_memory`` measures.

    Attributes:
        bytes: how far the process's resident memory rose above its value at entry; None before the block has ended,
            and where the system cannot tell.
    """

    bytes: int | None = None


@contextmanager
def peak_memory() -> Iterator[Peak]:
    """Measure the block's peak of resident memory, of the whole process with all its threads.

    It works on Linux (4.0 or later), whose high-water mark can be reset; elsewhere the result is None.
    """
    peak = Peak()
    start = _start()
    yield peak
    end = _status("VmHWM")
    if start is not None and end is not None:
        peak.bytes = max(end - start, 0)


def _start() -> int | None:
    """Reset the high-water mark and return the resident memory; None where that is not possible."""
    reset = _PROCESS / "clear_refs"
    if not reset.exists():
        return None
    # Freed memory that the allocator keeps would be used again, and hide as much of the growth.
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
    try:
        reset.write_text("5")
    except OSError:
        return None
    return _status("VmRSS")


def _status(field: str) -> int | None:
    try:
        found = re.search(rf"^{field}:\s+(\d+) kB$", (_PROCESS / "status").read_text(), flags=re.MULTILINE)
    except OSError:
        return None
    return None if found is None else int(found[1]) * 1024


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that there is not enough memory; torch has no class of its own for that on a processor."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )
