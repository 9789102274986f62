"""``sstl networks``: list the networks, or show what one costs and sees."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sstl.cli.output import add_json, defaults, hint, print_table, whole, words, write_json
from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.networks import Network
    from sstl.report.inspection import Inspection

EXAMPLES = """\
  sstl networks
  sstl networks list "j*"
  sstl networks show joint --json joint.json --plot joint.png
  sstl networks show joint size=tiny stages=2 --size 720 1280
  sstl networks show joint --weights joint-small"""

NOTES = """
multiply-adds, ms, MB: of restoring an image of {width} x {height} pixels in {precision} on the processor: the
  median time of {repeats} (fewer if slow), and by how much the process's memory rises
sees: the square that an output pixel can see
effective: the side of a square of as many pixels as matter to it, whose mean gradient is above 4.55 % of the largest
  beside the pixel itself
holes: pixels between those that it sees which no path reaches"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list", help="default: list")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the network to show, or a pattern of those to list")
    parser.add_argument(
        "overrides", metavar="key=value", nargs="*", help="arguments of the network to show (default: all its sizes)"
    )
    shown = parser.add_argument_group("only with show")
    shown.add_argument("--weights", metavar="NAME|PATH", help="show the network of these weights, with them")
    shown.add_argument(
        "--size", metavar=("H", "W"), nargs=2, type=whole(1), help="of the image to restore (default: 321 481)"
    )
    shown.add_argument("--plot", metavar="FILE", type=Path, help="draw the receptive fields and their holes, as PNG")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """List, or show one."""
    if args.action == "list":
        if args.overrides or args.weights or args.size or args.plot:
            raise SstlError("key=value, --weights, --size and --plot belong to 'sstl networks show NAME'.")
        figures = _list(args.name or "*")
    elif args.name:
        figures = _show(args)
    else:
        raise SstlError("'networks show' needs a NAME; 'sstl networks' lists them.")
    write_json(args.json, figures)
    return 0


def _list(pattern: str) -> dict[str, Any]:
    from sstl.networks import NETWORKS, create_network, list_networks
    from sstl.report.inspection import count_parameters

    rows: list[dict[str, Any]] = [
        {
            "name": name,
            "size": config.get("size"),
            "parameters": count_parameters(create_network(name, **config)),
            "summary": NETWORKS.summary(name),
        }
        for name in list_networks(pattern)
        for config in sizes(name)
    ]
    if not rows:
        raise SstlError(f"no network matches '{pattern}'; 'sstl networks' lists them.")
    header = ("network", "size", "parameters", "")
    cells = [(row["name"], row["size"] or "-", f"{row['parameters']:,}", row["summary"]) for row in rows]
    print_table(header, cells, numbers=("parameters",))
    hint("sstl networks show NAME")
    return {"networks": rows}


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from tqdm import tqdm

    from sstl.networks import NETWORKS
    from sstl.report.environment import environment
    from sstl.report.inspection import HEIGHT, REPEATS, WIDTH, inspect

    arguments, summary = defaults(NETWORKS[args.name]), NETWORKS.summary(args.name)
    networks = _networks(args)
    height, width = args.size or (HEIGHT, WIDTH)
    found = {
        name: inspect(network, height, width)
        for name, network in tqdm(networks.items(), desc="inspect", unit="network", leave=False)
    }
    print(f"{args.name}: {summary}\n")
    header = ("", "parameters", "multiply-adds", "sees", "effective", "holes", "ms", "MB")
    print_table(header, [(name, *_cells(inspection)) for name, inspection in found.items()], numbers=header[1:])
    first = next(iter(found.values()))
    print(NOTES.format(width=width, height=height, precision=first.precision, repeats=REPEATS))
    for name, inspection in found.items():
        if inspection.probe != inspection.receptive_field:
            print(f"{name}: holes were looked for in the {inspection.probe} x {inspection.probe} pixels in the middle")
    stride = next(iter(networks.values())).stride
    print(f"stride {stride}")
    print("arguments " + ", ".join(f"{key}={value!r}" for key, value in arguments.items()))
    if args.plot:
        _plot(args.plot, found)
    return {
        "name": args.name,
        "summary": summary,
        "stride": stride,
        "arguments": arguments,
        "weights": args.weights,
        "sizes": [
            {"size": network.config.get("size"), "config": network.config, **inspection.to_dict()}
            for network, inspection in zip(networks.values(), found.values(), strict=True)
        ],
        "environment": environment(device="cpu", precision=first.precision),
    }


def _cells(found: Inspection) -> tuple[str, ...]:
    return (
        f"{found.parameters:,}",
        f"{found.multiply_adds / 1e9:.1f} G",
        *_seen(found),
        f"{1000 * found.seconds:.0f}",
        "n/a" if found.peak_bytes is None else f"{found.peak_bytes / 1e6:.0f}",
    )


def _seen(found: Inspection) -> tuple[str, str, str]:
    """Return the theoretical size, the effective size and the holes."""
    side = found.receptive_field
    return (
        "unbounded" if side is None else f"{side} x {side}",
        f"{'at least ' if found.effective_is_bound else ''}{found.effective_field:.1f}",
        f"{found.holes:,} ({found.hole_share:.0%})",
    )


def _plot(path: Path, found: dict[str, Inspection]) -> None:
    from sstl.ops.files import write_atomic
    from sstl.report.plots import receptive_field_plot

    fields, supports, captions = {}, {}, {}
    for name, inspection in found.items():
        fields[name], supports[name] = inspection.gradients, inspection.support
        captions[name] = "{}, effective {}\nholes {}".format(*_seen(inspection))
    write_atomic(path, receptive_field_plot(fields, supports, captions))
    print(f"wrote {path}")


def _networks(args: argparse.Namespace) -> dict[str, Network]:
    """Return what is to be shown: the network of the weights, that of the key=value arguments, or each size."""
    import torch

    from sstl.config import with_overrides
    from sstl.networks import create_network, load_weights

    if args.weights:
        if args.overrides:
            raise SstlError("--weights already tell the network's arguments; leave out key=value.")
        weights = load_weights(args.weights)
        if weights.network.name != args.name:
            raise SstlError(f"{weights.path}: weights of network '{weights.network.name}', not of '{args.name}'.")
        return {weights.name: weights.network}
    torch.manual_seed(0)  # the same fresh weights each time
    configs = [with_overrides({}, args.overrides)] if args.overrides else sizes(args.name)
    return {words(config) or args.name: create_network(args.name, **config) for config in configs}


def sizes(name: str) -> list[dict[str, Any]]:
    """Return a configuration for each value of the network's argument ``size``; of one without it the default one."""
    from sstl.networks import NETWORKS

    return [{"size": size} for size in get_args(get_type_hints(NETWORKS[name]).get("size"))] or [{}]
