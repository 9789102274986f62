"""The report page: one HTML file that holds all it shows, with before/after sliders, tables, figures and next steps."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template

import numpy as np

import sstl
from sstl.ops.files import write_atomic
from sstl.report.pictures import Pixels, jpeg_data_uri, thumbnail

PAGE = "report.html"  # what the page of a run is called
_LONGEST = 900  # pixels; with JPEG a dozen photos, each with its layers, stay below some 6 MB
_QUALITY = {"photo": 82, "layer": 70}  # a layer is looked at for where and how much, not for fine texture
_HINT = "Drag across a picture, or focus it and use the arrow keys."
_MANY_COLUMNS = 7  # a table of more is set smaller
_NUMERIC = re.compile(r"[-+−±<>≤≥~]?\s*[\d.]+.*|n/a|–|—|∞|")


@dataclass(frozen=True, eq=False)
class Comparison:
    """One photo before and after, uint8 (H, W, 3) or (H, W), both of one size.

    Attributes:
        name: what the photo is called; usually its file name.
        before: shown left of the line.
        after: shown right of the line.
        note: a sentence below it.
        layers: further pictures of the same size that the reader can switch to, streak and rain map for example.
        labels: what to call the two sides.
    """

    name: str
    before: Pixels
    after: Pixels
    note: str = ""
    layers: Mapping[str, Pixels] = field(default_factory=dict)
    labels: tuple[str, str] = ("Before", "After")

    def __post_init__(self) -> None:
        for pixels in (self.after, *self.layers.values()):
            if pixels.shape[:2] != self.before.shape[:2]:
                raise ValueError(
                    f"{self.name}: pictures of {self.before.shape[:2]} and {pixels.shape[:2]} side by side"
                )


@dataclass(frozen=True)
class Figure:
    """A plot: SVG, PNG or JPEG bytes with a title (its text alternative) and a caption."""

    title: str
    svg_or_png: bytes
    caption: str = ""


@dataclass(frozen=True)
class Table:
    """A table of text; the first column names the rows, columns of figures are aligned to the right.

    If it is ``sortable`` a click on a heading sorts its rows.
    """

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""
    sortable: bool = False


@dataclass(frozen=True)
class Page:
    """Everything on a report page, in the order in which it is shown.

    Attributes:
        title: the heading.
        verdict: one or two sentences in plain words: what came out.
        facts: short label to short value.
        comparisons: photos before and after.
        tables: the numbers.
        figures: the plots.
        next_steps: command lines that the reader may copy.
    """

    title: str
    verdict: str
    facts: Mapping[str, str] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
    tables: Sequence[Table] = ()
    figures: Sequence[Figure] = ()
    next_steps: Sequence[str] = ()


def write_page(path: Path, page: Page) -> Path:
    """Write the page to ``path``, whole or not at all; return ``path``."""
    return write_atomic(path, render(page))


def render(page: Page) -> str:
    """Return the page as HTML that needs no other file and no network; all text of the page is escaped."""
    template = (files("sstl.report") / "page.html").read_text(encoding="utf-8")
    sections = {
        "Photos": _gallery(page.comparisons),
        "Numbers": "".join(_table(t) for t in page.tables),
        "Plots": _plots(page.figures),
        "What to do next": "".join(_command(line, f"step-{i}") for i, line in enumerate(page.next_steps, 1)),
    }
    shown = [(title.lower().replace(" ", "-"), title, body) for title, body in sections.items() if body]
    return Template(template).substitute(
        # The browser runs this script and no other, and loads nothing from outside, whatever slips into the page.
        script_hash=script_hash(template),
        title=_text(page.title),
        verdict=_text(page.verdict),
        facts="".join(f"<div><dt>{_text(k)}</dt><dd>{_text(v)}</dd></div>" for k, v in page.facts.items()),
        navigation=_navigation([(name, title) for name, title, _ in shown]),
        sections="".join(_section(*section) for section in shown),
        version=_text(sstl.__version__),
    )


def script_hash(html: str) -> str:
    """Return the hash of the page's one script, in base64, as a Content-Security-Policy names it after ``sha256-``."""
    script = html.partition("<script>")[2].partition("</script>")[0]
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode("ascii")


def _text(value: object) -> str:
    """Escape for HTML text and quoted attributes; what UTF-8 cannot hold (broken file names) becomes '?'."""
    return escape(str(value).encode("utf-8", "replace").decode("utf-8").replace("\0", "\ufffd"))


# In the functions below, plain strings are escaped already; records are escaped where they are taken apart.


def _navigation(sections: Sequence[tuple[str, str]]) -> str:
    links = "".join(f'<li><a href="#{name}">{title}</a></li>' for name, title in sections)
    return links and f'<nav aria-label="On this page"><ul>{links}</ul></nav>'


def _section(name: str, title: str, body: str) -> str:
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{title}</h2>\n{body}</section>\n'


def for_page(comparison: Comparison) -> Comparison:
    """Return a comparison whose pictures are as small as a page shows them, so that many fit into the memory."""
    small = {name: np.asarray(thumbnail(pixels, _LONGEST)) for name, pixels in comparison.layers.items()}
    before, after = (np.asarray(thumbnail(pixels, _LONGEST)) for pixels in (comparison.before, comparison.after))
    return replace(comparison, before=before, after=after, layers=small)


