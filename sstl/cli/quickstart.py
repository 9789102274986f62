"""``sstl quickstart``: the main job in miniature, on data made from bundled photographs."""

from __future__ import annotations

import argparse
from pathlib import Path

from sstl.cli.output import hint, seed

EXAMPLES = """examples:
  sstl quickstart
  sstl quickstart -o quickstart-1 --seed 1 --json quickstart-1.json
  sstl quickstart -o control --method supervised"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "-o", "--output", metavar="DIR", type=Path, default=Path("quickstart"), help="default: ./quickstart"
    )
    parser.add_argument("--method", default="default", help="'supervised' is the control (default: %(default)s)")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything random (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart in DIR")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures there")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Run it, then print the true gain, what was judged without truth, where the page is and what to do next."""
    from sstl.cli.output import write_json
    from sstl.report.findings import judged
    from sstl.report.quickstart import quickstart

    print(
        "A tiny network that knows thin upright rain meets slanted heavy rain, and adapts to it without ground truth."
    )
    result = quickstart(args.output, args.method, seed=args.seed, overwrite=args.overwrite)
    truth = result.figures["truth_psnr"]
    print(
        f"PSNR on disjoint test images of that rain: input {truth['input']:.2f} dB, before {truth['before']:.2f} dB, "
        f"after {truth['after']:.2f} dB ({truth['after'] - truth['before']:+.2f} dB)"
    )
    print(judged(result.outcome))
    print(f"report   {result.report}")
    hint("open the report in a browser; then your own photos:  sstl adapt MY_PHOTOS -o RUN")
    write_json(args.json, {"figures": result.figures, "seed": args.seed}, seed=args.seed)
    return 0
