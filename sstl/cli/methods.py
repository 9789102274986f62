"""``sstl methods``: list the training methods with their options."""

from __future__ import annotations

import argparse
import textwrap
from typing import Any

from sstl.cli.output import add_json, defaults, hint, write_json

EXAMPLES = """\
  sstl methods
  sstl methods --json methods.json"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """List them."""
    from sstl.methods import METHODS

    rows: list[dict[str, Any]] = [
        {"name": name, "summary": METHODS.summary(name), "options": defaults(METHODS[name])} for name in METHODS.names()
    ]
    for row in rows:
        print(f"{row['name']}: {row['summary']}")
        options = ", ".join(f"{key}={value!r}" for key, value in row["options"].items())
        print(textwrap.fill(options, 100, initial_indent="    ", subsequent_indent="    "))
    write_json(args.json, {"methods": rows})
    hint("put method: {name: NAME, options: {...}} into a training's YAML file, or sstl adapt --method NAME")
    return 0
