"""Archives, unpacked whole or not at all, and never out of their folder."""

from __future__ import annotations

import errno
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath

from sstl.errors import InputError, SstlError

_DAMAGE = (
    zipfile.BadZipFile,
    tarfile.TarError,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    RuntimeError,
    NotImplementedError,
)
_SUFFIXES = (".zip", ".tgz", ".tbz2", ".txz", ".tar", ".gz", ".bz2", ".xz")


def is_archive(path: Path) -> bool:
    """Return whether a file is one that `unpack` can unpack: zip, or tar in any compression."""
    return zipfile.is_zipfile(path) or tarfile.is_tarfile(path)


def unpacked_name(name: str) -> str:
    """Return what the folder of an archive of this name is called: without the suffixes of archives."""
    while (path := Path(name)).suffix.lower() in _SUFFIXES and path.stem:
        name = path.stem
    return name


def unpack(archive: Path, folder: Path) -> Path:
    """Unpack a zip or tar file into ``folder``, which must not be there yet, and return it.

    Raises:
        SstlError: ``folder`` is there already.
        InputError: the archive is damaged, does not fit on the disk, or holds a path or link out of its folder; then
            nothing is left of it.
    """
    if folder.exists():
        raise SstlError(f"{folder} is there already; remove it, or choose another folder.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        if zipfile.is_zipfile(archive):
            _unpack_zip(archive, temporary)
        else:
            _unpack_tar(archive, temporary)
        temporary.chmod(0o755)
        temporary.replace(folder)
    except _DAMAGE as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{archive}: damaged ({reason}); remove it and fetch it again.") from None
    except OSError as error:
        lack = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be unpacked ({error.strerror or error})"
        raise InputError(f"{archive}: {lack}; make room in {folder.parent} and run it again.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def _unpack_zip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as file:
        members = file.infolist()
        _check(archive, folder, (member.filename for member in members), sum(member.file_size for member in members))
        for member in members:
            if stat.S_ISLNK(member.external_attr >> 16):
                raise InputError(f"{archive}: refused, as it holds the link '{member.filename}'; unpack it by hand.")
        file.extractall(folder)


def _unpack_tar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as file:
        members = file.getmembers()
        _check(archive, folder, (member.name for member in members), sum(member.size for member in members))
        if not hasattr(tarfile, "data_filter"):  # before Python 3.11.4, as Debian 12 has it
            _unpack_plain(archive, folder, file, members)
            return
        try:
            file.extractall(folder, members, filter="data")  # which knows links that lead out, by way of others too
        except tarfile.FilterError as error:
            raise InputError(f"{archive}: refused, as {error}; unpack it by hand.") from None


def _unpack_plain(archive: Path, folder: Path, file: tarfile.TarFile, members: list[tarfile.TarInfo]) -> None:
    """Unpack files and folders; whatever else there is, where nothing tells which links lead out, is refused."""
    for member in members:
        if not (member.isfile() or member.isdir()):
            raise InputError(f"{archive}: refused, as it holds '{member.name}', which is no file; unpack it by hand.")
    for member in members:
        file.extract(member, folder, set_attrs=False)  # neither owners nor modes


def _check(archive: Path, folder: Path, names: Iterable[str], size: int) -> None:
    for name in names:
        path = PureWindowsPath(name)  # which knows both kinds of separator, and drives
        if path.drive or path.root or ".." in path.parts or "\0" in name:
            raise InputError(f"{archive}: refused, as it holds '{name}', which leaves its folder; unpack it by hand.")
    free = shutil.disk_usage(folder).free
    if size > free:
        raise OSError(errno.ENOSPC, f"{size / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free")
