"""``sstl derain``: remove rain from photos, folders of photos, and videos."""

from __future__ import annotations

import argparse
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sstl.cli.output import detail, hint, note, print_error, seed, whole, write_json
from sstl.errors import InputError, SstlError

if TYPE_CHECKING:
    from sstl.restore import Job, Outcome, Restorer
    from sstl.restore.adapted import Adapted

_LAYERS = ("background", "streak", "mask", "doubt")
EXAMPLES = """examples:
  sstl derain photo.jpg -o dry.jpg
  sstl derain holiday/ -o holiday-dry --layers background,mask
  sstl derain holiday/ -o holiday-dry --dry-run
  sstl derain holiday/ -o holiday-dry --weights runs/mine
  sstl derain clip.mp4 -o dry.mp4"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("inputs", metavar="INPUT", nargs="+", type=Path, help="photos, folders of photos, and videos")
    parser.add_argument(
        "-o",
        "--out",
        metavar="OUT",
        type=Path,
        required=True,
        help="folder to write into; for one photo or video also a file",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME|PATH",
        help="by name (see 'sstl weights'), a file, the folder of a run, or hub:ORG/NAME (default: joint-small)",
    )
    parser.add_argument(
        "--layers",
        metavar="LAYERS",
        type=_layers,
        default=("background",),
        help="what to write, with commas: background (the restored photo), streak, mask, doubt (where mirrored views "
        "disagree; takes four times as long) (default: background)",
    )
    parser.add_argument(
        "--tile",
        metavar="auto|N|0",
        type=_tile,
        default="auto",
        help="side in pixels of the tiles that large photos are cut into; 0: none (default: auto)",
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument(
        "--max-pixels", metavar="N", type=whole(1), default=None, help="refuse larger photos (default: 300 million)"
    )
    parser.add_argument(
        "--deveil",
        action="store_true",
        help="derain, remove the veil of distant rain (dark channel prior), derain again; darkens clear photos",
    )
    parser.add_argument(
        "--adapt-steps",
        metavar="N",
        type=whole(0),
        default=0,
        help="first adapt a copy of the weights to each photo in N steps (20 to 100); it is "
        "used only if a held-back part of the photo favours it (default: 0, no adaptation); of a video to some frames",
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of the adaptations (default: 0)")
    parser.add_argument(
        "--each-frame", action="store_true", help="restore each frame of a video on its own; else they are steadied"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace existing results; else they are kept")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write what became of each photo")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be written, with its place")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Restore the photos, then say what was written and what was not."""
    from tqdm import tqdm

    from sstl.data.images import MAX_PIXELS
    from sstl.networks.weights import DEFAULT
    from sstl.ops.processes import crew
    from sstl.ops.progress import hidden
    from sstl.restore import load, plan, restore_files

    processes = crew()
    videos, refused = _videos(args)
    photos = [path for path in args.inputs if not _is_video(path)]
    jobs, outcomes = plan(photos, args.out) if photos else ([], [])
    outcomes += refused
    args.max_pixels = MAX_PIXELS if args.max_pixels is None else args.max_pixels
    if args.dry_run:
        return _plan(args, jobs, videos, outcomes)
    # Results that could have one name are of one process, which sees it.
    mine = processes.share(jobs, lambda job: job.target.with_name(job.target.name.split(".")[0]))
    clips = processes.share(videos, lambda job: job.target)
    done: dict[int, Outcome] = {}
    if mine or clips:
        restorer = load(args.weights or DEFAULT, args.device, args.precision, args.tile, args.deveil)
        detail(f"weights {args.weights or DEFAULT} on {restorer.device} in {restorer.dtype}, tile {restorer.tile}")
        own = [jobs[i] for i in mine]
        results = restore_files(
            restorer, own, args.layers, args.overwrite, args.max_pixels, args.adapt_steps, args.seed
        )
        quiet = processes.rank > 0 or not own
        shown = tqdm(results, total=len(own), desc="derain", unit="photo", leave=False, **hidden(quiet))
        done = dict(zip(mine, shown, strict=True))
        restored = _restored_videos(args, restorer, [videos[i] for i in clips])
        done |= {len(jobs) + i: _light(outcome, restorer) for i, outcome in zip(clips, restored, strict=True)}
    outcomes += processes.gather(done)
    if processes.rank > 0:
        return 0
    _report(args, outcomes)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _light(outcome: Outcome, restorer: Restorer) -> Outcome:
    """Return the outcome without the network that was adapted to the photo."""
    return replace(outcome, adapted=outcome.adapted and replace(outcome.adapted, restorer=restorer))


