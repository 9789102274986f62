"""Start-up: help and ``import sstl`` load no heavy package, and deraining loads only what it needs."""

from __future__ import annotations

import re

from PIL import Image

from sstl.networks import save_weights

HEAVY = {"torch", "numpy", "PIL", "safetensors", "torchvision", "timm", "kornia", "accelerate", "datasets"}
HEAVY |= {"matplotlib", "skimage", "scipy", "pandas", "pyarrow", "huggingface_hub", "yaml", "tqdm", "tensorboard"}
DERAIN = {"torch", "numpy", "PIL", "safetensors", "tqdm", "yaml"}


def imported(outcome) -> set[str]:
    """Return the top-level packages that ``python -X importtime`` reports."""
    assert outcome.code == 0, outcome.err[-500:]
    names = re.findall(r"^import time:\s+\d+ \|\s+\d+ \|\s+(\S+)$", outcome.err, flags=re.MULTILINE)
    assert "sstl" in names
    return {name.split(".")[0] for name in names}


def test_import_sstl_is_light(run_process):
    assert imported(run_process("-X", "importtime", "-c", "import sstl; dir(sstl)")) & HEAVY == set()


def test_help_is_light(run_process):
    assert imported(run_process("-X", "importtime", "-m", "sstl", "--help")) & HEAVY == set()
    assert imported(run_process("-X", "importtime", "-m", "sstl", "--version")) & HEAVY == set()


def test_the_help_of_derain_is_light(run_process):
    assert imported(run_process("-X", "importtime", "-m", "sstl", "derain", "--help")) & HEAVY == set()


def test_the_files_of_all_commands_are_light(run_process):
    code = "import sstl.cli.main as m; [m.build_parser(c) for c in m.COMMANDS]"
    assert imported(run_process("-X", "importtime", "-c", code)) & HEAVY == set()


def test_derain_imports_only_what_it_needs(run_process, tmp_path, tiny_network):
    Image.new("RGB", (20, 12), "grey").save(tmp_path / "photo.png")
    save_weights(tmp_path / "tiny.safetensors", tiny_network)
    arguments = ("derain", "photo.png", "-o", "out", "--weights", "tiny.safetensors")
    assert imported(run_process("-X", "importtime", "-m", "sstl", *arguments)) & HEAVY <= DERAIN
    assert (tmp_path / "out" / "photo.png").is_file()
