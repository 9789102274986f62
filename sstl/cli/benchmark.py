"""``sstl benchmark``: how fast networks restore and learn on this machine, all in one run."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from sstl.cli.networks import sizes
from sstl.cli.output import add_json, hint, print_table, whole, write_json

if TYPE_CHECKING:
    from sstl.report.benchmark import Contestant, Timing

EXAMPLES = """\
  sstl benchmark
  sstl benchmark joint prenet --size 321 481 --size 1080 1920 --json speed.json
  sstl benchmark joint --as-released prenet jorder_e --repeats 10
  sstl benchmark joint --train"""

NOTES = """
ms: median of one restoration, batch 1; the networks take turns
faster: than the slowest for the same image
of the machine: the operations done in a second, as a share of those of a product of two matrices of 2048 x 2048 in
  the same arithmetic, measured in this run: {rates}
MB: by how much the memory of the process rises"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("names", metavar="NAME", nargs="*", help="networks, in all their sizes (default: joint)")
    parser.add_argument(
        "--as-released",
        metavar="NAME",
        nargs="+",
        default=[],
        help="networks to run as the code of their paper does: float32, contiguous, without tiles",
    )
    parser.add_argument(
        "--size", metavar=("H", "W"), nargs=2, type=whole(1), action="append", help="of an image (default: 321 481)"
    )
    parser.add_argument("--repeats", metavar="N", type=whole(1), default=30, help="restorations of each (default: 30)")
    parser.add_argument("--train", action="store_true", help="also time training steps, data included")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Time, and print a table."""
    from tqdm import tqdm

    from sstl.report.benchmark import benchmark, matrix_rate, training_pace
    from sstl.report.inspection import HEIGHT, WIDTH

    chosen = _contestants(args.names or ([] if args.as_released else ["joint"]), args.as_released)
    rates = {dtype: matrix_rate(dtype) for dtype in dict.fromkeys(one.dtype for one in chosen)}
    images = [(height, width) for height, width in args.size or [(HEIGHT, WIDTH)]]
    with tqdm(total=len(chosen) * len(images), desc="benchmark", leave=False) as bar:
        timings = benchmark(chosen, images, args.repeats, rates, bar.update)
    header = ("network", "image", "parameters", "GFLOP", "arithmetic", "ms", "faster", "of the machine", "MB")
    print_table(header, _rows(timings), numbers=header[2:])
    told = {str(dtype).removeprefix("torch."): rate / 1e9 for dtype, rate in rates.items()}
    print(NOTES.format(rates=", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in told.items())))
    tree: dict[str, Any] = {"gflops_of_matrix_products": told, "restoring": [vars(one) for one in timings]}
    if args.train:
        learners = [one for one in chosen if not one.as_released]
        paces = {one.name: training_pace(one.network) for one in tqdm(learners, desc="train", leave=False)}
        print()
        titles = ("network", "crops a second", "of the machine", "waits for data")
        rows = [(n, f"{p.crops_per_second:.0f}", f"{p.share:.0%}", f"{p.waiting:.1%}") for n, p in paces.items()]
        print_table(titles, rows, numbers=titles[1:])
        tree["training"] = {name: vars(pace) for name, pace in paces.items()}
    write_json(args.json, tree)
    hint("sstl networks show NAME  for what a network sees")
    return 0


def _contestants(names: list[str], released: list[str]) -> list[Contestant]:
    from sstl.networks import create_network
    from sstl.report.benchmark import Contestant

    ours = [
        Contestant(" ".join((name, *config.values())), create_network(name, **config))
        for name in names
        for config in sizes(name)
    ]
    return ours + [Contestant(f"{name} as released", create_network(name), as_released=True) for name in released]


def _rows(timings: list[Timing]) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = []
    for one in timings:
        slowest = max(o.seconds for o in timings if (o.height, o.width) == (one.height, one.width))
        memory = "n/a" if one.peak_bytes is None else f"{one.peak_bytes / 1e6:.0f}"
        of_image = (f"{one.parameters:,}", f"{one.gflop:.1f}", one.precision, f"{1000 * one.seconds:.1f}")
        speed = (f"{slowest / one.seconds:.1f} x", f"{one.share:.0%}", memory)
        rows.append((one.name, f"{one.height} x {one.width}", *of_image, *speed))
    return rows
