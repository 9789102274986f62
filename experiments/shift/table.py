"""Draw README.md of the suite from its cells: scores, the share of the gap recovered, forgetting, harm and time.

python experiments/shift/table.py
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from scipy.stats import spearmanr

HERE = Path(__file__).resolve().parent
LEAST_GAIN = 0.5  # dB of the oracle; cells below are shown, not pooled
LEAST_CHECKPOINTS = 20  # of a domain, for its correlation to count
DRAWS = 2000
WITHOUT = ("router", "exam", "matching", "transfer", "veil", "veiled", "dry", "rehearsal")
GATED = ("default", "cautious", *(f"without_{term}" for term in WITHOUT))
CLEAR, CLEAR_LOSS = 45.0, 0.1  # dB; clean photographs may lose so much, or stay so clear
FAR = 4.0  # dB; where the oracle gains that much, the default is to gain 2
Cells = dict[tuple[str, str, str], dict[str, Any]]
ABOUT = """# Adaptation to shifted rain

Source networks that saw only Rain100L's training pairs and the recipe `light` are adapted to domains whose rain they
never met, by 64 photos without truth each, and scored on 24 other images with truth (luma PSNR). Everything about the
domains is in `reserved.yaml` (a recipe that has a domain's name, `heavy` or `veil`, is another rain); `sources.py`
trained the sources, which are kept, with their hashes, in `sources/`;
`run.py` runs the cells, `trust.py` measures the score on their checkpoints, `doubt.py` checks the doubt map,
`strength.py` checks the rain that was matched, `draw.py` draws, `table.py` writes this page. One command runs all:

```text
SSTL_DATA=/path/to/data python experiments/shift            (hours; it goes on where it was)
```

All trials take the same steps from the same start, and all but the oracle see the same truth: the source's own pairs.
`control` is the supervised branch alone; `any` and `matched` render beside it the wide prior, or the streaks that `sstl
match` found in the photos; `oracle` has the photos' truth. `default` is what `sstl adapt` does from weights of
one's own with a folder of clear photographs (from the shipped weights on `--routed`), matched streaks, router and
gate included, by the settings of the suite: 200 steps at its higher rate on smaller crops, the source's own data
rehearsed, and rain that the source itself finds, where `sstl adapt` lets the shipped weights find it. It holds nothing
back, because the start goes on to restore what
does not look like the photos (`gate.others`): streak transfer at its full weight and the labelled pairs at half of it,
one in five dry, both behind the photos' veil; the less the start sees of the photos' rain, the more of the pairs wear
matched streaks; its router learns what other images look like from
the source's own pairs, from 32 dry photographs and from mist without rain on these, and its gate judges on crops of 32
others, under the rain that the start sees in the photos and under matched streaks
(`gate.matched`), and admits none that finds much more rain than was matched (`gate.light`); where the router would
recognise less than a quarter of the photos it does as `cautious`; `without_...` are its ablations.
`cautious` is what `sstl adapt` does without such a folder, and from the
shipped weights: one network, which must keep what it knew. The other trials have no gate. Matching renders with the
renderer that made the domains, whose recipes it must find within its prior; only `photographed` (and a part of
`mixture`) has streaks that it cannot render, so the others flatter it.
Until `sstl match` made it as strong as the photos' (`as_strong`), matched rain was much too strong: so it was for the
cells of `matched`, and of `cautious` from `jorder` and `shipped`, which were measured before that and before
`gate.light`. The rows of `shipped` are of `joint-small` before its fourth sitting, those of its `default` of when the
labelled pairs weighed as much as the others and wore no veil. All cells of `cautious`, of the ablations and of
`shipped` were judged on the rain that the start sees alone (beside a router, on what the judged network saw, too),
before matched streaks were in the exam; and where the processor has bfloat16, the streaks that methods and gates lay
were resampled on a grid that was off by up to half a pixel. Only `default` and `streak_transfer` are from after that
was mended, and `best_so_far` learned by an earlier calibration of its judge.
`shipped` is no source of the suite: it is the weights of the package, which have seen more rain and the photos'
backgrounds, and it counts in no pool.
`collapsed` and `smoothed` are wrong on purpose, for the label-free score to find:
the photos, or their blurred truth, are taught as truth (where rain is dense, blur is no harm).

Gap recovered: the sum of gains over the start, over
the sum of the oracle's, in the domains where the oracle gains {least} dB or more, with a 95 % bootstrap interval over
images. Source: luma PSNR on Rain100L development pairs, that is, what is forgotten; clean: RGB PSNR of clean
photographs against themselves, at most 60 each; both are means over the domains that were measured.

{missing}
"""

DRAWN = """
![What each trial recovers of the gap](gap.svg)

(Over the cells that were measured: how many, say the tables; a share over one cell is no match for one over three.)

Photographs of scikit-image under the rain of the domains (`draw.py`), restored by `joint` before and after the
default's adaptation:

![Rainy, by the start, by the default, the truth](pictures.jpg)
"""


def load_cells() -> Cells:
    """Return all cells by (domain, source, trial)."""
    cells = [json.loads(path.read_text()) for path in sorted((HERE / "cells").glob("*.json"))]
    return {(cell["domain"], cell["source"], cell["trial"]): cell for cell in cells}


def gains_of(cells: Cells, domains: Sequence[str], sources: Sequence[str], trial: str) -> list[np.ndarray]:
    """Return the gains of a trial and of the oracle, (2, images), in each cell where the oracle gains enough."""
    found = []
    for domain, source in product(domains, sources):
        three = [cells.get((domain, source, name)) for name in ("start", trial, "oracle")]
        if None not in three:
            start, adapted, oracle = (np.array(cell["test"]) for cell in three if cell)
            if (oracle - start).mean() >= LEAST_GAIN:
                found.append(np.stack([adapted - start, oracle - start]))
    return found


def shares(pairs: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """Return the share of the gap recovered over the cells that ``gains_of`` gives, and the ends of its interval."""
    rng = np.random.default_rng(0)
    gains, wanted = np.sum(pairs, axis=0)
    # All cells have the same test backgrounds: images are drawn once for all of them.
    drawn = rng.integers(len(gains), size=(DRAWS, len(gains)))
    low, high = np.quantile(gains[drawn].mean(axis=1) / wanted[drawn].mean(axis=1), (0.025, 0.975))
    return float(gains.mean() / wanted.mean()), float(low), float(high)


def gap(cells: Cells, domains: Sequence[str], sources: Sequence[str], trial: str) -> str:
    """Return the share of the gap recovered over some cells as text; empty without cells."""
    pairs = gains_of(cells, domains, sources, trial)
    if not pairs:
        return ""
    share, low, high = shares(pairs)
    return f"{share:.0%} ({low:.0%} to {high:.0%}; {len(pairs)} cells)"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def section(cells: Cells, domains: Sequence[str], source: str) -> str:
    """Return the tables of one source network."""
    trials = [name for name in dict.fromkeys(key[2] for key in cells if key[1] == source) if name != "start"]
    trials.sort(key=lambda name: (name != "control", name == "oracle", name))
    starts = [cells[domain, source, "start"] for domain in domains]
    rows = [["input", *(f"{np.mean(start['input']):.2f}" for start in starts)]]
    for name in ("start", *trials):
        found = [cells.get((domain, source, name)) for domain in domains]
        rows.append([name, *(f"{np.mean(cell['test']):.2f}" if cell else "" for cell in found)])
    text = f"\n## {source}\n\n{table(['trial', *domains], rows)}\n"
    developed = yaml.safe_load((HERE / "reserved.yaml").read_text())["developed_on"]
    untouched = [domain for domain in domains if domain not in developed]
    start = starts[0]
    rows = [["start", "", "", f"{start['source_psnr']:.2f}", f"{start['clean_psnr']:.2f}", ""]]
    for name in trials:
        own = [cell for key, cell in cells.items() if key[1:] == (source, name)]
        means = [f"{np.mean([cell[key] for cell in own]):.2f}" for key in ("source_psnr", "clean_psnr")]
        minutes = f"{np.mean([cell['processor_minutes'] for cell in own]):.1f}"
        rows.append(
            [name, gap(cells, developed, [source], name), gap(cells, untouched, [source], name), *means, minutes]
        )
    head = ["trial", "gap recovered, developed on", "gap recovered, untouched", "source", "clean", "processor minutes"]
    return text + table(head, rows)


def together(cells: Cells, domains: Sequence[str], sources: Sequence[str]) -> str:
    """Return the gap recovered over all sources by the trials that ran on more than one."""
    developed = yaml.safe_load((HERE / "reserved.yaml").read_text())["developed_on"]
    untouched = [domain for domain in domains if domain not in developed]
    trials = sorted({key[2] for key in cells if key[1] in sources[1:]} - {"start", "oracle"})
    rows = [[name, *(gap(cells, group, sources, name) for group in (developed, untouched))] for name in trials]
    if not rows:
        return ""
    head = ["trial", "gap recovered, developed on", "gap recovered, untouched"]
    return f"\n## All sources together\n\n{table(head, rows)}"


def gated(cells: Cells) -> str:
    """Return what the gates chose, beside the best checkpoint in hindsight."""
    rows, short, lost = [], [], []
    for (domain, source, trial), cell in cells.items():
        if trial not in GATED or not cell.get("trust"):
            continue
        start, chosen = (float(np.mean(c["test"])) for c in (cells[domain, source, "start"], cell))
        best, trust = max(start, chosen, *cell["snapshots"].values()), cell["trust"]["best"] or {}
        predicted = f"{trust['gain']:+.2f} ± {trust['error']:.2f}" if trust else ""
        kept = f"{trust['share']:.0%} of step {trust['step']}" if cell["trust"]["accepted"] else "the start"
        short.append(best - chosen)
        lost.append(start - chosen)
        changes = [f"{chosen - start:+.2f}", predicted, kept, f"{best - chosen:+.2f}"]
        of_start = cells[domain, source, "start"]
        kept_up = [of_start["source_psnr"] - cell["source_psnr"], cell["clean_psnr"] - of_start["clean_psnr"]]
        rows.append([f"{domain}, {source}, {trial}", *changes, *(f"{value:+.2f}" for value in kept_up)])
    if not rows:
        return ""
    head = ["cell", "gain", "predicted", "kept", "best snapshot above it", "forgotten", "clean"]
    return (
        f"\n## What the gate chose\n\n{table(head, rows)}\nIn dB. On average the best snapshot in hindsight is "
        f"{np.mean(short):.2f} dB above what was chosen (some of these forget more than is accepted); the worst cell "
        f"is {max(lost):+.2f} dB below its start. Forgotten: on Rain100L development pairs; clean: what "
        "the PSNR of clean photographs against themselves gained.\n"
    )


def wanted(cells: Cells, domains: Sequence[str], sources: Sequence[str], trial: str) -> str:
    """Return what the default was to reach beside what a trial reaches."""
    developed = yaml.safe_load((HERE / "reserved.yaml").read_text())["developed_on"]
    untouched = [domain for domain in domains if domain not in developed]
    own = {key[:2]: cell for key, cell in cells.items() if key[2] == trial and key[1] in (*sources, "shipped")}
    if not own:
        return ""
    gains, over, forgot, harmed, far = {}, {}, {}, [], []
    for (domain, source), cell in own.items():
        start, oracle = cells[domain, source, "start"], cells.get((domain, source, "oracle"))
        before, after = float(np.mean(start["test"])), float(np.mean(cell["test"]))
        gains[domain, source] = after - before
        over[domain, source] = max(before, after, *cell["snapshots"].values()) - after
        forgot[domain, source] = start["source_psnr"] - cell["source_psnr"]
        if cell["clean_psnr"] < min(CLEAR, start["clean_psnr"] - CLEAR_LOSS):
            harmed.append(f"{domain}, {source}")
        if oracle and domain in untouched and np.mean(oracle["test"]) - before >= FAR:
            far.append((domain, source))
    reached = sum(gains[key] >= 2 for key in far)
    worst, forgetful = min(gains, key=gains.__getitem__), max(forgot, key=forgot.__getitem__)
    rows = [
        ["gap recovered, untouched, three sources", "60%", gap(cells, untouched, sources, trial)],
        [f"+2 dB where the oracle gains {FAR:.0f} dB, untouched", "all", f"{reached} of {len(far)} cells"],
        ["forgotten, dB, at most", "0.30", f"{forgot[forgetful]:+.2f} ({', '.join(forgetful)})"],
        [f"less clean by over {CLEAR_LOSS} dB and below {CLEAR:.0f} dB", "none", "; ".join(harmed) or "none"],
        ["best snapshot above what was chosen, dB, mean", "0.20", f"{np.mean([*over.values()]):.2f}"],
        ["below the start, dB, at most", "0.05", f"{max(0.0, -gains[worst]):.2f} ({', '.join(worst)})"],
    ]
    if trial == "default":
        same = {key: cell for key, cell in cells.items() if key[:2] in own}
        rows.insert(1, ["the same by `cautious`, over the same cells", "", gap(same, untouched, sources, "cautious")])
    return f"\n## Wanted and reached by `{trial}`\n\n" + table(["", "wanted", "reached"], rows)


def trusted() -> str:
    """Return how the label-free score orders checkpoints."""
    file = HERE / "trust.json"
    if not file.exists():
        return ""
    tree = json.loads(file.read_text())
    rows = [
        [f"{row['domain']}, {row['source']}", "yes" if row["calibrated_on"] else "no", str(row["checkpoints"]),
         f"{row['gains'][0]:+.2f} to {row['gains'][1]:+.2f}", f"{row['spearman']:.2f}", f"{row['error']:.2f}",
         f"{row['spearman_with_flattered']:.2f}", ", ".join(f"{a:+.1f} ({b:+.1f})" for a, b in row["flattered"])]
        for row in tree["rows"]
    ]  # fmt: skip
    medians = []
    for name, calibrated in (("calibrated on", True), ("untouched", False)):
        own = [
            row
            for row in tree["rows"]
            if row["calibrated_on"] == calibrated and row["checkpoints"] >= LEAST_CHECKPOINTS
        ]
        if own:
            points = np.concatenate([np.array(row["points"]) for row in own])
            median = np.median([row["spearman"] for row in own])
            pooled = spearmanr(points[:, 0], points[:, 1]).statistic
            medians.append(f"{name}: median within a domain {median:.2f}, pooled {pooled:.2f} ({len(own)} domains)")
    left = list(tree["left_out"].items())
    head = ["domain, source", "calibrated on", "checkpoints", "true gains, dB", "Spearman", "error, dB"]
    head += ["Spearman with `default`'s", "`default`'s, predicted (true)"]
    return (
        f"\n## How far the label-free score can be trusted\n\n{table(head, rows)}\nRank correlation of the predicted "
        f"with the true gain over checkpoints; {'; '.join(medians)}. Error: root mean square of the predicted gain. "
        "`default` trains on what the score examines: its snapshots, each with the whole way and of all photos, are in "
        "the last two columns alone.\n\n"
        "![Predicted against true gains](score.svg)\n\nWhat fitted weights and other measures would do: the rank "
        "correlation in each domain that was developed on, by weights that were fitted to the others of these.\n\n"
        + table(["measures", *left[0][1]], [[name, *(f"{value:.2f}" for value in own.values())] for name, own in left])
    )


def doubted() -> str:
    """Return how far the doubt map shows the true error."""
    file = HERE / "doubt.json"
    if not file.exists():
        return ""
    rows = json.loads(file.read_text())["rows"]
    lines = [
        [row["domain"], row["source"], row["weights"], f"{row['spearman']:.2f}", f"{row['share']:.0%}"] for row in rows
    ]
    return (
        "\n## How far the doubt map shows the error\n\n"
        + table(
            ["domain", "source", "weights", "rank correlation within a photo", "error in the tenth doubted most"], lines
        )
        + "\nIn blocks of 16 pixels, means over the test photos (`doubt.py`); a map that knows nothing has 0 and 10%.\n"
    )


def strengths() -> str:
    """Return how the matched rain compares with the domains' own."""
    file = HERE / "strength.json"
    if not file.exists():
        return ""

    def ends(pairs: list[list[float]]) -> str:
        return f"{min(low for low, _ in pairs):.3g} to {max(high for _, high in pairs):.3g}"

    lines = []
    for row in json.loads(file.read_text())["rows"]:
        ranges = [f"{ends(both['own'])} / {ends([both['matched']])}" for both in row["ranges"].values()]
        lines.append([row["domain"], f"{row['own']:.3f} / {row['matched']:.3f}", *ranges])
    head = ["domain", "mean streak", "angle", "length", "density of a layer", "brightness"]
    return (
        f"\n## The rain that was matched\n\n{table(head, lines)}\nThe domain's own / what `sstl match` made of its "
        "photos (`strength.py`). How many layers share the density is not in the table, but is in the mean.\n"
    )


def main() -> None:
    """Write the page."""
    cells = load_cells()
    reserved = yaml.safe_load((HERE / "reserved.yaml").read_text())
    domains = reserved["domains"]
    sources = ("joint", "prenet", "jorder")
    count = sum(key[2] != "start" for key in cells)
    missing = f"{count} cells have been measured so far; what is empty or has no row was not."
    text = ABOUT.format(least=LEAST_GAIN, missing=missing)
    for source in (*sources, "shipped"):
        measured = [domain for domain in domains if (domain, source, "start") in cells]
        text += section(cells, measured, source) if measured else ""
    text += DRAWN
    text += together(cells, domains, sources)
    text += "".join(wanted(cells, domains, sources, trial) for trial in ("default", "cautious"))
    text += gated(cells) + strengths() + trusted() + doubted()
    (HERE / "README.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
