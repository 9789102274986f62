"""Files and folders of photos: where each result goes, and restoring them one after another."""

from __future__ import annotations

import errno
import functools
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from sstl.data.images import (
    IMAGE_SUFFIXES,
    MAX_PIXELS,
    Photo,
    format_to_write,
    list_images,
    output_suffix,
    read_photo,
    write_photo,
)
from sstl.errors import InputError, SstlError
from sstl.ops.memory import out_of_memory
from sstl.restore.restorer import Layer, Restorer

if TYPE_CHECKING:
    from sstl.restore.adapted import Adapted


_LONGEST_NAME = 255  # bytes, of nearly all file systems
# What a name can bring about that the names of other results need not: too long, not allowed, a folder in its place.
_OF_ITS_NAME = (errno.ENAMETOOLONG, errno.EILSEQ, errno.EINVAL, errno.EISDIR, errno.ENOTDIR, errno.EEXIST, errno.ELOOP)


Place = tuple[int, int] | str
"""Device and number of a file that is there, else its path."""


@dataclass(frozen=True)
class Job:
    """A photo to restore.

    Attributes:
        source: the file.
        target: where its result goes.
        exact: whether the target's suffix was asked for; else it follows from the photo (see ``Photo.suffix``).
    """

    source: Path
    target: Path
    exact: bool = False


@dataclass(frozen=True)
class Outcome:
    """What became of one input.

    Attributes:
        source: the input.
        written: the files that were written.
        kept: the files that were not written because they were there.
        notes: what was not kept of the photo, one phrase each.
        error: why there is no result.
        adapted: what the adaptation to it came to, if there was one; with the restorer that it started from.
    """

    source: Path
    written: tuple[Path, ...] = ()
    kept: tuple[Path, ...] = ()
    notes: tuple[str, ...] = ()
    error: str | None = None
    adapted: Adapted | None = None


def plan(inputs: Sequence[str | Path], out: str | Path) -> tuple[list[Job], list[Outcome]]:
    """Find the photos and name their results; nothing is decoded.

    Args:
        inputs: files, and folders that are searched with their sub-folders.
        out: a folder, in which the structure below an input folder is kept; for a single file also a file's name. If it
            lies inside an input folder, nothing in it is taken as input.

    Returns:
        The jobs, and the inputs without any. A file that is not there is a job, which will fail.

    Raises:
        SstlError: ``out`` cannot be used for these inputs.
    """
    paths, out = [Path(path) for path in inputs], Path(out)
    if out.suffix.lower() in IMAGE_SUFFIXES and not out.is_dir():
        if len(paths) > 1 or paths[0].is_dir():
            raise SstlError(f"{out} is a file's name, but a folder is needed for these inputs; give a folder.")
        format_to_write(out)
        return [Job(paths[0], out, exact=True)], []
    if out.exists() and not out.is_dir():
        raise SstlError(f"{out} is a file; give a folder to write into.")
    jobs: dict[tuple[Place, Path], Job] = {}  # a photo that was named twice is done once
    failures: list[Outcome] = []
    for path in paths:
        try:
            found = _search(path, out, failures) if path.is_dir() else [Job(path, out / path.name)]
        except InputError as error:
            failures.append(Outcome(path, error=str(error)))
            continue
        jobs |= {(place(job.source), job.target): job for job in found}
    return list(jobs.values()), failures


def _search(folder: Path, out: Path, failures: list[Outcome]) -> list[Job]:
    results = place(out)
    if place(folder) == results:
        raise SstlError(f"{out} is an input folder; give another one to write into.")

    @functools.cache
    def of_an_earlier_run(parent: Path) -> bool:
        return parent != folder and (place(parent) == results or of_an_earlier_run(parent.parent))

    found = list_images(folder, lambda error: failures.append(Outcome(folder, error=str(error))))
    photos = [photo for photo in found if not of_an_earlier_run(photo.parent)]
    if not photos:
        raise InputError(f"{folder}: holds no image; images are files named {', '.join(sorted(IMAGE_SUFFIXES))}.")
    return [Job(photo, out / photo.relative_to(folder)) for photo in photos]


def place(path: Path) -> Place:
    """Return what tells files and folders apart, whatever they are called: links and case may lead to one by two names.

    Of what is not there, its path with the links followed as far as they lead.
    """
    try:
        found = path.stat()
    except OSError:
        return os.path.realpath(path)
    return found.st_dev, found.st_ino


