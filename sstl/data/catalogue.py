"""The known data sets: what they are, where to get them, and what to beware of."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from sstl.config import load_config
from sstl.errors import SstlError, did_you_mean

FILE = Path(__file__).with_name("sets.yaml")


@dataclass(frozen=True)
class KnownSet:
    """A published data set.

    Attributes:
        name: what it is called on the command line.
        title: what papers call it.
        what, size, licence: in words.
        where: the page or repository to get it from, in words.
        url: an address of the authors that gives the file itself, or None if it must be fetched by hand.
        sha256: the checksum of that file, or None if it is not recorded.
        traps: what has misled people who used it.
    """

    name: str
    title: str
    what: str
    size: str
    licence: str
    where: str
    url: str | None
    sha256: str | None
    traps: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a name, address or checksum that is not of the right form (ValueError)."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", self.name):
            raise ValueError(f"'name' is '{self.name}'; use small letters, digits and dashes.")
        if self.url is not None and not re.match(r"https?://", self.url):
            raise ValueError(f"'url' is '{self.url}'; it must begin with http:// or https://.")
        if self.sha256 is not None and not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise ValueError(f"'sha256' is '{self.sha256}'; it must be 64 hexadecimal digits.")
        if self.sha256 is not None and self.url is None:
            raise ValueError("'sha256' is the checksum of the file at 'url', which is missing.")


@dataclass(frozen=True)
class Catalogue:
    """The file ``sets.yaml``."""

    sets: tuple[KnownSet, ...]

    def __post_init__(self) -> None:
        """Refuse two sets of one name (ValueError)."""
        names = [known.name for known in self.sets]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"'sets' has {', '.join(twice)} twice.")


@cache
def known_sets() -> tuple[KnownSet, ...]:
    """Return all known data sets, in the order of the file."""
    return load_config(Catalogue, FILE).sets


def find_set(name: str) -> KnownSet:
    """Return a data set by its name; SstlError with the nearest name if it is unknown."""
    for known in known_sets():
        if known.name == name.lower():
            return known
    raise SstlError(f"unknown data set '{name}'.{did_you_mean(name.lower(), [known.name for known in known_sets()])}")
