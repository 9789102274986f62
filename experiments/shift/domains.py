"""The target domains of the suite: photos without truth to adapt to, their truth for the oracle, and a test set each.

Backgrounds to adapt to are clean sides of Rain800's training pairs that no source network has seen, and so are the dry
photographs that the gates judge on and their routers learn from, which are others; those of the tests are of the
development split. Everything follows from reserved.yaml and the manifest.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image as PillowImage
from PIL import ImageFilter

from sstl.config import from_tree, to_tree
from sstl.data import SourceConfig, open_images, open_pairs
from sstl.data.files import Image
from sstl.data.manifest import read_manifest
from sstl.data.sources import OneLayer
from sstl.rain import Recipe, render

MANIFEST = "manifest.csv"
RESERVED = Path(__file__).with_name("reserved.yaml")
PHOTOS, DRY, TESTS, SIDE = 64, 64, 24, 256
SEED = 20
BLUR = 1.5  # pixels


@dataclass(frozen=True)
class Domain:
    """Folders of a domain: ``photos``, their ``truth``, it blurred (``smooth``), ``test/rainy`` and ``test/clean``.

    And dry photographs of other places than the photos': ``held-out``, to judge on, and ``beside``, for routers.
    """

    name: str
    root: Path


def reserved() -> dict[str, Any]:
    """Return reserved.yaml with its recipes as such."""
    tree = yaml.safe_load(RESERVED.read_text(encoding="utf-8"))
    tree["recipes"] = {
        name: from_tree(Recipe, recipe, where=f"recipe '{name}'") for name, recipe in tree["recipes"].items()
    }
    return dict(tree)


def definition(domain: Domain) -> list[Any]:
    """Return all that the images of a domain follow from beside the manifest and the renderer."""
    tree = reserved()
    settings = [SEED, PHOTOS, DRY, TESTS, SIDE, BLUR, tree["domains"].index(domain.name), tree["streaks"]]
    return [settings, *map(to_tree, _recipes(tree, domain.name))]


def _is_built(domain: Domain) -> bool:
    done = domain.root / "done"
    return done.exists() and done.read_text() == json.dumps(definition(domain))


def _recipes(tree: dict[str, Any], name: str) -> list[Recipe]:
    return [tree["recipes"][rain] for rain in (tree["mixture"] if name == "mixture" else [name])]


def build(folder: Path) -> list[Domain]:
    """Write all domains below ``folder`` (what is there is kept), and return them."""
    tree = reserved()
    domains = [Domain(name, folder / name) for name in tree["domains"]]
    if all(_is_built(domain) for domain in domains):
        return domains
    streaks = open_images(SourceConfig(MANIFEST, split=tree["streaks"]), "streak")
    photos, tests = _backgrounds()
    for number, domain in enumerate(domains):
        if _is_built(domain):
            continue
        rng = np.random.default_rng([SEED, number])
        recipes = _recipes(tree, domain.name)
        chosen, others = np.split(rng.permutation(len(photos))[: PHOTOS + DRY], [PHOTOS])
        _write(
            [photos[i] for i in chosen], recipes, streaks, SEED + number, domain.root / "photos", domain.root / "truth"
        )
        for part, own in zip(("held-out", "beside"), np.split(others, 2), strict=True):
            _save([photos[i] for i in own], domain.root / part)
        _write(
            tests, recipes, streaks, SEED + 100 + number, domain.root / "test" / "rainy", domain.root / "test" / "clean"
        )
        (domain.root / "smooth").mkdir(exist_ok=True)
        for path in (domain.root / "truth").iterdir():
            PillowImage.open(path).filter(ImageFilter.GaussianBlur(BLUR)).save(domain.root / "smooth" / path.name)
        for old in ("streaks.yaml", "match.json"):  # what was matched to other photos
            (domain.root / old).unlink(missing_ok=True)
        (domain.root / "done").write_text(json.dumps(definition(domain)))
    return domains


def _backgrounds() -> tuple[list[Image], list[Image]]:
    """Return crops of the backgrounds to adapt to and of those to test on, one of each group of the manifest."""
    rows = read_manifest(Path(os.environ["SSTL_DATA"]) / MANIFEST)
    groups = {row.key: row.group for row in rows}
    seen_by_sources = {row.group for row in rows if row.set in ("bsds", "rain100l", "rain100h")}
    train = OneLayer(open_pairs(SourceConfig(MANIFEST, split="train", set="rain800")), "clean")
    photos = _one_a_group([(train, i) for i in range(len(train))], groups, seen_by_sources)
    sources = [OneLayer(open_pairs(SourceConfig(MANIFEST, split="dev", set="rain800")), "clean")]
    dev = [*sources, open_images(SourceConfig(MANIFEST, split="dev"), "clean")]
    tests = _one_a_group([(source, i) for source in dev for i in range(len(source))], groups, set())
    return photos, tests[:TESTS]


def _one_a_group(places: list[tuple[Any, int]], groups: dict[str, str], taken: set[str]) -> list[Image]:
    found, seen = [], set(taken)
    for source, i in places:
        group = groups[source.key(i)]
        if group in seen:
            continue
        seen.add(group)
        image = source.load(i)
        if min(image.shape[:2]) >= SIDE:
            # The middle, cut at multiples of 8: where the image was a JPEG, its grid stays in place.
            top, left = ((side - SIDE) // 16 * 8 for side in image.shape[:2])
            found.append(np.ascontiguousarray(image[top : top + SIDE, left : left + SIDE]))
    return found


def _write(backgrounds: list[Image], recipes: list[Recipe], streaks: Any, seed: int, rainy: Path, clean: Path) -> None:
    layers: dict[Path, list[Image]] = {rainy: [], clean: []}
    for i, background in enumerate(backgrounds):
        tensor = torch.from_numpy(background).permute(2, 0, 1)[None].float() / 255
        sample = render(tensor, recipes[i % len(recipes)], seed, [i], streaks)
        for layer, folder in ((sample.rainy, rainy), (sample.clean, clean)):
            layers[folder].append((layer[0].permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
    for folder, images in layers.items():
        _save(images, folder)


def _save(images: list[Image], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.png"):  # of a version that wrote more
        old.unlink()
    for i, image in enumerate(images):
        PillowImage.fromarray(image).save(folder / f"{i:03}.png")
