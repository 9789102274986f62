"""The cache of decoded images: what it gives, keeps, shares and leaves behind, and what a full disk does to it."""

from __future__ import annotations

import errno
import multiprocessing
import os
import pickle
import tempfile
import warnings
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sstl.data import Cached, OneLayer, cached  # no torch here: a spawned process imports this file

pytestmark = pytest.mark.skipif(os.name == "nt", reason="there is no cache on Windows")

ITEM = 600  # bytes of an item of Counting


def index_bytes(items: int) -> int:
    return 32 * (items + 1)


class Counting:
    """Pairs of known size that note each reading in a file, so that other processes' readings count too."""

    def __init__(self, n: int, log: Path) -> None:
        self.n, self.log = n, log

    def __len__(self) -> int:
        return self.n

    def key(self, i: int) -> str:
        return f"k{i}"

    def load(self, i: int) -> tuple[np.ndarray, np.ndarray]:
        with self.log.open("a") as log:
            log.write(f"{i}\n")
        return np.full((10, 10, 3), i, np.uint8), np.full((10, 10, 3), i + 100, np.uint8)

    def reads(self) -> Counter[int]:
        return Counter(map(int, self.log.read_text().split()))


class Given:
    """Images or pairs as they are given."""

    def __init__(self, items: list) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def key(self, i: int) -> str:
        return str(i)

    def load(self, i: int):
        return self.items[i]


@pytest.fixture
def source(tmp_path: Path) -> Counting:
    return Counting(6, tmp_path / "reads")


@pytest.fixture
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the cache's file is made in."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def load_all(cache: Cached) -> None:
    for i in range(len(cache)):
        assert [int(layer[9, 9, 2]) for layer in cache.load(i)] == [i, i + 100]


def test_the_cache_gives_the_same_bytes_as_its_source_and_they_are_read_only():
    rng = np.random.default_rng(0)
    sizes = [(1, 1), (3, 7), (64, 33), (5, 5)]
    images = [rng.integers(0, 256, (*size, 3), dtype=np.uint8)[:, ::-1] for size in sizes]  # not contiguous
    pairs = Given([(image, 255 - image) for image in images])
    cache, singles = cached(pairs, 10**6), cached(OneLayer(pairs, "clean"), 10**6)
    for _ in range(2):  # decoded, then kept
        for i, (rainy, clean) in enumerate(pairs.items):
            for got, expected in zip((*cache.load(i), singles.load(i)), (rainy, clean, clean), strict=True):
                assert np.array_equal(got, expected)
                assert got.dtype == np.uint8
                with pytest.raises(ValueError, match="read-only"):
                    got[:] = 0
    assert images[0].flags.writeable  # the source's own array is left as it is


def test_the_cache_keeps_to_its_budget_and_reads_the_rest_each_time(source: Counting):
    budget = index_bytes(6) + 3 * ITEM + ITEM // 2
    cache = cached(source, budget)
    for _ in range(4):
        load_all(cache)
        assert cache.used_bytes == index_bytes(6) + 3 * ITEM
        assert os.fstat(cache._shared.handle).st_size <= budget
    assert source.reads() == {0: 1, 1: 1, 2: 1, 3: 4, 4: 4, 5: 4}
    assert (len(cache), cache.key(2)) == (6, "k2")
    for i in (-1, 6):
        with pytest.raises(IndexError):
            cache.load(i)


@pytest.mark.parametrize("budget", [0, 10, index_bytes(6), index_bytes(6) + ITEM - 1])
def test_a_budget_for_no_item_keeps_none(budget: int, source: Counting):
    cache = cached(source, budget)
    load_all(cache)
    load_all(cache)
    assert set(source.reads().values()) == {2}
    assert cache.used_bytes <= budget


def test_threads_share_the_cache(tmp_path: Path):
    cache = cached(Counting(20, tmp_path / "reads"), index_bytes(20) + 7 * ITEM)
    order = np.random.default_rng(0).integers(0, 20, 500)
    with ThreadPoolExecutor(8) as pool:
        values = list(pool.map(lambda i: int(cache.load(int(i))[0][0, 0, 0]), order))
    assert values == order.tolist()
    assert cache.used_bytes == index_bytes(20) + 7 * ITEM


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_processes_share_the_cache(start: str, source: Counting):
    cache = cached(source, 10**5)
    cache.load(0)
    process = multiprocessing.get_context(start).Process(target=load_all, args=(cache,))
    process.start()
    process.join()
    assert process.exitcode == 0
    load_all(cache)
    assert source.reads() == dict.fromkeys(range(6), 1)
    assert cache.used_bytes == index_bytes(6) + 6 * ITEM


