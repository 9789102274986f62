"""Video files, through PyAV: frames with all that says how to show them, and everything else copied as it is."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from sstl.data.decoding import Array
from sstl.errors import InputError, SstlError
from sstl.ops.files import whole_file

_CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
VIDEO_SUFFIXES = frozenset([*_CONTAINERS, ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".3gp", ".wmv", ".flv"])
# Near to what the eye cannot tell from the frames: the clip is compressed for the second time here, which must not add
# artefacts as strong as the faint streaks that were removed.
_H264 = ("libx264", {"crf": "16", "preset": "medium"})
_H265 = ("libx265", {"crf": "17", "preset": "medium", "x265-params": "log-level=error"})  # players know its 10 bits
_VP9 = ("libvpx-vp9", {"crf": "20", "b:v": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1"})
_MATRICES = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9}  # AVColorSpace -> the converter's name of the matrix
_FULL = 2  # AVColorRange
_UNKNOWN = 2  # AVColorSpace


@dataclass(frozen=True)
class Frame:
    """A frame, upright.

    Attributes:
        pixels: (H, W, 3) RGB, uint8, or uint16 of a clip with more bits.
        pts, duration: when it is shown and for how long, in ticks of the clip.
    """

    pixels: Array
    pts: int
    duration: int


def import_av() -> ModuleType:
    """Import PyAV; SstlError with the remedy if it is not installed."""
    try:
        import av
    except ImportError:
        raise SstlError("videos need PyAV; install it by: pip install av") from None
    return av  # type: ignore[no-any-return]  # it has no stubs that mypy is to follow


class Clip:
    """A video file that is being read; a context manager.

    Args:
        path: the file.
        max_pixels: clips with larger frames are refused.

    Attributes:
        count: how many frames it holds, as far as its header tells, or 0.
        seconds: how long it is, as far as its header tells, or 0.
        notes: what cannot be kept of it, one phrase each.

    Raises:
        InputError: it cannot be read, or holds no frame.
    """

    def __init__(self, path: Path, max_pixels: int) -> None:
        self.path, self.max_pixels, self.damaged = path, max_pixels, 0
        self.notes: list[str] = []
        self.first: Any = None
        try:
            # The first frame tells how all are turned and coloured; the file is opened again to start at its beginning.
            with _opened(path) as container:
                self.first = next(self._decoded(container, _video(container, path)), None)
            self.container = _opened(path)
        except (import_av().FFmpegError, UnicodeDecodeError) as error:
            raise _unreadable(path, error) from None
        if self.first is None:
            raise InputError(f"{path}: holds no frame that can be read; check that it plays.")
        self.damaged = 0
        self.stream = _video(self.container, path)
        self.size = (self.first.width, self.first.height)
        if self.first.width * self.first.height > max_pixels:
            raise InputError(
                f"{path}: {self.first.width} x {self.first.height} pixels are more than {max_pixels}; "
                "allow them by --max-pixels."
            )
        self.seconds = _seconds(self.container, self.stream)
        self.count = self.stream.frames or int(self.seconds * float(self.stream.guessed_rate or 0))
        self.bits = max(component.bits for component in self.first.format.components)
        self.quarter_turns = round(self.first.rotation / 90)
        self.matrix = _MATRICES.get(self.first.colorspace, 1 if min(self.size) >= 720 else 5)
        if self.first.interlaced_frame:
            self.notes.append("it is interlaced and was restored as if it were not")
        if any(component.is_alpha for component in self.first.format.components):
            self.notes.append("its transparency is lost")
        if any(side.type.name == "MASTERING_DISPLAY_METADATA" for side in self.first.side_data):
            self.notes.append("its HDR10 mastering data are lost")

    def __enter__(self) -> Clip:
        return self

    def __exit__(self, *_: object) -> None:
        self.container.close()

    def frames(self, others: dict[int, Callable[[Any], None]] | None = None) -> Iterator[Frame]:
        """Yield the frames in order of time, one decoded at a time.

        Args:
            others: index of another stream -> what to do with its packets, as they come.

        Raises:
            InputError: the size of the frames changes.
        """
        last: int | None = None
        step = _ticks_of_a_frame(self.stream)
        for frame in self._decoded(self.container, self.stream, others or {}):
            if (frame.width, frame.height) != self.size:
                raise InputError(f"{self.path}: the size of its frames changes; cut it there and derain the parts.")
            pts = frame.pts if frame.pts is not None else 0 if last is None else last + step
            last = pts if last is None else max(pts, last + 1)  # a broken clock may stand still
            yield Frame(self._upright(frame), last, frame.duration or 0)
        if self.damaged:
            self.notes.append(f"{self.damaged} damaged packets were left out")

    def samples(self, count: int) -> list[Array]:
        """Return up to ``count`` frames, upright, spread over the clip; a clip without a clock gives its first ones."""
        if not self.stream.duration:
            return [frame.pixels for frame in itertools.islice(self.frames(), count)]
        found = []
        starts = [(self.stream.start_time or 0) + self.stream.duration * number // count for number in range(count)]
        for start in starts:
            self.container.seek(start, stream=self.stream)
            frame = None
            for frame in self._decoded(self.container, self.stream):
                if frame.pts is None or frame.pts >= start:  # seeking leads to the key frame before
                    break
            if frame is not None:
                found.append(self._upright(frame))
        return found if len(found) == count else self._in_passing(starts)

    def _in_passing(self, starts: list[int]) -> list[Array]:
        """Return the first frame from each of these times on, where seeking fails: the clip is decoded to the last."""
        found: list[Array] = []
        with Clip(self.path, self.max_pixels) as again:
            for frame in again.frames():
                if frame.pts >= starts[len(found)]:
                    found.append(frame.pixels)
                if len(found) == len(starts):
                    break
        return found

    def _decoded(
        self, container: Any, video: Any, others: dict[int, Callable[[Any], None]] | None = None
    ) -> Iterator[Any]:
        """Yield PyAV's frames; what is damaged is left out and counted."""
        others = others or {}
        broken = import_av().InvalidDataError
        packets = container.demux([stream for stream in container.streams if stream is video or stream.index in others])
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                return
            except broken:  # the file ends within a packet
                self.damaged += 1
                return
            except import_av().FFmpegError as error:
                raise _unreadable(self.path, error) from None
            if packet.stream_index != video.index:
                if packet.dts is not None:
                    others[packet.stream_index](packet)
                continue
            try:
                frames = packet.decode()
            except broken:
                self.damaged += 1
                continue
            except import_av().FFmpegError as error:
                raise _unreadable(self.path, error) from None
            yield from frames

    def _upright(self, frame: Any) -> Array:
        form = "rgb48le" if self.bits > 8 else "rgb24"
        pixels = _converted(
            frame, form, src_colorspace=self.matrix, src_color_range=frame.color_range, dst_color_range=2
        )
        return np.ascontiguousarray(np.rot90(pixels.to_ndarray(), self.quarter_turns))