def restore_files(
    restorer: Restorer,
    jobs: Sequence[Job],
    layers: Sequence[Layer] = ("background",),
    overwrite: bool = False,
    max_pixels: int = MAX_PIXELS,
    adapt_steps: int = 0,
    seed: int = 0,
) -> Iterator[Outcome]:
    """Restore photos one after another; a photo that cannot be used does not stop the others.

    The background is written as the job's target, other layers beside it as NAME.streak.png and NAME.mask.png. The next
    photo is decoded while one is restored; no more than these two are in memory.

    Args:
        restorer: the loaded network.
        jobs: from ``plan``.
        layers: what to write.
        overwrite: replace existing files; else they are kept, and only what is missing is made.
        max_pixels: larger photos are refused.
        adapt_steps: if not 0, each photo is restored by a copy of the network that was adapted to it in so many steps.
        seed: of the adaptations.

    Yields:
        The outcome of each job, in order.

    Raises:
        SstlError: the network does not give one of the layers.
        OSError: a result cannot be written.
    """
    desk = _Desk(jobs, layers, overwrite, max_pixels)
    for job, future in _ahead(desk, jobs):
        try:
            order = future.result()
            notes, made, adapted = [], {}, None
            if order.photo is not None:
                notes = list(order.photo.notes)
                if adapt_steps:
                    adapted = _adapted(restorer, order.photo, adapt_steps, seed)
                chosen = restorer if adapted is None else adapted.restorer
                made = chosen.restore_photo(order.photo, list(order.missing))
                if adapted is not None:  # outcomes are kept: each with its network would fill the memory
                    adapted = replace(adapted, restorer=restorer)
            for name, photo in made.items():
                notes += write_photo(order.missing[name], photo)
            yield Outcome(job.source, tuple(order.missing.values()), order.kept, tuple(notes), adapted=adapted)
        except InputError as error:
            yield Outcome(job.source, error=str(error))
        except OSError as error:
            if error.errno not in _OF_ITS_NAME:
                raise
            reason = f"its result cannot be written ({error.strerror})"
            yield Outcome(job.source, error=f"{job.source}: {reason}; rename it, or give another folder.")
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            yield Outcome(job.source, error=f"{job.source}: there is not enough memory; give a smaller --tile.")


def _adapted(restorer: Restorer, photo: Photo, steps: int, seed: int) -> Adapted:
    # Imported where it is needed: plain restoring shall not wait for the training's modules.
    from sstl.restore.adapted import adapt_to_photo

    return adapt_to_photo(restorer, photo, steps, seed)


def result_files(job: Job, layers: Sequence[Layer], max_pixels: int = MAX_PIXELS) -> dict[Layer, Path]:
    """Name the files that a job makes; of the photo only the header is read.

    Raises:
        InputError: it cannot be read.
    """
    target = job.target
    if not job.exact:
        target = target.with_suffix(output_suffix(job.source, max_pixels))
    return {name: target if name == "background" else target.with_name(f"{target.stem}.{name}.png") for name in layers}


@dataclass(frozen=True)
class _Order:
    """A decoded photo with the files to make of it; None if all are there."""

    photo: Photo | None
    missing: dict[Layer, Path]
    kept: tuple[Path, ...]


class _Desk:
    """Prepares jobs, and sees to it that no two have one result and that no input is replaced."""

    def __init__(self, jobs: Sequence[Job], layers: Sequence[Layer], overwrite: bool, max_pixels: int) -> None:
        self.layers, self.overwrite, self.max_pixels = layers, overwrite, max_pixels
        self.inputs = {place(job.source) for job in jobs}
        self.owners: dict[Path, Path] = {}

    def prepare(self, job: Job) -> _Order:
        files = result_files(job, self.layers, self.max_pixels)
        for file in files.values():
            if len(os.fsencode(file.name)) > _LONGEST_NAME:  # known before any of the results is written
                raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG))
            if place(file) in self.inputs:
                raise InputError(f"{job.source}: its result {file} would replace an input; give another folder.")
            owner = self.owners.setdefault(file, job.source)
            if owner is not job.source:
                raise InputError(f"{job.source}: its result {file} is that of {owner} already; rename one of them.")
        kept = () if self.overwrite else tuple(file for file in files.values() if file.exists())
        missing = {name: file for name, file in files.items() if file not in kept}
        return _Order(read_photo(job.source, self.max_pixels) if missing else None, missing, kept)


def _ahead(desk: _Desk, jobs: Sequence[Job]) -> Iterator[tuple[Job, Future[_Order]]]:
    """Yield each job while the next one is prepared in a thread."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        following = [(job, pool.submit(desk.prepare, job)) for job in jobs[:1]]
        for job in jobs[1:]:
            following.append((job, pool.submit(desk.prepare, job)))
            yield following.pop(0)
        yield from following
