"""The public surface: the documented names, all there, each with its docstring, and one version everywhere."""

from __future__ import annotations

import ast
import importlib
import importlib.metadata
import inspect
import itertools
import re
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT

import sstl

# Adding a name here is a promise to keep it: the changelog and the docs say it too.
PUBLIC = {
    "AddRain",
    "DerainColumns",
    "PairedBatch",
    "RandomRecipeRain",
    "Restoration",
    "Restorer",
    "SstlError",
    "UnpairedBatch",
    "__version__",
    "adapt",
    "adapt_to_photo",
    "create_method",
    "create_network",
    "evaluate",
    "export_network",
    "list_methods",
    "list_networks",
    "list_recipes",
    "load",
    "synthesize",
    "train",
}
PACKAGES = ["data", "engine", "losses", "methods", "metrics", "networks", "rain", "restore"]


def test_the_public_names_are_the_documented_ones():
    assert set(sstl.__all__) == PUBLIC
    assert len(sstl.__all__) == len(PUBLIC)
    assert dir(sstl) == sorted(PUBLIC)


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_a_public_name_is_where_it_says_and_says_what_it_does(name):
    item = getattr(sstl, name)
    assert item is getattr(importlib.import_module(sstl._HOME[name]), name)
    assert (inspect.getdoc(item) or "").split("\n")[0].endswith(".")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'sstl' has no attribute 'lod'"):
        _ = sstl.lod


@pytest.mark.parametrize("package", PACKAGES)
def test_what_a_package_lists_is_there_and_documented(package):
    module = importlib.import_module(f"sstl.{package}")
    for name in module.__all__:
        item = getattr(module, name)
        if inspect.isclass(item) or inspect.isfunction(item):
            assert item.__module__.startswith("sstl.")
            assert inspect.getdoc(item)


def test_one_version():
    assert importlib.metadata.version("sstl") == sstl.__version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == sstl.__version__
    assert f"## [{sstl.__version__}]" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def third_party(source: str) -> set[str]:
    """The top-level packages that a file imports, without the standard library and sstl."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module.split(".")[0])
    return found - sys.stdlib_module_names - {"sstl"}


def test_what_is_imported_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    requirements = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    declared = {normal(re.split(r"[<>=!~\[ ]", requirement)[0]) for requirement in requirements}
    distributions = importlib.metadata.packages_distributions()
    for path in (ROOT / "sstl").rglob("*.py"):
        for module in third_party(path.read_text(encoding="utf-8")):
            assert declared & {normal(name) for name in distributions.get(module, [module])}, f"{path}: {module}"


def normal(name: str) -> str:
    return name.lower().replace("_", "-")
