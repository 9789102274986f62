"""``sstl data``: list the known data sets, look at one, find leaks between two, and download."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstl.cli.output import add_json, hint, print_error, print_table, write_json
from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.data.survey import Surveyed

EXAMPLES = """\
  sstl data list
  sstl data list rain100h
  sstl data show my-data --json my-data.json --sheet my-data.png
  sstl data check train --against test
  sstl data check manifest.csv --split train --against manifest.csv --against-split dev
  sstl data get rain12 -o data
  sstl data get rain12 -o data --dry-run
  sstl data get --url https://example.org/set.zip --sha256 HEX -o data"""

SHOWN = 5  # of a list of failures, before "and N more"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = ("list", "show", "check", "get")
    parser.add_argument("action", nargs="?", choices=actions, default="list", help="default: list")
    parser.add_argument(
        "name",
        metavar="NAME|PATH",
        nargs="?",
        help="a known set (list, get), or a folder, .csv manifest, .parquet file or hub:ORG/NAME",
    )
    parser.add_argument("--sheet", metavar="FILE", type=Path, help="show: draw a dozen pairs, rainy | clean, as PNG")
    checked = parser.add_argument_group("only with check")
    checked.add_argument("--against", metavar="TEST", help="the data whose backgrounds must not be in PATH")
    checked.add_argument("--split", metavar="NAME", help="the split of PATH, for example train")
    checked.add_argument("--set", metavar="NAME", help="one set of the manifest PATH, for example rain100l")
    checked.add_argument("--against-split", metavar="NAME", help="the split of TEST, for example dev")
    checked.add_argument("--against-set", metavar="NAME", help="one set of the manifest TEST")
    fetched = parser.add_argument_group("only with get")
    fetched.add_argument("-o", "--out", metavar="DIR", type=Path, help="where to put it (default: the set's name)")
    fetched.add_argument("--url", metavar="URL", help="download this instead of a known set")
    fetched.add_argument("--sha256", metavar="HEX", help="the checksum that the file at --url must have")
    fetched.add_argument("--dry-run", action="store_true", help="only print what would be downloaded, and to where")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    _check_usage(args)
    actions = {"list": _list, "show": _show, "check": _check, "get": _get}
    code, figures = actions[args.action](args)
    write_json(args.json, figures)
    return code


def _check_usage(args: argparse.Namespace) -> None:
    chosen = (args.against, args.split, args.set, args.against_split, args.against_set)
    wrong = {
        f"'data {args.action}' needs a PATH": args.action in ("show", "check") and not args.name,
        "'data check' needs --against TEST": args.action == "check" and not args.against,
        "'data get' needs the NAME of a set, or --url URL": args.action == "get" and not (args.name or args.url),
        "a NAME and --url exclude each other": args.action == "get" and args.name and args.url,
        "'data get --url' needs -o DIR": args.action == "get" and args.url and not args.out,
        "--sha256 belongs to --url": args.sha256 and not args.url,
        "--sheet belongs to 'data show'": args.sheet and args.action != "show",
        "--against, --split and --set belong to 'data check'": any(chosen) and args.action != "check",
        "-o, --url and --dry-run belong to 'data get'": (args.out or args.url or args.dry_run) and args.action != "get",
    }
    for message, holds in wrong.items():
        if holds:
            raise SstlError(f"{message} (see 'sstl data --help').")


