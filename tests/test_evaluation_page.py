"""An evaluation's folder: its files agree, it goes on when interrupted, published figures keep their protocol."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import Outcome
from PIL import Image as Pillow
from test_evaluate import PHOTOS, Fixed, Pairs, rain_on
from test_report import Reader

from sstl.errors import InputError, SstlError
from sstl.metrics import PROTOCOLS
from sstl.networks import Network, create_network
from sstl.networks.weights import save_weights
from sstl.report.evaluation import Evaluation, Failure, evaluate, evaluate_harm, evaluate_restored, evaluate_unpaired
from sstl.report.evaluation_files import write_files
from sstl.report.evaluation_page import PICTURES, EvaluatedSet, evaluation_page, verdict
from sstl.report.evaluation_table import markdown
from sstl.report.ledger import NAME, Ledger
from sstl.report.page import render
from sstl.report.published import all_published, beside, published

RunCli = Callable[..., Outcome]


class Layers:
    """The images of one layer of pairs."""

    def __init__(self, pairs: Pairs, index: int) -> None:
        self.pairs, self.index = pairs, index

    def __len__(self) -> int:
        return len(self.pairs)

    def key(self, i: int) -> str:
        return self.pairs.key(i)

    def load(self, i: int) -> np.ndarray:
        return self.pairs.load(i)[self.index]


class Counting(Fixed):
    """Counts what it restores; stops at the image ``fails``, as Ctrl-C would."""

    def __init__(self, amount: int = 0, fails: int = 0) -> None:
        super().__init__(amount)
        self.calls, self.fails = 0, fails

    def layers(self, image: np.ndarray) -> dict[str, np.ndarray]:
        self.calls += 1
        if self.calls == self.fails:
            raise KeyboardInterrupt
        return super().layers(image)


@pytest.fixture
def pairs() -> Pairs:
    return Pairs({name: (rain_on(clean, 30 + 30 * i), clean) for i, (name, clean) in enumerate(PHOTOS.items())})


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    """Two sets of two pairs, ``rain100l`` and ``b``, and a set of one photo without its clean one, ``real``."""
    lines = ["kind,key,split,group,rainy,clean"]
    for number, (name, clean) in enumerate(PHOTOS.items()):
        for side, image in (("rainy", rain_on(clean)), ("clean", clean)):
            Pillow.fromarray(image).save(tmp_path / f"{name}-{side}.png")
        if number < 2:
            lines += [f"pair,{of}-{number},dev,g{number},{name}-rainy.png,{name}-clean.png" for of in ("rain100l", "b")]
        else:
            lines.append(f"real,real-{number},dev,g{number},{name}-rainy.png,")
    (tmp_path / "manifest.csv").write_text("\n".join(lines) + "\n")
    return tmp_path / "manifest.csv"


@pytest.fixture
def weights(tmp_path: Path, tiny_network: Network) -> list[Path]:
    other = create_network("joint", size="tiny")
    return [save_weights(tmp_path / f"{name}.safetensors", n) for name, n in (("a", tiny_network), ("b", other))]


def csv_of(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader((folder / "images.csv").read_text().splitlines()))


def lines_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / NAME).read_text().splitlines()]


def test_several_weights_and_sets_in_one_call(
    run_cli: RunCli, manifest: Path, weights: list[Path], tmp_path: Path
) -> None:
    folder, file = tmp_path / "out", tmp_path / "all.json"
    call = ["evaluate", "--data", manifest, "--split", "dev", "--set", "rain100l", "b", "--weights", *weights]
    done = run_cli(*call, "-o", folder, "--published", "rain100l", "--precision", "fp32")
    assert (done.code, "goes with one set" in done.err) == (2, True)
    done = run_cli(*call, "-o", folder, "--json", file, "--precision", "fp32")
    assert done.code == 0, done.err
    assert done.out.count("protocol y-matlab; mean over 2 images") == 2
    tree = json.loads((folder / "scores.json").read_text())
    assert list(tree["sets"]) == ["rain100l", "b"]
    assert json.loads(file.read_text())["sets"]["b"]["images"] == tree["sets"]["b"]["images"]
    assert list(tree["sets"]["b"]["results"]) == ["input", *map(str, weights)] == ["input", *tree["weights"]]
    rows = csv_of(folder)
    assert [(row["set"], row["image"], row["candidate"]) for row in rows][:4] == [
        ("rain100l", "rain100l-0", "input"),
        ("rain100l", "rain100l-0", str(weights[0])),
        ("rain100l", "rain100l-0", str(weights[1])),
        ("rain100l", "rain100l-1", "input"),
    ]
    assert len(rows) == 2 * 2 * 3
    for row in rows:
        of_image = next(i for i in tree["sets"][row["set"]]["images"] if i["key"] == row["image"])
        assert float(row["psnr"]) == of_image["scores"][row["candidate"]]["psnr"]
    table = (folder / "table.md").read_text()
    assert table.count("\n| --- |") == 2
    assert f"{tree['sets']['b']['results']['input']['psnr']['mean']:.2f}" in table
    page = (folder / "report.html").read_text()
    assert "Every image, the worst first" in Reader(page).text
    assert len(page) < 2e6
    # The same images in another set are not measured again, and neither are they in another run.
    assert len(lines_of(folder)) == 1 + 2 * 3
    before = (folder / NAME).read_bytes()
    assert run_cli(*call, "-o", folder, "--precision", "fp32").code == 0
    assert (folder / NAME).read_bytes() == before
    assert json.loads((folder / "scores.json").read_text())["sets"]["b"]["images"] == tree["sets"]["b"]["images"]


def test_what_changed_is_measured_again(run_cli: RunCli, manifest: Path, weights: list[Path], tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def lines(*more: object) -> int:
        call = ("evaluate", "--data", manifest, "--set", "b", "--weights", weights[0], "-o", folder, *more)
        done = run_cli(*call, "--precision", "fp32")
        assert done.code == 0, done.err
        return len(lines_of(folder)) - 1

    assert lines("--limit", "1") == 2
    assert lines() == 4  # one image more
    assert lines("--no-reference") == 8
    save_weights(weights[0], create_network("joint", size="tiny"))
    assert lines() == 10  # other weights under the same name; the input is known
    Pillow.fromarray(rain_on(PHOTOS["coffee"], 90)).save(tmp_path / "coffee-rainy.png")
    assert lines() == 12
    assert lines("--overwrite") == 4
    other = run_cli("evaluate", "--data", manifest, "--weights", weights[0], "-o", folder, "--protocol", "rgb")
    assert other.code == 2
    assert "under y-matlab, these are under rgb" in other.err
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "photo.jpg").touch()
    refused = run_cli("evaluate", "--data", manifest, "--weights", weights[0], "-o", tmp_path / "full")
    assert (refused.code, "holds no evaluation" in refused.err) == (2, True)


def test_an_interrupted_evaluation_goes_on_with_the_next_image(pairs: Pairs, tmp_path: Path) -> None:
    conditions = {"input": {}, "dark": {"weights": "1"}}
    ledger = Ledger(tmp_path, "rgb")
    with pytest.raises(KeyboardInterrupt):
        evaluate(pairs, {"dark": Counting(5, fails=3)}, "rgb", remember=ledger.remember(conditions))
    ledger.close()
    with (tmp_path / NAME).open("a") as file:
        file.write('{"fingerprint": "cut sho')
    again = Counting(5)
    ledger = Ledger(tmp_path, "rgb")
    found = evaluate(pairs, {"dark": again}, "rgb", remember=ledger.remember(conditions))
    ledger.close()
    assert again.calls == 1
    whole = evaluate(pairs, {"dark": Fixed(5)}, "rgb")
    for ours, theirs in zip(found.rows, whole.rows, strict=True):
        assert ours.scores["input"] == theirs.scores["input"]
        assert ours.scores["dark"] | {"seconds": 0} == theirs.scores["dark"] | {"seconds": 0}
    assert len(lines_of(tmp_path)) == 1 + 2 * 3


def test_an_infinite_psnr_is_remembered(tmp_path: Path) -> None:
    clean = PHOTOS["coffee"]
    for _ in range(2):
        ledger = Ledger(tmp_path, "rgb")
        found = evaluate(Pairs({"dry": (clean, clean)}), (), "rgb", remember=ledger.remember({}))
        ledger.close()
        assert found.results["input"]["psnr"].infinite == 1


def test_a_ledger_holds_one_protocol_and_no_foreign_files(tmp_path: Path) -> None:
    Ledger(tmp_path / "new", "rgb").close()
    with pytest.raises(SstlError, match="under rgb, these are under y-matlab"):
        Ledger(tmp_path / "new", "y-matlab")
    Ledger(tmp_path / "new", "y-matlab", overwrite=True).close()
    assert lines_of(tmp_path / "new") == [{"protocol": "y-matlab"}]


def test_without_clean_images_only_the_other_measures_are_given(
    run_cli: RunCli, manifest: Path, weights: list[Path], tmp_path: Path
) -> None:
    for name, photo in PHOTOS.items():
        (tmp_path / "photos").mkdir(exist_ok=True)
        Pillow.fromarray(rain_on(np.tile(photo, (2, 2, 1)))).save(tmp_path / "photos" / f"{name}.png")
    folder = tmp_path / "out"
    shared = ("--weights", weights[0], "--precision", "fp32", "-o", folder)
    done = run_cli("evaluate", "--rainy", tmp_path / "photos", "--no-reference", *shared)
    assert done.code == 0, done.err
    assert "no clean images; mean over 3 images" in done.out
    assert "NIQE" in done.out
    assert "PSNR" not in done.out
    results = json.loads((folder / "scores.json").read_text())["sets"]["photos"]["results"]
    assert set(results["input"]) == {"niqe"}
    assert set(results[str(weights[0])]) == {"niqe", "directionality", "leftover", "leakage", "seconds"}
    assert "Without clean images no figure proves" in (folder / "report.html").read_text()
    real = run_cli("evaluate", "--data", manifest, "--set", "real", "--no-reference", "--weights", weights[0])
    assert real.code == 0, real.err
    assert "no clean images; mean over 1 images" in real.out
    assert run_cli("evaluate", "--data", manifest, "--set", "real", "--weights", weights[0]).code == 2


@pytest.mark.parametrize(
    "arguments",
    [
        "--rainy a",
        "--restored a --no-reference",
        "--data m.csv --do-no-harm --no-reference",
        "--data m.csv --overwrite",
        "--data m.csv --set a a",
        "--data m.csv --published",
        "--data m.csv --set a b --published rain100l",
        "--data m.csv --rendered light --published rain100l",
    ],
)
def test_wrong_combinations_are_usage_errors(run_cli: RunCli, arguments: str) -> None:
    done = run_cli("evaluate", *arguments.split())
    assert (done.code, done.out, done.err.count("\n")) == (2, "", 1)
    assert "see 'sstl evaluate --help'" in done.err


def test_the_page_shows_the_worst_first_and_sorts_by_headings(pairs: Pairs) -> None:
    restorers = {"same": Fixed(0), "dark": Fixed(40)}
    found = evaluate(pairs, restorers)
    one = EvaluatedSet("set", pairs, found)
    gains = [restoration.values["gain"] for restoration in one.restorations]
    assert gains == sorted(gains)
    assert len(gains) == 6
    page = evaluation_page([one], restorers)
    every = page.tables[-1]
    assert every.sortable
    assert [row[0] for row in every.rows] == [restoration.key for restoration in one.restorations]
    assert [photo.name for photo in page.comparisons] == list(dict.fromkeys(row[0] for row in every.rows))
    assert np.array_equal(page.comparisons[0].layers["clean"], dict(pairs.pairs)[page.comparisons[0].name][1])
    assert "3 of the 6 restored images are worse than the input." in page.verdict
    assert "set: same at" in page.verdict
    reader = Reader(render(page))
    assert [b["class"] for b in reader.all("button")].count("sort") == len(every.header)
    many = evaluation_page([one] * (PICTURES + 2), restorers)
    assert len(many.comparisons) == PICTURES


def test_pages_of_every_kind_of_evaluation(pairs: Pairs, tmp_path: Path) -> None:
    rainy, clean = Layers(pairs, 0), Layers(pairs, 1)
    dark = {"dark": Fixed(9)}
    kinds = {
        "restored": EvaluatedSet("x", pairs, evaluate_restored(pairs)),
        "harm": EvaluatedSet("x", clean, evaluate_harm(clean, dark)),
        "unpaired": EvaluatedSet("x", rainy, evaluate_unpaired(rainy, dark)),
        "input": EvaluatedSet("x", pairs, evaluate(pairs, ())),
    }
    for name, one in kinds.items():
        *_, page = write_files(tmp_path / name, [one], dark if name in ("harm", "unpaired") else {}, {})
        reader = Reader(page.read_text())
        assert len(reader.all("figure")) >= 3, name
        assert len(csv_of(tmp_path / name)) in (3, 6)


def test_nothing_evaluated_is_a_page_that_says_so() -> None:
    failed = Evaluation("rgb", 100, [], [Failure("a", "broken")], {"sstl": "0", "date": "2020-01-01T00:00"})
    one = EvaluatedSet("x", Pairs({"a": InputError("broken")}), failed)
    assert verdict([one]) == "No image could be evaluated; the reasons are below."
    assert "broken" in Reader(render(evaluation_page([one], {}))).text


def test_published_figures_stand_beside_ours_under_their_protocol_only(pairs: Pairs) -> None:
    figures = published("rain100h", "y-matlab")
    assert [figure.psnr for figure in figures] == sorted((f.psnr for f in figures), reverse=True)
    ours = evaluate(pairs, ()).results
    header, *rows = beside(figures, ours)
    assert len(rows) == len(figures) + 1
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert next(row for row in rows if row[0] == "> input")[-1] == "this evaluation, 3 images"
    assert markdown([header, *rows]).count("\n") == len(rows) + 1
    for other in ("rgb", None):
        with pytest.raises(SstlError, match="one table never mixes them"):
            published("rain100h", other)
    for protocol in PROTOCOLS:  # nobody says under which these were measured
        with pytest.raises(SstlError, match="unstated"):
            published("lhp-rain", protocol)
    with pytest.raises(SstlError, match="'rain100l'"):
        published("rain100", "y-matlab")


def test_the_command_shows_published_figures_or_refuses(run_cli: RunCli, manifest: Path, weights: list[Path]) -> None:
    call = ("evaluate", "--data", manifest, "--set", "rain100l", "--weights", weights[0], "--published")
    done = run_cli(*call)
    assert done.code == 0, done.err
    assert "PReNet and RCDNet protocol" in done.out
    assert f"> {weights[0]}" in done.out
    refused = run_cli(*call, "--protocol", "rgb")
    assert (refused.code, refused.out, refused.err.count("\n")) == (2, "", 1)


def test_every_published_figure_is_plausible_and_given_once() -> None:
    figures = all_published()
    assert len({(f.set, f.method, f.training) for f in figures}) == len(figures)
    assert all(10 < f.psnr < 60 and f.source and f.training for f in figures)
