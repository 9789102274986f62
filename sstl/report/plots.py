"""Plots as SVG: training curves, histograms, bars with intervals; receptive fields as PNG (matplotlib, on demand)."""

from __future__ import annotations

import io
import math
import textwrap
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from sstl.report.inspection import Field, Support, bounding_box, holes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

Points = tuple[NDArray[np.float64], NDArray[np.float64]]  # x ascending, y; y may hold NaN

# Two of Okabe and Ito's colours (2008), told apart with every kind of colour blindness and in grey.
_BEFORE, _AFTER = "#D55E00", "#0072B2"
_COLOURS = (_AFTER, _BEFORE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # more of them, for many lines
_DASHES = ("-", "--", ":", "-.")  # of the lines beyond the colours
_INK, _FAINT, _PALE = "#333333", "#999999", "#e4e4e4"
_NOT_A_LOSS = ("step", "lr", "samples_per_second", "seconds", "skipped")
_FAINTEST = 1e-7  # of the largest gradient: what float32 can tell from nothing
_MANY = 2000  # a noisy line of more points than this is smaller as pixels than as a path

_STYLE: dict[str, Any] = {
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "text.color": _INK,
    "axes.grid": True,
    "grid.color": _PALE,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "text.parse_math": False,  # a file name may hold dollar signs
    "svg.fonttype": "none",  # text stays text: small files, and the reader's fonts know more scripts than ours
    "svg.hashsalt": "sstl",  # the same figures give the same bytes
}


def training_curves(log: Sequence[Mapping[str, Any]]) -> bytes:
    """Draw a run's log as small multiples: the loss, its parts, the learning rate and the validation figures.

    Args:
        log: one mapping per line of the JSONL log. Numbers other than step, lr and the counters are the loss and its
            parts; ``validation`` holds figures such as ``psnr``, or ``SET/psnr`` for one of several sets, with
            ``input_psnr`` or ``SET/input_psnr`` for the untouched input (dashed).
            None and NaN leave a gap; of a step that was logged twice (a resumed run) the last entry counts.

    Returns:
        The figure as SVG.
    """
    from matplotlib.ticker import EngFormatter

    losses = {key: _points(log, key) for key in _keys(log, skip=_NOT_A_LOSS)}
    rate = _points(log, "lr")
    checks = _checks(log)
    figures = _figures(checks)
    window = max((_window(len(x)) for x, _ in losses.values()), default=1)
    with _style():
        figure, axes = _figure(columns=3, panels=len(losses) + bool(len(rate[0])) + len(figures))
        if window > 1:
            title = f"Losses: thin as logged, thick the mean of {window} neighbouring entries"
            figure.suptitle(title, x=0.01, ha="left", fontsize=10)
        for key, points in losses.items():
            _draw_loss(next(axes), key, points, window)
        if len(rate[0]):
            axis = next(axes)
            axis.plot(*rate, color=_INK)
            axis.set(title="learning rate", xlabel="step", ylabel="learning rate")
            axis.set_ylim(bottom=0)
            axis.yaxis.set_major_formatter("{x:.4g}")
        for key in figures:
            group, slash, name = key.rpartition("/")
            _draw_validation(
                next(axes), group, name, _points(checks, key), _points(checks, f"{group}{slash}input_{name}")
            )
        for axis in figure.axes:
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))  # 150k: the labels of long runs stay apart
        return _svg(figure)


