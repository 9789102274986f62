"""Videos: frame after frame through a network at constant memory, steadied, with all else of the clip kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sstl.data.images import IMAGE_SUFFIXES, MAX_PIXELS
from sstl.errors import InputError, SstlError
from sstl.restore import clip, steady
from sstl.restore.folder import Job, Outcome, place
from sstl.restore.restorer import Restorer, as_planes, scale_of

if TYPE_CHECKING:
    from sstl.restore.adapted import Adapted

_ADAPTED_TO = 8  # frames


def plan_videos(inputs: Sequence[Path], out: Path) -> tuple[list[Job], list[Outcome]]:
    """Name the results of video files; nothing is opened.

    Returns:
        The jobs, and the inputs without any: their result is another's, or would replace an input.

    Raises:
        SstlError: ``out`` cannot be used for these inputs.
    """
    if out.suffix.lower() in clip.VIDEO_SUFFIXES and not out.is_dir():
        if len(inputs) > 1:
            raise SstlError(f"{out} is a file's name, but a folder is needed for these inputs; give a folder.")
        clip.container_to_write(out)
        return [Job(inputs[0], out, exact=True)], []
    if not out.is_dir() and (out.exists() or out.suffix.lower() in IMAGE_SUFFIXES):
        raise SstlError(f"{out} is a file, or an image's name; give a folder to write into.")
    sources = {place(path): path for path in inputs}  # a video that was named twice is done once
    jobs: dict[Path, Job] = {}
    failures = []
    for path in sources.values():
        target = (out / path.name).with_suffix(clip.video_suffix(path))
        if place(target) in sources:
            failures.append(_refused(path, target, "would replace an input"))
        elif target in jobs:
            failures.append(_refused(path, target, f"is that of {jobs[target].source} already"))
        else:
            jobs[target] = Job(path, target)
    return list(jobs.values()), failures


def _refused(source: Path, target: Path, why: str) -> Outcome:
    return Outcome(source, error=f"{source}: its result {target} {why}; rename it, or give another folder.")


def restore_video(
    restorer: Restorer,
    source: str | Path,
    target: str | Path,
    steady_frames: bool = True,
    max_pixels: int = MAX_PIXELS,
    adapt_steps: int = 0,
    seed: int = 0,
    on_frame: Callable[[int, int], None] | None = None,
) -> Outcome:
    """Remove the rain from a video file; a few frames are in memory at a time.

    Times, sound, subtitles, chapters, rotation, aspect, bits per channel and colours stay as they are. The frames are
    compressed again: as H.264 (8 bits) or H.265 (more), or VP9 in .webm. The target is there whole afterwards or not at
    all.

    Args:
        restorer: the loaded network.
        source: the file.
        target: what to write; its suffix is .mp4, .m4v, .mov, .mkv or .webm. An existing file is replaced.
        steady_frames: average each frame with its neighbours where that is safe, against flicker (``steadied``).
        max_pixels: clips with larger frames are refused.
        adapt_steps: if not 0, restore by a copy of the network that was adapted to frames of the clip in so many steps.
        seed: of the adaptation.
        on_frame: called after each frame with how many are done and how many there are (0 if unknown); what it raises
            ends the work, and nothing is left of the target.

    Raises:
        InputError: the clip cannot be read, or ``target`` cannot hold what it holds.
        SstlError: PyAV is not installed, or the target's suffix is none of these.
    """
    source, target = Path(source), Path(target)
    if place(target) == place(source):
        raise InputError(f"{source}: its result would replace it; give another name.")
    clip.container_to_write(target)
    adapted = _adapted(restorer, source, max_pixels, adapt_steps, seed) if adapt_steps else None
    chosen = restorer if adapted is None else adapted.restorer
    looked_at = _samples(source, max_pixels) if chosen.routed else []  # frames by turns of two networks would flicker
    with chosen.settled(looked_at), clip.Clip(source, max_pixels) as read, clip.copy_of(read, target) as written:
        for done, frame in enumerate(_restored(chosen, read.frames(written.others), steady_frames), start=1):
            written.write(frame)
            if on_frame is not None:
                on_frame(done, read.count)
    return Outcome(source, (target,), notes=tuple(read.notes), adapted=adapted)


def _restored(restorer: Restorer, frames: Iterator[clip.Frame], steady_frames: bool) -> Iterator[clip.Frame]:
    if not steady_frames:
        for frame in frames:
            yield replace(frame, pixels=restorer.restore(frame.pixels))
        return
    waiting: list[clip.Frame] = []  # what ``steadied`` holds back; two at most

    def pairs() -> Iterator[steady.Frame]:
        for frame in frames:
            waiting.append(frame)
            yield steady.Frame(_float(frame.pixels, restorer), _float(restorer.restore(frame.pixels), restorer))

    # Not decorated generators: what runs between two frames must not run in inference mode.
    for image in steady.steadied(pairs()):
        frame = waiting.pop(0)
        peak = np.iinfo(frame.pixels.dtype).max
        values = (image[0].movedim(0, -1) * peak).round().cpu().numpy()
        yield replace(frame, pixels=values.astype(frame.pixels.dtype))


def _float(pixels: Any, restorer: Restorer) -> Tensor:
    planes = as_planes(pixels)
    return planes.to(restorer.device, torch.float32)[None] / scale_of(planes)


def _adapted(restorer: Restorer, source: Path, max_pixels: int, steps: int, seed: int) -> Adapted:
    from sstl.restore.adapted import adapt_to_photo  # plain restoring shall not wait for the training's modules

    return adapt_to_photo(restorer, _samples(source, max_pixels), steps, seed)


def _samples(source: Path, max_pixels: int) -> list[Any]:
    with clip.Clip(source, max_pixels) as read:
        return read.samples(_ADAPTED_TO)
