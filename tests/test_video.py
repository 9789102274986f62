"""Videos: what is kept of a clip, less flicker at no loss, bounded memory, and no broken file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from conftest import Outcome
from skimage import data
from torch import Tensor

import sstl
from sstl.errors import InputError, SstlError
from sstl.networks import Network, create_network, save_weights
from sstl.networks.routed import Routed
from sstl.ops.motion import displacement, warp
from sstl.rain import Recipe, render
from sstl.restore import Restorer
from sstl.restore.clip import Clip
from sstl.restore.steady import Frame, steadied
from sstl.restore.video import restore_video
from sstl.types import Restoration

av = pytest.importorskip("av", reason="not run: no PyAV")

TICK = Fraction(1, 90000)
VARIABLE = [900, 4500, 6300, 13500, 14400, 21600, 27000, 28800, 36000, 45000]  # ticks
RAIN = Recipe(angle=(10, 14), length=(8, 16), density=(10, 14), brightness=(0.3, 0.5))


class Unchanged(Network):
    """Restores nothing, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Tensor] = []

    def forward(self, rainy: Tensor) -> Restoration:
        self.seen.append(rainy)
        return Restoration(rainy, torch.zeros_like(rainy))


def pan(count: int, height: int = 64, width: int = 96) -> Tensor:
    """A camera that moves by 1.5 pixels a frame over a photograph: (count, 3, height, width)."""
    photo = torch.from_numpy(data.astronaut()).movedim(-1, 0)[None].float() / 255
    photo = F.interpolate(photo, scale_factor=0.5, mode="area")
    flows = [torch.tensor([60 + 1.5 * i, 20 + 0.5 * i]).view(1, 2, 1, 1).expand(-1, -1, 256, 256) for i in range(count)]
    return torch.cat([warp(photo, flow, "bicubic")[..., :height, :width] for flow in flows]).clamp(0, 1)


def write_clip(
    path: Path,
    frames: Tensor,
    pts: list[int] | None = None,
    pix: str = "yuv420p",
    sound: str | None = "aac",
    **tags: Any,
) -> Path:
    """Write a clip of ten frames a second, or with the given times, with a tone."""
    pts = pts or [i * 9000 for i in range(len(frames))]
    codec = "libx265" if "10" in pix else "libx264"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "Rain on a Tuesday"
        quiet = {"x265-params": "log-level=error"} if codec == "libx265" else {}
        video = container.add_stream(codec, rate=10, options={"crf": "4", **quiet}, time_base=TICK)
        video.height, video.width, video.pix_fmt = *frames.shape[2:], pix
        video.set_display_rotation(tags.pop("rotation", 0))
        full = tags.get("color_range") == 2
        for name, value in tags.items():
            setattr(video.codec_context, name, value)
        if sound:
            tone = container.add_stream(sound, rate=48000, layout="mono")
            tone.metadata["language"] = "deu"
        for image, time_ in zip(frames, pts, strict=True):
            pixels = np.ascontiguousarray((image.movedim(0, -1).numpy() * 255).round().astype(np.uint8))
            frame = av.VideoFrame.from_ndarray(pixels, "rgb24").reformat(
                format=pix, dst_colorspace=tags.get("colorspace", 5), src_color_range=2, dst_color_range=1 + full
            )
            frame.pts, frame.time_base, frame.duration = time_, TICK, 4500
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if sound:
            wave = 8000 * np.sin(0.05 * np.arange(int(48000 * pts[-1] * TICK)))
            samples = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts = 48000, 0
            container.mux([*tone.encode(samples), *tone.encode(None)])
    return path


