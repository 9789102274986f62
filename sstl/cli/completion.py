"""``sstl completion``: print what completes the commands and options in a shell."""

from __future__ import annotations

import argparse

from sstl.errors import SstlError

SHELLS = ("bash", "zsh", "tcsh")
EXAMPLES = """examples:
  sstl completion bash > ~/.local/share/bash-completion/completions/sstl
  sstl completion zsh > ~/.zfunc/_sstl"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("shell", metavar="SHELL", choices=SHELLS, help=f"one of {', '.join(SHELLS)}")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Print the script."""
    from sstl.cli.main import ALL, build_parser

    try:
        import shtab
    except ImportError:
        raise SstlError("'sstl completion' needs shtab; pip install shtab") from None
    print(shtab.complete(_with_files(build_parser(ALL), shtab.FILE), args.shell))
    return 0


def _with_files(parser: argparse.ArgumentParser, files: dict[str, str]) -> argparse.ArgumentParser:
    """Let files be completed wherever a free word is expected."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _with_files(sub, files)
        elif action.choices is None and action.nargs != 0:
            action.complete = files  # type: ignore[attr-defined]  # where shtab looks for it
    return parser
