"""Fuzz the readers of YAML, manifests and weights: whatever a file holds, it is read or refused in one line.

nice python experiments/reliability/fuzz.py                (ten minutes on one core)
nice python experiments/reliability/fuzz.py --minutes 1

Hypothesis draws valid files, with changes in their structure and in their bytes, and bytes alone; it makes smaller what
it finds. What is raised but an SstlError of one line, or takes more than seconds or memory, is written down.
"""

from __future__ import annotations

import argparse
import io
import json
import pickle
import resource
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from hypothesis import HealthCheck, Phase, Verbosity, given, seed, settings
from hypothesis import strategies as st

from sstl.config import load_config, to_tree
from sstl.data.manifest import KINDS, read_manifest
from sstl.data.sources import SourceConfig
from sstl.data.stream import PairedPart
from sstl.engine import DataConfig, TrainConfig
from sstl.errors import SstlError
from sstl.networks import create_network, load_weights, save_weights
from sstl.networks.released import export_weights, import_weights
from sstl.networks.weights import FORMAT, read_info
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

EXAMPLES = 200  # between looks at the clock
SLOW = 20.0  # seconds that no file may take

CONFIG = TrainConfig(
    output=Path("run"), data=DataConfig(paired=(PairedPart("a.csv", recipe="mixed"),), unpaired=(SourceConfig("b"),))
)
VALID_YAML = yaml.safe_dump(to_tree(CONFIG)).encode()
VALID_MANIFEST = (
    b"kind,key,split,group,rainy,clean,streak,source,sha256\n"
    b"pair,a-1,train,g,r.png,c.png,,s,0\nreal,b-1,dev,,r2.png,,,,\npair-side-by-side,c-1,,,x.png,,,,\n"
)
TINY = create_network("ddn", width=2, blocks=1)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
TREES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
)


def changed(valid: bytes) -> st.SearchStrategy[bytes]:
    """Draw a file's bytes with some replaced, some cut out, some put in, and the end cut off."""
    place = st.integers(0, len(valid))
    pieces = st.binary(max_size=9) | st.sampled_from(
        [b"\n", b"{", b"[", b"!!", b"&a ", b"*a", b'"', b"\0", b"\xff", b","]
    )
    edits = st.lists(st.tuples(place, st.integers(0, 6), pieces), max_size=5)

    def apply(edits: list[tuple[int, int, bytes]], end: int | None) -> bytes:
        data = valid
        for start, length, piece in edits:
            data = data[:start] + piece + data[start + length :]
        return data[:end]

    return st.builds(apply, edits, st.none() | place)


def configs() -> st.SearchStrategy[bytes]:
    """Draw YAML: bytes, a valid training with changes, and trees with its keys and any values."""
    keys = st.sampled_from([*to_tree(CONFIG), *to_tree(CONFIG)["data"], "path", "recipe", "weight", "lr", "x"])
    trees = st.dictionaries(keys, TREES | st.dictionaries(keys, TREES, max_size=5), max_size=6)
    mixed = trees.map(lambda tree: {**to_tree(CONFIG), **tree})
    return st.binary(max_size=300) | changed(VALID_YAML) | mixed.map(lambda tree: yaml.safe_dump(tree).encode())


def manifests() -> st.SearchStrategy[bytes]:
    """Draw manifests: bytes, a valid one with changes, and rows of likely and unlikely cells."""
    cells = st.sampled_from(
        [*KINDS, "kind", "key", "rainy", "clean", "a.png", "../a", "/a", "C:a", '"', "", "\0", "\r"]
    )
    rows = st.lists(st.lists(cells | st.text(max_size=8), max_size=9).map(",".join), max_size=6)
    table = rows.map(lambda lines: "\n".join(["kind,key,rainy,clean", *lines]).encode(errors="replace"))
    return st.binary(max_size=300) | changed(VALID_MANIFEST) | table


