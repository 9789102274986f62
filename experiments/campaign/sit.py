"""One sitting of the campaign: train shipped weights further, and ship what is better on development data.

SSTL_DATA=/path/to/data python experiments/campaign/sit.py SIZE --minutes M [--grow] [--work FOLDER]

A sitting is a warm restart from the weights in the package (with ``--grow``, from what the next smaller size's
compute), in two branches of a cosine cycle each, which differ in their loss. Their ends are averaged, and that with
where they began, in the share that is best on development data. It is appended to log.json, and state.md says what the
next sitting is; the weights in the package are replaced only if the mean over the development sets rose by ``LEAST``. A
sitting that was killed goes on where it was when it is begun again.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from card import GROWN, write_cards
from grow import grow

from sstl.config import from_tree, load_config, to_tree, with_overrides
from sstl.data import SourceConfig, open_images, open_pairs
from sstl.engine import TrainConfig, read_log, train
from sstl.engine.checkpoint import list_checkpoints
from sstl.errors import SstlError
from sstl.networks import create_network, load_weights, save_weights
from sstl.networks.joint import Joint
from sstl.networks.weights import SHIPPED
from sstl.ops.files import write_atomic
from sstl.report.adaptation import steps_for
from sstl.report.environment import environment
from sstl.report.evaluation import RenderedPairs, evaluate, evaluate_harm
from sstl.restore import load

HERE = Path(__file__).resolve().parent
LOG = HERE / "log.json"
SETS = ("rain100l", "rain100h", "rain800")
SIZES = ("tiny", "small", "base")
TAUGHT = {  # from its second sitting on, beside the truth, what small makes of the pairs
    "tiny": ("method.name=distillation", "method.options.teacher=joint-small")
}
SHARES = (1.0, 0.75, 0.5, 0.25)  # of the way from a sitting's start to the average of its branches
CLEAN = 40.0  # dB that clean photographs must keep
LEAST = 0.02  # dB of the mean over the sets; for less, weights whose figures are told in many places are not replaced
DATA = "Rain100L, Rain100H (sample), Rain800, BSDS500 with rendered rain, Garg and Nayar's streaks"


# The absolute error teaches heavy rain best, the squared one light rain and veils; the average of both networks keeps
# most of either (model soups, Wortsman et al., ICML 2022).
BRANCHES: dict[str, tuple[str, ...]] = {
    "absolute": (),
    "squared": ("method.options.distance=mse", "method.options.balance=0.001", "method.options.mask=0.001"),
}
# At smaller crops a network learns to rely on their borders, the more the farther it sees.
CROP, BATCH, EMA_DECAY = 256, 2, 0.998
# At twice these, base ended below its start or kept a quarter of its way, and tiny kept half; at half as much again,
# small kept a quarter.
RATES = {"tiny": 3e-4, "small": 3e-4, "base": 1.5e-4}


def configuration(size: str, branch: str, start: Path | None, work: Path, sitting: int) -> TrainConfig:
    """Return a branch's training, its number of steps still that of the file."""
    tree = to_tree(load_config(TrainConfig, HERE / "campaign.yaml"))
    changed = [f"network.options.size={size}", *(TAUGHT.get(size, ()) if sitting > 1 else ()), *BRANCHES[branch]]
    config = from_tree(TrainConfig, with_overrides(tree, changed), where="campaign.yaml")
    return replace(
        config,
        output=work / f"{size}-{sitting}-{branch}{'' if start is None or start.parent == SHIPPED else '-grown'}",
        network=replace(config.network, weights=str(start) if start else None),
        data=replace(config.data, crop=CROP),
        batch_size=BATCH,
        optimizer=replace(config.optimizer, lr=RATES[size]),
        ema_decay=EMA_DECAY,
        validation=None,
        # Other crops and rains in every branch of every sitting.
        seed=config.seed + 10 * sitting + list(BRANCHES).index(branch),
    )


def grown(size: str, work: Path, sitting: int) -> Path | None:
    """Return weights grown from what ships of a smaller size; None of a size that begins from nothing."""
    if size not in GROWN:
        return None
    path = work / f"{size}-{sitting}-grown.safetensors"
    if path.exists():  # of a sitting that was killed: what ships may be another by now
        return path
    torch.manual_seed(0)
    smaller, larger = load_weights(f"joint-{GROWN[size]}").network, create_network("joint", size=size)
    assert isinstance(smaller, Joint)
    assert isinstance(larger, Joint)
    return save_weights(path, grow(smaller, larger))


