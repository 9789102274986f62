"""``sstl env``: the versions and the machine, to stand beside a figure or in a bug report."""

from __future__ import annotations

import argparse

from sstl.cli.output import add_json, write_tree


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_json(parser, "  sstl env\n  sstl env --json env.json")


def run(args: argparse.Namespace) -> int:
    """Print them; the seed is that of every command that is given none."""
    import torch

    from sstl.ops.precision import resolve_precision
    from sstl.report.environment import environment

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = str(resolve_precision("auto", device)).removeprefix("torch.")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    facts = environment(device=name, precision=precision, seed=0)
    for key, value in facts.items():
        print(f"{key:<10}  {value}")
    write_tree(args.json, facts)
    return 0
