"""Named factories: one table each for networks, methods and recipes, with help for mistyped names."""

from __future__ import annotations

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any, Generic, TypeVar

from sstl.errors import SstlError, did_you_mean

T = TypeVar("T", bound=Callable[..., Any])


class Registry(Generic[T]):
    """A table from name to factory.

    Args:
        noun: what the entries are ("network"); used in the error messages.
    """

    def __init__(self, noun: str) -> None:
        self.noun = noun
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that enters a factory under ``name``; a name can be taken only once (ValueError)."""

        def enter(entry: T) -> T:
            if name in self._entries:
                raise ValueError(f"{self.noun} '{name}' is registered twice")
            self._entries[name] = entry
            return entry

        return enter

    def __getitem__(self, name: str) -> T:
        """Return the factory called ``name``; SstlError with the nearest known name if there is none."""
        if name not in self._entries:
            raise SstlError(f"unknown {self.noun} '{name}'.{did_you_mean(name, self._entries)}")
        return self._entries[name]

    def names(self, pattern: str = "*") -> list[str]:
        """Return the sorted names that match the shell pattern ``pattern``."""
        return sorted(name for name in self._entries if fnmatchcase(name, pattern))

    def summary(self, name: str) -> str:
        """Return the first line of the docstring of the factory called ``name``."""
        return (self[name].__doc__ or "").strip().split("\n", 1)[0]