def _gallery(comparisons: Sequence[Comparison]) -> str:
    cards = "".join(_comparison(c, f"photo-{i}") for i, c in enumerate(comparisons, 1))
    return cards and f'<p class="hint">{_HINT}</p>\n<div class="gallery">{cards}</div>'


def _comparison(comparison: Comparison, key: str) -> str:
    name, note = _text(comparison.name), _text(comparison.note)
    before, after = map(_text, comparison.labels)
    width, height = thumbnail(comparison.before, _LONGEST).size
    labels = [_text(label[:1].upper() + label[1:]) for label in comparison.layers]
    layers = zip(comparison.layers.values(), labels, strict=True)
    return f"""
<figure class="comparison" style="--w:{width};--h:{height}">
<div class="frame"><div class="stage">
{_side("before", comparison.before, name, before)}
{_side("after", comparison.after, name, after)}
<input class="split" type="range" min="0" max="100" step="any" value="50" autocomplete="off"
 aria-label="{name}: how much of the width shows {before}">
<span class="line" aria-hidden="true"><span class="knob"></span></span>
{"".join(_picture(pixels, f"{name}, {label}", "layer") for pixels, label in layers)}</div></div>
<figcaption><h3>{name}</h3>{f"<p>{note}</p>" if note else ""}
<div class="controls">{_switch(name, [f"{before} | {after}", *labels], key) if labels else ""}
<button type="button" class="enlarge" aria-pressed="false" aria-label="Enlarge {name}">Enlarge</button></div>
</figcaption></figure>"""


def _side(side: str, pixels: Pixels, name: str, label: str) -> str:
    tag = f'<span class="tag" aria-hidden="true">{label}</span>'
    return f'<div class="side {side}">{_picture(pixels, f"{name}, {label}", "photo")}{tag}</div>'


def _picture(pixels: Pixels, alt: str, kind: str) -> str:
    picture = thumbnail(pixels, _LONGEST)
    uri, hidden = jpeg_data_uri(picture, _QUALITY[kind]), " hidden" if kind == "layer" else ""
    return f'<img class="{kind}" src="{uri}" width="{picture.width}" height="{picture.height}" alt="{alt}"{hidden}>'


def _switch(name: str, labels: Sequence[str], key: str) -> str:
    """Return the radio buttons that choose between the slider and the layers."""
    options = "".join(
        f'<input type="radio" name="{key}" id="{key}-{i}" value="{i}" autocomplete="off"{" checked" if i == 0 else ""}>'
        f'<label for="{key}-{i}">{label}</label>'
        for i, label in enumerate(labels)
    )
    return f'<fieldset class="switch"><legend>What to show of {name}</legend>{options}</fieldset>'


def _table(table: Table) -> str:
    columns = list(zip(*table.rows, strict=True))
    right = [i > 0 and all(_NUMERIC.fullmatch(str(cell)) for cell in column) for i, column in enumerate(columns)]
    mark = [' class="number"' if numeric else "" for numeric in right] or [""] * len(table.header)
    heading = _sorting if table.sortable else _text
    head = "".join(f'<th scope="col"{m}>{heading(cell)}</th>' for cell, m in zip(table.header, mark, strict=True))
    body = "".join(
        f'<tr><th scope="row">{_text(first)}</th>'
        + "".join(f"<td{m}>{_text(cell)}</td>" for cell, m in zip(rest, mark[1:], strict=True))
        + "</tr>"
        for first, *rest in table.rows
    )
    dense = ' class="dense"' if len(table.header) > _MANY_COLUMNS else ""
    title, note = _text(table.title), f'<p class="note">{_text(table.note)}</p>' if table.note else ""
    return (
        f'<div class="wide" role="group" aria-label="{title}" tabindex="0">'
        f"<table{dense}><caption>{title}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>{note}"
    )


def _sorting(cell: str) -> str:
    return f'<button type="button" class="sort">{_text(cell)}</button>'


def _plots(figures: Sequence[Figure]) -> str:
    cards = "".join(map(_figure, figures))
    return cards and f'<div class="plots">{cards}</div>'


def _figure(figure: Figure) -> str:
    data = figure.svg_or_png
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg" if data.startswith(b"\xff\xd8") else "svg+xml"
    uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
    title, drawn = _text(figure.title), "drawn" if kind == "svg+xml" else "photographed"
    caption = f"<p>{_text(figure.caption)}</p>" if figure.caption else ""
    return (
        f'<figure class="plot"><figcaption><h3>{title}</h3>{caption}</figcaption>'
        f'<div class="wide" role="group" aria-label="{title}" tabindex="0">'
        f'<img class="{drawn}" src="{uri}" alt="{title}"></div></figure>'
    )


def _command(line: str, key: str) -> str:
    return (
        f'<div class="command"><pre><code id="{key}">{_text(line)}</code></pre>'
        f'<button type="button" class="copy" aria-describedby="{key}">Copy</button></div>'
    )