def _plan(args: argparse.Namespace, photos: Sequence[Job], videos: Sequence[Job], failures: Sequence[Outcome]) -> int:
    """Print what would be done; only headers are read, so that a photo that cannot be decoded is not known yet."""
    from sstl.restore.folder import result_files

    errors = [failure.error for failure in failures]
    files = [(job.source, job.target) for job in videos]
    for job in photos:
        try:
            files += [(job.source, file) for file in result_files(job, args.layers, args.max_pixels).values()]
        except InputError as error:
            errors.append(str(error))
    planned = [{"input": source, "file": file, "kept": file.exists() and not args.overwrite} for source, file in files]
    for one in planned:
        print(f"{one['input']} -> {one['file']}{' (is there, would be kept)' if one['kept'] else ''}")
    print(f"{len(photos)} photos, {len(videos)} videos; nothing was restored")
    write_json(args.json, {"out": args.out, "planned": planned, "errors": errors}, seed=args.seed)
    for message in errors:
        print_error(message)
    return 1 if errors else 0


def _is_video(path: Path) -> bool:
    from sstl.restore.clip import VIDEO_SUFFIXES

    return path.suffix.lower() in VIDEO_SUFFIXES and not path.is_dir()


def _videos(args: argparse.Namespace) -> tuple[list[Job], list[Outcome]]:
    from sstl.restore.clip import import_av
    from sstl.restore.video import plan_videos

    videos = [path for path in args.inputs if _is_video(path)]
    if not videos:
        if _is_video(args.out):
            raise SstlError(f"{args.out} is a video's name, but there is no video to write; give a folder.")
        return [], []
    import_av()
    if args.layers != ("background",):
        raise SstlError("of a video only the background is written; leave --layers out.")
    if len(args.inputs) > len(videos) and _is_video(args.out):
        raise SstlError(f"{args.out} is a file's name, but a folder is needed for these inputs; give a folder.")
    return plan_videos(videos, args.out)


def _restored_videos(args: argparse.Namespace, restorer: Restorer, jobs: Sequence[Job]) -> Iterator[Outcome]:
    from tqdm import tqdm

    from sstl.ops.memory import out_of_memory
    from sstl.restore import Outcome
    from sstl.restore.video import restore_video

    def terminate(*_: object) -> None:
        raise SystemExit(143)  # an exception, so that the unfinished file is removed

    for job in jobs:
        if job.target.exists() and not args.overwrite:
            yield Outcome(job.source, kept=(job.target,))
            continue
        previous = signal.signal(signal.SIGTERM, terminate)
        try:
            with tqdm(desc=job.source.name, unit="frame", leave=False) as bar:
                yield restore_video(
                    restorer, job.source, job.target, not args.each_frame, args.max_pixels, args.adapt_steps, args.seed,
                    partial(_show, bar),
                )  # fmt: skip
        except InputError as error:
            yield Outcome(job.source, error=str(error))
        except (MemoryError, RuntimeError) as error:
            if not out_of_memory(error):
                raise
            yield Outcome(job.source, error=f"{job.source}: there is not enough memory; give a smaller --tile.")
        finally:
            signal.signal(signal.SIGTERM, previous)


def _show(bar: Any, done: int, total: int) -> None:
    bar.total = max(total, done) if total else None
    bar.update()


def _report(args: argparse.Namespace, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        detail(f"{outcome.source}: wrote {', '.join(map(str, outcome.written)) or 'nothing'}")
        for text in outcome.notes:
            note(f"{outcome.source}: {text}")
    done = [outcome for outcome in outcomes if outcome.written]
    there = [outcome for outcome in outcomes if not outcome.written and outcome.kept]
    failed = [outcome for outcome in outcomes if outcome.error]
    videos = any(_is_video(outcome.source) for outcome in outcomes)
    print(f"derained {len(done)} of {len(outcomes)} {'files' if videos else 'photos'}, written to {args.out}")
    adapted = [(outcome.source, outcome.adapted) for outcome in outcomes if outcome.adapted]
    for source, found in adapted:
        if found.reason:
            note(f"{source}: restored by the starting weights: {found.reason}")
    if args.adapt_steps:
        print(f"{sum(found.reason is None for _, found in adapted)} of them with weights adapted to it")
    if there:
        print(f"{len(there)} were there already and were kept; --overwrite replaces them")
    if done:
        hint("compare them with the originals; if rain is left, learn yours: sstl adapt PHOTOS -o RUN")
    write_json(
        args.json,
        {
            "out": args.out,
            "written": len(done),
            "kept": len(there),
            "failed": len(failed),
            "photos": [
                {
                    "input": outcome.source,
                    "written": outcome.written,
                    "kept": outcome.kept,
                    "notes": outcome.notes,
                    "error": outcome.error,
                    **({"adapted": _figures(outcome.adapted)} if outcome.adapted else {}),
                }
                for outcome in outcomes
            ],
        },
        seed=args.seed,
    )
    for outcome in failed:
        print_error(outcome.error)


def _figures(adapted: Adapted) -> dict[str, object]:
    return {"kept": adapted.reason is None, "before": adapted.before, "after": adapted.after, "reason": adapted.reason}


def _layers(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in _LAYERS]:
        raise argparse.ArgumentTypeError(f"'{unknown[0]}' is no layer; choose from {', '.join(_LAYERS)}")
    return names


def _tile(text: str) -> int | Literal["auto"]:
    return "auto" if text == "auto" else whole(0)(text)
