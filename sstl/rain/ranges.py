"""Ranges of numbers in recipes, and their check."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import fields
from typing import Any

Range = tuple[float, float]


def check_ranges(config: Any, signed: Collection[str] = ()) -> None:
    """Raise ValueError if a pair of numbers of a dataclass is upside down, or negative and not named in ``signed``."""
    for f in fields(config):
        value = getattr(config, f.name)
        if isinstance(value, tuple) and value[0] > value[1]:
            raise ValueError(f"'{f.name}' is {list(value)}; the smaller value comes first.")
        if isinstance(value, tuple) and value[0] < 0 and f.name not in signed:
            raise ValueError(f"'{f.name}' is {list(value)}; it must not be negative.")
