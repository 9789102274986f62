"""``sstl networks``: list the networks, or show what one costs and takes."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from sstl.cli.output import add_json, defaults, print_table, write_json
from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.networks import Network

WIDTH, HEIGHT = 481, 321  # of the photographs of BSDS500, on which deraining is timed

EXAMPLES = """\
  sstl networks
  sstl networks list "j*"
  sstl networks show joint --json joint.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list", help="default: list")
    parser.add_argument("name", metavar="NAME", nargs="?", help="the network to show, or a pattern of those to list")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """List, or show one."""
    if args.action == "list":
        figures = _list(args.name or "*")
    elif args.name:
        figures = _show(args.name)
    else:
        raise SstlError("'networks show' needs a NAME; 'sstl networks' lists them.")
    write_json(args.json, figures)
    return 0


def _list(pattern: str) -> dict[str, Any]:
    from sstl.networks import NETWORKS, list_networks

    rows: list[dict[str, Any]] = [
        {"name": name, "size": size, "parameters": _count(_build(name, size)), "summary": NETWORKS.summary(name)}
        for name in list_networks(pattern)
        for size in _sizes(name)
    ]
    if not rows:
        raise SstlError(f"no network matches '{pattern}'; 'sstl networks' lists them.")
    header = ("network", "size", "parameters", "")
    cells = [(row["name"], row["size"] or "-", f"{row['parameters']:,}", row["summary"]) for row in rows]
    print_table(header, cells, numbers=("parameters",))
    print("next: sstl networks show NAME")
    return {"networks": rows}


def _show(name: str) -> dict[str, Any]:
    from sstl.networks import NETWORKS

    arguments, sizes = defaults(NETWORKS[name]), _sizes(name)
    networks = [_build(name, size) for size in sizes]
    figures: list[dict[str, Any]] = [
        {
            "size": size,
            "parameters": _count(network),
            "multiply_adds": _multiply_adds(network),
            "receptive_radius": network.receptive_radius,
        }
        for size, network in zip(sizes, networks, strict=True)
    ]
    print(f"{name}: {NETWORKS.summary(name)}\n")
    header = ("size", "parameters", f"multiply-adds at {WIDTH}x{HEIGHT}", "sees, in pixels to each side")
    cells = [
        (
            row["size"] or "-",
            f"{row['parameters']:,}",
            f"{row['multiply_adds'] / 1e9:.1f} G",
            "unbounded" if row["receptive_radius"] is None else row["receptive_radius"],
        )
        for row in figures
    ]
    print_table(header, cells, numbers=header[1:])
    print(f"\nstride {networks[0].stride}")
    print("arguments " + ", ".join(f"{key}={value!r}" for key, value in arguments.items()))
    return {
        "name": name,
        "summary": NETWORKS.summary(name),
        "stride": networks[0].stride,
        "arguments": arguments,
        "image": {"width": WIDTH, "height": HEIGHT},
        "sizes": figures,
    }


def _sizes(name: str) -> tuple[str | None, ...]:
    """Return the values of the network's argument ``size``, or (None,) if it has no such argument."""
    from sstl.networks import NETWORKS

    return get_args(get_type_hints(NETWORKS[name]).get("size")) or (None,)


def _build(name: str, size: str | None) -> Network:
    from sstl.networks import create_network

    return create_network(name, **({} if size is None else {"size": size})).eval()


def _count(network: Network) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _multiply_adds(network: Network) -> int:
    """Return the multiply-adds of the convolutions and matrix products for one image."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    # On the "meta" device only shapes are computed.
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network.to("meta")(torch.empty(1, 3, HEIGHT, WIDTH, device="meta"))
    return int(counter.get_total_flops()) // 2
