"""``sstl weights``: list and show weights, bring state dicts in and out, export networks, share on the hub."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sstl.cli.output import add_json, detail, hint, print_table, words, write_json
from sstl.errors import SstlError

if TYPE_CHECKING:
    from sstl.networks import Network

EXAMPLES = """\
  sstl weights
  sstl weights show joint-small
  sstl weights import prenet_rain100h.pth --network prenet -o prenet.safetensors
  sstl weights import mine.pth --network joint size=tiny -o mine.safetensors
  sstl weights export joint-small -o joint-small.pth
  sstl weights export joint-small --format onnx
  sstl weights export runs/mine --format openvino -o mine.xml
  sstl weights save runs/mine -o mine --scores scores
  sstl weights push runs/mine --to ORG/NAME --private --dry-run
  sstl derain photo.jpg -o dry.jpg --weights hub:ORG/NAME"""

ACTIONS = ("list", "show", "import", "export", "save", "push")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("action", nargs="?", choices=ACTIONS, default="list", help="default: list")
    parser.add_argument(
        "name",
        metavar="NAME|PATH",
        nargs="?",
        help="shipped weights, a weights file, a run's folder or hub:ORG/NAME; to import, a .pth, .pt or .npz",
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="options of the network to import into")
    parser.add_argument("--network", metavar="NAME", help="the network to import into (see 'sstl networks')")
    parser.add_argument("-o", "--out", metavar="FILE|DIR", type=Path, help="the file to write; with save, the folder")
    parser.add_argument("--overwrite", action="store_true", help="replace what is there")
    parser.add_argument(
        "--format",
        choices=("onnx", "torch", "openvino"),
        help="export the network itself, to run without sstl: .onnx, .pt2 or .xml (default: by the name of FILE; "
        ".pth, .npz and .safetensors are plain state dicts)",
    )
    shared = parser.add_argument_group("only with save and push, which write weights, config.json and a model card")
    shared.add_argument("--scores", metavar="DIR", type=Path, help="an 'sstl evaluate -o' of them, for the card")
    shared.add_argument("--licence", metavar="ID", help="of the weights, for example apache-2.0 (default: not stated)")
    shared.add_argument("--to", metavar="ORG/NAME", help="push: the repository on the hub")
    shared.add_argument("--private", action="store_true", help="push: a new repository is private")
    shared.add_argument("--dry-run", action="store_true", help="push: only print the card and what would be uploaded")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Do what the action says."""
    if args.action == "export" and args.format and args.name and not args.out:
        name = Path(args.name).resolve()
        args.out = Path(f"{name.name if name.is_dir() else name.stem}{_suffixes()[args.format]}")
    _check(args)
    actions = {"list": _list, "show": _show, "import": _import, "export": _export, "save": _save, "push": _push}
    write_json(args.json, actions[args.action](args))
    return 0


def _suffixes() -> dict[Any, str]:
    from sstl.restore.export import SUFFIXES

    return SUFFIXES


