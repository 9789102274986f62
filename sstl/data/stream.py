"""Endless training batches as a pure function of (seed, global sample index), with a loader over them."""

from __future__ import annotations

import signal
import warnings
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import active_children
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from sstl.data.cache import cached
from sstl.data.sources import ImageSource, OneLayer, PairSource, SourceConfig, open_images, open_pairs, open_streaks
from sstl.errors import ConfigError, InputError
from sstl.rain import Recipe, StreakImages, load_recipe, rain_map, render, streak_layer
from sstl.types import PairedBatch, UnpairedBatch

Pixels = NDArray[np.uint8]
_FOR_PARENT = (signal.SIGINT, signal.SIGTERM)
RETRIES = 20  # unreadable images in a row before training gives up


@dataclass(frozen=True)
class PairedPart(SourceConfig):
    """One share of the labelled data: pairs as they are, or clean images that are rained on as they come.

    Attributes:
        weight: relative frequency of this part.
        recipe: a recipe's name or file: render rain on the source's clean images.
        rain_on: ``pairs`` takes those clean images from the source's pairs instead.
        streaks: photographed streak images, for the recipe ``garg`` (which need not be named then) or another that lays
            them.
        streaks_of: ``pairs`` takes the streak layers of that source's pairs instead, for the recipe ``laid`` (which
            need not be named, either): the rain of few pairs on many backgrounds.
    """

    weight: float = 1.0
    recipe: str | None = None
    streaks: SourceConfig | None = None
    streaks_of: Literal["images", "pairs"] = "images"
    rain_on: Literal["clean", "pairs"] = "clean"

    def __post_init__(self) -> None:
        """Refuse a negative weight, and streaks that are missing or that the recipe has no use for (ValueError)."""
        if self.weight < 0:
            raise ValueError(f"'weight' is {self.weight}; it must not be negative.")
        if self.streaks_of == "pairs" and self.streaks is None:
            raise ValueError("'streaks_of: pairs' needs 'streaks', the source of the pairs.")
        if self.streaks and self.recipe and not load_recipe(self.recipe).photographed[1]:
            raise ValueError(
                f"the recipe '{self.recipe}' lays no photographed streaks; leave 'streaks' out, or 'recipe'."
            )


