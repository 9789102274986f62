"""Model cards: what weights are, learnt from, scored and cannot do, as the README.md that stands beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

TAGS = ("image-restoration", "deraining", "sstl")
NOT_STATED = "Not stated."
MEASURE = "Not measured. `sstl evaluate --data MANIFEST --split SPLIT --weights WEIGHTS -o DIR` measures it."
SECTIONS = ("data", "protocol", "figures", "limits")
"""What a card reads from the notes of weights: data, protocol: text; limits: texts; figures: a list of rows, each a
mapping of column to value. What else the notes hold is told as the training."""


def model_card(
    title: str, network: str, config: Mapping[str, Any], info: Mapping[str, Any], licence: str | None
) -> str:
    """Return the card of weights.

    Args:
        title: their name.
        network, config: of ``create_network``.
        info: what was saved with them; see ``SECTIONS``.
        licence: an identifier that the hub knows, for example ``apache-2.0``; None leaves it open.
    """
    head = {"library_name": "sstl", "pipeline_tag": "image-to-image", "tags": list(TAGS)}
    if licence:
        head["license"] = licence
    arguments = ", ".join(f"{key}={value!r}" for key, value in config.items())
    training = "\n".join(f"- {key}: {_plain(value)}" for key, value in info.items() if key not in SECTIONS)
    return f"""---
{yaml.safe_dump(head, sort_keys=False).rstrip()}
---

# {title}

Removes rain from photographs: `{network}({arguments})` of sstl.

```python
import sstl

clean = sstl.load("FOLDER or hub:ORG/NAME").restore("photo.jpg")
```

## Data

{_paragraphs(info.get("data"))}

## Training

{training or NOT_STATED}

## Figures

{_figures(info)}

## Limits

{_paragraphs(info.get("limits"))}
"""


def _paragraphs(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "\n".join(f"- {_plain(one)}" for one in value) or NOT_STATED
    return str(value) if value else NOT_STATED


def _figures(info: Mapping[str, Any]) -> str:
    rows: Sequence[Mapping[str, Any]] = info.get("figures") or []
    if not rows:
        return MEASURE
    columns = list(dict.fromkeys(column for row in rows for column in row))
    lines = [columns, ["---"] * len(columns), *([_plain(row.get(column, "")) for column in columns] for row in rows)]
    table = "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
    return f"Protocol: {info.get('protocol') or 'not stated'}.\n\n{table}"


def _plain(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else " ".join(str(value).split())