def weights() -> st.SearchStrategy[bytes]:
    """Draw safetensors: bytes, a valid file with changes, headers of any tree, and notes of any text."""
    valid = _bytes(lambda path: save_weights(path, TINY), ".safetensors")
    length = int.from_bytes(valid[:8], "little")
    header, body = json.loads(valid[8 : 8 + length]), valid[8 + length :]

    def build(tree: Any) -> bytes:
        text = json.dumps(tree).encode()
        return len(text).to_bytes(8, "little") + text + body

    headers = st.dictionaries(st.sampled_from([*header]), TREES, max_size=3).map(lambda more: build({**header, **more}))
    notes = st.builds(
        lambda network, config, info: build(
            {**header, "__metadata__": {"format": FORMAT, "network": network, "config": config, "info": info}}
        ),
        st.sampled_from(["ddn", "joint", "x", ""]),
        TREES.map(json.dumps) | _OPTIONS.map(json.dumps) | st.text(max_size=9),
        TREES.map(json.dumps),
    )
    lengths = st.integers(0, 2**64 - 1).map(lambda n: n.to_bytes(8, "little") + valid[8:])
    return st.binary(max_size=300) | changed(valid) | headers | notes | lengths


# Sizes stay small here: that a huge one is refused before it is built is another promise.
_OPTIONS = st.dictionaries(
    st.sampled_from(["width", "blocks", "statistics", "size", "stages", "x"]),
    st.integers(-3, 9) | st.sampled_from(["running", "batch", "tiny", "", None, 1.5, True, [1], {}]),
    max_size=4,
)


def foreign(suffix: str) -> st.SearchStrategy[bytes]:
    """Draw state dicts of a kind: bytes, a valid one with changes, and other contents in that kind of file."""
    valid = _bytes(lambda path: export_weights(path, TINY), suffix)
    others = [pickle.dumps(torch.zeros(2)), pickle.dumps({"a": print}), _npz(np.array([print], dtype=object)), b"PK"]
    return st.binary(max_size=300) | changed(valid) | st.sampled_from(others)


def _npz(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=array)
    return buffer.getvalue()


def _bytes(write: Callable[[Path], Any], suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / f"valid{suffix}"
        write(path)
        return path.read_bytes()


READERS: dict[str, tuple[str, Callable[[], st.SearchStrategy[bytes]], Callable[[Path], object]]] = {
    "yaml": (".yaml", configs, lambda path: load_config(TrainConfig, path)),
    "manifest": (".csv", manifests, read_manifest),
    "weights": (".safetensors", weights, lambda path: (read_info(path), load_weights(path))),
    "state dict of torch": (".pth", lambda: foreign(".pth"), lambda path: import_weights(path, "ddn", _SMALL)),
    "state dict of numpy": (".npz", lambda: foreign(".npz"), lambda path: import_weights(path, "ddn", _SMALL)),
}
_SMALL = {"width": 2, "blocks": 1}


def fuzz(name: str, examples: int, first: int, counts: Counter[str]) -> str | None:
    """Try so many files on a reader and return what was wrong, made as small as it gets, or None."""
    suffix, strategy, read = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"file{suffix}"

        @seed(first)
        @settings(
            max_examples=examples, deadline=None, database=None, verbosity=Verbosity.quiet, derandomize=False,
            phases=(Phase.generate, Phase.shrink), suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategy())
        def attempt(content: bytes) -> None:
            path.write_bytes(content)
            start = time.process_time()
            try:
                read(path)
                counts["read"] += 1
            except SstlError as refusal:
                counts["refused"] += 1
                message = str(refusal)
                if str(path) not in message or "\n" in message:
                    raise ValueError(f"not one line that names the file: {message!r}") from None
            assert time.process_time() - start < SLOW, "slow"

        try:
            attempt()
        except Exception as error:
            return f"{name}: {type(error).__name__}: {error}: {path.read_bytes()[:300]!r}"
    return None


def main() -> int:
    """Fuzz the readers in turn until the time is up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    minutes = parser.parse_args().minutes
    start, first = time.monotonic(), 0
    counts: dict[str, Counter[str]] = {name: Counter() for name in READERS}
    wrong: list[str] = []
    while time.monotonic() - start < 60 * minutes and not wrong:
        for name in READERS:
            wrong += filter(None, [fuzz(name, EXAMPLES, first, counts[name])])
        first += 1
    figures = {
        "command": f"python experiments/reliability/fuzz.py --minutes {minutes:g}",
        "seeds": [0, first - 1],
        "minutes": (time.monotonic() - start) / 60,
        "processor_minutes": time.process_time() / 60,
        "files": counts,
        "peak_gigabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
        "wrong": wrong,
        "environment": environment(),
    }
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(figures, indent=1) + "\n")
    print("\n".join(wrong) or f"nothing was wrong in {sum(sum(c.values()) for c in counts.values())} files")
    return int(bool(wrong))


if __name__ == "__main__":
    raise SystemExit(main())
