"""Entry point: parse the command's name, import only its file, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import traceback
import warnings
from collections.abc import Sequence

import sstl
from sstl.errors import SstlError, did_you_mean

# Name -> (module, help). A command's module has add_arguments(parser) and run(args) -> exit code.
COMMANDS = {
    "quickstart": "adapt a small network to a made-up rain in a few minutes, to a report you can open",
    "derain": "remove rain from photos and folders of photos",
    "match": "find the rain of photos as a recipe",
    "synthesize": "make a data set of synthetic pairs by raining on clean images",
    "train": "train a network from a YAML file",
    "adapt": "adapt weights to a folder of your own rainy photos, without ground truth",
    "evaluate": "score weights or restored images against clean images",
    "data": "list the known data sets, look at one, find leaks between two, or download one",
    "compare": "draw runs side by side, or vote blindly between two restorations",
    "report": "write the page of an adaptation again",
    "demo": "serve a web page that derains photos and short clips, and adapts to them",
    "networks": "list the networks, or show one",
    "methods": "list the training methods",
    "weights": "list or show the weights that are shipped",
    "env": "print the versions and the machine",
}


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        raise SstlError(f"{message} (see '{self.prog} --help')")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the arguments of ``command`` are added, so that no other file is imported."""
    parser = _Parser(prog="sstl", description="Remove rain from photos, and adapt to the rain of yours.")
    parser.add_argument("--version", action="version", version=f"sstl {sstl.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        sub.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if name == command:
            importlib.import_module(f"sstl.cli.{name}").add_arguments(sub)
    return parser


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the parsed arguments; SstlError for wrong usage, with the nearest command for an unknown one."""
    command = next((a for a in arguments if not a.startswith("-")), None)
    if command is not None and command not in COMMANDS:
        raise SstlError(f"unknown command '{command}'.{did_you_mean(command, COMMANDS)}")
    args, rest = build_parser(command).parse_known_args(arguments)
    # argparse takes key=value arguments only in one place; accept them behind an option too.
    overrides = getattr(args, "overrides", None)
    if rest and (overrides is None or any(a.startswith("-") or "=" not in a for a in rest)):
        raise SstlError(f"unrecognized arguments: {' '.join(rest)} (see 'sstl {args.command or ''} --help')")
    if overrides is not None:
        overrides.extend(rest)
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 well, 1 some inputs failed, 2 wrong usage, 130/143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    shown: set[str] = set()

    def show_once(message: Warning | str, *_: object, **__: object) -> None:
        if str(message) not in shown:
            shown.add(str(message))
            print(f"sstl: warning: {_flat(message)}", file=sys.stderr)

    warnings.showwarning = show_once
    try:
        args = parse(arguments)
        if args.command is None:
            build_parser().print_help()
            print("\nStart with:  sstl quickstart    or    sstl derain PHOTO -o OUT")
            code = 0
        else:
            code = int(importlib.import_module(f"sstl.cli.{args.command}").run(args))
        sys.stdout.flush()  # a closed pipe shows here, not as a message at the interpreter's exit
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (SstlError, OSError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print(f"sstl: error: {_one_line(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, SstlError) else 2
    except KeyboardInterrupt:
        print("sstl: interrupted", file=sys.stderr)
        return 130


def _one_line(error: SstlError | OSError) -> str:
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; check the path and the free space."
    return _flat(error)


def _flat(message: object) -> str:
    return " ".join(str(message).split())
