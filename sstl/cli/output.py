"""What the listing commands share: aligned tables, the arguments of a factory, and the --json file."""

from __future__ import annotations

import argparse
import inspect
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sstl.ops.files import write_atomic


def add_json(parser: argparse.ArgumentParser, examples: str) -> None:
    """Add ``--json FILE``, and the examples at the end of the help, one a line."""
    parser.add_argument("--json", metavar="FILE", type=Path, help="also write what is printed as JSON")
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"examples:\n{examples}"


def print_table(header: Sequence[str], rows: Sequence[Sequence[object]], numbers: Sequence[str] = ()) -> None:
    """Print rows under a header, in columns; those named in ``numbers`` are aligned on the right."""
    lines = [list(map(str, row)) for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    align = [str.rjust if title in numbers else str.ljust for title in header]
    for line in lines:
        print("  ".join(side(cell, width) for side, cell, width in zip(align, line, widths, strict=True)).rstrip())


def flat(message: object) -> str:
    """Return a message in one line that any terminal can show, whatever is in the file names it tells."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(str(message).split()))


def write_json(path: Path | None, figures: dict[str, Any], **known: str | int | None) -> None:
    """Write the figures if ``--json`` asked for them, with their ``environment`` unless they hold it; and say so.

    Args:
        path: of ``--json``.
        figures: what the command found.
        **known: what the command knows of the environment, for example ``seed``.
    """
    if path is not None:
        from sstl.report.environment import environment

        tree = figures if "environment" in figures else {**figures, "environment": environment(**known)}
        write_tree(path, tree)


def write_tree(path: Path | None, tree: dict[str, Any]) -> None:
    """Write a JSON file as it is, if there is to be one, and say so."""
    if path is not None:
        write_atomic(path, json.dumps(tree, indent=1, allow_nan=False, default=str) + "\n")
        print(f"wrote {path}")


def defaults(factory: Callable[..., Any]) -> dict[str, Any]:
    """Return a factory's optional arguments with their defaults.

    A class that passes ``**options`` on to its base shows those of the base too.
    """
    makers = [factory]
    if inspect.isclass(factory):
        makers = [vars(owner)["__init__"] for owner in inspect.getmro(factory) if "__init__" in vars(owner)]
    found: dict[str, Any] = {}
    for maker in makers:
        parameters = inspect.signature(maker).parameters.values()
        for parameter in parameters:
            if parameter.default is not parameter.empty:
                found.setdefault(parameter.name, parameter.default)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            break
    return found
