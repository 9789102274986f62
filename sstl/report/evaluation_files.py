"""The files of an evaluation: scores.json, images.csv, table.md and report.html."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sstl.ops.files import write_atomic
from sstl.report.evaluation_page import EvaluatedSet, evaluation_page
from sstl.report.evaluation_table import markdown, means
from sstl.report.page import write_page
from sstl.report.published import NOTE, beside
from sstl.restore import Restorer


def write_files(
    folder: Path, sets: Sequence[EvaluatedSet], restorers: Mapping[str, Restorer], about: Mapping[str, Any]
) -> list[Path]:
    """Write the four files into ``folder``, each whole or not at all, and return their paths, the page last.

    Args:
        folder: made if it is missing.
        sets: one or more.
        restorers: the networks by the names that the evaluations call them.
        about: what to write into scores.json beside the figures: data, weights.
    """
    tree = {**about, "sets": {one.name: _tree(one) for one in sets}}
    return [
        write_atomic(folder / "scores.json", json.dumps(tree, indent=1, allow_nan=False) + "\n"),
        write_atomic(folder / "images.csv", _csv(sets)),
        write_atomic(folder / "table.md", "\n\n".join(_markdown(one) for one in sets) + "\n"),
        write_page(folder / "report.html", evaluation_page(sets, restorers)),
    ]


def _tree(one: EvaluatedSet) -> dict[str, Any]:
    published = {"published": [asdict(figure) for figure in one.published]} if one.published else {}
    return {**one.evaluation.to_dict(), **published}


def _csv(sets: Sequence[EvaluatedSet]) -> str:
    """Return a line per image, candidate and set; an infinite PSNR is "inf", what is undefined is empty."""
    rows = [
        {"set": one.name, "image": row.key, "candidate": name, "protocol": one.evaluation.protocol or "", **values}
        for one in sets
        for row in one.evaluation.rows
        for name, values in row.scores.items()
    ]
    columns = list(dict.fromkeys(["set", "image", "candidate", "protocol", *(name for row in rows for name in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(one: EvaluatedSet) -> str:
    count = len(one.evaluation.rows)
    parts = [f"**{one.name}**: protocol {one.evaluation.protocol or 'none'}, mean over {count} images."]
    if count:
        parts += [markdown(means(one.evaluation.results)), *one.evaluation.notes()]
    if one.published:
        parts += [markdown(beside(one.published, one.evaluation.results)), NOTE]
    return "\n\n".join(parts)
