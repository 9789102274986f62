"""Entry point: parse the command's name, import only its file, turn errors into one line and an exit code."""

from __future__ import annotations

import argparse
import importlib
import io
import os
import shlex
import sys
import time
import traceback
import warnings
from collections.abc import Sequence
from typing import Any, NoReturn

import sstl
from sstl.cli.output import Verbosity, detail, flat, print_error, print_warning, speaking
from sstl.errors import SstlError, did_you_mean, nearest

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
    "report": "open the page of a run, written again if the run has gone on",
    "demo": "serve a web page that derains photos and short clips, and adapts to them",
    "networks": "list the networks, or show one",
    "methods": "list the training methods",
    "benchmark": "time how fast networks restore and learn on this machine",
    "weights": "list, show, import, export and share weights",
    "env": "print the versions and the machine",
    "completion": "print what completes commands and options in your shell",
}

FIRST = """\
what to do first:
  sstl quickstart                see it work, in a few minutes
  sstl derain PHOTO -o OUT       remove the rain from a photo, or a folder of photos
  sstl adapt PHOTOS -o RUN       learn the rain of your own photos
  sstl COMMAND --help            the options of a command, with examples"""


class _Parser(argparse.ArgumentParser):
    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise argparse.ArgumentError(action, f"'{value}' is unknown.{did_you_mean(str(value), action.choices)}")

    def error(self, message: str) -> NoReturn:
        raise SstlError(f"{message} (see '{self.prog} --help')")


ALL = "*"


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """Return the parser; only the arguments of ``command`` (or ``ALL``) are added, and no other file is imported."""
    parser = _Parser(
        prog="sstl",
        description="Remove rain from photos, and adapt to the rain of yours.",
        epilog=FIRST,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"sstl {sstl.__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, text in COMMANDS.items():
        sub = subparsers.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", allow_abbrev=False)
        how = sub.add_argument_group("how much is said")
        loud = how.add_mutually_exclusive_group()
        say: dict[str, Any] = {"dest": "verbosity", "action": "store_const", "default": Verbosity.NORMAL}
        loud.add_argument("-q", "--quiet", const=Verbosity.QUIET, help="results and errors only, no progress", **say)
        loud.add_argument("-v", "--verbose", const=Verbosity.VERBOSE, help="how it is done, on stderr", **say)
        how.add_argument("--debug", action="store_true", help="show the traceback of an error")
        if command in (name, ALL):
            importlib.import_module(f"sstl.cli.{name}").add_arguments(sub)
            sub.set_defaults(known_options=sorted(sub._option_string_actions))
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
        known = getattr(args, "known_options", ())
        near = next((f" Did you mean '{near}'?" for a in rest if (near := nearest(a, known)) and near != a), "")
        if any(a in known for a in rest):
            near = " Options stand behind the command."
        raise SstlError(f"unrecognized arguments: {' '.join(rest)}.{near} (see 'sstl {args.command or ''} --help')")
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
            print_warning(message)

    warnings.showwarning = show_once
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text, nor fit the terminal's
    args: argparse.Namespace | None = None
    code: int | None = None
    try:
        args = parse(arguments)
        if args.command is None:
            build_parser().print_help()
            code = 0
        else:
            with speaking(args.verbosity):
                started = time.perf_counter()
                code = int(importlib.import_module(f"sstl.cli.{args.command}").run(args))
                detail(f"took {time.perf_counter() - started:.1f} s")
        sys.stdout.flush()  # a closed pipe shows here, not as a message at the interpreter's exit
        return code
    except BrokenPipeError:  # whoever read has gone, as after ``| head``
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code or 0
    except (SstlError, OSError) as error:
        if "--debug" in arguments:
            traceback.print_exc()
        print_error(f"{_one_line(error)}{_again(arguments, error, getattr(args, 'known_options', ()))}")
        return error.exit_code if isinstance(error, SstlError) else 2
    except KeyboardInterrupt:
        print("sstl: interrupted", file=sys.stderr)
        return 130


def _again(arguments: Sequence[str], error: Exception, known: Sequence[str]) -> str:
    """Return the command with which an interrupted training goes on, or begins anew if the command knows no better."""
    resumable = getattr(error, "resumable", None)
    if resumable is None:
        return ""
    more = [option for option in ("--resume", "--overwrite") if resumable and option in known][:1]
    again = [a for a in arguments if not more or a not in ("--resume", "--overwrite")]
    launched = " under the same launcher" if "WORLD_SIZE" in os.environ else ""
    return f" Go on{launched} with: {shlex.join(['sstl', *again, *more])}"


def _one_line(error: SstlError | OSError) -> str:
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename else ""
        return f"{place}{error.strerror or error}; check the path and the free space."
    return flat(error)
