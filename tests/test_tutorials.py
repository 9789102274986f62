"""The tutorials run from start to end after a second of training, and save their figures where they are told."""

from __future__ import annotations

import shutil

import pytest
from conftest import ROOT
from PIL import Image

TUTORIALS = ROOT / "docs" / "tutorials"


@pytest.fixture(autouse=True)
def _short(monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    monkeypatch.setenv("SSTL_TUTORIAL_SECONDS", "1")


@pytest.mark.parametrize("tutorial", sorted(TUTORIALS.glob("plot_*.py")), ids=lambda path: path.stem)
def test_a_tutorial_runs_and_saves_its_figures(run_process, tmp_path, tutorial):
    folder = tmp_path / "figures"
    folder.mkdir()
    outcome = run_process(tutorial, folder)
    assert outcome.code == 0, outcome.err
    figures = sorted(folder.iterdir())
    assert figures
    for figure in figures:
        assert figure.suffix == ".png"
        with Image.open(figure) as picture:
            darkest, brightest = picture.convert("L").getextrema()
            assert darkest < brightest


def test_a_missing_measurement_is_told_in_a_line(run_process, tmp_path):
    elsewhere = tmp_path / "docs" / "tutorials"
    elsewhere.mkdir(parents=True)
    shutil.copy(TUTORIALS / "plot_patch_size.py", elsewhere)
    outcome = run_process(elsewhere / "plot_patch_size.py")
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "results.json is missing" in line
    assert "python experiments/patch-size/run.py" in line