def test_the_workers_of_a_loader_fill_one_cache(tmp_path: Path):
    from sstl.data import SourceConfig
    from sstl.data.stream import GlobalBatches, UnpairedStream, endless

    for i in range(3):
        Image.fromarray(np.full((20, 20, 3), i, np.uint8)).save(tmp_path / f"{i}.png")
    stream = UnpairedStream([SourceConfig(str(tmp_path))], 16, 0, None, 10**5)
    batches = endless(stream, GlobalBatches(8), workers=2)
    for _ in range(4):
        next(batches)
    assert stream.sources[0].used_bytes == index_bytes(3) + 3 * 1200


def test_a_copy_that_is_pickled_has_its_own_memory(source: Counting):
    cache = cached(source, 10**5)
    load_all(cache)
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.used_bytes == index_bytes(6)
    load_all(copy)
    assert set(source.reads().values()) == {2}


def test_a_process_killed_while_it_writes_neither_locks_nor_spoils_the_cache(source: Counting):
    cache = cached(source, 10**5)

    def die() -> None:
        calls, write = iter(range(9)), os.pwrite

        def pwrite(handle: int, data: memoryview, offset: int) -> int:
            if next(calls) == 1:  # the pixels, after the space for them was taken
                write(handle, data[:100], offset)
                os._exit(7)
            return write(handle, data, offset)

        os.pwrite = pwrite
        cache.load(0)

    process = multiprocessing.get_context("fork").Process(target=die)
    process.start()
    process.join()
    assert process.exitcode == 7
    load_all(cache)
    load_all(cache)
    assert source.reads() == {0: 2, 1: 1, 2: 1, 3: 1, 4: 1, 5: 1}


def test_nothing_is_to_be_seen_in_the_temporary_folder(source: Counting, temporary: Path):
    cache = cached(source, 10**5)
    load_all(cache)
    assert cache.used_bytes > 6 * ITEM
    assert list(temporary.iterdir()) == []  # even now, so that nothing can be left after a kill


def test_the_file_is_closed_with_the_cache_while_arrays_live_on(source: Counting):
    cache = cached(source, 10**5)
    load_all(cache)
    handle, (rainy, _) = cache._shared.handle, cache.load(3)
    del cache
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(handle)
    assert (rainy == 3).all()


def test_without_a_temporary_folder_images_are_decoded_each_time(
    source: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "gone"))
    with pytest.warns(UserWarning, match=r"cannot be kept in the temporary folder \(No such file.*TMPDIR"):
        cache = cached(source, 10**5)
    load_all(cache)
    load_all(cache)
    assert (set(source.reads().values()), cache.used_bytes) == ({2}, 0)


@pytest.mark.parametrize("calls_before", range(4))
def test_a_disk_that_fills_up_ends_the_caching_with_one_warning(
    calls_before: int, source: Counting, monkeypatch: pytest.MonkeyPatch
):
    cache = cached(source, 10**5)
    cache.load(0)
    calls, write = iter(range(100)), os.pwrite

    def pwrite(handle: int, data: memoryview, offset: int) -> int:
        if len(data) > 8 and next(calls) >= calls_before:  # what overwrites a few bytes needs no more disk
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(handle, data[:50], offset)  # and a part of the data may be all that one call writes

    monkeypatch.setattr(os, "pwrite", pwrite)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_all(cache)
    assert ["No space left" in str(warning.message) for warning in caught] == [True]
    load_all(cache)
    assert source.reads() == {0: 1, **dict.fromkeys(range(1, 6), 2)}


def test_the_last_of_the_disk_is_left_to_others(source: Counting, monkeypatch: pytest.MonkeyPatch):
    cache = cached(source, 10**5)
    disk = SimpleNamespace(f_bavail=10**9 // 4096, f_frsize=4096, f_blocks=10**9)
    monkeypatch.setattr(os, "fstatvfs", lambda _: disk)
    with pytest.warns(UserWarning, match="the disk is nearly full"):
        cache.load(0)
    load_all(cache)
    assert cache.used_bytes == index_bytes(6)
