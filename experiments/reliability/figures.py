"""Write the figures of docs/reliability.md from the results files of kills.py, processes.py and precision.py.

python experiments/reliability/figures.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent.parent / "docs" / "reliability.md"
START, END = "<!-- figures: written by experiments/reliability/figures.py -->", "<!-- /figures -->"


def figures() -> str:
    """Return the Markdown of the figures."""
    kills, processes, precision = (
        json.loads((HERE / f"{name}.json").read_text()) for name in ("kills", "processes", "precision")
    )
    methods = processes["methods"]
    lost = processes["a_process_was_killed"]
    return "\n".join(
        [
            f"- Kills survived: {kills['kills']} ({kills['at_a_random_time']} at a random time, "
            f"{kills['in_the_middle_of_a_file']} in the middle of a file) in {kills['runs']} runs of "
            f"{', '.join(kills['methods'])}; runs that ended otherwise than the one left alone: {kills['different']}.",
            f"- Two processes and one, {processes['steps']} steps, {len(methods)} methods: the largest difference of "
            f"any number is {_largest(methods, 'two_processes')}; if one goes on where two stopped halfway, "
            f"{_largest(methods, 'two_then_one')}.",
            f"- One of two processes killed: the launch ended after {lost['seconds']:.0f} s, start included, with exit "
            f"code {lost['code']}.",
            *(_restored(name, precision["images"], found) for name, found in precision["weights"].items()),
            f"- A training of {precision['training']['steps']} steps in bfloat16 instead of float32: "
            f"{precision['training']['difference']:+.3f} dB on its validation pair.",
            "",
            f"Machine: {kills['environment']['processors']} processors, {kills['environment']['platform']}, torch "
            f"{kills['environment']['torch']}.",
        ]
    )


def _largest(methods: dict[str, Any], key: str) -> str:
    name = max(methods, key=lambda method: methods[method][key])
    return f"{methods[name][key]:.1e} (`{name}`)"


def _restored(name: str, images: int, found: dict[str, float]) -> str:
    return (
        f"- `{name}` in bfloat16 instead of float32, {images} images: {found['difference']:+.4f} dB in the mean, at "
        f"most {found['largest_of_an_image']:.4f} dB in one image."
    )


def main() -> None:
    """Replace what stands between the marks."""
    before, _, rest = PAGE.read_text().partition(START)
    PAGE.write_text(f"{before}{START}\n{figures()}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
