"""Write README.md of this folder from the rows, and measure what each network costs if that is not known yet.

python experiments/systems/table.py            (some minutes the first time: all costs are measured in one run)
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from run import CPU_SECONDS, IMAGES, ROWS, SETS, TABLE, Row, recipe

from sstl.metrics import PROTOCOLS
from sstl.networks import create_network
from sstl.ops.files import write_atomic
from sstl.report.environment import environment
from sstl.report.inspection import HEIGHT, WIDTH, cost_of_restoration, count_parameters, multiply_adds

HERE = Path(__file__).resolve().parent
COSTS = HERE / "costs.json"

INTRODUCTION = """\
# Every system under one recipe

Written by `python experiments/systems/table.py` from `rows/` (one file a network, by `run.py`) and `costs.json`.
`*.yaml` are the systems' own trainings, with their own losses, optimisers and schedules; the table does *not* use them.

**The recipe.** All networks are trained alike: {pairs}, crops of {crop} pixels in batches of {batch}, the method
`supervised` with its default terms (a network without a map has no map term), AdamW {rate:g} with a cosine, averaged
weights, seed {seed}. The budget is {budget:.0f} seconds of processor time, {minutes:.0f} minutes of two cores; what was
used is in the table ({least:.0f} to {most:.0f} seconds: more than tells near networks apart), and so are the crops that
each network saw in it: a slow network sees few.

**What so short a budget can show.** How far each network gets in {minutes:.0f} minutes without a GPU, from one seed, on
{images} development pairs a set; the intervals are over images, not over seeds. **What it cannot show:** how good the
systems are. Their authors train them for days; the large ones have seen few crops here and have hardly begun. A
difference within the intervals is none. Networks that begin far from the identity (normalised last layers, `tanh`)
spend the budget on finding it.

"""


def main() -> None:
    """Write the page."""
    rows = {row.name: found for row in TABLE if (found := _read(row)) is not None}
    costs = _costs()
    config = recipe(TABLE[0], 1, Path("run"))
    pairs = ", ".join(f"{100 * part.weight:.0f} % {part.set}" for part in config.data.paired)
    text = INTRODUCTION.format(
        pairs=pairs, crop=config.data.crop, batch=config.batch_size, rate=config.optimizer.lr, seed=config.seed,
        least=min(row["cpu_seconds"] for row in rows.values()), most=max(row["cpu_seconds"] for row in rows.values()),
        budget=CPU_SECONDS, minutes=CPU_SECONDS / 120, images=IMAGES,
    )  # fmt: skip
    text += "## Costs\n\n" + _cost_table(rows, costs)
    for protocol in PROTOCOLS:
        for name in SETS:
            text += f"\n## {name}, protocol `{protocol}`\n\n" + _score_table(rows, name, protocol)
    machines = sorted({json.dumps(found["environment"]["platform"]) for found in rows.values()})
    text += f"\nPlatform of the rows: {', '.join(machines)}; commits and dates are in their files.\n"
    missing = [row.name for row in TABLE if row.name not in rows]
    if missing:
        text += f"\nNot measured yet: {', '.join(missing)}.\n"
    write_atomic(HERE / "README.md", text)
    print(f"wrote {HERE / 'README.md'}")


def _read(row: Row) -> dict[str, Any] | None:
    path = ROWS / f"{row.file}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def _costs() -> dict[str, Any]:
    found = json.loads(COSTS.read_text()) if COSTS.is_file() else {"networks": {}}
    wanted = {row.name for row in TABLE}
    if set(found["networks"]) != wanted:
        found = {"command": "python experiments/systems/table.py", "networks": {}, "environment": environment()}
        for row in TABLE:
            network = create_network(row.network, **row.options)
            cost = cost_of_restoration(network)
            found["networks"][row.name] = {
                "parameters": count_parameters(network),
                "multiply_adds": multiply_adds(network),
                "milliseconds": 1000 * cost.seconds,
                "peak_megabytes": None if cost.peak_bytes is None else cost.peak_bytes / 1e6,
                "precision": cost.precision,
            }
            print(f"{row.name}: {1000 * cost.seconds:.0f} ms", flush=True)
        write_atomic(COSTS, json.dumps(found, indent=1) + "\n")
    return found


def _cost_table(rows: dict[str, Any], costs: dict[str, Any]) -> str:
    header = ("network", "parameters", f"G multiply-adds, {WIDTH}×{HEIGHT}", "ms an image", "peak MB", "crops seen",
              "processor seconds", "loss, first to last")  # fmt: skip
    lines = []
    for name, found in rows.items():
        cost = costs["networks"][name]
        losses = found["losses"]
        lines.append((
            name, f"{cost['parameters']:,}", f"{cost['multiply_adds'] / 1e9:.1f}", f"{cost['milliseconds']:.0f}",
            "" if cost["peak_megabytes"] is None else f"{cost['peak_megabytes']:.0f}", f"{found['crops']:,}",
            f"{found['cpu_seconds']:.0f}", f"{losses[0]:.3f} to {losses[-1]:.3f}",
        ))  # fmt: skip
    return _markdown(header, lines)


def _score_table(rows: dict[str, Any], name: str, protocol: str) -> str:
    header = ("network", "PSNR dB [95 %]", "SSIM", "gain dB [95 %]", "rainy px dB", "rain-free px dB",
              "map F1 (all ones)")  # fmt: skip
    scores = {row: found["scores"][name][protocol] for row, found in rows.items()}
    ranked = sorted(scores, key=lambda row: -scores[row]["restored"]["psnr"]["mean"])
    lines = [_scores("*input*", next(iter(scores.values()))["input"])] if scores else []
    return _markdown(header, [*lines, *(_scores(row, scores[row]["restored"]) for row in ranked)])


def _scores(name: str, found: dict[str, Any]) -> tuple[str, ...]:
    def cell(metric: str, form: str, interval: bool = False) -> str:
        if metric not in found:
            return ""
        low, high = found[metric]["interval"]
        return f"{found[metric]['mean']:{form}}" + (f" [{low:{form}}, {high:{form}}]" if interval else "")

    f1 = f"{cell('f1', '.3f')} ({cell('f1_all_ones', '.3f')})" if "f1" in found else ""
    return (name, cell("psnr", ".2f", True), cell("ssim", ".4f"), cell("gain", "+.2f", True),
            cell("psnr_rain", ".2f"), cell("psnr_free", ".2f"), f1)  # fmt: skip


def _markdown(header: tuple[str, ...], lines: list[tuple[str, ...]]) -> str:
    rows = [header, ("---", *["---:"] * (len(header) - 1)), *lines]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows) + "\n"


if __name__ == "__main__":
    main()
