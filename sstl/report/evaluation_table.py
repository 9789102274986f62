"""The columns of an evaluation's table, for the terminal, for Markdown and for the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sstl.metrics import Summary

Found = Mapping[str, Summary]
"""Metric -> its mean over the images, of one candidate."""


def means(results: Mapping[str, Found]) -> list[list[str]]:
    """Return the means as text, the header first, then one candidate a line; columns without a value are left out."""
    cells = [["", *(title for title, _ in _COLUMNS)]]
    cells += [[name, *(cell(found) for _, cell in _COLUMNS)] for name, found in results.items()]
    kept = [index for index, column in enumerate(zip(*cells, strict=True)) if index == 0 or any(column[1:])]
    return [[line[index] for index in kept] for line in cells]


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells as text in columns."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return lines of cells, the header first, as a Markdown table."""
    header, *rows = [[cell.replace("|", "\\|").replace("\n", " ") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def _number(metric: str, form: str, interval: bool = False) -> Callable[[Found], str]:
    def cell(found: Found) -> str:
        if metric not in found:
            return ""
        bounds = found[metric].interval if interval else None
        return f"{found[metric].mean:{form}}" + (f" [{bounds[0]:{form}}, {bounds[1]:{form}}]" if bounds else "")

    return cell


def _f1(found: Found) -> str:
    return f"{found['f1'].mean:.3f} ({found['f1_all_ones'].mean:.3f})" if "f1" in found else ""


DECIBELS = {"PSNR dB": "psnr", "rainy px dB": "psnr_rain", "rain-free px dB": "psnr_free"}
_COLUMNS = (
    ("PSNR dB [95 %]", _number("psnr", ".2f", interval=True)),
    ("SSIM", _number("ssim", ".4f")),
    ("gain dB [95 %]", _number("gain", "+.2f", interval=True)),
    ("rainy px dB", _number("psnr_rain", ".2f")),
    ("rain-free px dB", _number("psnr_free", ".2f")),
    ("map F1 (all ones)", _f1),
    ("NIQE", _number("niqe", ".2f")),
    ("oriented", _number("directionality", ".3f")),
    ("left over", _number("leftover", ".3f")),
    ("leakage", _number("leakage", "+.3f")),
    ("s/image", _number("seconds", ".3f")),
)