def judgement_curve(judged: Sequence[Mapping[str, Any]], kept: int | None) -> bytes:
    """Draw the predicted gain of each judged step with its error as SVG.

    Args:
        judged: what the gate wrote: ``step``, ``gain`` and ``error`` in dB, and whether it was ``admissible``.
        kept: the step whose network was kept, or None if the start was.
    """
    steps, gains, errors = (
        np.array([entry[key] for entry in judged], dtype=float) for key in ("step", "gain", "error")
    )
    fine = np.array([bool(entry["admissible"]) for entry in judged])
    with _style():
        figure, (axis,) = _figure(columns=1, panels=1)
        axis.axhline(0, color=_FAINT, linestyle="--", label="start")
        axis.errorbar(steps, gains, errors, color=_AFTER, linewidth=1, capsize=2)
        axis.plot(steps[fine], gains[fine], "o", color=_AFTER, label="admissible")
        if not fine.all():
            axis.plot(steps[~fine], gains[~fine], "o", markerfacecolor="white", color=_AFTER, label="forgets or harms")
        if kept is not None:
            axis.plot([kept], gains[steps == kept][:1], "*", color=_BEFORE, markersize=14, label="kept")
        axis.set(title="Predicted gain over the start", xlabel="step", ylabel="dB")
        axis.legend()
        return _svg(figure)


def compared_curves(logs: Mapping[str, Sequence[Mapping[str, Any]]]) -> bytes | None:
    """Draw the logs of several runs over one another: a panel for each term that two or more of them hold.

    Args:
        logs: run -> its log, as for `training_curves`; losses are smoothed over a thirtieth of each curve.

    Returns:
        The figure as SVG; None if no two runs share a term.
    """
    from matplotlib.ticker import EngFormatter

    curves = {name: _curves(log) for name, log in logs.items()}
    titles = [title for of_run in curves.values() for title in of_run]
    shared = [title for title in dict.fromkeys(titles) if titles.count(title) > 1]
    if not shared:
        return None
    with _style():
        figure, axes = _figure(columns=3, panels=len(shared), legend_rows=len(logs))
        for title, axis in zip(shared, axes, strict=True):
            for index, (name, of_run) in enumerate(curves.items()):
                if title in of_run:
                    dashes, colour = divmod(index, len(_COLOURS))
                    axis.plot(
                        *of_run[title],
                        color=_COLOURS[colour],
                        linestyle=_DASHES[dashes % len(_DASHES)],
                        marker=_marker(of_run[title]),
                        label=_printable(name),
                    )
            _scale(axis, np.concatenate([of_run[title][1] for of_run in curves.values() if title in of_run]))
            axis.set(title=_printable(title), xlabel="step")
            axis.xaxis.set_major_formatter(EngFormatter(sep=""))
        lines = {str(line.get_label()): line for axis in figure.axes for line in axis.lines}
        figure.legend(list(lines.values()), list(lines), loc="outside upper left", fontsize=9)
        return _svg(figure)


def _curves(log: Sequence[Mapping[str, Any]]) -> dict[str, Points]:
    """Return a run's smoothed losses and its validation figures, by the titles of their panels."""
    losses = {key: _points(log, key) for key in _keys(log, skip=_NOT_A_LOSS)}
    checks = _checks(log)
    return {
        **{_title(key): (steps, _smooth(values, _window(len(steps)))) for key, (steps, values) in losses.items()},
        **{f"validation {_title(key)}": _points(checks, key) for key in _figures(checks)},
    }


