"""A memory of decoded images in front of any source."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock
from typing import Any, Generic, TypeVar

from sstl.data.files import Image
from sstl.data.sources import Source

T = TypeVar("T", bound=Image | tuple[Image, Image])


def cached(source: Source[T], budget_bytes: int) -> Cached[T]:
    """Keep what ``source`` loads in memory, up to ``budget_bytes``; beyond, the least recently used goes first.

    Safe to use from several threads, which decode beside each other. The arrays are shared: do not write into them.
    """
    return Cached(source, budget_bytes)


class Cached(Generic[T]):
    """A source that remembers; made by `cached`."""

    def __init__(self, source: Source[T], budget_bytes: int) -> None:
        self.source = source
        self.budget_bytes = budget_bytes
        self.used_bytes = 0
        self._items: OrderedDict[int, T] = OrderedDict()
        self._lock = Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle without the memory, as for a loader's worker process: locks do not travel, images would be copied."""
        return Cached, (self.source, self.budget_bytes)

    def __len__(self) -> int:
        """Return the number of items of the source."""
        return len(self.source)

    def key(self, i: int) -> str:
        """Return the name of item ``i``."""
        return self.source.key(i)

    def load(self, i: int) -> T:
        """Return item ``i`` from memory, or read it; InputError if it cannot be read."""
        with self._lock:
            if i in self._items:
                self._items.move_to_end(i)
                return self._items[i]
        item = self.source.load(i)
        with self._lock:
            if i not in self._items:  # another thread may have read it meanwhile
                self._items[i] = item
                self.used_bytes += _size(item)
            while self.used_bytes > self.budget_bytes:
                self.used_bytes -= _size(self._items.popitem(last=False)[1])
        return item


def _size(item: Image | tuple[Image, Image]) -> int:
    return sum(array.nbytes for array in item) if isinstance(item, tuple) else item.nbytes
