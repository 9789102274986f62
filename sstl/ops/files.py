"""Files that are written whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PART = ".part"


def write_atomic(path: Path, data: bytes | memoryview | str) -> Path:
    """Write ``data`` to ``path``, whole or not at all (see ``whole_file``); return ``path``."""
    with whole_file(path) as temporary, temporary.open("wb") as file:
        # The name of a file, in a text, need not be UTF-8.
        file.write(data.encode(errors="backslashreplace") if isinstance(data, str) else data)
    return path


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give the name of a temporary file beside ``path`` to write into; afterwards it is synced and renamed to ``path``.

    A reader sees the old file or the new one, never a part; if writing fails the temporary file is removed. Only a kill
    in the middle leaves it: see ``remove_parts``.

    Raises:
        OSError: it cannot be written; names ``path``.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:40]}.", suffix=PART)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "rb") as file:
                yield temporary
                os.fsync(file.fileno())
            temporary.chmod(0o666 & ~_umask())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
