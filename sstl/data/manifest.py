"""The manifest: one csv row for each image or pair of a data set, with its split and the group it belongs to."""

from __future__ import annotations

import csv
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Literal

from sstl.errors import ConfigError, did_you_mean

# Kind -> the path columns that a row of this kind must fill.
KINDS: dict[str, tuple[str, ...]] = {
    "pair": ("rainy", "clean"),
    "pair-side-by-side": ("rainy",),  # one file: left half clean, right half rainy, as in ID-CGAN's Rain800
    "clean": ("clean",),
    "streak": ("streak",),
    "real": ("rainy",),
}


@dataclass(frozen=True)
class Row:
    """One image or pair.

    Attributes:
        kind: one of `KINDS`.
        key: its name, unique in the manifest; what stands before the first "-" is the set it belongs to.
        split: "train", "dev", ...; empty if the manifest has no splits.
        group: rows of one group share a background and must lie in one split; empty if unknown.
        rainy: the rainy file (of a pair-side-by-side: the one file), below the manifest's folder.
        clean: the clean file.
        streak: the streak file.
        source: where the image comes from.
        sha256: the checksum of the rainy, else the clean, else the streak file.
    """

    kind: str
    key: str
    split: str = ""
    group: str = ""
    rainy: Path | None = None
    clean: Path | None = None
    streak: Path | None = None
    source: str = ""
    sha256: str = ""

    @property
    def set(self) -> str:
        """The set that the row belongs to: the key up to its first "-"."""
        return self.key.split("-")[0]

    def file(self, layer: Literal["rainy", "clean", "streak"]) -> Path:
        """Return the path of a layer; ConfigError if the row has none."""
        path: Path | None = getattr(self, layer)
        if path is None:
            raise ConfigError(f"the {self.kind} '{self.key}' of the manifest has no {layer} file.")
        return path


def read_manifest(path: Path) -> list[Row]:
    """Read a manifest with the columns kind, key and, as its rows need them, split, group, rainy, clean, streak, ...

    Paths in it are relative to its folder and may not leave it; other columns are ignored. It warns of a group whose
    rows are in more than one split.

    Raises:
        ConfigError: the file cannot be read, a column or path is missing, a kind is unknown, a key appears twice, or a
            path is absolute or leaves the folder; names the file and the line.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(_read_rows(path, csv.DictReader(file)))
    except OSError as error:
        raise ConfigError(f"{path}: the manifest cannot be read ({error.strerror}); check the path.") from None
    except (csv.Error, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not a csv file in UTF-8 ({error}).") from None
    if leaking := groups_across_splits(rows):
        warnings.warn(f"{path}: of the group '{leaking[0]}' rows are in more than one split.", stacklevel=2)
    return rows


def _read_rows(path: Path, reader: csv.DictReader[str]) -> Iterable[Row]:
    columns = reader.fieldnames or ()
    for column in ("kind", "key"):
        if column not in columns:
            raise ConfigError(
                f"{path}, line 1: the column '{column}' is missing; the first line must name the columns."
            )
    lines: dict[str, int] = {}
    for cells in reader:
        at = f"{path}, line {reader.line_num}"
        # DictReader files surplus cells under the key None, and fills missing ones with None.
        if None in cells or None in cells.values():
            raise ConfigError(f"{at}: the row does not have {len(columns)} cells as the first line has.")
        row = _parse_row(path.parent, cells, at)
        if row.key in lines:
            raise ConfigError(f"{at}: the key '{row.key}' was used in line {lines[row.key]}; keys must be unique.")
        lines[row.key] = reader.line_num
        yield row


def _parse_row(folder: Path, cells: dict[str, str], at: str) -> Row:
    kind, key = cells["kind"], cells["key"]
    if kind not in KINDS:
        raise ConfigError(f"{at}: unknown kind '{kind}'.{did_you_mean(kind, KINDS)}")
    if not key:
        raise ConfigError(f"{at}: the key is empty; give each row a name.")
    for column in KINDS[kind]:
        if not cells.get(column):
            raise ConfigError(f"{at}: a row of kind '{kind}' needs a path in the column '{column}'.")
    return Row(
        kind=kind,
        key=key,
        split=cells.get("split", ""),
        group=cells.get("group", ""),
        rainy=_resolve(folder, cells.get("rainy"), f"{at}: 'rainy'"),
        clean=_resolve(folder, cells.get("clean"), f"{at}: 'clean'"),
        streak=_resolve(folder, cells.get("streak"), f"{at}: 'streak'"),
        source=cells.get("source", ""),
        sha256=cells.get("sha256", ""),
    )


def _resolve(folder: Path, text: str | None, at: str) -> Path | None:
    if not text:
        return None
    # Read as a Windows path, a text shows its drive and both kinds of separator on every system.
    windows = PureWindowsPath(text)
    if windows.drive or windows.root or "\0" in text:
        raise ConfigError(f"{at} is {text!r}; it must be a path relative to the manifest's folder.")
    if os.path.normpath(windows.as_posix()).split("/")[0] == "..":
        raise ConfigError(f"{at} is {text!r}, which leaves the manifest's folder; move the file into it.")
    return folder / text


def groups_across_splits(rows: Iterable[Row]) -> list[str]:
    """Return the sorted groups that have rows in more than one split: backgrounds that leak between them."""
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in rows:
        if row.group:
            splits[row.group].add(row.split)
    return sorted(group for group, names in splits.items() if len(names) > 1)
