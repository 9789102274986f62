"""Downloads that go on where they broke off, and are checked."""

from __future__ import annotations

import errno
import hashlib
import http.client
import os
import urllib.error
import urllib.request
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from tqdm import tqdm

import sstl
from sstl.errors import InputError, SstlError
from sstl.ops.progress import hidden

_CHUNK = 1 << 20
_SAFE = "%/:?#[]@!$&'()*+,;=~"  # what an address may hold beside letters; other alphabets are quoted
_TIMEOUT = 60.0  # seconds without a byte after which the transfer counts as broken


def file_name(url: str) -> str:
    """Return the name of the file at an address; SstlError if it is not http(s) or names no file."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise SstlError(f"'{url}' is no address ({error}); it must be of the form https://server/file.zip.") from None
    name = PurePosixPath(unquote(parts.path)).name
    if parts.scheme not in ("http", "https") or not parts.netloc or name in ("", "..") or "\\" in name or "\0" in name:
        raise SstlError(f"'{url}' is not the address of a file; it must be of the form https://server/folder/file.zip.")
    return name


def unfinished(url: str, folder: Path) -> Path:
    """Return where a transfer that breaks off is kept: named by its address, for another file may have its name."""
    return folder / f"{file_name(url)}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part"


def download(url: str, folder: Path, sha256: str | None = None, progress: bool = False) -> Path:
    """Fetch the file at ``url`` into ``folder``; what an earlier call left unfinished is not fetched again.

    It is written to a ``.part`` file, which is kept if the transfer breaks off, and renamed at the end.

    Args:
        url: http or https.
        folder: is made if it is not there.
        sha256: the checksum that the file must have, in hexadecimal digits; None: it is not checked.
        progress: show a progress bar on stderr.

    Returns:
        The file.

    Raises:
        SstlError: the address is not one of a file.
        InputError: it cannot be fetched, or written, or its checksum is another; what was fetched is then removed.
    """
    path = folder / file_name(url)
    fetched = not path.is_file()
    if fetched:
        folder.mkdir(parents=True, exist_ok=True)
        part = unfinished(url, folder)
        _fetch(url, part, progress)
        part.replace(path)
    if sha256 is not None and (found := _checksum(path)) != sha256.lower():
        if fetched:
            path.unlink()
        done = "the file was removed: fetch it again" if fetched else f"remove {path}, which was there, to fetch it"
        raise InputError(f"{url}: its SHA-256 is {found}, not {sha256.lower()}; {done}, or check the checksum.")
    return path


def _fetch(url: str, part: Path, progress: bool) -> None:
    """Append to ``part`` what it lacks."""
    have = part.stat().st_size if part.is_file() else 0
    headers = {"User-Agent": f"sstl/{sstl.__version__}", **({"Range": f"bytes={have}-"} if have else {})}
    try:
        request = urllib.request.Request(quote(url, _SAFE), headers=headers)
        with urllib.request.urlopen(request, timeout=_TIMEOUT) as response:
            resumed = response.status == http.HTTPStatus.PARTIAL_CONTENT and _first_byte(response) == have
            _copy(url, response, part, have if resumed else 0, progress)
    except urllib.error.HTTPError as error:
        if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and have:
            if error.headers.get("Content-Range", "").endswith(f"/{have}"):
                return  # all of it is there already
            part.unlink()  # it is longer than the file, so it is of another one
            _fetch(url, part, progress)
            return
        raise InputError(f"{url}: the server answers {error.code} ({error.reason}); check the address.") from None
    except urllib.error.URLError as error:
        reason = getattr(error.reason, "strerror", None) or error.reason
        raise InputError(f"{url}: no connection ({reason}); check the address and the network.") from None
    except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
        raise _broken_off(url, part, str(error) or type(error).__name__) from None
    except OSError as error:
        lack = "the disk is full" if error.errno == errno.ENOSPC else f"cannot be written ({error.strerror})"
        raise InputError(f"{part}: {lack}; make room and run it again, to go on from what is there.") from None


def _first_byte(response: Any) -> int | None:
    """Return where the part that the server sends begins."""
    first = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
    return int(first) if first.isdecimal() else None


def _copy(url: str, response: Any, part: Path, have: int, progress: bool) -> None:
    length = response.headers.get("Content-Length")
    total = have + int(length) if length and length.isdecimal() else None
    bar = tqdm(
        total=total, initial=have, desc=part.stem, unit="B", unit_scale=True, leave=False, **hidden(not progress)
    )
    with part.open("ab" if have else "wb") as file, bar:
        while chunk := response.read(_CHUNK):
            file.write(chunk)
            bar.update(len(chunk))
        file.flush()
        os.fsync(file.fileno())
        size = file.tell()
    if total is not None and size < total:
        raise _broken_off(url, part, "the server closed the connection")


def _broken_off(url: str, part: Path, reason: str) -> InputError:
    have = part.stat().st_size if part.is_file() else 0
    return InputError(f"{url}: broke off after {have / 1e6:.1f} MB ({reason}); run it again, to go on from there.")


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
