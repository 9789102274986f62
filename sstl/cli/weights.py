"""``sstl weights``: list the shipped weights, or show what a weights file is."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sstl.cli.output import add_json, print_table, write_json
from sstl.errors import SstlError

EXAMPLES = """\
  sstl weights
  sstl weights show joint-small
  sstl weights show runs/mine/weights.safetensors --json mine.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", nargs="?", choices=("list", "show"), default="list", help="default: list")
    parser.add_argument("name", metavar="NAME|PATH", nargs="?", help="shipped weights by name, or a file, to show")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """List, or show one."""
    if (args.action == "show") != (args.name is not None):
        raise SstlError("give 'weights show NAME|PATH', or 'weights list' alone (see 'sstl weights --help').")
    write_json(args.json, _list() if args.action == "list" else _show(args.name))
    return 0


def _list() -> dict[str, Any]:
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


def _show(name: str) -> dict[str, Any]:
    from sstl.networks.weights import read_info

    info = read_info(name)
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