class PairedStream(Dataset[PairedBatch]):
    """Labelled batches: ``stream[indices]`` depends only on the seed and the indices.

    Args:
        parts: where the data come from, with their weights.
        crop: side of the square training crop in pixels.
        seed: of all choices: part, image, place, flip and rain.
        data_root: what relative paths are relative to.
        cache_bytes: how much decoded image data to keep, over all parts, which get equal shares.
    """

    def __init__(
        self, parts: Sequence[PairedPart], crop: int, seed: int, data_root: Path | None, cache_bytes: int
    ) -> None:
        self.parts = [_Part(part, data_root, cache_bytes // max(1, len(parts))) for part in parts]
        shares = np.array([part.weight for part in parts], dtype=float)
        if not shares.sum() > 0:
            raise ConfigError("the weights of all labelled parts are 0; give one of them a weight.")
        self.shares = shares / shares.sum()
        self.crop, self.seed = crop, seed

    def __getitem__(self, indices: Sequence[int]) -> PairedBatch:
        """Return the batch of the global samples ``indices``."""
        rngs = [np.random.default_rng([self.seed, index]) for index in indices]
        chosen = np.array([rng.choice(len(self.parts), p=self.shares) for rng in rngs])
        drawn = [self.parts[part].draw(rng, self.crop) for part, rng in zip(chosen, rngs, strict=True)]
        rainy = _stack([sample.rainy for sample in drawn])
        clean = _stack([sample.clean for sample in drawn])
        for part in set(chosen.tolist()):
            recipe = self.parts[part].recipe
            if recipe is not None:  # the rain of all samples of a recipe is rendered in one go
                own = np.flatnonzero(chosen == part)
                sample = render(clean[own], recipe, self.seed, [indices[int(i)] for i in own], self.parts[part].streaks)
                rainy[own], clean[own] = sample.rainy, sample.clean
        rainy = (rainy * 255).round() / 255  # what a camera or a file would keep
        streak = streak_layer(rainy, clean)
        return PairedBatch(rainy, clean, streak, rain_map(streak), tuple(sample.key for sample in drawn))


@dataclass(frozen=True)
class _Drawn:
    rainy: Pixels
    clean: Pixels
    key: str


class _Part:
    """An opened PairedPart; draws one augmented crop at a time."""

    def __init__(self, part: PairedPart, data_root: Path | None, cache_bytes: int) -> None:
        usual = {"images": "garg", "pairs": "laid"}[part.streaks_of]
        name = part.recipe or (usual if part.streaks else None)
        self.recipe: Recipe | None = load_recipe(name) if name else None
        self.streaks: StreakImages | None = None
        self.pairs: PairSource | None = None
        if part.streaks is not None:
            of_streaks = cache_bytes // 4
            cache_bytes -= of_streaks
            self.streaks = _Readable(cached(open_streaks(part.streaks, part.streaks_of, data_root), of_streaks))
        if self.recipe is None:
            self.pairs = cached(open_pairs(part, data_root), cache_bytes)
        elif part.rain_on == "pairs":
            self.images = cached(OneLayer(open_pairs(part, data_root), "clean"), cache_bytes)
        else:
            self.images = cached(open_images(part, "clean", data_root), cache_bytes)

    def draw(self, rng: np.random.Generator, crop: int) -> _Drawn:
        if self.pairs is not None:
            (rainy, clean), key = _load_any(self.pairs, rng)
            rainy, clean = _augment((rainy, clean), crop, rng)
            return _Drawn(rainy, clean, key)
        image, key = _load_any(self.images, rng)
        (clean,) = _augment((image,), crop, rng)
        return _Drawn(clean, clean, key)  # rained on later, with the rest of its batch


class _Readable:
    """The images of a source, the next readable one in the place of one that is not."""

    def __init__(self, source: ImageSource) -> None:
        self.source = source

    def __len__(self) -> int:
        return len(self.source)

    def load(self, i: int) -> Pixels:
        following = ((i + tried) % len(self.source) for tried in range(RETRIES))
        image: Pixels = _first_readable(self.source, following)[0]
        return image


class UnpairedStream(Dataset[UnpairedBatch]):
    """Unlabelled batches of rainy photos; arguments as for ``PairedStream``."""

    def __init__(
        self, sources: Sequence[SourceConfig], crop: int, seed: int, data_root: Path | None, cache_bytes: int
    ) -> None:
        self.sources = [cached(open_images(s, "rainy", data_root), cache_bytes // len(sources)) for s in sources]
        sizes = np.array([len(source) for source in self.sources], dtype=float)
        self.shares = sizes / sizes.sum()
        self.crop, self.seed = crop, seed

    def __getitem__(self, indices: Sequence[int]) -> UnpairedBatch:
        """Return the batch of the global samples ``indices``."""
        images, keys = [], []
        for index in indices:
            rng = np.random.default_rng([self.seed, 1, index])  # 1: another stream than the paired one's
            image, key = _load_any(self.sources[rng.choice(len(self.sources), p=self.shares)], rng)
            images.append(_augment((image,), self.crop, rng)[0])
            keys.append(key)
        return UnpairedBatch(_stack(images), tuple(keys))


class GlobalBatches(Sampler[list[int]]):
    """This process's share of every global batch, from global step ``start`` on, for ever.

    Process r of w takes samples r, r + w, ... of each global batch, so that the union over processes does not depend
    on how many there are.
    """

    def __init__(self, batch_size: int, start: int = 0, rank: int = 0, world: int = 1) -> None:
        self.batch_size, self.start, self.rank, self.world = batch_size, start, rank, world

    def __iter__(self) -> Iterator[list[int]]:
        """Yield lists of global sample indices."""
        step = self.start
        while True:
            first = step * self.batch_size
            yield list(range(first + self.rank, first + self.batch_size, self.world))
            step += 1


def endless(stream: Dataset[Any], batches: GlobalBatches, workers: int) -> Iterator[Any]:
    """Iterate over a stream's batches; ``workers`` processes load ahead (0: none, in this process).

    The workers end with the iterator, those that are busy for longer than a few seconds by a kill.
    """
    before = set(active_children())
    loader = _loader(stream, batches, workers)
    with _signals_wait():
        iterator = iter(loader)
    weakref.finalize(iterator, _end, [child for child in active_children() if child not in before])
    return iterator


def _loader(stream: Dataset[Any], batches: GlobalBatches, workers: int) -> DataLoader[Any]:
    return DataLoader(
        stream,
        sampler=batches,
        batch_size=None,
        num_workers=workers,
        collate_fn=None,
        worker_init_fn=_leave_signals_to_parent,
        # The loader draws a seed; were it from the global generator, a resumed run would go on with other numbers.
        generator=torch.Generator(),
    )


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold signals back, in this process until the end and in those that it starts for good."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _FOR_PARENT)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end(workers: Sequence[Any]) -> None:
    """Kill what the loader could not stop: it asks by SIGTERM, which they ignore, and the exit waits for them."""
    for worker in workers:
        if worker.is_alive():
            worker.kill()


def _leave_signals_to_parent(_: int) -> None:
    """Ctrl-C reaches the whole process group: a worker that dies of it takes the step away that is to be finished."""
    for signum in _FOR_PARENT:
        signal.signal(signum, signal.SIG_IGN)


def _load_any(source: Any, rng: np.random.Generator) -> tuple[Any, str]:
    """Load a random entry; an unreadable one is warned of and another is drawn, as the same rng decides."""
    return _first_readable(source, (int(rng.integers(len(source))) for _ in range(RETRIES)))


def _first_readable(source: Any, indices: Iterable[int]) -> tuple[Any, str]:
    for index in indices:
        try:
            return source.load(index), source.key(index)
        except InputError as error:
            warnings.warn(f"left out: {error}", stacklevel=2)
    raise InputError(f"{RETRIES} images in a row could not be read, '{source.key(index)}' last; check the data folder.")


def _augment(layers: tuple[Pixels, ...], crop: int, rng: np.random.Generator) -> tuple[Pixels, ...]:
    """The same random crop and horizontal flip of all layers; a smaller image is first continued by reflection."""
    height, width = layers[0].shape[:2]
    if min(height, width) < crop:
        pad = [(0, max(0, crop - height)), (0, max(0, crop - width)), (0, 0)]
        layers = tuple(np.pad(layer, pad, mode="symmetric") for layer in layers)
        height, width = layers[0].shape[:2]
    top, left = int(rng.integers(height - crop + 1)), int(rng.integers(width - crop + 1))
    step = -1 if rng.random() < 0.5 else 1
    return tuple(layer[top : top + crop, left : left + crop][:, ::step] for layer in layers)


def _stack(images: Sequence[Pixels]) -> Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous().to(torch.float32) / 255
