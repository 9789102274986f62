"""Entry point: parse the command's name, import only its file, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

import sstl
from sstl.errors import SstlError

# Name -> (module, help). A command's module has add_arguments(parser) and run(args) -> exit code.
COMMANDS = {
    "quickstart": "adapt a small network to a made-up rain in a few minutes, to a report you can open",
    "derain": "remove rain from photos and folders of photos",
    "train": "train a network from a YAML file",
    "adapt": "adapt weights to a folder of your own rainy photos, without ground truth",
    "evaluate": "score weights or restored images against clean images",
    "report": "rebuild the page of a run",
    "networks": "list the networks, or show one",
    "methods": "list the training methods",
    "weights": "list or show the weights that are shipped",
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 well, 1 some inputs failed, 2 wrong usage, 130/143 interrupted."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    command = next((a for a in arguments if a in COMMANDS), None)
    try:
        parser = build_parser(command)
        args, rest = parser.parse_known_args(arguments)
        # argparse takes key=value arguments only in one place; accept them behind an option too.
        overrides = getattr(args, "overrides", None)
        if rest and (overrides is None or any(a.startswith("-") or "=" not in a for a in rest)):
            raise SstlError(f"unrecognized arguments: {' '.join(rest)} (see 'sstl {args.command} --help')")
        if overrides is not None:
            overrides.extend(rest)
        if args.command is None:
            parser.print_help()
            print("\nStart with:  sstl quickstart    or    sstl derain PHOTO -o OUT")
            return 0
        return int(importlib.import_module(f"sstl.cli.{args.command}").run(args))
    except SstlError as error:
        if "--debug" in arguments:
            raise
        print(f"sstl: error: {' '.join(str(error).split())}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 0
    except OSError as error:
        if "--debug" in arguments:
            raise
        place = f"{error.filename}: " if error.filename else ""
        print(f"sstl: error: {place}{error.strerror or error}; check the path and the free space.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sstl: interrupted", file=sys.stderr)
        return 130
