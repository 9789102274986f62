"""Files that are written whole or not at all, and read or refused."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sstl.errors import ConfigError

T = TypeVar("T")
_UMASK = os.umask(0o077)  # it can only be read by setting it, which threads would see: once, before there are any
os.umask(_UMASK)
PART = ".part"


def write_atomic(path: Path, data: bytes | memoryview | str) -> Path:
    """Write ``data`` to ``path``, whole or not at all (see ``whole_file``); return ``path``."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        # The name of a file, in a text, need not be UTF-8.
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
    return path


def read_json(path: Path, convert: Callable[[Any], T]) -> T:
    """Return what ``convert`` makes of a JSON file; ConfigError if it is damaged, or another file than it should be."""
    try:
        return convert(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"{path} is damaged, or was not written by sstl; make the run again.") from None


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the records of a file of JSON lines; it ends at a line that is none, as a kill leaves one."""
    records = []
    if path.exists():
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                record = json.loads(line)
            except ValueError:
                break
            if not isinstance(record, dict):
                break
            records.append(record)
    return records


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file beside ``path`` to write into; afterwards it is synced and renamed to ``path``.

    A reader sees the old file or the new one, never a part; if writing fails the temporary file is removed. Only a kill
    in the middle leaves it: see ``remove_parts``. Of a link it is the file that is replaced; what is no file, as a pipe
    or ``/dev/stdout``, is written into.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    name: str | None = None
    try:
        path = path.resolve() if path.is_symlink() else path
        if path.exists() and not path.is_file() and not path.is_dir():
            yield path
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=PART)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "rb") as file:
                yield temporary
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_UMASK)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if name is not None and error.filename not in (None, name):
            raise  # of another file, which was being read
        raise OSError(error.errno, error.strerror or str(error), str(path)) from error


def remove_parts(folder: Path) -> None:
    """Remove what kills in the middle of ``write_atomic`` left in a folder and those in it; nobody may be writing."""
    for part in folder.rglob(f".*{PART}"):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Wait until a folder's names are on the disk, so that a power cut does not bring back the former ones."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
