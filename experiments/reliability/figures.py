"""Write the figures of docs/reliability.md and docs/reliability-inputs.md from the harnesses' results files.

python experiments/reliability/figures.py
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent.parent / "docs"
START, END = "<!-- figures: written by experiments/reliability/figures.py -->", "<!-- /figures -->"


def figures(harnesses: dict[str, Callable[[dict[str, Any]], list[str]]]) -> str:
    """Return the Markdown of the figures; of what was not measured yet it says so."""
    lines = []
    for name, write in harnesses.items():
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
        f"- {len(training['fp32'])} trainings of {training['steps']} steps in bfloat16 instead of float32, each from "
        f"its own seed: {training['difference']:+.3f} dB in the mean on their validation pairs, with a standard error "
        f"of {training['standard_error']:.3f} dB; among the float32 ones the standard deviation is "
        f"{training['spread_of_fp32']:.3f} dB.",
    ]


def _largest(methods: dict[str, Any], key: str) -> str:
    name = max(methods, key=lambda method: methods[method][key])
    return f"{methods[name][key]:.1e} (`{name}`)"


def _restored(name: str, images: int, found: dict[str, float]) -> str:
    return (
        f"- `{name}` in bfloat16 instead of float32, {images} images: {found['difference']:+.4f} dB in the mean, at "
        f"most {found['largest_of_an_image']:.4f} dB in one image."
    )


def _hostile(found: dict[str, Any]) -> list[str]:
    commands = found["commands"]
    slowest, hungriest = (max(commands, key=lambda name: commands[name][key]) for key in ("seconds", "peak_gigabytes"))
    return [
        f"- {found['files']:,} files, {found['broken_or_odd']:,} of them broken or odd, through {', '.join(commands)}: "
        f"{len(found['wrong'])} things wrong; at most {commands[slowest]['seconds']:.0f} s ({slowest}) and "
        f"{commands[hungriest]['peak_gigabytes']:.2f} GB ({hungriest})."
    ]


def _fuzz(found: dict[str, Any]) -> list[str]:
    files = {name: sum(counts.values()) for name, counts in found["files"].items()}
    told = ", ".join(f"{count:,} of {name}" for name, count in files.items())
    return [f"- Fuzzed for {found['minutes']:.0f} minutes: {told}; {len(found['wrong'])} things wrong."]


def _load_many(found: dict[str, Any]) -> list[str]:
    call, again = found["one_call"], found["resumed"]
    return [
        f"- {call['photos']:,} photos in one call: {call['bytes_more_for_each_photo'] / 1e3:.1f} kB of memory more for "
        f"each, and the last tenth took {call['last_tenth_to_first']:.2f} times as long as the first.",
        f"- Killed after {again['finished_before_the_kill']:,} of them and called again: {again['kept']:,} kept, "
        f"{again['finished_files_touched']} of them touched, {again['results']:,} results in the end.",
    ]


def _load_large(found: dict[str, Any]) -> list[str]:
    return [
        f"- A photo of {found['megapixels']:.0f} megapixels: {found['peak_gigabytes']:.2f} GB at the peak, "
        f"{found['seconds']:.0f} s."
    ]


def _load_adapt(found: dict[str, Any]) -> list[str]:
    return [
        f"- `adapt` on {found['photos']:,} photos: {found['seconds_until_matching']:.1f} s until it begins to match "
        f"their rain, {found['seconds_until_training']:.1f} s until it trains."
    ]


PAGES = {
    "reliability.md": {"kills": _kills, "processes": _processes, "precision": _precision},
    "reliability-inputs.md": {
        "hostile": _hostile, "fuzz": _fuzz, "load_many": _load_many, "load_large": _load_large,
        "load_adapt": _load_adapt,
    },
}  # fmt: skip


def main() -> None:
    """Replace what stands between the marks."""
    for name, harnesses in PAGES.items():
        page = DOCS / name
        before, _, rest = page.read_text().partition(START)
        page.write_text(f"{before}{START}\n{figures(harnesses)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
