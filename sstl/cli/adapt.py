"""``sstl adapt``: fine-tune weights on your own rainy photos, without ground truth."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sstl.cli.output import positive, seed, whole

EXAMPLES = """examples:
  sstl adapt my-rainy-photos -o runs/mine
  sstl adapt my-rainy-photos -o runs/mine --minutes 10 --clean my-dry-photos
  sstl adapt my-rainy-photos -o runs/sirr --method sirr --options density=oriented per_photo=true"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", type=Path, help="folder of rainy photos")
    parser.add_argument("-o", "--output", metavar="RUN", type=Path, required=True, help="folder of the run")
    parser.add_argument(
        "--weights", metavar="NAME|PATH", help="where to start, as in sstl derain (default: joint-small)"
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--steps", metavar="N", type=whole(1), default=300, help="optimiser steps (default: %(default)s)"
    )
    length.add_argument("--minutes", metavar="M", type=positive, help="train for about so many minutes instead")
    parser.add_argument("--method", default="default", help="see 'sstl methods' (default: %(default)s)")
    parser.add_argument(
        "--options", metavar="KEY=VALUE", nargs="+", default=(), help="options of the method, for example tv=1.0e-3"
    )
    parser.add_argument(
        "--clean", metavar="DIR", default="bundled", help="clean photographs to rain on (default: scikit-image's)"
    )
    parser.add_argument(
        "--held-out",
        metavar="DIR",
        default="bundled",
        help="clean photographs to judge on, none of --clean (default: others of scikit-image's)",
    )
    parser.add_argument(
        "--recipe",
        metavar="NAME|FILE",
        default="streaks",
        help="the rain that is rehearsed on both: what the weights know (default: %(default)s)",
    )
    parser.add_argument(
        "--known",
        metavar="NAME|FILE",
        nargs="*",
        help="more rain that the weights know and must not lose (default: seven recipes for shipped ones, else none)",
    )
    parser.add_argument(
        "--learning-rate",
        metavar="RATE",
        type=positive,
        default=5e-5,
        help="of AdamW; larger goes further and forgets more (default: %(default)s)",
    )
    parser.add_argument(
        "--matched",
        metavar="SHARE",
        type=float,
        help="share of the clean photographs that wear rain matched to the photos (default: 0.1; where routed, what "
        "the start does not see of their rain; 0 for supervised); 0 also takes it out of the exam",
    )
    parser.add_argument(
        "--routed",
        action=argparse.BooleanOptionalAction,
        help="keep the start for images that do not look like PHOTOS, and learn these without holding back; needs "
        "--clean with 20 photographs or more (default: where these are there and a quarter of PHOTOS can be told from "
        "them, for the method 'default' and weights of your own; from the shipped ones it takes texture along)",
    )
    parser.add_argument(
        "--no-gate",
        action="store_true",
        help="write the last weights, judged or not; else the best judged ones, or the start if none is better",
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything random (default: 0)")
    parser.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace the run in RUN")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Adapt, then print the figures, what was written and what to do next."""
    from sstl.cli.output import hint, print_error, write_json
    from sstl.config import with_overrides
    from sstl.networks.weights import DEFAULT
    from sstl.report.adaptation import adapt
    from sstl.report.findings import verdict

    result = adapt(
        args.photos,
        args.output,
        args.weights or DEFAULT,
        args.method,
        args.steps,
        args.minutes,
        gate=not args.no_gate,
        clean=args.clean,
        held_out=args.held_out,
        recipe=args.recipe,
        known=args.known,
        learning_rate=args.learning_rate,
        matched=args.matched,
        routed=args.routed,
        options=with_overrides({}, args.options),
        seed=args.seed,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    print(verdict(result.figures, result.outcome))
    print(f"weights  {result.weights}")
    print(f"report   {result.report}")
    if result.outcome.accepted is False and args.clean == "bundled":
        hint(
            "a few bundled photographs are little to lay rain over; give --clean a folder of your own clear ones,"
            " 20 or more"
        )
    command = shlex.join(["sstl", "derain", str(args.photos), "-o", "OUT", "--weights", str(result.weights)])
    hint(f"open the report, then  {command}")
    write_json(args.json, {"outcome": vars(result.outcome), "figures": result.figures}, seed=args.seed)
    for path, reason in result.failures.items():
        print_error(reason if str(path) in reason else f"{path}: {reason}")
    return 1 if result.failures else 0
