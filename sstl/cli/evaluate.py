"""``sstl evaluate``: score weights, or images restored elsewhere, against clean images."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.data import ImageSource, PairSource
    from sstl.metrics import Protocol
    from sstl.report.evaluation import Evaluation, Failure


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    images = parser.add_argument_group("images: two folders, or a manifest")
    images.add_argument("--rainy", metavar="DIR", type=Path, help="rainy images, paired with --clean by name")
    images.add_argument("--restored", metavar="DIR", type=Path, help="images restored elsewhere, instead of --rainy")
    images.add_argument("--clean", metavar="DIR", type=Path, help="the clean images")
    images.add_argument("--data", metavar="MANIFEST", help="a .csv manifest, a folder, .parquet file or hub:ORG/NAME")
    images.add_argument("--split", metavar="NAME", help="the split of --data, for example dev")
    images.add_argument("--set", metavar="NAME", help="one set of the manifest, for example rain100l")
    images.add_argument("--limit", metavar="N", type=_from(1), help="take only the first N images")
    made = parser.add_argument_group("instead of given pairs, from the clean images alone (--clean or --data)")
    made.add_argument("--rendered", metavar="RECIPE", help="score on pairs with rendered rain: light, heavy, ...")
    made.add_argument("--count", metavar="N", type=_from(1), help="how many to render (default: one per clean image)")
    made.add_argument("--seed", metavar="N", type=_from(0), help="of the rendered rain (default: 0)")
    made.add_argument(
        "--do-no-harm",
        action="store_true",
        help="restore the clean images and score the output against them: RGB, each PSNR counts at most 60 dB",
    )
    parser.add_argument(
        "--weights", metavar="NAME|PATH", nargs="+", help="weights to score (default: those of sstl derain)"
    )
    parser.add_argument(
        "--protocol",
        choices=("rgb", "y-matlab"),
        help="rgb: PSNR over RGB; y-matlab (default): on MATLAB's 8-bit luma, as the published tables",
    )
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto", help="default: auto")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every figure, the per-image ones too")
    parser.epilog = "example: sstl evaluate --rainy test/rain --clean test/norain --json scores.json"


def run(args: argparse.Namespace) -> int:
    """Evaluate, print the table, and list what failed."""
    _check(args)
    evaluation = _evaluate(args)
    what = ", ".join(key if value is True else f"{key} {value}" for key, value in _data(args).items())
    print(f"protocol {evaluation.protocol}; mean over {len(evaluation.rows)} images ({what})")
    if evaluation.rows:
        print(evaluation.table())
    if args.json:
        _write(args, evaluation)
        print(f"wrote {args.json}")
    else:
        print("next: add --json FILE to keep these figures, with those of each image")
    for failure in evaluation.failures:
        print(f"sstl: error: {failure.key}: {' '.join(failure.error.split())}", file=sys.stderr)
    return 1 if evaluation.failures else 0


def _check(args: argparse.Namespace) -> None:
    from_clean = args.rendered or args.do_no_harm
    folders = args.rainy or args.restored
    wrong = {
        "give --data MANIFEST, or --clean DIR with --rainy DIR or --restored DIR": not (args.data or args.clean),
        "--data already names the images; leave out --rainy, --restored and --clean": args.data
        and (folders or args.clean),
        "--rainy and --restored exclude each other": args.rainy and args.restored,
        "--rendered and --do-no-harm exclude each other": args.rendered and args.do_no_harm,
        "--rendered and --do-no-harm take clean images only; leave out --rainy and --restored": from_clean and folders,
        "--clean needs --rainy or --restored beside it": args.clean and not (folders or from_clean),
        "--split and --set choose from --data": (args.split or args.set) and not args.data,
        "--count and --seed need --rendered": (args.count or args.seed is not None) and not args.rendered,
        "--restored images need no --weights": args.restored and args.weights,
        "--do-no-harm is defined for --protocol rgb": args.do_no_harm and args.protocol == "y-matlab",
    }
    for message, holds in wrong.items():
        if holds:
            raise SstlError(f"{message} (see 'sstl evaluate --help').")


def _evaluate(args: argparse.Namespace) -> Evaluation:
    from sstl.report import evaluation as report

    shared: dict[str, Any] = {"limit": args.limit, "progress": True}
    networks: dict[str, Any] = {"weights": _weights(args), "precision": args.precision, "device": args.device}
    protocol: Protocol = args.protocol or "y-matlab"
    if args.do_no_harm:
        return report.evaluate_harm(_clean(args), **networks, **shared)
    if args.rendered:
        pairs = report.RenderedPairs(_clean(args), args.rendered, args.count, args.seed or 0)
        return report.evaluate(pairs, protocol=protocol, **networks, **shared)
    given, unpaired = _pairs(args)
    if args.restored:
        done = report.evaluate_restored(given, protocol, **shared)
    else:
        done = report.evaluate(given, protocol=protocol, **networks, **shared)
    done.failures.extend(unpaired)
    return done


def _weights(args: argparse.Namespace) -> list[str]:
    from sstl.networks.weights import DEFAULT

    return [] if args.restored else args.weights or [DEFAULT]


def _clean(args: argparse.Namespace) -> ImageSource:
    from sstl.data import SourceConfig, open_images

    return open_images(SourceConfig(args.data or str(args.clean), args.split, args.set), "clean", Path())


def _pairs(args: argparse.Namespace) -> tuple[PairSource, list[Failure]]:
    from sstl.data import SourceConfig, open_pairs, pair_folders
    from sstl.data.files import FilePairs
    from sstl.report.evaluation import Failure

    if args.data:
        return open_pairs(SourceConfig(args.data, args.split, args.set), Path()), []
    pairs, unpaired = pair_folders(args.rainy or args.restored, args.clean)
    return FilePairs(pairs), [Failure(str(path), "has no partner; pairs are found by name.") for path in unpaired]


def _data(args: argparse.Namespace) -> dict[str, str | int]:
    names = ("rainy", "restored", "clean", "data", "split", "set", "rendered", "count", "seed", "do_no_harm", "limit")
    given = {name.replace("_", "-"): getattr(args, name) for name in names}
    return {
        name: value if isinstance(value, int) else str(value)
        for name, value in given.items()
        if value is not None and value is not False
    }


def _write(args: argparse.Namespace, evaluation: Evaluation) -> None:
    from sstl.networks.weights import read_info
    from sstl.ops.files import write_atomic

    tree = {
        "data": _data(args),
        **evaluation.to_dict(),
        "weights": {name: read_info(name) for name in _weights(args)},
    }
    write_atomic(args.json, json.dumps(tree, indent=1, allow_nan=False) + "\n")


def _from(lowest: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number from {lowest} up")
        return int(text)

    return parse
