"""The report: pages that hold everything and execute nothing of the user's, pictures, and plots that never fail."""

import base64
import io
import math
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import data

from sstl.report import plots
from sstl.report.page import Comparison, Figure, Page, Table, render, write_page
from sstl.report.pictures import grid, jpeg_data_uri, thumbnail, to_image

VOID = {"meta", "link", "input", "img", "br", "hr"}
NASTY = [
    "<script>alert(1)</script>.jpg",
    "\"'><img src=x onerror=alert(1)>",
    "雨 & дождь $title ${verdict} $$.png",
    "a\nb\x00c\x1b.jpg",
    "broken-\udcff.jpg",
    "</title></style></script><!--",
]


class Reader(HTMLParser):
    """Reads a page as a browser would: the tree's balance, every element's attributes, the text of the body."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        assert len(dict(attrs)) == len(attrs), f"{tag} has an attribute twice"
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text += text

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def comparison(name: str, height: int = 6, width: int = 9, **options: object) -> Comparison:
    pixels = np.arange(height * width * 3, dtype=np.uint8).reshape(height, width, 3)
    return Comparison(name, pixels, pixels[::-1], **options)


def full_page(text: str) -> Page:
    """A page with ``text`` wherever a user's words can go."""
    layers = {f"streak {text}": np.zeros((6, 9, 3), np.uint8), "rain map": np.zeros((6, 9), np.uint8)}
    return Page(
        text,
        text,
        {text: text},
        [comparison(text, note=text, layers=layers, labels=(text, text)), comparison("plain")],
        [Table(text, [text, "dB"], [[text, "31.2"], ["b", "-0.4"]], text), Table("empty", ["a", "b"], [])],
        [Figure(text, plots.histogram([1], [2], text, text), text)],
        [text, "sstl derain photos -o out"],
    )


def decoded(uri: str) -> Image.Image:
    kind, _, payload = uri.partition(";base64,")
    picture = Image.open(io.BytesIO(base64.b64decode(payload, validate=True)))
    assert kind == f"data:image/{picture.format.lower()}"
    return picture


ORDINARY = Reader(render(full_page("photo.jpg")))


def skeleton(reader: Reader) -> list[tuple[str, list[str], str]]:
    """The page's elements with what a browser acts upon, without the user's words."""
    return [(tag, sorted(attributes), attributes.get("id", "")) for tag, attributes in reader.elements]


@pytest.mark.parametrize("text", NASTY)
def test_nasty_names_change_no_element(text: str) -> None:
    reader = Reader(render(full_page(text)))
    assert skeleton(reader) == skeleton(ORDINARY)


@given(st.text(st.characters(codec=None), min_size=1, max_size=40))
@settings(max_examples=25)
def test_any_name_is_shown_as_it_is(text: str) -> None:
    page = Page(text, text, {text: text}, tables=[Table(text, [text], [[text]], text)], next_steps=[text])
    html = render(page)
    html.encode("utf-8")
    reader = Reader(html)
    assert len(reader.elements) == len(Reader(render(Page("t", "v", {"a": "b"}, (), page.tables, (), "s"))).elements)
    shown = re.sub(r"[\ud800-\udfff]", "?", text).replace("\0", "\ufffd")
    assert reader.text.count(shown) >= 8