def _list(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    from sstl.config import to_tree
    from sstl.data.catalogue import find_set, known_sets

    chosen = [find_set(args.name)] if args.name else known_sets()
    if args.name:
        for found in chosen:
            _print_set(to_tree(found))
    else:
        rows = [(found.name, found.size, "yes" if found.url else "by hand", found.title) for found in chosen]
        print_table(("set", "size", "get", ""), rows)
        hint("sstl data list NAME, for its licence, where to get it, and its traps")
    return 0, {"sets": to_tree(chosen)}


def _print_set(known: dict[str, Any]) -> None:
    print(f"{known['name']}: {known['title']}")
    for label, key in (("what", "what"), ("size", "size"), ("licence", "licence"), ("where", "where")):
        print(f"{label}: {known[key]}")
    print(f"get: {'sstl data get ' + known['name'] if known['url'] else 'by hand'}")
    for trap in known["traps"]:
        print(f"beware: {trap}")


def _show(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    from sstl.data import SourceConfig
    from sstl.data.sources import typed
    from sstl.data.survey import COUNTS, survey

    parts = survey(typed(SourceConfig(args.name)).path, progress=True)
    header = ("part", *COUNTS, "smallest", "largest", "most frequent", "layout")
    print_table(header, [_row(part) for part in parts], numbers=header[1:9])
    unpaired = [f"{name}: has no partner; pairs are found by name." for part in parts for name in part.unpaired]
    unreadable = [message for part in parts for message in part.unreadable]
    print(f"unpaired {len(unpaired)}, unreadable {len(unreadable)}")
    _print_failures(unpaired)
    _print_failures(unreadable)
    if args.sheet:
        _draw_sheet(args.sheet, parts)
    return int(bool(unpaired or unreadable)), {"path": args.name, "parts": [part.to_dict() for part in parts]}


def _row(part: Surveyed) -> list[object]:
    from sstl.data.survey import COUNTS

    counts = [part.counts.get(name) or "-" for name in COUNTS]
    if not part.sizes:
        return [part.name, *counts, "-", "-", "-", part.layout]
    by_area = sorted(part.sizes, key=lambda size: size[0] * size[1])
    most, count = next(iter(part.sizes.items()))
    return [part.name, *counts, _size(by_area[0]), _size(by_area[-1]), f"{_size(most)} ({count})", part.layout]


def _size(size: tuple[int, int]) -> str:
    return "{}x{}".format(*size)


def _draw_sheet(path: Path, parts: Sequence[Surveyed]) -> None:
    from sstl.ops.files import write_atomic
    from sstl.report.contact import contact_sheet

    pairs = [part.source for part in parts if part.source and part.counts.get("pairs")]
    sheet = contact_sheet(pairs or [part.source for part in parts if part.source])
    if sheet is None:
        raise SstlError(f"{path}: not drawn, as no image could be read.")
    print(f"wrote {write_atomic(path, sheet)}")


def _print_failures(messages: Sequence[str]) -> None:
    for message in messages[:SHOWN]:
        print_error(message)
    if len(messages) > SHOWN:
        print_error(f"... and {len(messages) - SHOWN} more; --json FILE lists all.")


def _check(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    from sstl.config import to_tree
    from sstl.data import SourceConfig
    from sstl.data.leaks import backgrounds, find_leaks
    from sstl.data.sources import typed

    train = backgrounds(typed(SourceConfig(args.name, args.split, args.set)))
    test = backgrounds(typed(SourceConfig(args.against, args.against_split, args.against_set)))
    found = find_leaks(train, test, progress=True)
    print(f"compared {found.train_images} backgrounds with {found.test_images} of {args.against}")
    if found.leaks:
        rows = [(leak.train, leak.test, f"{leak.correlation:.2f}", leak.how) for leak in found.leaks]
        print_table(("train", "test", "correlation", "how"), rows, numbers=("correlation",))
    print(f"leaks {len(found.leaks)}, unreadable {len(found.unreadable)}")
    _print_failures(found.unreadable)
    return int(bool(found.leaks or found.unreadable)), to_tree(found)


def _get(args: argparse.Namespace) -> tuple[int, dict[str, Any]]:
    from sstl.data.catalogue import find_set
    from sstl.data.download import download, file_name
    from sstl.data.unpack import is_archive, unpack, unpacked_name

    url, sha256, out = args.url, args.sha256, args.out
    if args.name:
        known = find_set(args.name)
        if known.url is None:
            raise SstlError(f"{known.title} has no address of its own; get it by hand: {known.where}.")
        url, sha256, out = known.url, known.sha256, args.out or Path(known.name)
    target = out / unpacked_name(file_name(url))
    if target.exists():
        raise SstlError(f"{target} is there already; remove it, or give another -o DIR.")
    if args.dry_run:
        print(f"{url} -> {target}\nnothing was downloaded")
        return 0, {"url": url, "sha256": sha256, "written": None}
    path = download(url, out, sha256, progress=True)
    if target != path and is_archive(path):
        archive, path = path, unpack(path, target)
        archive.unlink()
    print(f"wrote {path}")
    hint(f"sstl data show {path}")
    return 0, {"url": url, "sha256": sha256, "written": path}
