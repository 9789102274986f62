"""A tutorial that draws measurements tells where they come from if they are missing; running them is test_site's."""

from __future__ import annotations

import shutil

from conftest import ROOT


def test_a_missing_measurement_is_told_in_a_line(run_process, tmp_path):
    elsewhere = tmp_path / "docs" / "tutorials"
    elsewhere.mkdir(parents=True)
    shutil.copy(ROOT / "docs" / "tutorials" / "plot_patch_size.py", elsewhere)
    outcome = run_process(elsewhere / "plot_patch_size.py")
    assert outcome.code == 1
    (line,) = outcome.err.splitlines()
    assert "results.json is missing" in line
    assert "python experiments/patch-size/run.py" in line