def test_page_loads_nothing_from_outside() -> None:
    html = render(full_page("photo.jpg"))
    assert not re.search(r"https?:|url\(|@import|=[\"' ]*//", html)
    addresses = [a[key] for _, a in ORDINARY.elements for key in ("src", "href", "srcset", "action") if key in a]
    assert addresses
    assert all(address.startswith(("data:", "#")) for address in addresses)
    policy = next(m["content"] for m in ORDINARY.all("meta") if m.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe-inline" not in policy.partition("script-src")[2]


def test_page_is_usable_by_keyboard_and_screen_reader() -> None:
    identifiers = [attributes["id"] for _, attributes in ORDINARY.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    named = {label["for"] for label in ORDINARY.all("label")}
    for field in ORDINARY.all("input"):
        assert field.get("aria-label") or field["id"] in named
    for _, attributes in ORDINARY.elements:
        for key in ("for", "aria-labelledby", "aria-describedby"):
            assert attributes.get(key, identifiers[0]) in identifiers
        if attributes.get("href", "").startswith("#"):
            assert attributes["href"][1:] in identifiers
    assert all(image["alt"] for image in ORDINARY.all("img"))
    assert [field["type"] for field in ORDINARY.all("input")] == ["range", "radio", "radio", "radio", "range"]
    assert len(ORDINARY.all("html")) == len(ORDINARY.all("h1")) == 1


def test_pictures_in_the_page_are_reduced_and_keep_their_shape() -> None:
    layers = {"streak": np.zeros((1200, 600, 3), np.uint8)}
    reader = Reader(render(Page("t", "v", comparisons=[comparison("tall", 1200, 600, layers=layers)])))
    images = reader.all("img")
    assert len(images) == 3
    for image in images:
        assert decoded(image["src"]).size == (450, 900) == (int(image["width"]), int(image["height"]))
    assert "--w:450;--h:900" in reader.all("figure")[0]["style"]


def test_empty_parts_leave_no_headings() -> None:
    reader = Reader(render(Page("Title", "All is well.")))
    assert not reader.all("h2")
    assert not reader.all("nav")
    assert "All is well." in reader.text


def test_numbers_are_aligned_to_the_right() -> None:
    rows = [["Rain100L", "26.1", "+0.4 (0.2 to 0.6)", "light"], ["12 heavy", "n/a", "-1.0", "3 kinds of it"]]
    reader = Reader(render(Page("t", "v", tables=[Table("x", ["set", "PSNR (dB)", "gain", "rain"], rows)])))
    assert [cell.get("class", "") for cell in reader.all("td")] == ["number", "number", ""] * 2


def test_a_dozen_photos_stay_small() -> None:
    photo = np.asarray(Image.fromarray(data.coffee()).resize((1800, 1200)))
    noisy = (photo // 2 + np.random.default_rng(0).integers(0, 40, photo.shape)).astype(np.uint8)
    html = render(Page("t", "v", comparisons=[Comparison("a", noisy, photo, layers={"streak": photo // 4})]))
    assert 12 * len(html) < 6e6


def test_write_page_replaces_the_file_whole(tmp_path) -> None:
    path = tmp_path / "run" / "report.html"
    for title in ("first", "second"):
        assert write_page(path, Page(title, "v")) == path
        assert f"<h1>{title}</h1>" in path.read_text(encoding="utf-8")
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


def test_comparison_refuses_pictures_of_two_sizes() -> None:
    with pytest.raises(ValueError, match=r"a\.jpg: pictures of \(4, 5\) and \(4, 6\)"):
        Comparison("a.jpg", np.zeros((4, 5), np.uint8), np.zeros((4, 6), np.uint8))


@pytest.mark.parametrize(("shape", "size"), [((900, 1800, 3), (900, 450)), ((5, 7), (7, 5)), ((3000, 1), (1, 900))])
def test_thumbnail_size(shape, size) -> None:
    assert thumbnail(np.zeros(shape, np.uint8)).size == size


def test_thumbnail_leaves_its_input_alone() -> None:
    image = Image.new("RGB", (2000, 10))
    assert thumbnail(image).size != image.size == (2000, 10)


def test_jpeg_data_uri_shows_the_picture() -> None:
    photo = data.chelsea()
    again = np.asarray(decoded(jpeg_data_uri(photo, quality=95)))
    assert np.abs(again.astype(int) - photo).mean() < 3
    assert decoded(jpeg_data_uri(photo[..., 0])).mode == "L"
    assert decoded(jpeg_data_uri(Image.new("RGBA", (3, 2)))).size == (3, 2)


@pytest.mark.parametrize("bad", [np.zeros((4, 4)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)])
def test_pictures_of_another_kind_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="a picture must be uint8"):
        to_image(bad)


def test_grid_places_every_picture_at_one_height() -> None:
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    wide, square, tall = (
        np.full((h, w, 3), c, np.uint8) for h, w, c in zip((10, 30, 80), (20, 30, 40), colours, strict=True)
    )
    sheet = np.asarray(grid([[wide, square], [tall]], height=40)).reshape(-1, 3)
    areas = [int((sheet == colour).all(axis=1).sum()) for colour in colours]
    assert areas == [40 * 80, 40 * 40, 40 * 20]
    assert grid([[wide, square], [tall]], height=40).size == (4 + 80 + 4 + 40 + 4, 4 + 2 * (40 + 4))


def test_grid_captions_are_drawn_and_cut_to_the_column() -> None:
    picture = np.full((40, 60), 255, np.uint8)
    plain = grid([[picture] * 2], height=40)
    sheet = np.asarray(grid([[picture] * 2], ["a very long caption that cannot fit", ""], ["photo.jpg"], height=40))
    assert sheet.shape[1] == plain.width
    dark = np.flatnonzero((sheet[:26] < 128).any(axis=(0, 2)))
    assert dark.size
    assert dark.max() < 4 + 60 + 4
    assert (sheet[26:52] < 128).any()
    with pytest.raises(ValueError, match="1 and 0 captions for 2 columns and 1 rows"):
        grid([[picture] * 2], ["only one"])
    with pytest.raises(ValueError, match="at least one picture"):
        grid([[]])


def words(svg: bytes) -> list[str]:
    """The text in a plot, which is also a check that it is well-formed XML."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


def training_log(count: int) -> list[dict]:
    log: list[dict] = [
        {"step": 10 * i, "loss": 1 / i, "mask": 0.5, "lr": 1e-3, "samples_per_second": 40.0, "seconds": i, "skipped": 0}
        for i in range(1, count + 1)
    ]
    return [*log, {"step": 10 * count, "validation": {"a/psnr": 30.5, "a/input_psnr": 26.0, "psnr": 31.2}}]


def test_training_curves_draw_losses_rate_and_validation() -> None:
    shown = words(plots.training_curves(training_log(90)))
    for word in ("total loss", "mask", "learning rate", "PSNR, validation", "PSNR (dB)", "step"):
        assert word in shown
    assert "Losses: thin as logged, thick the mean of 3 neighbouring entries" in shown
    assert not {"seconds", "skipped", "samples per second", "PSNR, a"} & set(shown)


def test_a_logarithmic_axis_has_plain_numbers() -> None:
    shown = words(plots.training_curves([{"step": i, "loss": 10.0**-i} for i in range(1, 5)]))
    assert "0.01" in shown
    assert not any("math" in word for word in shown)


def test_training_curves_name_the_sets_if_there_are_several() -> None:
    check = {"a/psnr": 30.0, "a/input_psnr": 26.0, "b/psnr": 20.0, "psnr": 25.0, "input_psnr": 20.0}
    shown = words(plots.training_curves([{"step": 1, "validation": check}]))
    assert {"PSNR, validation", "PSNR, a", "PSNR, b", "restored", "input"} <= set(shown)


def test_training_curves_survive_losses_that_are_not_numbers() -> None:
    log = training_log(60)
    for entry, bad in zip(log[5:], (math.nan, math.inf, None), strict=False):
        entry["loss"] = bad
    log[-1]["validation"]["psnr"] = None
    assert any("not finite: 3" in word for word in words(plots.training_curves(log)))
    words(plots.training_curves([{"step": 1, "loss": math.nan}, {"step": None, "loss": 0.5}, {}]))


def test_training_curves_of_nothing_say_so() -> None:
    assert words(plots.training_curves([])) == ["Nothing was logged."]


def test_a_step_logged_twice_counts_once() -> None:
    steps, values = plots._points(
        [{"step": 2, "loss": 9.0}, {"step": 1, "loss": 8.0}, {"step": 2, "loss": 7.0}], "loss"
    )
    assert (steps.tolist(), values.tolist()) == ([1, 2], [8, 7])


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=30), st.sampled_from([1, 3, 5, 9]))
def test_smoothing_is_the_mean_of_the_finite_neighbours(values, window) -> None:
    values, half = np.array(values), window // 2
    for i, smooth in enumerate(plots._smooth(values, window)):
        near = values[max(0, i - half) : i + half + 1]
        near = near[np.isfinite(near)]
        assert smooth == pytest.approx(near.mean(), abs=1e-9) if near.size else math.isnan(smooth)


def test_histogram_states_medians_and_survives_odd_input() -> None:
    shown = words(plots.histogram([1, 2, 3, math.nan], [4, 5, 6, math.inf], "Change", "levels"))
    assert {"Change", "levels", "share (%)", "before (median 2)", "after (median 5)"} <= set(shown)
    assert "no finite values" in words(plots.histogram([], [math.nan], "t", "x"))
    words(plots.histogram(np.ones((2, 3)), np.ones(1), "constant", "x"))


def test_bars_print_every_value() -> None:
    values = {"before": [26.104, None, 20.0], "after": [33.4, math.nan, math.inf]}
    svg = plots.bars(["a", "$b$ <雨>", "c\x07"], values, "PSNR", intervals={"after": [(33.0, 34.0), None, None]})
    shown = words(svg)
    assert {"26.10", "33.40", "20.00", "n/a", "∞", "a", "$b$ <雨>", "c\ufffd", "PSNR (dB)", "before"} <= set(shown)
    with pytest.raises(ValueError, match="each with 2 values"):
        plots.bars(["a", "b"], {"x": [1.0]}, "t")
    assert "34" in words(plots.bars(["a"], {"x": [33.6]}, "t", digits=0))


def test_plots_are_the_same_bytes_each_time() -> None:
    assert plots.histogram([1], [2], "t", "x") == plots.histogram([1], [2], "t", "x")
