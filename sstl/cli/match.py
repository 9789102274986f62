"""``sstl match``: find the rain of photos as a recipe, which renders more of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from sstl.cli.output import add_json, hint, seed, whole, write_json

EXAMPLES = """\
  sstl match my-rainy-photos -o my-rain.yaml --clean my-dry-photos
  sstl synthesize my-dry-photos -o pairs --recipe my-rain.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("photos", metavar="PHOTOS", help="rainy photos: a folder, a manifest or a .parquet file")
    parser.add_argument(
        "-o", "--out", metavar="FILE", type=Path, required=True, help="the recipe to write, a .yaml file"
    )
    parser.add_argument(
        "--clean", metavar="DIR", default="bundled",
        help="clean photographs to render on; the more kinds of things they show, the better (default: scikit-image's)",
    )  # fmt: skip
    parser.add_argument(
        "--prior", metavar="NAME|FILE", default="any", help="the widest rain to consider (default: any)"
    )
    parser.add_argument(
        "--draws", metavar="N", type=whole(1), default=768, help="images to render a round (default: 768)"
    )
    parser.add_argument("--seed", metavar="N", type=seed, default=0, help="of everything random (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace FILE")
    add_json(parser, EXAMPLES)


def run(args: argparse.Namespace) -> int:
    """Match, then say what was found, what was written and what to do with it."""
    from sstl.data import SourceConfig, open_images
    from sstl.data.matching import match_photos, recipe_yaml
    from sstl.data.sources import typed
    from sstl.errors import ConfigError
    from sstl.ops.files import write_atomic

    if args.out.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{args.out}: a recipe is a .yaml file; give -o FILE.yaml.")
    if args.out.exists() and not args.overwrite:
        raise ConfigError(f"{args.out} exists; give --overwrite to replace it.")
    photos = open_images(typed(SourceConfig(args.photos)), "rainy", Path())
    clean = open_images(typed(SourceConfig(args.clean)), "clean", Path())
    found = match_photos(photos, clean, seed=args.seed, prior=args.prior, draws=args.draws, progress=True)
    write_atomic(args.out, recipe_yaml(found.recipe, f"Rain matched to the photos of {Path(args.photos).name}."))
    for name, value in found.estimates.items():
        share = found.explained[name]
        print(f"{name:10}  {value:8.3f}" + (f"   ({share:.0%} explained)" if share > 0.1 else "   (cannot be seen)"))
    if found.dry > 0.5:
        print(f"most of the photos look dry ({found.dry:.0%} of the draws that resemble them hold no rain)")
    print(f"recipe  {args.out}")
    hint(f"look at it:  sstl synthesize {args.clean} -o pairs --recipe {args.out} --count 12")
    write_json(args.json, {key: value for key, value in vars(found).items() if key != "recipe"}, seed=args.seed)
    return 0