def facts(path: Path) -> dict[str, Any]:
    """All that says when and how a clip is shown, and its sound byte for byte."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frames = [*container.decode(video)]
        found = {
            "times": [frame.time for frame in frames],
            "last": float(frames[-1].duration * frames[-1].time_base),
            "colours": {(f.color_range, f.colorspace, f.color_primaries, f.color_trc) for f in frames},
            "format": frames[0].format.name,
            "rotation": frames[0].rotation,
            "aspect": video.sample_aspect_ratio,
            "rate": video.average_rate,
            "size": (frames[0].width, frames[0].height),
            "title": container.metadata.get("title"),
        }
    with av.open(str(path)) as container:
        for stream in container.streams.audio:
            packets = [packet for packet in container.demux(stream) if packet.dts is not None]
            found["sound"] = b"".join(bytes(packet) for packet in packets)
            found["sound times"] = [float(packet.pts * packet.time_base) for packet in packets]
            found["language"] = stream.metadata.get("language")
    return found


def shown(path: Path) -> Tensor:
    """The frames as a player shows them, (N, 3, H, W) in [0, 1]."""
    with Clip(path, 10**6) as clip:
        frames = [frame.pixels for frame in clip.frames()]
    return torch.from_numpy(np.stack(frames)).movedim(-1, 1).float() / np.iinfo(frames[0].dtype).max


def psnr(images: Tensor, truth: Tensor) -> float:
    return float(-10 * (images - truth).square().mean((1, 2, 3)).log10().mean())


def flicker(images: Tensor, truth: Tensor) -> float:
    """Temporal difference error: what changes from frame to frame that does not change in truth."""
    return float((images.diff(dim=0) - truth.diff(dim=0)).abs().mean())


@pytest.mark.parametrize(
    ("name", "tags"),
    [
        ("clip.mp4", {"pts": VARIABLE, "rotation": 90, "color_range": 2, "colorspace": 1, "color_primaries": 1}),
        ("clip.mov", {"color_range": 1, "colorspace": 6, "color_trc": 6, "sample_aspect_ratio": Fraction(4, 3)}),
        ("clip.mp4", {"pix": "yuv420p10le", "pts": VARIABLE, "color_range": 1, "colorspace": 9, "color_trc": 16}),
        ("clip.mkv", {"pts": [t // 90 * 90 for t in VARIABLE], "rotation": 180, "sound": "libopus"}),
        ("clip.mp4", {"pix": "yuv422p", "sound": None}),
    ],
)
def test_times_sound_rotation_rate_aspect_and_colours_are_kept(tmp_path, name, tags):
    source = write_clip(tmp_path / name, pan(10), **tags)
    outcome = restore_video(Restorer(Unchanged()), source, tmp_path / f"dry{source.suffix}")
    before, after = facts(source), facts(outcome.written[0])
    assert after.pop("times") == pytest.approx(before.pop("times"), abs=1e-9)
    assert after.pop("last") == pytest.approx(before.pop("last"), abs=1e-3)
    assert after.pop("sound times", []) == pytest.approx(before.pop("sound times", []), abs=2e-3)
    assert after == before
    result, original = shown(outcome.written[0]), shown(source)
    assert psnr(result, original) > 38  # compressed once more
    assert (result - original).mean((0, 2, 3)).abs().max() < 0.004  # and no colour has shifted


def test_the_network_sees_the_clip_upright(tmp_path):
    upright = pan(3)
    source = write_clip(tmp_path / "clip.mp4", torch.rot90(upright, -1, (2, 3)), rotation=90)
    network = Unchanged()
    restore_video(Restorer(network), source, tmp_path / "dry.mp4")
    assert psnr(network.seen[0], upright[:1]) > 30
    assert facts(tmp_path / "dry.mp4")["size"] == (64, 96)
    assert psnr(shown(tmp_path / "dry.mp4"), upright) > 30


def test_motion_of_parts_of_a_pixel_is_found():
    frames = pan(6, 96, 128).mean(1, keepdim=True)
    flow = displacement(frames[:1], frames[5:])[..., 16:-16, 16:-16]
    assert flow[:, 0].mean() == pytest.approx(-7.5, abs=0.3)
    assert flow[:, 1].mean() == pytest.approx(-2.5, abs=0.3)


@pytest.mark.parametrize("photo", ["astronaut", "chelsea", "coffee"])
def test_what_does_not_move_is_not_moved(photo):
    pixels = torch.from_numpy(getattr(data, photo)()[:160, :200])
    image = pixels.float().mean(-1)[None, None] / 255
    assert displacement(image, image).abs().max() < 0.01


@pytest.fixture(scope="module")
def rainy_pan() -> tuple[Tensor, Tensor, Tensor]:
    """A moving camera in rain: truth, rain, and what the shipped network makes of each frame."""
    clean = pan(10, 96, 128)
    rainy = render(clean, RAIN, 0, range(10)).rainy
    restorer = sstl.load("joint-small", device="cpu", precision="fp32")
    return clean, rainy, restorer.restore(rainy)


def steady(rainy: Tensor, restored: Tensor) -> Tensor:
    return torch.cat([*steadied(Frame(a[None], b[None]) for a, b in zip(rainy, restored, strict=True))])


def test_less_flicker_than_frame_by_frame_at_no_loss(rainy_pan):
    clean, rainy, restored = rainy_pan
    result = steady(rainy, restored)
    assert flicker(result, clean) < 0.8 * flicker(restored, clean)
    assert psnr(result, clean) > psnr(restored, clean) + 0.3


@pytest.mark.parametrize("clean", [pan(1, 96, 128).repeat(6, 1, 1, 1), pan(6, 96, 128)], ids=["still", "pan"])
def test_a_dry_clip_loses_nothing(clean):
    restored = sstl.load("joint-small", device="cpu", precision="fp32").restore(clean)
    assert psnr(steady(clean, restored), clean) > psnr(restored, clean) - 0.01


def test_a_cut_leaves_no_ghost(rainy_pan):
    _, rainy, restored = rainy_pan
    cut = [torch.cat([one[:2], one[:2].flip(3)]) for one in (rainy, restored)]
    result = steady(*cut)[1:3]
    alone = torch.cat([steady(*(one[:2] for one in cut))[1:], steady(*(one[2:] for one in cut))[:1]])
    other = torch.cat([restored[:1].flip(3), restored[1:2]])
    assert (result - alone).abs().mean() < 0.05 * (other - alone).abs().mean()


def test_where_nothing_was_removed_nothing_changes():
    frames = pan(4)
    assert torch.allclose(steady(frames, frames), frames, atol=1e-6)


def test_frames_are_not_collected(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", pan(30), sound=None)
    network, ahead = Unchanged(), []

    def count(done: int, _: int) -> None:
        ahead.append(len(network.seen) - done)

    restore_video(Restorer(network), source, tmp_path / "dry.mkv", on_frame=count)
    assert len(ahead) == 30
    assert max(ahead) == 1


def stop(done: int, total: int) -> None:
    assert total == 10
    if done == 3:
        raise KeyboardInterrupt


def test_an_interrupted_run_leaves_what_was_there(tmp_path):
    source, out = write_clip(tmp_path / "clip.mp4", pan(10)), tmp_path / "out"
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            restore_video(Restorer(Unchanged()), source, out / "dry.mp4", on_frame=stop)
        assert [path.read_text() for path in out.iterdir()] == [path.read_text() for path in out.glob("dry.mp4")]
        (out / "dry.mp4").write_text("the old one")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return save_weights(tmp_path / "w.safetensors", create_network("joint", size="tiny"))


def test_a_terminated_command_leaves_nothing(tmp_path, weights):
    source, out = write_clip(tmp_path / "clip.mp4", pan(4).repeat(100, 1, 1, 1), sound=None), tmp_path / "out"
    command = [sys.executable, "-m", "sstl", "derain", str(source), "-o", str(out), "--weights", str(weights)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        end = time.monotonic() + 120
        while not (out.is_dir() and [*out.iterdir()]) and process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
    assert [*out.iterdir()] == []


def test_a_damaged_clip_is_restored_as_far_as_it_goes(tmp_path):
    source = write_clip(tmp_path / "clip.mkv", pan(10), sound=None)
    whole = source.read_bytes()
    source.write_bytes(whole[: len(whole) * 2 // 3])
    restore_video(Restorer(Unchanged()), source, tmp_path / "dry.mkv")
    assert 1 < len(shown(tmp_path / "dry.mkv")) < 10


@pytest.mark.parametrize("content", [b"", b"not a video" * 100])
def test_what_is_no_video_is_an_error_that_names_it(tmp_path, content):
    (tmp_path / "clip.mp4").write_bytes(content)
    with pytest.raises(InputError, match=r"clip\.mp4: cannot be read as a video \(.*check that it plays"):
        restore_video(Restorer(Unchanged()), tmp_path / "clip.mp4", tmp_path / "dry.mp4")
    assert not (tmp_path / "dry.mp4").exists()


def test_a_file_that_cannot_hold_the_sound_is_refused(tmp_path):
    source = write_clip(tmp_path / "clip.mp4", pan(3))
    with pytest.raises(InputError, match=r"cannot hold its aac sound; give a name ending in \.mkv"):
        restore_video(Restorer(Unchanged()), source, tmp_path / "dry.webm")
    assert not (tmp_path / "dry.webm").exists()
    with pytest.raises(SstlError, match=r"cannot write '\.avi' videos; use \.mp4"):
        restore_video(Restorer(Unchanged()), source, tmp_path / "dry.avi")
    with pytest.raises(InputError, match="would replace it"):
        restore_video(Restorer(Unchanged()), source, source)
    with pytest.raises(InputError, match="64 pixels are more than 100; allow them by --max-pixels"):
        restore_video(Restorer(Unchanged()), source, tmp_path / "dry.mp4", max_pixels=100)


def test_a_source_that_is_gone_is_told_also_where_its_target_is_there(tmp_path):
    target = write_clip(tmp_path / "dry.mp4", pan(3))
    with pytest.raises(InputError, match=r"gone\.mp4: "):
        restore_video(Restorer(Unchanged()), tmp_path / "gone.mp4", target)


def test_a_clip_that_cannot_be_sought_in_is_sampled_in_passing(tmp_path):
    path = write_clip(tmp_path / "clip.ts", pan(12), sound=None)  # with one key frame, at its beginning
    with Clip(path, 10**6) as clip:
        every = [frame.pixels for frame in clip.frames()]
    for count in (1, 4):
        with Clip(path, 10**6) as clip:
            found = clip.samples(count)
        assert [next(i for i, one in enumerate(every) if np.array_equal(one, sample)) for sample in found] == [
            round(12 * i / count) for i in range(count)
        ]


def test_a_silent_clip_becomes_webm_and_odd_sizes_stay(tmp_path):
    frames = pan(3, 63, 95)
    source = write_clip(tmp_path / "clip.mkv", frames, pix="yuv444p", sound=None)
    restore_video(Restorer(Unchanged()), source, tmp_path / "dry.webm", steady_frames=False)
    assert psnr(shown(tmp_path / "dry.webm"), frames) > 35


def test_adapting_to_a_clip(tmp_path):
    clean = pan(4, 96, 128)
    source = write_clip(tmp_path / "clip.mp4", render(clean, RAIN, 0, range(4)).rainy, sound=None)
    restorer = Restorer(create_network("joint", size="tiny"))
    outcome = restore_video(restorer, source, tmp_path / "dry.mp4", adapt_steps=1)
    assert outcome.adapted is not None
    assert len(shown(tmp_path / "dry.mp4")) == 4


def test_the_command(run_cli: Callable[..., Outcome], tmp_path, weights, monkeypatch):
    source, out = write_clip(tmp_path / "clip.mp4", pan(3)), tmp_path / "out"
    photo = tmp_path / "photo.png"
    from PIL import Image

    Image.fromarray(data.astronaut()[:40, :40]).save(photo)
    command = ("derain", source, photo, "-o", out, "--weights", weights)
    done = run_cli(*command)
    assert done.code == 0, done.err
    assert "derained 2 of 2 files" in done.out
    assert {path.name for path in out.iterdir()} == {"clip.mp4", "photo.png"}
    assert "derained 0 of 2 files" in run_cli(*command).out
    assert "derained 2 of 2 files" in run_cli(*command, "--overwrite", "--each-frame").out
    assert run_cli("derain", source, "-o", tmp_path / "dry.mkv", "--weights", weights).code == 0
    for arguments, message in [
        ((source, "-o", out, "--layers", "mask"), "of a video only the background is written"),
        ((source, photo, "-o", tmp_path / "a.mp4"), "a folder is needed for these inputs"),
        ((source, source, "-o", tmp_path / "a.mp4"), "a folder is needed for these inputs"),
        ((photo, "-o", tmp_path / "a.mp4"), "there is no video to write"),
        ((source, photo, "-o", tmp_path / "a.jpg"), "a.jpg is a file, or an image's name; give a folder"),
        ((source, "-o", tmp_path / "a.avi"), "cannot write '.avi' videos"),
        ((source, "-o", photo), "photo.png is a file, or an image's name; give a folder"),
    ]:
        failed = run_cli("derain", *arguments, "--weights", weights)
        assert failed.code == 2
        assert message in failed.err
    (tmp_path / "broken.mp4").write_bytes(b"x")
    failed = run_cli("derain", tmp_path / "broken.mp4", source, "-o", tmp_path / "two", "--weights", weights)
    assert failed.code == 1
    assert "derained 1 of 2 files" in failed.out
    assert "broken.mp4: cannot be read as a video" in failed.err
    monkeypatch.setitem(sys.modules, "av", None)
    failed = run_cli("derain", source, "-o", tmp_path / "three", "--weights", weights)
    assert failed.code == 2
    assert "pip install av" in failed.err


def test_no_clip_replaces_another_and_none_is_forgotten(run_cli: Callable[..., Outcome], tmp_path, weights):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_clip(tmp_path / name / "clip.mp4", pan(2))
    clips = tmp_path / "a" / "clip.mp4", tmp_path / "b" / "clip.mp4"
    done = run_cli("derain", *clips, clips[0], "-o", tmp_path / "out", "--weights", weights)
    assert done.code == 1
    assert "derained 1 of 2 files" in done.out
    assert f"b/clip.mp4: its result {tmp_path}/out/clip.mp4 is that of {clips[0]} already; rename" in done.err
    before = clips[0].read_bytes()
    done = run_cli("derain", *clips, "-o", tmp_path / "a", "--overwrite", "--weights", weights)
    assert done.code == 1
    assert done.err.count("would replace an input") == 2
    assert clips[0].read_bytes() == before


def test_the_network_is_chosen_once_for_a_clip(tmp_path, monkeypatch):
    source = write_clip(tmp_path / "clip.mp4", pan(12, 64, 64), sound=None)
    looked = []
    monkeypatch.setattr(Routed, "recognised_in", lambda _, seen: looked.append(seen) or torch.tensor([False]))
    restorer = Restorer(create_network("routed", network="joint", options={"size": "tiny"}))
    restore_video(restorer, source, tmp_path / "dry.mp4")
    assert len(looked) == 8
    assert restorer.network.fixed is None


def test_samples_are_spread_over_the_clip(tmp_path):
    path = write_clip(tmp_path / "clip.mp4", torch.linspace(0, 1, 40).view(-1, 1, 1, 1).expand(-1, 3, 32, 32))
    with Clip(path, 10**6) as clip:
        means = [float(frame.mean()) / 255 for frame in clip.samples(4)]
    assert means == pytest.approx([0, 0.25, 0.5, 0.75], abs=0.05)


def test_what_is_lost_of_a_clip_is_told(tmp_path):
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        video = container.add_stream("ffv1", rate=10)
        video.height, video.width, video.pix_fmt = 32, 32, "rgba64le"
        frame = av.VideoFrame.from_ndarray(np.full((32, 32, 4), 3000, np.uint16), "rgba64le")
        container.mux([*video.encode(frame), *video.encode(None)])
    notes = restore_video(Restorer(Unchanged()), path, tmp_path / "dry.mkv").notes
    assert "its transparency is lost" in notes
    assert any(note.startswith("it is written with 12 bits per channel instead of 16") for note in notes)


def test_a_disk_that_fails_while_a_clip_is_read_is_an_error_of_the_clip(tmp_path):
    class Failing:
        streams = ()

        def demux(self, _):
            yield from ()
            raise av.FFmpegError(5, "Input/output error")

    with Clip(write_clip(tmp_path / "clip.mp4", pan(2)), 10**6) as clip:
        whole, clip.container = clip.container, Failing()
        with pytest.raises(InputError, match=r"clip\.mp4: cannot be read as a video \(Input/output error\)"):
            next(clip.frames())
        clip.container = whole
