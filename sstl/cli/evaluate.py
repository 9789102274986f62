"""``sstl evaluate``: score weights, or images restored elsewhere, against clean images."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstl.cli.output import hint, print_error, seed, whole
from sstl.errors import ConfigError, SstlError

if TYPE_CHECKING:
    from sstl.data import ImageSource, Source, SourceConfig
    from sstl.ops.processes import Crew
    from sstl.report.evaluation import Evaluation, Failure, Remember
    from sstl.report.evaluation_page import EvaluatedSet
    from sstl.report.published import PublishedFigure
    from sstl.restore import Restorer

EXAMPLES = """examples:
  sstl evaluate --rainy test/rain --clean test/norain --json scores.json
  sstl evaluate --restored derained --clean test/norain --protocol rgb
  sstl evaluate --data manifest.csv --split dev --set rain100l --weights joint-small runs/mine -o scores
  sstl evaluate --rainy my-photos --no-reference -o scores-of-mine"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    images = parser.add_argument_group("images: two folders, or a manifest")
    images.add_argument("--rainy", metavar="DIR", type=Path, help="rainy images, paired with --clean by name")
    images.add_argument("--restored", metavar="DIR", type=Path, help="images restored elsewhere, instead of --rainy")
    images.add_argument("--clean", metavar="DIR", type=Path, help="the clean images")
    images.add_argument("--data", metavar="MANIFEST", help="a .csv manifest, a folder, .parquet file or hub:ORG/NAME")
    images.add_argument("--split", metavar="NAME", help="the split of --data, for example dev")
    images.add_argument("--set", metavar="NAME", nargs="+", help="sets of the manifest, for example rain100l rain100h")
    images.add_argument("--limit", metavar="N", type=whole(1), help="take only the first N images")
    made = parser.add_argument_group("instead of given pairs, from the clean images alone (--clean or --data)")
    made.add_argument("--rendered", metavar="RECIPE", help="score on pairs with rendered rain: light, heavy, ...")
    made.add_argument("--count", metavar="N", type=whole(1), help="how many to render (default: one per clean image)")
    made.add_argument("--seed", metavar="N", type=seed, help="of the rendered rain (default: 0)")
    made.add_argument(
        "--do-no-harm",
        action="store_true",
        help="restore the clean images and score the output against them: RGB, each PSNR counts at most 60 dB",
    )
    parser.add_argument(
        "--weights", metavar="NAME|PATH", nargs="+", help="weights to score, as in sstl derain (default: joint-small)"
    )
    parser.add_argument(
        "--protocol",
        choices=("rgb", "y-matlab"),
        help="rgb: PSNR over RGB; y-matlab (default): on MATLAB's 8-bit luma, as the published tables",
    )
    parser.add_argument(
        "--no-reference",
        action="store_true",
        help="add NIQE and measures of the removed layer; with --rainy and no --clean, only these",
    )
    parser.add_argument(
        "--published",
        metavar="SET",
        nargs="?",
        const="",
        help="show published figures of the set beside these, if they are of one protocol",
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure, the per-image ones too")
    parser.add_argument(
        "-o",
        "--output",
        metavar="DIR",
        type=Path,
        help="write report.html, table.md, images.csv and scores.json; what was measured there before is not repeated",
    )
    parser.add_argument("--overwrite", action="store_true", help="measure everything in -o DIR again")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Evaluate each set, print its table, write what was asked for, and list what failed."""
    from sstl.ops.processes import crew
    from sstl.report.evaluation import load_restorers
    from sstl.report.evaluation_page import EvaluatedSet

    _check(args)
    names = args.set or [None]
    opened = [_open(args, name) for name in names]
    published = [_published(args, name) for name in names]
    restorers = load_restorers(_weights(args), args.precision, args.device)
    sets = []
    processes = crew()
    with _remembering(args, restorers, processes) as remember:
        for name, (source, evaluate, unpaired), figures in zip(names, opened, published, strict=True):
            shared: dict[str, Any] = {
                "limit": args.limit, "progress": True, "remember": remember, "processes": processes
            }  # fmt: skip
            evaluation = evaluate(source, **shared) if args.restored else evaluate(source, restorers, **shared)
            evaluation.failures.extend(unpaired)
            sets.append(EvaluatedSet(_label(args, name), source, evaluation, figures))
            if processes.rank == 0:
                _print(args, name, sets[-1])
    if processes.rank > 0:
        return 0
    _write(args, sets, restorers)
    failures = [failure for one in sets for failure in one.evaluation.failures]
    for failure in failures:
        print_error(f"{failure.key}: {failure.error}")
    return 1 if failures else 0


def _check(args: argparse.Namespace) -> None:
    from_clean = args.rendered or args.do_no_harm
    folders = args.rainy or args.restored
    wrong = {
        "give --data MANIFEST, --clean DIR with --rainy or --restored DIR, or --rainy DIR with --no-reference": not (
            args.data or args.clean or (args.rainy and args.no_reference)
        ),
        "--data already names the images; leave out --rainy, --restored and --clean": args.data
        and (folders or args.clean),
        "--rainy and --restored exclude each other": args.rainy and args.restored,
        "--rendered and --do-no-harm exclude each other": args.rendered and args.do_no_harm,
        "--rendered and --do-no-harm take clean images only; leave out --rainy and --restored": from_clean and folders,
        "--clean needs --rainy or --restored beside it": args.clean and not (folders or from_clean),
        "--split and --set choose from --data": (args.split or args.set) and not args.data,
        "--set names a set twice": len(set(args.set or ())) < len(args.set or ()),
        "--count and --seed need --rendered": (args.count or args.seed is not None) and not args.rendered,
        "--restored images need no --weights": args.restored and args.weights,
        "--do-no-harm is defined for --protocol rgb": args.do_no_harm and args.protocol == "y-matlab",
        "--do-no-harm compares with the input; leave out --no-reference": args.do_no_harm and args.no_reference,
        "--published needs the name of a set, there or by --set": args.published == "" and not args.set,
        "--published SET goes with one set; leave the name out": args.published and len(args.set or ()) > 1,
        "--published figures are of rainy images; leave out --rendered and --do-no-harm": args.published is not None
        and from_clean,
        "--overwrite is of -o DIR": args.overwrite and not args.output,
    }
    for message, holds in wrong.items():
        if holds:
            raise SstlError(f"{message} (see 'sstl evaluate --help').")


def _open(args: argparse.Namespace, name: str | None) -> tuple[Source[Any], Callable[..., Evaluation], list[Failure]]:
    """Return the images of a set, the function that evaluates them, and the files that have no partner."""
    from sstl.data import SourceConfig, open_images, open_pairs, pair_folders
    from sstl.data.files import FilePairs
    from sstl.data.sources import typed
    from sstl.report import evaluation as report

    scoring = {"protocol": args.protocol or "y-matlab", "no_reference": args.no_reference}
    config = typed(SourceConfig(args.data or str(args.clean or args.rainy), args.split, name))
    if args.do_no_harm:
        return _clean(config), report.evaluate_harm, []
    if args.rendered:
        pairs = report.RenderedPairs(_clean(config), args.rendered, args.count, args.seed or 0)
        return pairs, partial(report.evaluate, **scoring), []
    if args.data:
        try:
            return open_pairs(config, Path()), partial(report.evaluate, **scoring), []
        except ConfigError:
            if not args.no_reference:
                raise
    if not args.clean:
        return open_images(config, "rainy", Path()), report.evaluate_unpaired, []
    folder = args.rainy or args.restored
    paired, unpaired = pair_folders(folder, args.clean)
    if not paired and not unpaired:
        raise ConfigError(f"{folder} and {args.clean} hold no image; give folders of images.")
    failures = [report.Failure(str(path), "has no partner; pairs are found by name.") for path in unpaired]
    function = report.evaluate_restored if args.restored else report.evaluate
    return FilePairs(paired), partial(function, **scoring), failures


def _clean(config: SourceConfig) -> ImageSource:
    from sstl.data import open_images

    return open_images(config, "clean", Path())


def _published(args: argparse.Namespace, name: str | None) -> list[PublishedFigure]:
    from sstl.report.published import published

    if args.published is None:
        return []
    return published(args.published or str(name), None if _unpaired(args) else args.protocol or "y-matlab")


def _unpaired(args: argparse.Namespace) -> bool:
    return not (args.data or args.clean)


def _weights(args: argparse.Namespace) -> list[str]:
    from sstl.networks.weights import DEFAULT

    return [] if args.restored else args.weights or [DEFAULT]


def _label(args: argparse.Namespace, name: str | None) -> str:
    of = name or Path(args.data or args.rainy or args.restored or args.clean).resolve().stem
    return of + (f", rendered {args.rendered}" if args.rendered else "") + (", no rain" if args.do_no_harm else "")


@contextlib.contextmanager
def _remembering(args: argparse.Namespace, restorers: Mapping[str, Restorer], processes: Crew) -> Iterator[Remember]:
    """Give what looks up and keeps the measured values in the output folder, if there is one."""
    import sstl
    from sstl.networks.weights import read_info
    from sstl.report.evaluation import INPUT, RESTORED, measure_anew
    from sstl.report.ledger import Ledger, file_hash

    if not args.output:
        yield measure_anew
        return
    protocol = "rgb, no rain" if args.do_no_harm else "none" if _unpaired(args) else args.protocol or "y-matlab"
    measured = {"protocol": protocol, "no_reference": args.no_reference, "sstl": sstl.__version__}
    conditions = {
        name: {**measured, "weights": file_hash(Path(read_info(name)["path"])), "arithmetic": f"{r.device} {r.dtype}"}
        for name, r in restorers.items()
    }
    first = processes.rank == 0
    if not first:
        processes.wait()
    with contextlib.closing(Ledger(args.output, protocol, args.overwrite and first, first)) as ledger:
        if first:
            processes.wait()
        yield ledger.remember({INPUT: measured, RESTORED: measured, **conditions})


def _print(args: argparse.Namespace, name: str | None, one: EvaluatedSet) -> None:
    from sstl.report.evaluation_table import aligned
    from sstl.report.published import NOTE, beside

    evaluation = one.evaluation
    what = ", ".join(key if value is True else f"{key} {value}" for key, value in _data(args, name).items())
    protocol = f"protocol {evaluation.protocol}" if evaluation.protocol else "no clean images"
    print(f"{protocol}; mean over {len(evaluation.rows)} images ({what})")
    if evaluation.rows:
        print(evaluation.table())
    if one.published:
        print(f"{aligned(beside(one.published, evaluation.results))}\n{NOTE}")


def _data(args: argparse.Namespace, name: str | None) -> dict[str, str | int]:
    names = ("rainy", "restored", "clean", "data", "split", "set", "rendered", "count", "seed", "do_no_harm", "limit")
    given = {key.replace("_", "-"): name if key == "set" else getattr(args, key) for key in names}
    return {
        key: value if isinstance(value, int) else str(value)
        for key, value in given.items()
        if value is not None and value is not False
    }


def _write(args: argparse.Namespace, sets: list[EvaluatedSet], restorers: Mapping[str, Restorer]) -> None:
    from sstl.networks.weights import read_info
    from sstl.ops.files import write_atomic
    from sstl.report.evaluation_files import write_files

    about = {
        "data": _data(args, args.set[0] if args.set and len(sets) == 1 else None),
        "weights": {name: read_info(name) for name in restorers},
    }
    if args.json:
        trees = {one.name: one.evaluation.to_dict() for one in sets}
        figures = trees[sets[0].name] if len(sets) == 1 else {"sets": trees}
        tree = {"data": about["data"], **figures, "weights": about["weights"]}
        write_atomic(args.json, json.dumps(tree, indent=1, allow_nan=False) + "\n")
        print(f"wrote {args.json}")
    if args.output:
        print(f"wrote {', '.join(str(path) for path in write_files(args.output, sets, restorers, about))}")
    if not (args.json or args.output):
        hint("add -o DIR for a page with pictures, or --json FILE, to keep these figures and those of each image")
