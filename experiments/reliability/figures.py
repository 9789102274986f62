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
    """Return the Markdown of the figures; of what was not measured yet it says so."""
    lines = []
    for name, write in {"kills": _kills, "processes": _processes, "precision": _precision}.items():
        path = HERE / f"{name}.json"
        lines += write(json.loads(path.read_text())) if path.exists() else [f"- `{name}.py`: not measured yet."]
    return "\n".join(lines)


def _kills(found: dict[str, Any]) -> list[str]:
    return [
        f"- Kills survived: {found['kills']} ({found['at_a_random_time']} at a random time, "
        f"{found['in_the_middle_of_a_file']} in the middle of a file) in {found['runs']} runs of "
        f"{', '.join(found['methods'])}; runs that ended otherwise than the one left alone: {found['different']}."
    ]


def _processes(found: dict[str, Any]) -> list[str]:
    methods, lost = found["methods"], found["a_process_was_killed"]
    return [
        f"- Two processes and one, {found['steps']} steps, {len(methods)} methods: the largest difference of any "
        f"number is {_largest(methods, 'two_processes')}; if one goes on where two stopped halfway, "
        f"{_largest(methods, 'two_then_one')}.",
        f"- One of two processes killed: the launch ended after {lost['seconds']:.0f} s, start included, with exit "
        f"code {lost['code']}.",
    ]


def _precision(found: dict[str, Any]) -> list[str]:
    training = found["training"]
    return [
        *(_restored(name, found["images"], of_weights) for name, of_weights in found["weights"].items()),
        f"- A training of {training['steps']} steps in bfloat16 instead of float32: {training['difference']:+.3f} dB "
        "on its validation pair.",
    ]


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