def trained(config: TrainConfig, minutes: float) -> Path:
    """Run a branch, or take it up, and return its weights."""
    steps = config.output / "steps.txt"  # an interrupted branch keeps the number that was measured for it
    if not steps.exists():
        count = steps_for(minutes, config, timed=60)
        steps.parent.mkdir(parents=True, exist_ok=True)
        steps.write_text(str(count))
    begun = bool(list_checkpoints(config.output / "checkpoints"))
    return train(replace(config, steps=int(steps.read_text())), resume=begun, overwrite=not begun)


def scores(weights: Path) -> dict[str, float]:
    """Return the mean luma PSNR on each development set, and the RGB PSNR of clean photographs."""
    restorers = {"it": load(weights)}
    clean = open_images(SourceConfig("manifest.csv", split="dev", set="bsds"), "clean")
    found = {
        name: evaluate(open_pairs(SourceConfig("manifest.csv", split="dev", set=name)), restorers) for name in SETS
    }
    found |= {recipe: evaluate(RenderedPairs(clean, recipe, 20, seed=0), restorers) for recipe in ("heavy", "veil")}
    harm = evaluate_harm(clean, restorers).results["it"]["psnr"].mean
    return {**{name: round(one.results["it"]["psnr"].mean, 3) for name, one in found.items()}, "clean": round(harm, 2)}


def averaged(start: Path | None, ends: Sequence[Path], work: Path) -> tuple[Path, float]:
    """Return the best weights on the way from a sitting's start to the average of its ends, and their share of it.

    Without a start (a first sitting) the average itself; see WiSE-FT (Wortsman et al., CVPR 2022) for the way.
    """
    network, info = load_weights(ends[0]).network, load_weights(ends[0]).info
    states = [load_weights(path).network.state_dict() for path in ends]
    mean = {name: torch.stack([state[name] for state in states]).mean(dim=0) for name in states[0]}
    old = mean if start is None else load_weights(start).network.state_dict()
    found: dict[float, Path] = {}
    for share in SHARES if start else SHARES[:1]:
        network.load_state_dict({name: torch.lerp(old[name], value, share) for name, value in mean.items()})
        found[share] = save_weights(work / f"{ends[0].parent.name}-{share:g}.safetensors", network, info)
    share = max(found, key=lambda one: _mean(scores(found[one])))
    return found[share], share


def _mean(found: dict[str, float]) -> float:
    return float(np.mean([value for name, value in found.items() if name != "clean"]))


def better(new: dict[str, float], old: dict[str, float]) -> bool:
    """Whether the mean over the sets rose by ``LEAST``, if there were weights, and clean photographs stay clear."""
    return (not old or _mean(new) >= _mean(old) + LEAST) and new["clean"] >= CLEAN


def sit(size: str, minutes: float, work: Path, note: str = "", anew: bool = False) -> dict[str, Any]:
    """Train, compare, ship what is better, and return what goes into the log.

    Args:
        size: of ``joint``.
        minutes: of training.
        work: a folder to train in.
        note: what else the log is to say.
        anew: begin with what the next smaller size's weights compute, and not where the last sitting ended.

    Raises:
        SstlError: ``work`` holds what another sitting of this number has begun.
    """
    log: list[dict[str, Any]] = json.loads(LOG.read_text()) if LOG.exists() else []
    sitting = sum(entry["size"] == size for entry in log) + 1
    half = work / f"{size}-{sitting}-float16.safetensors"
    begun, asked = work / f"{size}-{sitting}.json", {"minutes": minutes, "anew": anew}
    if begun.exists() and (found := json.loads(begun.read_text())) != asked:
        raise SstlError(f"{begun}: a sitting was begun there with {found}; go on with these, or give another --work.")
    write_atomic(begun, json.dumps(asked))
    measured = half.with_suffix(".json")
    if not measured.exists():
        write_atomic(measured, json.dumps(_measured(size, sitting, minutes, half, note, anew)))
    # From here on all can be done twice: one that was killed between shipping and its line in the log is no other.
    entry: dict[str, Any] = json.loads(measured.read_text())
    if entry["shipped"]:
        write_atomic(SHIPPED / f"joint-{size}.safetensors", half.read_bytes())
    write_atomic(LOG, json.dumps([*log, entry], indent=1) + "\n")
    write_atomic(HERE / "state.md", state([*log, entry]))
    if entry["shipped"]:
        write_cards()
    return entry


