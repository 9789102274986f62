"""Synthetic pairs as files: rain of a recipe on a source's clean images, with every layer and what was drawn."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image as PilImage
from torch import Tensor

from sstl.data.files import Image
from sstl.data.sources import ImageSource
from sstl.errors import ConfigError, InputError
from sstl.ops.files import read_log, write_atomic
from sstl.rain import RainSample, Recipe, StreakImages, check_streaks, load_recipe, render

LAYERS = ("rainy", "clean", "streak", "map", "transmission")
MANIFEST, PARAMETERS = "manifest.csv", "parameters.jsonl"
LONGEST = 200  # bytes of a key, which file names begin with
COLUMNS = ("kind", "key", "split", "group", "rainy", "clean", "streak")


@dataclass(frozen=True)
class Made:
    """What became of one pair: its name, and why there is none."""

    key: str
    error: str | None = None


def synthesize_files(
    images: ImageSource,
    out: str | Path,
    recipe: str | Path | Recipe,
    count: int | None = None,
    seed: int = 0,
    streaks: StreakImages | None = None,
    overwrite: bool = False,
) -> Iterator[Made]:
    """Write pairs into a folder, one after another; at the end its manifest, which makes it a data set.

    Each pair is a PNG of one name in ``rainy/``, ``clean/``, ``streak/``, ``map/`` and ``transmission/``, 8 bits;
    ``parameters.jsonl`` holds what was drawn for each, one JSON object a line. Pair i is a function of (clean image,
    recipe, seed, i).

    Args:
        images: the clean images; used again, with other rain, if ``count`` is larger than their number.
        out: the folder.
        recipe: a recipe, the name of one, or its YAML file.
        count: how many pairs; one per image if None.
        seed: of the rain.
        streaks: for a recipe that lays photographed streaks.
        overwrite: replace what an earlier run wrote; its pairs are removed first.

    Yields:
        What became of each pair; a clean image that cannot be read makes an error, not a pair.

    Raises:
        ConfigError: ``out`` holds pairs of an earlier run, which may have been interrupted.
        SstlError: the recipe is unknown, or needs streaks and there are none.
    """
    out = Path(out)
    for name in (MANIFEST, PARAMETERS):
        if (out / name).exists() and not overwrite:
            raise ConfigError(f"{out} already holds a {name}; give --overwrite, or another folder by -o.")
    rain = recipe if isinstance(recipe, Recipe) else load_recipe(recipe)
    check_streaks(rain, streaks)
    _remove_pairs(out)
    written: list[str] = []
    for i in range(len(images) if count is None else count):
        # The end of a long path: its number alone tells it from the others, and file names end at 255 bytes.
        key = f"{images.key(i % len(images))}-{i}".replace("/", "-").encode()[-LONGEST:].decode(errors="ignore")
        try:
            clean = _tensor(images.load(i % len(images)))
        except InputError as error:
            yield Made(key, str(error))
            continue
        sample = render(clean, rain, seed, [i], streaks)
        out.mkdir(parents=True, exist_ok=True)
        with (out / PARAMETERS).open("a", encoding="utf-8") as file:  # before the pair: what there is has its line
            file.write(json.dumps({"key": key, "seed": seed, **sample.parameters[0]}) + "\n")
        for layer, image in _layers(sample).items():
            write_atomic(out / layer / f"{key}.png", _png(image))
        written.append(key)
        yield Made(key)
    write_atomic(out / MANIFEST, _manifest(written))


def _remove_pairs(out: Path) -> None:
    """Remove the pairs of an earlier run, which has a line for each, and its lists."""
    for line in read_log(out / PARAMETERS):
        key = line.get("key")
        if isinstance(key, str) and Path(key).name == key:  # a name, and no way to another folder
            for layer in LAYERS:
                (out / layer / f"{key}.png").unlink(missing_ok=True)
    for name in (PARAMETERS, MANIFEST):
        (out / name).unlink(missing_ok=True)


def _layers(sample: RainSample) -> dict[str, Tensor]:
    layers = (sample.rainy, sample.clean, sample.streak, sample.mask, sample.transmission)
    return {name: layer[0] for name, layer in zip(LAYERS, layers, strict=True)}


def _manifest(keys: list[str]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for key in keys:
        files = {layer: f"{layer}/{key}.png" for layer in ("rainy", "clean", "streak")}
        background = key.rpartition("-")[0]
        writer.writerow({"kind": "pair", "key": key, "split": "train", "group": background, **files})
    return buffer.getvalue()


def _tensor(image: Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float32) / 255


def _png(layer: Tensor) -> bytes:
    pixels = (layer.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy()
    buffer = io.BytesIO()
    PilImage.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="png")
    return buffer.getvalue()
