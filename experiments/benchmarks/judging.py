"""What a judgement of ``sstl adapt`` costs where the best so far is judged anew (``gate.both``), and what is saved.

python experiments/benchmarks/judging.py

Three networks are measured on an exam of new rain: the start, the best so far and the one at hand. *Anew* measures all
of each; *known* what depends on the rain that was found, and the rest of the one at hand alone, as the gate does. Both
take turns in one run, and must say the same. Writes judging.json.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch

from sstl.data.stream import PairedPart, PairedStream
from sstl.engine import GateConfig
from sstl.engine.gate import KNOWN_CROPS
from sstl.methods.trust import Exam, Judgement, Trust, make_exam, rain_seen, standing
from sstl.networks import load_weights
from sstl.ops.files import write_atomic
from sstl.report.adaptation import KNOWN
from sstl.report.environment import environment
from sstl.types import PairedBatch

RESULTS = Path(__file__).with_name("judging.json")
WEIGHTS, REPEATS, SEED = ("joint-small", "joint-tiny", "joint-small"), 2, 0


def crops(recipe: str, count: int) -> PairedBatch:
    """Return a batch of bundled photographs under a recipe's rain."""
    return PairedStream((PairedPart("bundled", recipe=recipe),), GateConfig.side, SEED, None, 0)[range(count)]


def main() -> None:
    """Measure and write."""
    start, best, network = (load_weights(name).network.eval() for name in WEIGHTS)
    photos, rehearsed = (crops(recipe, GateConfig.crops) for recipe in ("heavy", "streaks"))
    seen, known = rain_seen(start, photos.rainy), [crops(recipe, KNOWN_CROPS) for recipe in KNOWN]
    first, second = (make_exam(photos.rainy, seen, rehearsed, seed, known) for seed in (SEED, SEED + 1))
    trust, of_best = Trust(start, first), standing(best, first)

    def anew(exam: Exam) -> list[Judgement]:
        judge = Trust(start, exam).judge
        return [judge(best), judge(network)]

    def with_known(exam: Exam) -> list[Judgement]:
        judge = trust.on(exam).judge
        return [judge(best, None, of_best), judge(network, None, standing(network, exam))]

    ways: dict[str, Callable[[Exam], list[Judgement]]] = {"anew": anew, "known": with_known}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        said = []
        for name, way in ways.items():
            began = time.perf_counter()
            said.append(way(second))
            seconds[name].append(time.perf_counter() - began)
        assert said[0] == said[1]
    medians = {name: round(statistics.median(taken), 2) for name, taken in seconds.items()}
    results = {
        "command": "python experiments/benchmarks/judging.py", "weights": WEIGHTS, "repeats": REPEATS, "seed": SEED,
        "seconds": medians, "times as fast": round(medians["anew"] / medians["known"], 2),
        "threads": torch.get_num_threads(), "environment": environment(),
    }  # fmt: skip
    write_atomic(RESULTS, json.dumps(results, indent=1) + "\n")
    print(json.dumps(results["seconds"]), "times as fast:", results["times as fast"])


if __name__ == "__main__":
    main()