class Copy:
    """A video file that is being written, with the frames of a clip and all else that the clip holds."""

    def __init__(self, container: Any, clip: Clip, target: Path) -> None:
        self.container, self.clip, self.target = container, clip, target
        suffix = target.suffix.lower()
        container.metadata.update(clip.container.metadata)
        container.set_chapters(clip.container.chapters())
        name, options = _VP9 if suffix == ".webm" else _H264 if clip.bits == 8 else _H265
        source, first = clip.stream, clip.first
        stream = container.add_stream(name, rate=source.guessed_rate, options=options, time_base=source.time_base)
        stream.width, stream.height = clip.size
        stream.pix_fmt = self.form = _pixel_format(first.format.name, clip, stream.codec_context.codec)
        stream.metadata.update({key: value for key, value in source.metadata.items() if key != "encoder"})
        context = stream.codec_context
        if source.sample_aspect_ratio:
            context.sample_aspect_ratio = source.sample_aspect_ratio
        self.range = _FULL if first.format.name.startswith("yuvj") else first.color_range
        context.color_range = self.range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc
        context.colorspace = first.colorspace if first.format.name.startswith("yuv") else _UNKNOWN
        if name == "libx265" and suffix != ".mkv":
            context.codec_tag = "hvc1"  # without, Apple's players show nothing
        for side in first.side_data:
            if side.type.name == "DISPLAYMATRIX":
                stream.set_display_matrix(np.frombuffer(bytes(side), np.int32))
        self.stream = stream
        self.durations: dict[int, int] = {}
        self.others = {other.index: copied for other in clip.container.streams if (copied := self._copied(other))}

    def write(self, frame: Frame) -> None:
        """Write a restored frame."""
        pixels = np.ascontiguousarray(np.rot90(frame.pixels, -self.clip.quarter_turns))
        form = "rgb48le" if pixels.dtype == np.uint16 else "rgb24"
        made = import_av().VideoFrame.from_ndarray(pixels, form)
        made = _converted(
            made, self.form, dst_colorspace=self.clip.matrix, src_color_range=_FULL, dst_color_range=self.range or 1
        )
        made.pts, made.duration, made.time_base = frame.pts, frame.duration, self.clip.stream.time_base
        made.color_range, made.colorspace = self.range, self.stream.codec_context.colorspace
        self._encode(made)

    def finish(self) -> None:
        """Write what the encoder still holds, and the file's end."""
        self._encode(None)
        with _writing(self.target):
            self.container.close()

    def _encode(self, frame: Any) -> None:
        if frame is not None:
            self.durations[frame.pts] = frame.duration
        with _writing(self.target):
            for packet in self.stream.encode(frame):
                packet.duration = self.durations.pop(packet.pts, 0)  # the encoder does not tell that of the last frame
                self.container.mux_one(packet)

    def _copied(self, stream: Any) -> Callable[[Any], None] | None:
        """Prepare a stream of sound or subtitles to be copied packet by packet."""
        if stream is self.clip.stream:
            return None
        try:
            if stream.type not in ("audio", "subtitle"):
                raise ValueError
            made = self.container.add_stream_from_template(stream)
        except ValueError:
            if stream.type == "audio":
                raise InputError(
                    f"{self.clip.path}: a {self.container.format.name} file cannot hold its {stream.name} sound; "
                    "give a name ending in .mkv."
                ) from None
            self.clip.notes.append(f"a stream of {stream.type} is lost")
            return None
        made.metadata.update(stream.metadata)

        def copy(packet: Any) -> None:
            packet.stream = made
            with _writing(self.target):
                self.container.mux_one(packet)

        return copy


