"""Decoded images, kept in a memory-mapped file that a loader's worker processes share, in front of any source."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.context import get_spawning_popen
from threading import Lock
from typing import Any, Generic, TypeVar, cast

import numpy as np
from numpy.typing import NDArray

from sstl.data.files import Image
from sstl.data.sources import Source

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

T = TypeVar("T", bound=Image | tuple[Image, Image])

_ROW = 32  # bytes of a row of the index: four int64
_KEEP_FREE = 10**9  # bytes of the disk that are left to others (of a small disk, a tenth), such as checkpoints


def cached(source: Source[T], budget_bytes: int) -> Cached[T]:
    """Keep what ``source`` decodes in a temporary file of at most ``budget_bytes``; the rest is decoded each time.

    The file has no name: nothing is left of it when the last process that holds it ends, however that happens. It is
    memory-mapped, so that the processes that a loader forks or spawns fill and read one memory (a copy that is pickled
    in another way has its own), and the system may take the pages back. What is kept stays: under random draws that
    hits as often as dropping the least recently used, and costs no writing. If the file cannot be made, or the disk
    fills up, or the system is Windows, images are decoded each time, with a warning.

    Safe to use from several threads, which decode beside each other. The arrays are read-only.
    """
    return Cached(source, budget_bytes, _create(len(source), budget_bytes))


class Cached(Generic[T]):
    """A source that remembers; made by `cached`."""

    def __init__(self, source: Source[T], budget_bytes: int, shared: _Shared | None) -> None:
        self.source = source
        self.budget_bytes = budget_bytes
        self._shared = shared

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle with the memory to a process that is being started, else without."""
        if get_spawning_popen() is None:
            return cached, (self.source, self.budget_bytes)
        return Cached, (self.source, self.budget_bytes, self._shared)

    def __len__(self) -> int:
        """Return the number of items of the source."""
        return len(self.source)

    @property
    def used_bytes(self) -> int:
        """What the memory takes, its index included; the same in all processes that share it."""
        return self._shared.used if self._shared else 0

    def key(self, i: int) -> str:
        """Return the name of item ``i``."""
        return self.source.key(i)

    def load(self, i: int) -> T:
        """Return item ``i`` from memory, or read it; InputError if it cannot be read."""
        if not 0 <= i < len(self):
            raise IndexError(f"{i} is not the number of one of {len(self)} items.")
        layers = self._shared.get(i) if self._shared else None
        if layers is None:
            item = self.source.load(i)
            layers = item if isinstance(item, tuple) else (item,)
            if self._shared:
                self._shared.put(i, layers)
            layers = tuple(_read_only(layer) for layer in layers)
        return cast(T, layers if len(layers) > 1 else layers[0])


def _create(items: int, size: int) -> _Shared | None:
    """Return an empty memory, or None where it cannot be had (which is warned of) or would hold nothing."""
    if size <= _ROW * (items + 1):
        return None
    try:
        if fcntl is None:
            raise OSError(errno.ENOSYS, "there are no file locks on this system")
        with tempfile.TemporaryFile(buffering=0) as file:
            file.truncate(size)  # takes no space yet
            shared = _Shared(os.dup(file.fileno()), items, size)
        shared.clear()
    except (OSError, OverflowError) as error:
        _warn(error)
        return None
    return shared


class _Shared:
    """One file: a row of used bytes and whether it is closed, a row (offset, height, width, layers) per item, pixels.

    Written by calls and read through the map: writing through it would end the process when the disk is full.
    """

    def __init__(self, handle: int, items: int, size: int) -> None:
        weakref.finalize(self, os.close, handle)
        self.handle, self.items, self.size = handle, items, size
        self._map = mmap.mmap(handle, size, access=mmap.ACCESS_READ)
        self._rows = np.frombuffer(self._map, np.int64, (items + 1) * _ROW // 8).reshape(-1, 4)
        self._threads = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        from multiprocessing.reduction import DupFd  # there is none on Windows

        return _attach, (DupFd(self.handle), self.items, self.size)

    @property
    def used(self) -> int:
        with self._alone():
            return int(self._rows[0, 0])

    def clear(self) -> None:
        with self._alone():
            self._write(np.array([_ROW * (self.items + 1), 0]), 0)

    def get(self, i: int) -> tuple[Image, ...] | None:
        with self._alone():
            offset, height, width, layers = self._rows[i + 1].tolist()
        if not offset:
            return None
        pixels = np.frombuffer(self._map, np.uint8, layers * height * width * 3, offset)
        return tuple(pixels.reshape(layers, height, width, 3))

    def put(self, i: int, layers: tuple[Image, ...]) -> None:
        """Add an item if there is room and no other process did; at a full disk warn, and let nobody add any more."""
        with self._alone():
            used, closed = self._rows[0, :2].tolist()
            end = used + sum(layer.nbytes for layer in layers)
            if closed or end > self.size or self._rows[i + 1, 0]:
                return
            try:
                self._check_disk(end - used)
                self._write(np.array([end]), 0)  # first: of a process killed midway, a gap remains and no false pixels
                self._write(np.stack(layers), used)
                self._write(np.array([used, *layers[0].shape[:2], len(layers)]), _ROW * (i + 1))
            except OSError as error:
                with suppress(OSError):
                    self._write(np.array([1]), 8)
                _warn(error)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # A file's lock belongs to the process, and ends with it, even if it is killed.
        with self._threads:
            fcntl.lockf(self.handle, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self.handle, fcntl.LOCK_UN)

    def _check_disk(self, more: int) -> None:
        disk = os.fstatvfs(self.handle)
        if (disk.f_bavail * disk.f_frsize) - more < min(_KEEP_FREE, disk.f_blocks * disk.f_frsize // 10):
            raise OSError(errno.ENOSPC, "the disk is nearly full")

    def _write(self, values: NDArray[Any], offset: int) -> None:
        data = values.data.cast("B")
        while data:
            done = os.pwrite(self.handle, data, offset)
            data, offset = data[done:], offset + done


def _attach(handle: Any, items: int, size: int) -> _Shared:
    return _Shared(handle.detach(), items, size)


def _read_only(image: Image) -> Image:
    view = image.view()
    view.flags.writeable = False
    return view


def _warn(error: OSError | OverflowError) -> None:
    reason = getattr(error, "strerror", None) or error
    warnings.warn(
        f"decoded images cannot be kept in the temporary folder ({reason}) and are decoded each time; "
        "set TMPDIR to a roomy, writable folder.",
        stacklevel=2,
    )