def _measured(size: str, sitting: int, minutes: float, half: Path, note: str, anew: bool) -> dict[str, Any]:
    """Return a sitting's entry, its weights in ``half`` if they are to be shipped."""
    work, shipped = half.parent, SHIPPED / f"joint-{size}.safetensors"
    start = grown(size, work, sitting) if anew or not shipped.exists() else shipped
    configs = [configuration(size, branch, start, work, sitting) for branch in BRANCHES]
    ends = [trained(config, minutes / len(configs)) for config in configs]
    clocks = [[line["seconds"] for line in read_log(end.parent / "log.jsonl") if "seconds" in line] for end in ends]
    seconds = sum(map(max, clocks))
    best, share = averaged(start, ends, work)
    before, after = scores(shipped) if shipped.exists() else {}, scores(best)
    entry = {
        "size": size, "sitting": sitting, "anew": anew, "minutes": round(seconds / 60, 1),
        "before": before, "after": after,
        "shipped": better(after, before), "branches": BRANCHES, "share": share,
        "crop": CROP, "batch": BATCH, "rate": RATES[size], "steps": [load_weights(end).info["step"] for end in ends],
        "note": note, "command": f"python experiments/campaign/sit.py {size} --minutes {minutes:g}" + " --grow" * anew,
        "environment": environment(),
    }  # fmt: skip
    if entry["shipped"]:
        earlier = load_weights(shipped).info if shipped.exists() and not anew else {}
        info = {
            **load_weights(best).info,
            "minutes": round(earlier.get("minutes", 0) + entry["minutes"], 1),
            "configs": [*earlier.get("configs", []), f"experiments/campaign/campaign.yaml, {size}, sitting {sitting}"],
            "data": DATA,
        }
        rounded = scores(save_weights(half, load_weights(best).network, info, torch.float16))
        entry["float16_costs"] = round(max(after[name] - rounded[name] for name in after), 3)
    return entry


def state(log: list[dict[str, Any]]) -> str:
    """Return the page that tells what was done and what is next."""
    names = list(log[-1]["after"])
    rows = [("size", "sitting", "minutes", *names, "shipped"), ["---"] * (len(names) + 4)]
    for entry in log:
        if entry["sitting"] == 1 and entry["before"]:
            rows.append((entry["size"], "before", "", *(entry["before"][name] for name in names), ""))
        kept = "yes" if entry["shipped"] else "no"
        rows.append(
            (entry["size"], entry["sitting"], entry["minutes"], *(entry["after"][name] for name in names), kept)
        )
    lines = ["| " + " | ".join(map(str, row)) + " |" for row in rows]
    return (
        "# The campaign\n\nWritten by `sit.py` from log.json. Mean luma PSNR on development sets; clean: RGB PSNR of "
        "clean photographs.\n\n"
        + "\n".join(lines)
        + f"\n\nNext: `SSTL_DATA=... {log[-1]['command'].removesuffix(' --grow')}`\n"
    )


def main() -> None:
    """Run a sitting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", choices=SIZES)
    parser.add_argument("--minutes", type=float, required=True, help="of training; scoring comes on top")
    parser.add_argument("--work", type=Path, default=Path("runs/campaign"))
    parser.add_argument("--grow", action="store_true", help="begin with what the next smaller size's weights compute")
    parser.add_argument("--note", default="", help="what else the log is to say of this sitting")
    args = parser.parse_args()
    if args.grow and args.size not in GROWN:
        parser.error(f"{args.size} grows from no smaller size; leave out --grow.")
    try:
        entry = sit(args.size, args.minutes, args.work.resolve(), args.note, args.grow)
    except SstlError as error:
        sys.exit(f"error: {error}")
    print(json.dumps({key: entry[key] for key in ("minutes", "before", "after", "shipped")}, indent=1))
    print(
        f"wrote {LOG} and {HERE / 'state.md'}; next: commit them"
        + " with the weights and their card" * entry["shipped"]
    )


if __name__ == "__main__":
    main()
