"""``sstl train``: a supervised or semi-supervised training from a YAML file."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from sstl.cli.output import hint

EXAMPLES = """examples:
  sstl train experiments/campaign/campaign.yaml data.root=my-data
  sstl train experiments/campaign/campaign.yaml steps=2000 optimizer.lr=5.0e-4
  sstl train experiments/campaign/campaign.yaml --resume"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("config", metavar="CONFIG", type=Path, help="the YAML file of the run")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="values that replace those of the file")
    parser.add_argument("--resume", action="store_true", help="go on from the run's newest checkpoint")
    parser.add_argument("--overwrite", action="store_true", help="begin anew although the folder holds a run")
    parser.epilog = EXAMPLES
    parser.formatter_class = argparse.RawDescriptionHelpFormatter


def run(args: argparse.Namespace) -> int:
    """Train, then say what was written."""
    from sstl.config import load_config
    from sstl.engine import TrainConfig, train
    from sstl.ops.processes import place

    config = load_config(TrainConfig, args.config, args.overrides)
    weights = train(config, resume=args.resume, overwrite=args.overwrite)
    if place()[0]:  # of processes that train together the first one speaks
        return 0
    print(f"weights      {weights}")
    print(f"log          {config.output / 'log.jsonl'}")
    if config.validation:
        print(f"best weights {config.output / 'best.safetensors'}")
    hint(f"sstl derain PHOTOS -o OUT --weights {shlex.quote(str(weights))}")
    return 0
