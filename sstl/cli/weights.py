"""``sstl weights``: list and show weights, bring state dicts in and out, export for other runtimes, share on the hub."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sstl.cli.output import add_json, print_table, write_json
from sstl.errors import SstlError

EXAMPLES = """\
  sstl weights
  sstl weights show joint-small
  sstl weights import prenet_rain100h.pth --network prenet -o prenet.safetensors
  sstl weights import mine.pth --network joint size=tiny -o mine.safetensors
  sstl weights export joint-small -o joint-small.pth"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = ("list", "show", "import", "export")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="default: list")
    parser.add_argument(
        "name", metavar="NAME|PATH", nargs="?", help="shipped weights or a weights file; to import, a .pth, .pt or .npz"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="options of the network to import into")
    parser.add_argument("--network", metavar="NAME", help="the network to import into (see 'sstl networks')")
    parser.add_argument("-o", "--out", metavar="FILE", type=Path, help="the file to write")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE if it exists")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    _check(args)
    actions = {"list": _list, "show": _show, "import": _import, "export": _export}
    write_json(args.json, actions[args.action](args))
    return 0


def _check(args: argparse.Namespace) -> None:
    writes = args.action in ("import", "export")
    wrong = {
        f"'weights {args.action}' needs a NAME or PATH": args.action != "list" and not args.name,
        "'weights list' takes no name; did you mean 'weights show'?": args.action == "list" and args.name,
        f"'weights {args.action}' needs -o FILE": writes and not args.out,
        "'weights import' needs --network NAME": args.action == "import" and not args.network,
        "-o FILE belongs to 'weights import' and 'export'": args.out and not writes,
        "--network and key=value belong to 'weights import'": (args.network or args.overrides)
        and args.action != "import",
    }
    for message, holds in wrong.items():
        if holds:
            raise SstlError(f"{message} (see 'sstl weights --help').")
    if args.action == "import" and args.out.suffix != ".safetensors":
        raise SstlError(f"{args.out}: sstl's weights are safetensors; give a name that ends in .safetensors.")
    if writes and args.out.exists() and not args.overwrite:
        raise SstlError(f"{args.out} is there already; give --overwrite, or another name.")


def _import(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.config import with_overrides
    from sstl.networks import save_weights
    from sstl.networks.released import import_weights

    network = import_weights(args.name, args.network, with_overrides({}, args.overrides))
    path = save_weights(args.out, network, {"imported from": Path(args.name).name})
    print(f"wrote {path}: {_words({'network': network.name, **network.config})}")
    print(f"next: sstl derain PHOTOS -o OUT --weights {path}")
    return {"written": path, "network": network.name, "config": network.config}


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks import load_weights
    from sstl.networks.released import export_weights

    network = load_weights(args.name).network
    path = export_weights(args.out, network)
    print(f"wrote {path}: the plain state dict of {_words({'network': network.name, **network.config})}")
    return {"written": path, "network": network.name, "config": network.config}


def _list(_: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks.weights import DEFAULT, list_weights, read_info

    rows = [read_info(name) for name in list_weights()]
    cells = [
        (
            row["name"],
            row["network"],
            _words(row["config"]),
            f"{Path(row['path']).stat().st_size / 1e6:.2f}",
            "the default" if row["name"] == DEFAULT else "",
        )
        for row in rows
    ]
    print_table(("weights", "network", "", "MB", ""), cells, numbers=("MB",))
    print("next: sstl weights show NAME")
    return {"default": DEFAULT, "weights": rows}


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks.weights import read_info

    info = read_info(args.name)
    card = Path(info["path"]).with_suffix(".md")
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    print(f"{info['name']}: {info['path']}")
    print(f"network {info['network']} {_words(info['config'])}".rstrip())
    for key, value in info["info"].items():
        print(f"{key}: {value}")
    if text:
        print(f"\n{text.rstrip()}")
    return {**info, "card": text}


def _words(config: dict[str, Any]) -> str:
    return " ".join(f"{key}={value}" for key, value in config.items())
