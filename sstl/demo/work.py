"""What the web page does, without the page: check what was dropped, derain it, adapt to it, stop when asked."""

from __future__ import annotations

import functools
import json
import math
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from sstl.data.images import IMAGE_SUFFIXES, Photo, output_suffix, read_photo, to_pil, write_photo
from sstl.errors import InputError, SstlError
from sstl.networks.weights import DEFAULT, list_weights
from sstl.ops.memory import out_of_memory
from sstl.report.adaptation import FIGURES
from sstl.report.adaptation_page import RAIN
from sstl.report.findings import Outcome, judged
from sstl.report.page import Comparison, Page, for_page, render
from sstl.restore import Restorer, load
from sstl.restore.clip import VIDEO_SUFFIXES, Clip, video_suffix
from sstl.restore.video import restore_video

ADAPTED = "adapted to your photos"
_TICK = 0.2  # seconds between two looks at how far the work is
_FRAMES = 8  # of a clip, to adapt to
# In a process of its own: it can be stopped, and its random state and memory are not the server's.
_ADAPT = """
import sys, sstl
photos, run, weights, steps = sys.argv[1:]
print(sstl.adapt(photos, run, weights=weights, steps=int(steps)).weights)
"""


@dataclass(frozen=True)
class Limits:
    """What a user may ask for.

    Attributes:
        files: at once.
        bytes: of a file.
        pixels: of a photo.
        frame_pixels: of a clip's frame.
        clip_seconds: length of a clip.
        steps: of an adaptation, at most.
        seconds: after which work is stopped.
        waiting: tasks in line; one is under way at a time.
    """

    files: int = 12
    bytes: int = 40_000_000
    pixels: int = 30_000_000
    frame_pixels: int = 2_100_000
    clip_seconds: float = 15
    steps: int = 200
    seconds: float = 900
    waiting: int = 16


@dataclass(frozen=True)
class View:
    """What the page shall show; None leaves a part as it is.

    Attributes:
        status: a sentence or two.
        share: how much of the work is done, or None if nothing is under way.
        page: the comparison, a whole HTML page.
        video: a derained clip.
        archive: all results.
        adapted: whether there are weights adapted to the user's photos now.
    """

    status: str | None = None
    share: float | None = None
    page: str | None = None
    video: Path | None = None
    archive: Path | None = None
    adapted: bool = False


class Stopped(Exception):
    """The user, or the clock, has stopped the work; says so."""


@dataclass(eq=False)
class Task:
    """Work in line or under way, as the one who waits sees it."""

    user: str
    deadline: float = math.inf
    stop: threading.Event = field(default_factory=threading.Event)
    said: str = "Looking at the files."
    share: float = 0.0

    def say(self, text: str, share: float) -> None:
        """Tell how far it is; Stopped if it is to end."""
        self.said, self.share = text, share
        if self.stop.is_set():
            raise Stopped("Stopped.")
        if time.monotonic() > self.deadline:
            raise Stopped("Stopped: it took longer than is allowed here; try fewer or smaller photos.")


