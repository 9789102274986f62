"""Every YAML file of the repository loads and means something; a new kind of file needs a rule here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file
from accelerate.utils import DistributedType
from conftest import ROOT, repository_files

from sstl.config import from_tree, load_config
from sstl.data.catalogue import FILE, known_sets
from sstl.engine import TrainConfig
from sstl.methods import create_method
from sstl.networks import create_network
from sstl.rain import Recipe, list_recipes, load_recipe
from sstl.report.published import PublishedFigures

FILES = sorted(path.relative_to(ROOT) for path in repository_files(".yaml", ".yml", ".cff"))


def check_training(path: Path) -> None:
    """Build what the file names: network and method must take their options."""
    config = load_config(TrainConfig, path)
    network = create_network(config.network.name, **config.network.options)
    create_method(config.method.name, network, **config.method.options)
    for part in config.data.paired:
        if getattr(part, "recipe", None):
            load_recipe(part.recipe)


def check_recipe(path: Path) -> None:
    assert path.stem in list_recipes()
    assert isinstance(load_recipe(path.stem), Recipe)


def check_data_sets(path: Path) -> None:
    assert path == FILE
    assert all(known.where and known.licence and known.traps for known in known_sets())


def check_accelerate(path: Path) -> None:
    config = load_config_from_file(str(path))
    assert (config.use_cpu, config.mixed_precision, config.num_processes) == (True, "no", 1)
    assert config.distributed_type == DistributedType.NO


def check_citation(path: Path) -> None:
    assert {"cff-version", "message", "title", "authors", "version", "license"} <= yaml.safe_load(
        path.read_text()
    ).keys()


def check_published(path: Path) -> None:
    assert load_config(PublishedFigures, path).figures


def check_reserved(path: Path) -> None:
    tree = yaml.safe_load(path.read_text())
    recipes = {name: from_tree(Recipe, recipe, where=name) for name, recipe in tree["recipes"].items()}
    assert set(tree["mixture"]) | set(tree["developed_on"]) <= set(recipes)


RULES = {
    "accelerate_config.yaml": check_accelerate,
    "CITATION.cff": check_citation,
    "sstl/data/sets.yaml": check_data_sets,
    "sstl/rain/recipes/*.yaml": check_recipe,
    "sstl/report/published.yaml": check_published,
    "experiments/shift/reserved.yaml": check_reserved,
    "experiments/*/*.yaml": check_training,
}


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_yaml_file_is_valid(file):
    rules = [
        rule for pattern, rule in RULES.items() if file.match(pattern) and len(file.parts) == pattern.count("/") + 1
    ]
    assert rules, f"{file}: no rule checks this kind of file"
    rules[0](ROOT / file)  # the first is the most special


def test_every_rule_has_a_file():
    assert [pattern for pattern in RULES if not any(file.match(pattern) for file in FILES)] == []


def device_blocks() -> tuple[str, dict[str, str]]:
    """Return the part of accelerate_config.yaml that is common to its blocks, and the blocks by title, uncommented."""
    text = (ROOT / "accelerate_config.yaml").read_text(encoding="utf-8")
    common, *parts = re.split(r"^# \[\d\] (.+)\n", text, flags=re.MULTILINE)
    blocks = {
        title: re.sub(r"^# (?=\w+: )", "", block, flags=re.MULTILINE)
        for title, block in zip(parts[::2], parts[1::2], strict=True)
    }
    return common, blocks


@pytest.mark.parametrize(
    ("title", "kind", "machines"),
    [
        ("The CPU", DistributedType.NO, 1),
        ("One GPU", DistributedType.NO, 1),
        ("Several GPUs", DistributedType.MULTI_GPU, 1),
        ("Several machines", DistributedType.MULTI_GPU, 2),
    ],
)
def test_each_block_of_the_accelerate_config_loads(tmp_path, title, kind, machines):
    common, blocks = device_blocks()
    (block,) = (block for name, block in blocks.items() if name.startswith(title))
    path = tmp_path / "accelerate_config.yaml"
    path.write_text(common + block)
    config = load_config_from_file(str(path))
    assert isinstance(config, ClusterConfig)
    assert (config.distributed_type, config.num_machines) == (kind, machines)
    assert config.use_cpu == (title == "The CPU")
    assert (config.mixed_precision == "bf16") == (title != "The CPU")
    assert (config.num_processes > 1) == title.startswith("Several")
    assert (config.main_process_ip is not None) == (machines > 1)
