"""Write the README's table of results from the results files, between its two marks.

python experiments/summary.py
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SHIFT = ROOT / "experiments/shift"
sys.path[:0] = [str(SHIFT), str(ROOT / "experiments/campaign")]

from card import GROWN, backgrounds  # noqa: E402
from table import Cells, gains_of, load_cells, shares  # noqa: E402

REAL_PAGE = "experiments/finetune_real/README.md"
START, END = "<!-- results: written by experiments/summary.py -->", "<!-- /results -->"


def results() -> str:
    """Return the Markdown of the results."""
    first = {
        path.stem.removeprefix("scores-"): json.loads(path.read_text())
        for path in sorted((ROOT / "experiments/first-run").glob("scores-*.json"))
    }
    quick = json.loads((ROOT / "experiments/quickstart/results.json").read_text())
    header = (
        "weights",
        "development set",
        "images (backgrounds)",
        "input dB",
        "PSNR dB",
        "gain dB [95 %]",
        "map F1 (all ones)",
    )
    rows = [header, ["---"] * len(header)]
    rows += [_row(name, on, found) for name, one in first.items() for on, found in one["sets"].items()]
    gains = quick["mean_gain_db"]
    seeds = ", ".join(sorted({str(run["seed"]) for run in quick["runs"]}))
    return f"""\
Luma PSNR (`y-matlab`), mean over images of the development split, on which
checkpoints were chosen, too. The published test sets were not looked at.
Rain100H has few development pairs, some of one background: the interval is too narrow.
F1 is that of the rain map; in brackets, of a map of ones.

{chr(10).join("| " + " | ".join(row) + " |" for row in rows)}

{chr(10).join(_about(name, one) for name, one in first.items())}

Quickstart, mean gain over seeds {seeds}: `default` {gains["default"]:+.2f} dB, `mean_teacher`
{gains["mean_teacher"]:+.2f} dB; the control, the same steps without the unlabelled photos,
{gains["supervised"]:+.2f} dB; where no gain was judged, the start is returned and counts 0
([results](experiments/quickstart/results.json)). Its rain is drawn by the renderer that is matched to it,
which flatters the gain."""


def adaptation() -> str:
    """Return what adaptation without truth reaches, in the suite and on real photos."""
    cells, tree = load_cells(), yaml.safe_load((SHIFT / "reserved.yaml").read_text())
    untouched = [name for name in tree["domains"] if name not in tree["developed_on"]]
    control = shares(gains_of(cells, untouched, ["joint"], "control"))[0]
    voted = json.loads((ROOT / "experiments/finetune_real/votes.json").read_text())
    votes = voted["preference"]
    run = json.loads((ROOT / "experiments/finetune_real/results.json").read_text())
    real = run["outcome"]
    before, after = (run[when]["pairs_dev"] for when in ("before", "after"))
    most = max(before.keys() - {"clean"}, key=lambda name: before[name] - after[name])
    kept = f"accepted; development pairs of {most} change by {after[most] - before[most]:+.2f} dB, the most of any set"
    told_of = f"{real['gain']:+.2f} ± {real['error']:.2f} dB predicted"
    judged = f"{told_of}, " + (kept if real["accepted"] else "so the start was returned")
    better, same, worse = (votes[key] for key in ("first", "same", "second"))
    return f"""\
Adapted without truth to rain that its start never met, in domains that no choice was made on, of what training with the
truth gains is recovered by `sstl adapt` from weights of one's own
with clear photographs: {_recovered(cells, untouched, "default")};
and without them, where one network must keep what it knew: {_recovered(cells, untouched, "cautious")}
(the control, the same steps without the photos: {control:.0%} from `joint`;
[all methods, all domains, by what settings](experiments/shift/README.md)).
Of {better + same + worse} real photos, most of which were adapted to, {better} became better than by the weights
shipped at commit {voted["run"][:10]}, {same} stayed the same and {worse} became worse, to one person who voted blind;
development pairs lost ([by how much]({REAL_PAGE})). The weights that ship now do more by themselves. Adapting *them*
to those photos: {judged}."""


def _recovered(cells: Cells, domains: list[str], trial: str) -> str:
    """Return what a trial recovers of the gap from each source, over how many domains, and what it forgets at most."""
    found = []
    for source in ("joint", "prenet", "jorder"):
        pairs = gains_of(cells, domains, [source], trial)
        if pairs:
            share, low, high = shares(pairs)
            told = f"{share:.0%} [{low:.0%}, {high:.0%}] from `{source}`"
            found.append(f"{told} ({len(pairs)} domains)")
    lost = [
        cells[domain, source, "start"]["source_psnr"] - cell["source_psnr"]
        for (domain, source, name), cell in cells.items()
        if name == trial and domain in domains and source != "shipped"
    ]
    return f"{', '.join(found)}, where the source loses {max(lost):.2f} dB at most of what it knew"


def _about(name: str, found: dict[str, Any]) -> str:
    clean = found["clean photographs"]
    clear, harm = f"{clean['mean']:.1f} dB RGB against themselves", f"{clean['count']} images, each capped at 60"
    measured = json.loads((ROOT / "experiments/benchmarks/speed.json").read_text())
    (fast,) = (one for one in measured["networks"] if one["name"] == name.replace("-", " "))
    speed = f"{1000 * fast['seconds']:.0f} ms by {measured['environment']['threads']} threads, {fast['precision']}"
    results = f"[results](experiments/first-run/scores-{name}.json)"
    smaller = GROWN.get(name.removeprefix("joint-"))
    grown = f" on top of those of `joint-{smaller}`, from which it was grown" if smaller else ""
    return (
        f"- `{name}`: clean photographs as input, {clear} ({harm});\n  one 481×321 image, {speed}\n"
        f"  ([speed](experiments/benchmarks/speed.md)); trained for "
        f"{found['weights']['minutes']:.0f} minutes{grown}, on two cores without a GPU ({results})."
    )


def _row(name: str, on: str, found: dict[str, Any]) -> list[str]:
    after, gain = found["restored"], found["restored"]["gain"]
    low, high = gain["interval"]
    return [
        f"`{name}`",
        on,
        f"{found['count']} ({backgrounds(on, 'dev') or found['count']})",
        f"{found['input']['psnr']['mean']:.2f}",
        f"{after['psnr']['mean']:.2f}",
        f"{gain['mean']:+.2f} [{low:+.2f}, {high:+.2f}]",
        f"{after['f1']['mean']:.2f} ({after['f1_all_ones']['mean']:.2f})",
    ]


def main() -> None:
    """Replace what stands between the marks."""
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(START)
    readme.write_text(f"{before}{START}\n{results()}\n\n{adaptation()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
