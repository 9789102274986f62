"""How Sphinx builds these pages: python -m sphinx -W -b html docs docs/_build/html."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from sphinx.application import Sphinx
from sphinx_gallery.sorting import ExplicitOrder

import sstl
from sstl.cli.main import ALL, build_parser

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
GENERATED = HERE / "generated"  # everything in it can be removed
RESULTS = GENERATED / "results"  # the pages of experiments/
# README.md is all-experiments, shift/README.md is shift, benchmarks/speed.md is benchmarks-speed.
RESULT_PAGES = {
    file: "-".join(part for part in file.relative_to(ROOT / "experiments").with_suffix("").parts if part != "README")
    or "all-experiments"
    for file in sorted((ROOT / "experiments").rglob("*.md"))
}
TUTORIALS = [
    "plot_first_derain.py",
    "plot_adapt.py",
    "plot_read_report.py",
    "plot_recipes.py",
    "plot_train_on_pairs.py",
    "plot_joint_detection.py",
    "plot_gridding.py",
    "plot_patch_size.py",
    "plot_own_method.py",
    "plot_own_network.py",
    "plot_many_processes.py",
]

os.environ["COLUMNS"] = "92"  # of the options
os.environ["TQDM_DISABLE"] = "1"  # a page has no use for the progress of the machine that made it

project = "sstl"
author = "The sstl authors"
release = sstl.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "tutorials"]
# The order of the tutorials is an object, which Sphinx cannot compare; and two modules may each have a class of a name.
suppress_warnings = ["config.cache", "ref.python"]

html_theme = "furo"
html_title = "sstl"
html_show_copyright = False
# No page asks another server for anything: MathJax comes from a package, one file that draws without fonts.
mathjax = find_spec("sphinx-mathjax-offline")
assert mathjax is not None
assert mathjax.origin is not None
html_static_path = [str(Path(mathjax.origin).parent / "static" / "mathjax" / "tex-svg-full.js")]
mathjax_path = "tex-svg-full.js"

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_member_order = "bysource"
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_use_ivar = True

sphinx_gallery_conf = {
    "examples_dirs": "tutorials",
    "gallery_dirs": "generated/tutorials",
    "within_subsection_order": ExplicitOrder(TUTORIALS),
    "abort_on_example_error": True,
    "write_computation_times": False,
    "show_memory": False,
    "remove_config_comments": True,
    "copyfile_regex": r".*\.md",
}


def setup(app: Sphinx) -> None:
    """Add the pages of ``experiments/`` and of the options, and let links lead from page to page."""
    app.connect("builder-inited", copy_results)
    app.connect("builder-inited", write_options)
    app.connect("source-read", redirect_links)
    app.connect("autodoc-process-docstring", escape_bars)


def copy_results(app: Sphinx) -> None:
    """Make a page of each Markdown file of ``experiments/``."""
    del app
    RESULTS.mkdir(parents=True, exist_ok=True)
    for file, name in RESULT_PAGES.items():
        (RESULTS / f"{name}.md").write_text(file.read_text(encoding="utf-8"), encoding="utf-8")


def write_options(app: Sphinx) -> None:
    """Make a page of what each command's ``--help`` prints."""
    del app
    (commands,) = (action.choices for action in build_parser(ALL)._actions if isinstance(action.choices, dict))
    told = "".join(f"\n## sstl {name}\n\n```text\n{parser.format_help()}```\n" for name, parser in commands.items())
    GENERATED.mkdir(exist_ok=True)
    (GENERATED / "options.md").write_text(f"# Every option\n{told}", encoding="utf-8")


def redirect_links(app: Sphinx, docname: str, source: list[str]) -> None:
    """Turn links that are right in the repository into links that are right in the built pages."""
    page = HERE / docname
    if Path(app.env.doc2path(docname)).suffix == ".md":
        homes = {name: file.parent for file, name in RESULT_PAGES.items()}
        home = homes[page.name] if page.parent == RESULTS else page.parent
        source[0] = re.sub(
            r"(?<=\]\()(?!\w+:)([^)#\s]+)",
            lambda link: os.path.relpath(shown_as(Path(os.path.normpath(home / link[1]))), page.parent),
            source[0],
        )


def shown_as(file: Path) -> Path:
    """Return the page that shows a file of the repository, or the file itself, which is then a download."""
    if file == ROOT / "README.md":
        return HERE / "index.md"
    if file.parent == HERE / "tutorials":
        return GENERATED / "tutorials" / f"{file.stem}.rst"
    return RESULTS / f"{RESULT_PAGES[file]}.md" if file in RESULT_PAGES else file


def escape_bars(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Let |x| in a docstring be an absolute value, which to Sphinx would be a substitution."""
    del app, what, name, obj, options
    lines[:] = [re.sub(r"(``.*?``)|\|", lambda part: part[1] or r"\|", line) for line in lines]