class Desk:
    """Serves the users of the page; each has a folder below ``folder``.

    Args:
        folder: a temporary folder of the server's own.
        weights: names of shipped weights and files to choose from.
        limits: what a user may ask for.
    """

    def __init__(self, folder: Path, weights: Sequence[str] = (), limits: Limits | None = None) -> None:
        self.folder, self.limits = folder, limits or Limits()
        names = [Path(name).name for name in weights]
        labels = (short if names.count(short) == 1 else name for short, name in zip(names, weights, strict=True))
        given = dict(zip(labels, weights, strict=True))
        self.weights = {DEFAULT: DEFAULT, **given, **{name: name for name in list_weights()}}
        self.line: list[Task] = []  # the first is under way
        self.restorer = functools.lru_cache(maxsize=2)(functools.partial(load))

    def derain(self, user: str, files: Sequence[str | Path], weights: str) -> Iterator[View]:
        """Yield what to show while the files are derained, and at the end the results."""
        yield from self._followed(user, lambda task: self._derain(task, user, files, self._path(user, weights)))

    def adapt(self, user: str, files: Sequence[str | Path], weights: str, steps: int) -> Iterator[View]:
        """Yield what to show while weights are adapted to the files, and then the files derained by them."""
        start = self._path(user, DEFAULT if weights == ADAPTED else weights)
        yield from self._followed(user, lambda task: self._adapt(task, user, files, start, steps))

    def stop(self, user: str) -> None:
        """Stop what is in line or under way for a user, at the next step, frame or photo."""
        for task in self._tasks(user):
            task.stop.set()

    def forget(self, user: str) -> None:
        """Stop what is under way for a user who has gone, and remove his files."""
        self.stop(user)
        while self._tasks(user):
            time.sleep(_TICK)
        shutil.rmtree(self.folder / user, ignore_errors=True)

    def close(self) -> None:
        """Stop what is in line or under way for anybody, and wait for its end: its files go with the folder."""
        for task in [*self.line]:
            task.stop.set()
        while self.line:
            time.sleep(_TICK)

    def _tasks(self, user: str) -> list[Task]:
        return [task for task in self.line if task.user == user]

    def _path(self, user: str, weights: str) -> str:
        return str(self.folder / user / "adapted.safetensors") if weights == ADAPTED else self.weights[weights]

    def _followed(self, user: str, work: Callable[[Task], View]) -> Iterator[View]:
        if not all(task.stop.is_set() for task in self._tasks(user)):
            yield View()  # a second press of a button; a generator that yields nothing blanks the page
            return
        if len(self.line) > self.limits.waiting:
            yield View("Too many are waiting already; try again in a few minutes.")
            return
        task = Task(user)
        self.line.append(task)
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self._in_turn, task, work)
        pool.shutdown(wait=False)  # whoever closes this generator is not to be held up by what is still ending
        try:
            said = None
            while not wait([future], _TICK).done:
                now = "Stopping." if task.stop.is_set() else task.said, task.share
                if said != now:
                    said = now
                    yield View(*now)
            yield future.result()
        except Stopped as stopped:
            yield View(str(stopped))
        except (SstlError, OSError) as error:
            yield View(f"That did not work: {error}")
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            yield View("That did not work: there is not enough memory; try smaller photos, or fewer.")
        finally:
            task.stop.set()  # also if nobody waits any more

    def _in_turn(self, task: Task, work: Callable[[Task], View]) -> View:
        """Wait until all who came before have been served, then work."""
        try:
            while before := self.line.index(task):
                task.say(f"Waiting in line, {before} before you.", 0)
                task.stop.wait(_TICK)
            task.deadline = time.monotonic() + self.limits.seconds
            return work(task)
        finally:
            self.line.remove(task)

    def _derain(self, task: Task, user: str, files: Sequence[str | Path], weights: str) -> View:
        task.say("Looking at the files.", 0)
        paths, refused = self._checked(files)
        if not paths:
            return View(_refusals(refused) or "Drop some photos or a short clip first.")
        restorer = self.restorer(weights)
        out = self._fresh(user, "derained")
        comparisons, video = [], None
        for number, path in enumerate(paths):
            try:
                if _is_clip(path):
                    found, video = _clip_restored(restorer, path, out, task, number / len(paths), self.limits)
                else:
                    task.say(f"Deraining {path.name}, {number + 1} of {len(paths)}.", number / len(paths))
                    found = _photo_restored(restorer, path, out, self.limits.pixels)
                comparisons.append(found)
            except InputError as error:
                refused.append(_nameless(error, path))
        if not comparisons:
            return View(_refusals(refused))
        page = render(
            Page("Before and after", "Drag the line, or look at the streaks and the rain map.", {}, comparisons)
        )
        (out / "before-and-after.html").write_text(page, encoding="utf-8")
        archive = _zipped(out)
        done = f"Derained {len(comparisons)} of {len(files)}." if refused else f"Derained {len(comparisons)}."
        return View(f"{done} {_refusals(refused)}".strip(), page=page, video=video, archive=archive)

    def _adapt(self, task: Task, user: str, files: Sequence[str | Path], start: str, steps: int) -> View:
        task.say("Looking at the files.", 0)
        steps = max(1, min(int(steps), self.limits.steps))
        paths, refused = self._checked(files)
        photos = self._fresh(user, "photos")
        for number, path in enumerate(paths):
            try:
                _put_photos(path, photos, number, self.limits)
            except InputError as error:
                refused.append(_nameless(error, path))
        if not any(photos.iterdir()):
            return View(_refusals(refused) or "Drop some photos or a short clip first.")
        run = self._fresh(user, "run")
        adapted = _adapted(photos, run / "run", start, steps, task)
        outcome = Outcome(**json.loads((Path(adapted).parent / FIGURES).read_text(encoding="utf-8"))["outcome"])
        shutil.move(adapted, self.folder / user / "adapted.safetensors")
        self.restorer.cache_clear()  # the file of that name is another one now
        view = self._derain(task, user, files, str(self.folder / user / "adapted.safetensors"))
        shutil.copy(self.folder / user / "adapted.safetensors", self.folder / user / "derained" / "weights.safetensors")
        archive = _zipped(self.folder / user / "derained")
        return View(f"{judged(outcome)} {view.status}", None, view.page, view.video, archive, adapted=True)

    def _checked(self, files: Sequence[str | Path]) -> tuple[list[Path], list[str]]:
        """Return the files that may be used, and what is to be said of the others."""
        paths: list[Path] = []
        refused: list[str] = []
        for path in map(Path, files):
            if len(paths) == self.limits.files:
                refused.append(f"{path.name}: only {self.limits.files} files are taken at once.")
            elif path.suffix.lower() not in IMAGE_SUFFIXES | VIDEO_SUFFIXES:
                refused.append(f"{path.name}: neither a photo nor a clip.")
            elif not path.exists():  # uploads are removed after some time, also while the page is open
                refused.append(f"{path.name}: no longer here; drop it again.")
            elif path.stat().st_size > self.limits.bytes:
                refused.append(f"{path.name}: larger than {self.limits.bytes / 1e6:.0f} MB.")
            else:
                paths.append(path)
        return paths, refused

    def _fresh(self, user: str, name: str) -> Path:
        folder = self.folder / user / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder


