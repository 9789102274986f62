"""Draw README.md of the real run from its results and votes.

python experiments/finetune_real/real_table.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
THEN = ", from the weights shipped then"
RUNS = {
    "results": "`sstl adapt` as it is",
    "results-voted": f"The run that was voted on{THEN}",
    "results-rate-1e-4": f"At twice the rate, 1e-4, as `sstl adapt` went before{THEN}",
    "results-many": f"`--many`: rain over the manifest's clean photographs instead of a few bundled ones{THEN}",
    "results-many-routed": "`--many --routed`: and the start kept beside what is adapted",
    "results-veil-1-ungated": f"`--options veil=1 --no-gate`: the veil over the bundled few, judged by nobody{THEN}",
}
MEASURES = {
    "removed": "light removed, grey levels",
    "leftover": "leftover rain",
    "directionality": "directionality",
    "leakage": "leakage of gradients",
    "niqe": "NIQE",
    "doubt": "doubt",
    "clean": "clean photographs, dB RGB",
    "rain100l": "Rain100L dev, dB",
    "rain100h": "Rain100H dev, dB",
    "rain800": "Rain800 dev, dB",
}
ABOUT = """# Adapting the shipped weights to real photos

`run.py` adapts the shipped weights to the manifest's real training photos, as `sstl adapt` does it, and measures both
on the real development photos (no truth), on development pairs and on clean photographs. `real_table.py` writes this
page.

```text
SSTL_DATA=/path/to/data python experiments/finetune_real/run.py [--many [--routed]] [--options veil=1 --no-gate]
```
"""
LESSON = """
The gate rehearses rendered rain over photographs that are not trained on, and does not see what is forgotten of the
development pairs: who needs those keeps the shipped weights. Laid over few clean photographs, ungated, the veil teaches
a network to darken whatever is not among them; hence no veil by default.

The weights that ship now lift veils by themselves. Rehearsed under a veil on a few photographs, at small crops, they
came to remove twice as much light, and darkened photos; `sstl adapt` rehearses without a veil now, at larger crops, and
takes no square of light for a streak (the run at twice the rate). What that run forgets of the development pairs, most
of all of those of Rain800 that are darker than their truth, the gate does not see. At half that rate, from the weights
that ship now, the gate vouches for little, or for nothing, as the first table says; where it keeps a network, Rain800's
development pairs say what that costs them.

With the start kept beside it, the gate vouches for a little. It would vouch for much more, of a network that took poles
and leaves for rain, did it not ask how much rain there is (`gate.light`). Some of Rain800's development pairs look
like the photos to the router, and lose.
"""


def verdict(tree: dict[str, Any]) -> str:
    """Say in a sentence what the gate decided and what the run took."""
    outcome = tree["outcome"]
    told = {True: "accepted", False: "not accepted, the start is kept", None: "not judged"}[outcome["accepted"]]
    if outcome["gain"] is not None:
        told += f" (predicted {outcome['gain']:+.2f} ± {outcome['error']:.2f} dB)"
    spent = f"{tree['minutes']:.1f} minutes, {tree['peak_gib']:.2f} GiB"
    return f"{told}; {tree['photos']} photos, {spent}; commit {tree['environment']['commit'][:10]}"


def section(tree: dict[str, Any], title: str) -> str:
    """Return the table of one run."""
    flat = [{**tree[when]["real_dev"], **tree[when]["pairs_dev"]} for when in ("before", "after")]
    rows = [f"| {label} | {flat[0][key]:.2f} | {flat[1][key]:.2f} |" for key, label in MEASURES.items()]
    head = "| measure | before | after |\n| --- | --- | --- |\n"
    return f"\n## {title}\n\n{verdict(tree)}.\n\n{head}" + "\n".join(rows) + "\n"


def votes(tree: dict[str, Any]) -> str:
    """Return what a person saw."""
    count = tree["preference"]
    return (
        f"\n## Looked at, blind\n\nOf all {tree['count']} photos after that run, {count['first']} are better than "
        f"before, {count['same']} the same and {count['second']} worse, to one voter who did not know which was which "
        f"(shown: {tree['shown']}). Better in {count['share']:.0%} of those decided (95 % interval "
        f"{count['interval'][0]:.0%} to {count['interval'][1]:.0%}). What was voted down is texture taken for rain: "
        "leaves, lattices, boards, folds of cloth. `votes.json` has each photo.\n"
    )


def main() -> None:
    """Write the page."""
    runs = [section(json.loads((HERE / f"{name}.json").read_text()), title) for name, title in RUNS.items()]
    seen = votes(json.loads((HERE / "votes.json").read_text()))
    (HERE / "README.md").write_text("".join([ABOUT, *runs[:2], seen, *runs[2:], LESSON]), encoding="utf-8")


if __name__ == "__main__":
    main()
