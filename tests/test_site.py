"""The built documentation: every tutorial runs, every link leads somewhere, nothing comes from elsewhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

import pytest
from conftest import ROOT
from PIL import Image

TUTORIALS = sorted(path.stem for path in (ROOT / "docs" / "tutorials").glob("plot_*.py"))
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}  # what a browser fetches


class Page(HTMLParser):
    """What a page loads, where its links lead, and what can be linked to in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.loads: list[str] = []
        self.links: list[str] = []
        self.names: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        values = {name: value for name, value in attrs if value}
        self.names |= {values[name] for name in ("id", "name") if name in values}
        if tag in LOADS and LOADS[tag] in values and values.get("rel") != "canonical":
            self.loads.append(values[LOADS[tag]])
        if tag == "a" and "href" in values:
            self.links.append(values["href"])


class Site(NamedTuple):
    """The built documentation."""

    folder: Path
    pages: dict[Path, Page]
    said: str


def copy_of_the_repository(folder: Path) -> Path:
    """Link everything the documentation is made of into a folder, but copy ``docs``, which a build writes into."""
    for path in ROOT.iterdir():
        if path.name in ("README.md", "experiments", "accelerate_config.yaml"):
            (folder / path.name).symlink_to(path)
    ignored = shutil.ignore_patterns("_build", "generated", "__pycache__")
    return shutil.copytree(ROOT / "docs", folder / "docs", ignore=ignored)


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("site")
    source, built = copy_of_the_repository(folder), folder / "html"
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-b", "html", source, built],
        env={**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "SSTL_TUTORIAL_SECONDS": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    yield Site(built, {path: Page(path) for path in built.rglob("*.html")}, done.stdout)
    shutil.rmtree(built)


def test_every_tutorial_has_pictures_and_a_notebook(site):
    for name in TUTORIALS:
        pictures = [*(site.folder / "_images").glob(f"sphx_glr_{name}_[0-9]*.png")]
        assert pictures, name
        for path in pictures:
            with Image.open(path) as picture:
                darkest, brightest = picture.convert("L").getextrema()
                assert darkest < brightest, path.name
        (notebook,) = site.folder.rglob(f"{name}.ipynb")
        assert json.loads(notebook.read_text(encoding="utf-8"))["cells"]


def test_nothing_is_loaded_from_elsewhere(site):
    for page in site.pages.values():
        assert [load for load in page.loads if urlsplit(load).scheme not in ("", "data")] == [], page.path
        assert [load for load in page.loads if load.startswith("//")] == [], page.path
    for sheet in site.folder.rglob("*.css"):
        found = re.findall(r"(?:url\(|@import)\s*['\"]?\s*((?:https?:)?//[^'\")]+)", sheet.read_text(encoding="utf-8"))
        assert found == [], sheet


def test_every_link_leads_somewhere(site):
    for page in site.pages.values():
        for link in {*page.links, *page.loads}:
            target = urlsplit(link)
            if target.scheme or target.netloc:
                continue
            file = (page.path.parent / unquote(target.path)).resolve() if target.path else page.path
            file = file / "index.html" if file.is_dir() else file
            assert file.is_file(), f"{page.path}: {link}"
            if target.fragment and file in site.pages:
                assert unquote(target.fragment) in site.pages[file].names, f"{page.path}: {link}"


def test_equations_are_drawn_by_a_file_of_ours(site):
    page = site.pages[site.folder / "explanation" / "sirr.html"]
    assert any("tex-svg-full.js" in load for load in page.loads)
    assert r"\mathcal N" in page.path.read_text(encoding="utf-8")


def test_every_public_name_is_in_the_reference(site):
    import sstl

    reference = site.folder / "generated" / "reference"
    assert [name for name in sstl.__all__[1:] if not (reference / f"sstl.{name}.html").is_file()] == []
