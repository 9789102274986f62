"""One run at a time in a folder: a lock that the system takes back when its process ends, however that happens."""

from __future__ import annotations

import errno
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from sstl.errors import ConfigError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


@contextmanager
def only_run(folder: Path) -> Iterator[None]:
    """Keep other processes' runs out of ``folder``, which is made, and removed if there is nothing in it at the end.

    What a killed process leaves behind is no obstacle. Where the file system has no locks (nor has Windows), there is
    no protection.

    Raises:
        ConfigError: another process has it.
        OSError: the folder cannot be written.
    """
    if fcntl is None:
        yield
        return
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / NAME
    with _locked(path):
        try:
            yield
        finally:
            path.unlink(missing_ok=True)
            with suppress(OSError):
                folder.rmdir()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    file = _take(path)
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}")
        file.flush()
        yield


def _take(path: Path) -> IO[str]:
    """Open and lock a file that is still the one of this name afterwards: its last owner may have removed it."""
    while True:
        file = path.open("a+", encoding="utf-8")
        try:
            # Of the process, not of the open file: loader workers, which outlive a killed parent a little, have none.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EAGAIN):
                return file  # no locks here
            file.seek(0)
            owner = file.read().strip() or "another process"
            file.close()
            raise ConfigError(
                f"{path.parent} is in use by another run ({owner}); wait for it to end, or give another output=FOLDER."
            ) from None
        file.close()
