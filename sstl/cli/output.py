"""What the commands share: what is said and how, numbers as arguments, a factory's arguments, the --json file."""

from __future__ import annotations

import argparse
import inspect
import json
import math
import os
import sys
import webbrowser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path
from typing import Any, TextIO

from sstl.ops.files import write_atomic


class Verbosity(IntEnum):
    """How much is said: with -q, without anything, and with -v."""

    QUIET, NORMAL, VERBOSE = range(3)


_COLOURS = {"red": "1;31", "yellow": "33", "cyan": "36", "bold": "1", "dim": "2"}
_verbosity = Verbosity.NORMAL


@contextmanager
def speaking(verbosity: Verbosity) -> Iterator[None]:
    """Say as much as ``verbosity`` while a command runs; QUIET switches progress bars off, too."""
    global _verbosity
    before, _verbosity = _verbosity, verbosity
    bars = os.environ.get("TQDM_DISABLE")
    if verbosity is Verbosity.QUIET:
        os.environ["TQDM_DISABLE"] = "1"  # read by tqdm when a command first imports it, and by worker processes
    try:
        yield
    finally:
        _verbosity = before
        if verbosity is Verbosity.QUIET and bars is None:
            del os.environ["TQDM_DISABLE"]


def paint(text: str, colour: str, stream: TextIO) -> str:
    """Return the text in a colour if the stream is a terminal that may show it (see no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or not stream.isatty()
    return text if plain else f"\033[{_COLOURS[colour]}m{text}\033[0m"


def hint(text: str) -> None:
    """Say on stdout what to do next, unless -q."""
    if _verbosity > Verbosity.QUIET:
        print(paint("next:", "cyan", sys.stdout), text)


def note(text: str) -> None:
    """Say on stdout what the reader should know of a result, unless -q."""
    if _verbosity > Verbosity.QUIET:
        print(f"{paint('note:', 'yellow', sys.stdout)} {flat(text)}")


def detail(text: str) -> None:
    """Say on stderr how something is done, with -v."""
    if _verbosity is Verbosity.VERBOSE:
        print(paint(f"sstl: {text}", "dim", sys.stderr), file=sys.stderr)


def print_error(message: object) -> None:
    """Print a message as one line on stderr."""
    print(paint("sstl: error:", "red", sys.stderr), flat(message), file=sys.stderr)


def print_warning(message: object) -> None:
    """Print a warning as one line on stderr."""
    print(paint("sstl: warning:", "yellow", sys.stderr), flat(message), file=sys.stderr)


def open_in_browser(address: str) -> bool:
    """Open an address where there is a screen; without one Python would start a browser in this terminal."""
    screen = sys.platform != "linux" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    return bool(screen) and webbrowser.open(address)


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
    for number, line in enumerate(lines):
        text = "  ".join(side(cell, width) for side, cell, width in zip(align, line, widths, strict=True)).rstrip()
        print(text if number else paint(text, "bold", sys.stdout))


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


def words(config: dict[str, Any]) -> str:
    """Return a configuration as one would type it."""
    return " ".join(f"{key}={value}" for key, value in config.items())


def whole(lowest: int, highest: float = math.inf) -> Callable[[str], int]:
    """Return what reads an argument that is a whole number from ``lowest`` to ``highest``, both included."""
    bounds = f"from {lowest} up" if highest == math.inf else f"from {lowest} to {highest}"

    def parse(text: str) -> int:
        if not text.isdecimal() or not lowest <= int(text) <= highest:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number {bounds}")
        return int(text)

    return parse


def positive(text: str) -> float:
    """Read an argument that is a number above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"'{text}' is not a number above 0")
    return value


seed = whole(0, 2**32 - 1)
"""Reads the seed of everything random."""