def _is_clip(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _photo_restored(restorer: Restorer, path: Path, out: Path, max_pixels: int) -> Comparison:
    target = _free(out / path.with_suffix(output_suffix(path, max_pixels)).name)
    photo = read_photo(path, max_pixels)
    layers = restorer.restore_photo(photo, restorer.names)
    write_photo(target, layers["background"])
    for name in restorer.names[1:]:
        write_photo(target.with_name(f"{target.stem}.{name}.png"), layers[name])
    return _comparison(path.name, photo, {name: layers[name] for name in restorer.names})


def _clip_restored(
    restorer: Restorer, path: Path, out: Path, task: Task, share: float, limits: Limits
) -> tuple[Comparison, Path]:
    with Clip(path, limits.frame_pixels) as clip:
        if clip.seconds > limits.clip_seconds:
            raise InputError(f"{path}: {clip.seconds:.0f} seconds are more than {limits.clip_seconds:.0f}; cut it.")
        middle = clip.samples(3)[-1]

    def on_frame(done: int, total: int) -> None:
        task.say(f"Deraining {path.name}, frame {done} of {max(done, total)}.", share)

    target = _free(out / path.with_suffix(video_suffix(path)).name)
    restore_video(restorer, path, target, max_pixels=limits.frame_pixels, on_frame=on_frame)
    photo = Photo(middle)
    layers = restorer.restore_photo(photo, restorer.names)
    return _comparison(f"{path.name}, a frame", photo, {name: layers[name] for name in restorer.names}), target


def _comparison(name: str, photo: Photo, layers: dict[str, Photo]) -> Comparison:
    before, background = _eight_bits(photo), _eight_bits(layers["background"])
    shown = {"streaks": _eight_bits(layers["streak"])}
    darker = np.clip(before.astype(np.float32) - background, 0, None).mean() / 255
    note = f"The restoration took away {darker:.1%} of full brightness."
    if "mask" in layers:
        shown["rain map"] = _eight_bits(layers["mask"])
        covered = float((shown["rain map"] >= 128).mean())
        note = f"{_amount(covered)}: the network sees rain on {covered:.0%} of the picture. {note}"
    return for_page(Comparison(name, before, background, note, shown))


def _amount(covered: float) -> str:
    return next(word for limit, word in _AMOUNTS if covered < limit)


_AMOUNTS = [(0.02, "Hardly any rain"), (0.15, "Light rain"), (0.4, "Moderate rain"), (2.0, "Heavy rain")]


def _eight_bits(photo: Photo) -> np.ndarray:
    return np.asarray(to_pil(Photo(photo.pixels), keep_wide=False))


def _put_photos(path: Path, folder: Path, number: int, limits: Limits) -> None:
    """Put a photo, or frames of a clip, into the folder that is learnt from."""
    if _is_clip(path):
        with Clip(path, limits.frame_pixels) as clip:
            frames = clip.samples(_FRAMES)
        for index, pixels in enumerate(frames):
            to_pil(Photo(pixels), keep_wide=False).save(folder / f"{number:03}-{index}.png")
    else:
        read_photo(path, limits.pixels)
        shutil.copy(path, folder / f"{number:03}{path.suffix.lower()}")


def _adapted(photos: Path, run: Path, start: str, steps: int, task: Task) -> str:
    """Adapt in a process of its own; return the path of the weights. Its log tells how far it is."""
    from sstl.engine import read_log

    with (run.parent / "errors").open("w+") as errors:
        command = [sys.executable, "-c", _ADAPT, str(photos), str(run), start, str(steps)]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as process:
            try:
                while process.poll() is None:
                    step = max((int(line.get("step", 0)) for line in read_log(run / "log.jsonl")), default=0)
                    way = f"step {step} of {steps}" if step < steps else "measuring"
                    if not (run / RAIN).exists():  # for some 20 seconds
                        way = "matching rain to them"
                    task.say(f"Adapting to your photos, {way}.", 0.9 * step / steps)
                    task.stop.wait(_TICK)
                output = process.communicate()[0]
            except Stopped:
                process.send_signal(signal.SIGTERM)  # it ends after the step that it is in
                try:
                    process.wait(20)
                except subprocess.TimeoutExpired:
                    process.kill()
                raise
        if process.returncode:
            errors.seek(0)
            last = (errors.read().strip().splitlines() or ["it ended early"])[-1]
            raise SstlError(f"the adaptation failed ({last.rpartition('Error: ')[2]}).")
    return output.strip().splitlines()[-1]


def _free(path: Path) -> Path:
    """Return the path, or another name if two photos have one name."""
    names = (path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(2, 1000))
    return path if not path.exists() else next(name for name in names if not name.exists())


def _zipped(folder: Path) -> Path:
    archive = folder.with_name("derained.zip")
    with zipfile.ZipFile(archive, "w") as file:  # photos are compressed already
        for path in sorted(folder.iterdir()):
            file.write(path, path.name)
    return archive


def _nameless(error: Exception, path: Path) -> str:
    """Say what was wrong with a file without the server's folders."""
    return str(error).replace(str(path), path.name)


def _refusals(refused: Sequence[str]) -> str:
    return " ".join(["Not used:", *refused]) if refused else ""
