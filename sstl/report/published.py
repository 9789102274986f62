"""Published figures, to show beside ours under the same protocol only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from typing import Literal

from sstl.config import load_config
from sstl.errors import SstlError, did_you_mean
from sstl.metrics import Protocol, Summary

NOTE = (
    "Published figures are means over the whole test set that bears the name. Yours compare with them only if your "
    "images are that test set and your network has the training named."
)


@dataclass(frozen=True)
class PublishedFigure:
    """One published figure.

    Attributes:
        set: the test set, for example rain100l.
        protocol: under which it was measured; "unstated" if the source does not say.
        method: the network or method.
        training: what it was trained on.
        psnr: dB, mean over the test set.
        source: where the figure stands.
        ssim: likewise, if it is known.
    """

    set: str
    protocol: Literal["rgb", "y-matlab", "unstated"]
    method: str
    training: str
    psnr: float
    source: str
    ssim: float | None = None


@dataclass(frozen=True)
class PublishedFigures:
    """The content of ``published.yaml``."""

    figures: tuple[PublishedFigure, ...]


def all_published() -> tuple[PublishedFigure, ...]:
    """Return every published figure that is known."""
    with as_file(files("sstl.report") / "published.yaml") as path:
        return load_config(PublishedFigures, path).figures


def published(name: str, protocol: Protocol | None) -> list[PublishedFigure]:
    """Return the published figures of a test set under one protocol, best first.

    Raises:
        SstlError: none is known of this set, or only under another protocol: a table that would mix them is refused.
    """
    known = all_published()
    of_set = [figure for figure in known if figure.set == name]
    if not of_set:
        raise SstlError(f"no published figure is known of '{name}'.{did_you_mean(name, {f.set for f in known})}")
    found = [figure for figure in of_set if figure.protocol == protocol]
    if not found:
        others = ", ".join(sorted({figure.protocol for figure in of_set}))
        raise SstlError(
            f"the protocol of the published figures of '{name}' is {others}, of this evaluation {protocol or 'none'}; "
            "one table never mixes them: leave out --published, or evaluate under that protocol."
        )
    return sorted(found, key=lambda figure: -figure.psnr)


def beside(figures: Sequence[PublishedFigure], ours: Mapping[str, Mapping[str, Summary]]) -> list[list[str]]:
    """Return published figures and ours (candidate -> metric -> mean) as text, the header first, then the best."""
    lines = [(f.psnr, f.ssim, f.method, f.training, f.source) for f in figures]
    for name, found in ours.items():
        if "psnr" in found:
            here = f"this evaluation, {found['psnr'].count} images"
            lines.append((found["psnr"].mean, found["ssim"].mean, f"> {name}", "", here))
    ordered = sorted(lines, key=lambda line: -line[0])
    return [
        ["method", "PSNR dB", "SSIM", "trained on", "source"],
        *([name, f"{psnr:.2f}", "" if ssim is None else f"{ssim:.3f}", *rest] for psnr, ssim, name, *rest in ordered),
    ]