def _checks(log: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the validations of a log, each with its step."""
    return [{"step": entry.get("step"), **entry["validation"]} for entry in log if _has_validation(entry)]


def _title(key: str) -> str:
    return "total loss" if key == "loss" else key.replace("_", " ")


def _marker(points: Points) -> str:
    return "." if len(points[0]) < 30 else ""


def histogram(
    before: ArrayLike,
    after: ArrayLike,
    title: str,
    xlabel: str,
    labels: tuple[str, str] = ("before", "after"),
) -> bytes:
    """Draw two distributions over the same bins, in percent of each, with their medians; return the SVG.

    Values that are not finite are left out.
    """
    samples = [values[np.isfinite(values)] for values in (np.ravel(np.asarray(v, float)) for v in (before, after))]
    together = np.concatenate(samples)
    edges = np.histogram_bin_edges(together, int(np.clip(math.sqrt(together.size), 10, 50)))
    with _style():
        figure, (axis,) = _figure(size=(5.4, 3.2))
        for values, label, colour, style in zip(samples, labels, (_BEFORE, _AFTER), ("--", "-"), strict=True):
            if values.size:
                share = 100 * np.histogram(values, edges)[0] / values.size
                median = float(np.median(values))
                axis.stairs(share, edges, fill=True, color=colour, alpha=0.18)
                axis.stairs(share, edges, color=colour, linestyle=style, label=f"{label} (median {median:.3g})")
                axis.axvline(median, color=colour, linestyle=style, linewidth=1)
        axis.set(title=_printable(title), xlabel=_printable(xlabel), ylabel="share (%)")
        if together.size:
            axis.legend()
        else:
            axis.text(0.5, 0.5, "no finite values", ha="center", transform=axis.transAxes)
        return _svg(figure)


def bars(
    labels: Sequence[str],
    values: Mapping[str, Sequence[float | None]],
    title: str,
    xlabel: str = "PSNR (dB)",
    intervals: Mapping[str, Sequence[tuple[float, float] | None]] | None = None,
    digits: int = 2,
) -> bytes:
    """Draw grouped horizontal bars from zero, each with its value: PSNR before and after per set, for example.

    Args:
        labels: one per group, top to bottom.
        values: up to three series; for each a value per label. None and NaN draw no bar and are marked "n/a".
        title: the figure's title.
        xlabel: what is measured, with its unit.
        intervals: for some of the series, a (low, high) per label, drawn as a line over the bar.
        digits: of each value, behind the point.

    Raises:
        ValueError: a series does not hold one value per label, or there are more series than colours.
    """
    colours = (_BEFORE, _AFTER, _FAINT)
    if len(values) > len(colours) or any(len(series) != len(labels) for series in values.values()):
        raise ValueError(f"need at most {len(colours)} series, each with {len(labels)} values")
    thickness = 0.8 / max(len(values), 1)
    with _style():
        figure, (axis,) = _figure(size=(5.4, 1.3 + 0.3 * len(labels) * max(len(values), 1)))
        for index, ((name, series), colour) in enumerate(zip(values.items(), colours, strict=False)):
            lengths = [v if v is not None and math.isfinite(v) else 0.0 for v in series]
            y = np.arange(len(labels)) + (index - (len(values) - 1) / 2) * thickness
            axis.barh(y, lengths, 0.92 * thickness, color=colour, alpha=0.85, label=_printable(name))
            spans = (intervals or {}).get(name) or [None] * len(labels)
            for value, length, span, at in zip(series, lengths, spans, y, strict=True):
                if span is not None:
                    axis.plot(span, (at, at), color=_INK, linewidth=1.5, marker="|", markersize=6)
                end = max(0.0, length, *(span or ()))  # beside a bar to the left of zero its value is right of zero
                axis.annotate(
                    _number(value, digits), (end, at), (5, 0), textcoords="offset points", va="center", fontsize="small"
                )
        axis.set_yticks(range(len(labels)), [_printable(label) for label in labels])
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="y", visible=False)
        axis.invert_yaxis()
        axis.margins(x=0.12)
        axis.set(title=_printable(title), xlabel=_printable(xlabel))
        if len(values) > 1:
            figure.legend(*axis.get_legend_handles_labels(), loc="outside lower right", ncols=len(values))
        return _svg(figure)


def receptive_field_plot(
    fields: Mapping[str, Field], supports: Mapping[str, Support], captions: Mapping[str, str]
) -> bytes:
    """Draw how much each input pixel matters to the output pixel in the middle, and the holes, networks side by side.

    All panels have one scale in pixels, and one of colours, which is logarithmic; white is less than its lower end. A
    line goes around all that the output pixel can see; what is grey there was not measured.

    Args:
        fields: for each network what ``sstl.report.inspection.receptive_field`` returns.
        supports: for each what ``structural_support`` returns.
        captions: for each a line or more below its panel, such as its theoretical and its effective size.

    Returns:
        The figure as PNG.
    """
    from matplotlib.colors import LogNorm
    from matplotlib.patches import Patch

    columns, norm = min(len(fields), 4), LogNorm(_FAINTEST, 1)
    half = 0.52 * max(map(len, (*fields.values(), *supports.values())))
    with _style():
        size = (3 * columns + 1, 0.4 + 3.6 * math.ceil(len(fields) / columns))
        figure, axes = _figure(columns, len(fields), size)
        for axis, name in zip(axes, fields, strict=True):
            _draw_field(axis, fields[name], supports[name], norm)
            caption = "\n".join(map(_printable, captions[name].splitlines()))
            title = textwrap.fill(_printable(name), 28)
            axis.set(title=title, xlabel=caption, xlim=(-half, half), ylim=(half, -half))
        label = "mean gradient, 1 at its largest"
        figure.colorbar(figure.axes[0].images[0], ax=figure.axes, label=label, format="{x:g}", shrink=0.8)
        if any(holes_of(support).any() for support in supports.values()):
            figure.legend(handles=[Patch(color=_BEFORE, label="holes: no path leads here")], loc="outside lower left")
        return _png(figure)


def _draw_field(axis: Axes, field: Field, support: Support, norm: LogNorm) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap
    from matplotlib.patches import Rectangle

    rows, columns = bounding_box(support)
    corner = (columns.start - len(support) / 2, rows.start - len(support) / 2)
    size = (columns.stop - columns.start, rows.stop - rows.start)
    axis.add_patch(Rectangle(corner, *size, color=_PALE, zorder=-1))
    axis.add_patch(Rectangle(corner, *size, fill=False, edgecolor=_FAINT))
    shown, holes = np.ma.masked_less(field, _FAINTEST), np.ma.masked_equal(holes_of(support), False)
    colours = colormaps["viridis"].with_extremes(bad="white")
    axis.imshow(shown, norm=norm, cmap=colours, extent=_extent(field), interpolation="nearest")
    axis.imshow(holes, cmap=ListedColormap([_BEFORE]), extent=_extent(support), interpolation="nearest")
    axis.locator_params(integer=True, nbins=5)
    axis.grid(visible=False)


def _extent(square: Field | Support) -> tuple[float, float, float, float]:
    half = len(square) / 2
    return -half, half, half, -half


def _style() -> AbstractContextManager[None]:
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def _figure(
    columns: int = 1, panels: int = 1, size: tuple[float, float] | None = None, legend_rows: int = 0
) -> tuple[Figure, Iterator[Axes]]:
    """Return a figure and its panels, row by row; a figure without panels says that there is nothing to show."""
    from matplotlib.figure import Figure

    columns, rows = min(columns, max(panels, 1)), max(1, math.ceil(panels / columns))
    figure = Figure(figsize=size or (3.2 * columns, 0.4 + 2.4 * rows + 0.2 * legend_rows), layout="constrained")
    if not panels:
        figure.text(0.5, 0.5, "Nothing was logged.", ha="center")
    axes: list[Axes] = []
    for index in range(panels):
        axes.append(figure.add_subplot(rows, columns, index + 1, sharex=axes[0] if axes else None))
    return figure, iter(axes)


def _svg(figure: Figure) -> bytes:
    return _save(figure, format="svg", metadata={"Date": None})


def _png(figure: Figure) -> bytes:
    return _save(figure, format="png", dpi=200)


def _save(figure: Figure, **options: Any) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # In an SVG matplotlib only measures the text; the reader's browser draws it, with fonts for every script.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(buffer, **options)
    return buffer.getvalue()


def _has_validation(entry: Mapping[str, Any]) -> bool:
    return isinstance(entry.get("validation"), Mapping)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _keys(log: Sequence[Mapping[str, Any]], skip: Sequence[str]) -> list[str]:
    """Return the keys that hold a number somewhere, in order of appearance, the total loss first."""
    keys = dict.fromkeys(key for entry in log for key, value in entry.items() if _is_number(value) and key not in skip)
    return sorted(keys, key=lambda key: key != "loss")


def _points(log: Sequence[Mapping[str, Any]], key: str) -> Points:
    """Return steps and values of ``key`` in order of steps; null becomes NaN, of a repeated step the last counts."""
    found = {entry["step"]: entry[key] for entry in log if key in entry and _is_number(entry.get("step"))}
    steps = sorted(found)
    values = [float(found[step]) if _is_number(found[step]) else math.nan for step in steps]
    return np.array(steps, float), np.array(values, float)


def _window(count: int) -> int:
    """Return the odd number of neighbours to average: a thirtieth of the curve."""
    return count // 30 | 1


def _smooth(values: NDArray[np.float64], window: int) -> NDArray[np.float64]:
    """Return the centred running mean over the finite values within the window (fewer at the ends)."""
    finite = np.isfinite(values)
    kernel = np.ones(window)
    half = window // 2
    total = np.convolve(np.pad(np.where(finite, values, 0.0), half), kernel, "valid")
    count = np.convolve(np.pad(finite.astype(float), half), kernel, "valid")
    return np.divide(total, count, out=np.full_like(total, math.nan), where=count > 0.5)


def _draw_loss(axis: Axes, key: str, points: Points, window: int) -> None:
    steps, values = points
    finite = np.isfinite(values)
    shown = np.where(finite, values, math.nan)
    if window > 1:
        axis.plot(steps, shown, color=_AFTER, linewidth=0.6, alpha=0.4, rasterized=steps.size > _MANY)
    axis.plot(steps, _smooth(values, window), color=_AFTER, linewidth=1.8, marker=_marker(points))
    axis.set(title=_printable(_title(key)), xlabel="step", ylabel=_printable(key.replace("_", " ")))
    _scale(axis, values)
    if not finite.all():
        lost = steps[~finite]
        axis.plot(lost, np.zeros_like(lost), "x", color=_BEFORE, transform=axis.get_xaxis_transform(), clip_on=False)
        axis.set_title(f"✕ not finite: {lost.size}", loc="right", fontsize=9, fontweight="normal", color=_BEFORE)


def _scale(axis: Axes, values: NDArray[np.float64]) -> None:
    """Make the axis logarithmic if the values are positive and span much."""
    from matplotlib.ticker import FuncFormatter

    good = values[np.isfinite(values)]
    if good.size and good.min() > 0 and good.max() > 20 * good.min():
        axis.set_yscale("log")
        # Matplotlib's own labels of a logarithmic axis are mathematics, which is not parsed here.
        axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _figures(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the validation figures to draw: those over all sets, then those of each set if there are several."""
    keys = [key for key in _keys(checks, skip=("step",)) if not key.rpartition("/")[2].startswith("input_")]
    overall, single = [key for key in keys if "/" not in key], [key for key in keys if "/" in key]
    return overall + (single if len(single) != len(overall) else [])


def _draw_validation(axis: Axes, group: str, key: str, points: Points, untouched: Points) -> None:
    name = key.upper() if key in ("psnr", "ssim") else key.replace("_", " ")
    where = group if len(group) <= 20 else f"…{group[-19:]}"
    axis.plot(*points, color=_AFTER, marker="o", markersize=3.5, label="restored")
    if len(untouched[0]):
        axis.plot(*untouched, color=_BEFORE, linestyle="--", label="input")
        axis.legend()
    axis.set(title=_printable(f"{name}, {where or 'validation'}"), xlabel="step")
    axis.set_ylabel(_printable(f"{name} (dB)" if key == "psnr" else name))


def _number(value: float | None, digits: int = 2) -> str:
    if value is None or math.isnan(value):
        return "n/a"
    return f"{value:.{digits}f}" if math.isfinite(value) else "∞"


def _printable(text: str) -> str:
    """Replace what an SVG cannot hold (control characters, broken file names) by the replacement character."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text)
