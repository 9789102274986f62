"""``sstl synthesize``: make a data set of synthetic pairs by raining on clean images."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sstl.cli.output import add_json, hint, print_error, seed, whole, write_json
from sstl.errors import ConfigError

EXAMPLES = """\
  sstl synthesize my-dry-photos -o rainy --recipe heavy
  sstl synthesize bundled -o rainy --recipe real_mix --count 100 --seed 1
  sstl synthesize my-dry-photos -o rainy --recipe garg --streaks streak-images
  sstl synthesize my-dry-photos -o rainy --recipe laid --streaks my-few-pairs --streaks-of pairs
  sstl synthesize my-dry-photos -o rainy --recipe heavy --count 10000 --dry-run
  sstl synthesize --list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "clean", metavar="CLEAN", nargs="?", help="clean images: a folder, a manifest, a .parquet file, or 'bundled'"
    )
    parser.add_argument("-o", "--out", metavar="OUT", type=Path, help="the folder to write")
    parser.add_argument("--recipe", metavar="NAME|FILE", help="the rain: a recipe by name, or your own YAML file")
    parser.add_argument("--list", action="store_true", help="list the recipes, and do nothing else")
    parser.add_argument("--count", metavar="N", type=whole(1), help="how many pairs (default: one per clean image)")
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of the rain (default: 0)")
    parser.add_argument("--streaks", metavar="DIR", help="photographed streaks, for recipes that lay them")
    parser.add_argument(
        "--streaks-of",
        choices=("images", "pairs"),
        default="images",
        help="what lies in the folder of --streaks; of pairs, their streak layers are taken (default: %(default)s)",
    )
    parser.add_argument("--split", metavar="NAME", help="the split of a manifest")
    parser.add_argument("--set", metavar="NAME", help="one set of a manifest")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier data set in OUT")
    parser.add_argument("--dry-run", action="store_true", help="only print what would be made")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Make the pairs, then say what was written and what to do with it."""
    from sstl.errors import SstlError

    if args.list:
        return _list(args)
    for value, name in ((args.clean, "CLEAN"), (args.out, "-o OUT"), (args.recipe, "--recipe NAME")):
        if value is None:
            raise SstlError(f"'sstl synthesize' needs {name} (see 'sstl synthesize --help').")
    return _make(args)


def _make(args: argparse.Namespace) -> int:
    from tqdm import tqdm

    from sstl.data import SourceConfig, open_images, open_streaks
    from sstl.data.sources import typed
    from sstl.data.synthesis import synthesize_files

    images = open_images(typed(SourceConfig(args.clean, args.split, args.set)), "clean", Path())
    streaks = open_streaks(typed(SourceConfig(args.streaks)), args.streaks_of, Path()) if args.streaks else None
    for given in (args.clean, args.streaks):
        if args.overwrite and given and Path(given).resolve().is_relative_to(args.out.resolve()):
            raise ConfigError(f"{given} lies in {args.out}, whose pairs are removed first; give another folder by -o.")
    total = len(images) if args.count is None else args.count
    if args.dry_run:
        return _plan(args, len(images), total)
    made = synthesize_files(images, args.out, args.recipe, args.count, args.seed, streaks, args.overwrite)
    results = list(tqdm(made, total=total, desc="synthesize", unit="pair", leave=False))
    failed = [result for result in results if result.error]
    print(f"made {len(results) - len(failed)} of {total} pairs of recipe {args.recipe} in {args.out}")
    print("      rainy/ clean/ streak/ map/ transmission/, parameters.jsonl, manifest.csv")
    hint(
        f"train on them: data.paired: [{{path: {args.out / 'manifest.csv'}, split: train}}]; or\n"
        f"      {shlex.join(['sstl', 'evaluate', '--rainy', f'{args.out}/rainy', '--clean', f'{args.out}/clean'])}"
    )
    write_json(
        args.json,
        {"out": args.out, "recipe": args.recipe, "seed": args.seed, "pairs": [vars(result) for result in results]},
        seed=args.seed,
    )
    for result in failed:
        print_error(result.error)
    return 1 if failed else 0


def _plan(args: argparse.Namespace, images: int, total: int) -> int:
    from sstl.data.synthesis import LAYERS, MANIFEST
    from sstl.rain import load_recipe

    load_recipe(args.recipe)  # a name that does not exist is an error here, too
    there = f"; {args.out / MANIFEST} is there" if (args.out / MANIFEST).exists() else ""
    files = f"{total * len(LAYERS)} PNG files in {args.out}{there}"
    print(f"{total} pairs of {images} clean images, recipe {args.recipe}: {files}")
    print("nothing was made")
    planned = {"out": args.out, "recipe": args.recipe, "planned": total, "clean": images}
    write_json(args.json, planned, seed=args.seed)
    return 0


def _list(args: argparse.Namespace) -> int:
    from sstl.rain import list_recipes
    from sstl.rain.recipes import about_recipe

    rows = {name: about_recipe(name) for name in list_recipes()}
    for name, text in rows.items():
        print(f"{name:10}  {text}")
    hint("sstl synthesize CLEAN -o OUT --recipe NAME")
    write_json(args.json, {"recipes": rows})
    return 0