@contextmanager
def copy_of(clip: Clip, target: Path) -> Iterator[Copy]:
    """Open the file that gets the restored frames of a clip; it is there whole afterwards, or not at all.

    Raises:
        InputError: this kind of file cannot hold what the clip holds.
    """
    av = import_av()
    form = container_to_write(target)
    options = {"movflags": "+faststart"} if form in ("mp4", "mov") else {}
    with whole_file(target) as temporary, av.open(str(temporary), "w", format=form, options=options) as container:
        with _writing(target):
            copy = Copy(container, clip, target)
        yield copy
        copy.finish()


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn FFmpeg's errors into one that names the file that is written."""
    try:
        yield
    except import_av().FFmpegError as error:
        raise InputError(
            f"{target}: cannot be written ({error.strerror or error}); try a name ending in .mkv."
        ) from None


def container_to_write(path: Path) -> str:
    """Return FFmpeg's name of the container that a suffix asks for; SstlError if it is none that is written here."""
    if path.suffix.lower() not in _CONTAINERS:
        raise SstlError(f"{path}: cannot write '{path.suffix}' videos; use {', '.join(_CONTAINERS)}.")
    return _CONTAINERS[path.suffix.lower()]


def video_suffix(path: Path) -> str:
    """Return the suffix to write a clip with: its own if that is written here, else .mkv, which holds any sound."""
    return path.suffix if path.suffix.lower() in _CONTAINERS else ".mkv"


def _opened(path: Path) -> Any:
    return import_av().open(str(path.absolute()), metadata_errors="replace")


def _video(container: Any, path: Path) -> Any:
    stream = container.streams.best("video")
    if stream is None:
        raise InputError(f"{path}: holds no video; give a clip.")
    stream.thread_type = "AUTO"
    return stream


def _unreadable(path: Path, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{path}: cannot be read as a video ({reason}); check that it plays.")


def _seconds(container: Any, stream: Any) -> float:
    return float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / 1_000_000


def _ticks_of_a_frame(stream: Any) -> int:
    return max(1, round(1 / (stream.guessed_rate * stream.time_base))) if stream.guessed_rate else 1


def _converted(frame: Any, form: str, **colours: int) -> Any:
    from av.video.reformatter import Interpolation

    exact = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT
    return frame.reformat(format=form, interpolation=exact, **colours)


def _pixel_format(source: str, clip: Clip, encoder: Any) -> str:
    """Return the encoder's format that keeps bits and resolution of colour, as near as it has one."""
    even = all(side % 2 == 0 for side in clip.size)
    kind = next((kind for kind in ("444", "422") if kind in source), None)
    if source.startswith(("rgb", "bgr", "gbr")) or not even:
        kind = "444"
    depth = "" if clip.bits == 8 else "10le" if clip.bits <= 10 else "12le"
    form = f"yuv{kind or '420'}p"
    known = {known.name for known in encoder.video_formats}
    if form + depth in known:
        if clip.bits > 12:
            clip.notes.append(f"it is written with 12 bits per channel instead of {clip.bits}")
        return form + depth
    clip.notes.append("it is written with 8 bits per channel; a name ending in .mkv keeps more")
    return form