def _check(args: argparse.Namespace) -> None:
    writes = args.action in ("import", "export", "save")
    shares = args.action in ("save", "push")
    target = "DIR" if args.action == "save" else "FILE"
    wrong = {
        f"'weights {args.action}' needs a NAME or PATH": args.action != "list" and not args.name,
        "'weights list' takes no name; did you mean 'weights show'?": args.action == "list" and args.name,
        f"'weights {args.action}' needs -o {target}": writes and not args.out,
        "'weights import' needs --network NAME": args.action == "import" and not args.network,
        "'weights push' needs --to ORG/NAME": args.action == "push" and not args.to,
        "-o FILE belongs to 'weights import' and 'export', -o DIR to 'save'": args.out and not writes,
        "--format belongs to 'weights export'": args.format and args.action != "export",
        "--scores and --licence belong to 'weights save' and 'push'": (args.scores or args.licence) and not shares,
        "--to, --private and --dry-run belong to 'weights push'": (args.to or args.private or args.dry_run)
        and args.action != "push",
        "--overwrite belongs to 'weights import', 'export' and 'save'": args.overwrite and not writes,
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
    print(f"wrote {path}: {words({'network': network.name, **network.config})}")
    hint(f"sstl derain PHOTOS -o OUT --weights {shlex.quote(str(path))}")
    return {"written": path, "network": network.name, "config": network.config}


def _export(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks import load_weights
    from sstl.networks.released import export_weights

    network = load_weights(args.name).network
    if args.format or args.out.suffix in _suffixes().values():
        return _export_network(args, network)
    path = export_weights(args.out, network)
    print(f"wrote {path}: the plain state dict of {words({'network': network.name, **network.config})}")
    return {"written": path, "network": network.name, "config": network.config}


def _export_network(args: argparse.Namespace, network: Network) -> dict[str, Any]:
    from sstl.restore.export import AXES, INPUT, export_network

    made = export_network(network, args.out, args.format)
    for size, difference in made.differences.items():
        detail(f"{size}: differs from PyTorch by {difference:.1e}")
    opset = "" if made.opset is None else f" of opset {made.opset}"
    print(f"wrote {made.path}: {made.format}{opset}, {words({'network': network.name, **network.config})}")
    print(
        f"input {INPUT}: float32 ({', '.join(AXES)}), 3 channels in [0, 1], any size; output {', '.join(made.outputs)}"
    )
    print(f"differs from PyTorch by at most {made.worst:.1e} over images of {len(made.differences)} sizes")
    if made.format == "onnx":
        hint(f"python docs/run_onnx.py {made.path} rainy.npy dry.npy    (needs numpy and onnxruntime alone)")
    return {"written": made.path, "network": network.name, "config": network.config, **vars(made)}


def _save(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks import load_weights
    from sstl.report.about import about_weights

    info = about_weights(args.name, args.scores)
    folder = load_weights(args.name).network.save_pretrained(args.out, info=info, licence=args.licence)
    print(f"wrote {folder}: model.safetensors, config.json and README.md")
    hint(f"read and complete {folder / 'README.md'}; then  sstl weights push {folder} --to ORG/NAME")
    return {"written": folder, "info": info}


def _push(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks import load_weights
    from sstl.networks.card import model_card
    from sstl.report.about import about_weights

    network, info = load_weights(args.name).network, about_weights(args.name, args.scores)
    if args.dry_run:
        print(model_card(args.to.rpartition("/")[2], network.name, network.config, info, args.licence))
        print(f"nothing was uploaded; to {args.to}: model.safetensors, config.json and this README.md")
        return {"written": None, "info": info}
    address = network.push_to_hub(args.to, info=info, licence=args.licence, private=args.private or None)
    print(f"wrote {address}")
    hint(f"sstl derain PHOTOS -o OUT --weights hub:{args.to}")
    return {"written": address, "info": info}


def _list(_: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks.weights import DEFAULT, list_weights, read_info

    rows = [read_info(name) for name in list_weights()]
    cells = [
        (
            row["name"],
            row["network"],
            words(row["config"]),
            f"{Path(row['path']).stat().st_size / 1e6:.2f}",
            "the default" if row["name"] == DEFAULT else "",
        )
        for row in rows
    ]
    print_table(("weights", "network", "", "MB", ""), cells, numbers=("MB",))
    hint("sstl weights show NAME")
    return {"default": DEFAULT, "weights": rows}


def _show(args: argparse.Namespace) -> dict[str, Any]:
    from sstl.networks.weights import read_info

    info = read_info(args.name)
    card = Path(info["path"]).with_suffix(".md")
    text = card.read_text(encoding="utf-8") if card.is_file() else None
    print(f"{info['name']}: {info['path']}")
    print(f"network {info['network']} {words(info['config'])}".rstrip())
    for key, value in info["info"].items():
        print(f"{key}: {value}")
    if text:
        print(f"\n{text.rstrip()}")
    return {**info, "card": text}
