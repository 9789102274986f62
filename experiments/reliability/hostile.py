"""Send `derain`, `data show`, `evaluate` and `adapt` through more than a thousand broken files among good ones.

python experiments/reliability/hostile.py            (a few minutes on one core; Linux)

Each command must end by itself with 0 or 1 and no traceback, do every good file, name every file that cannot be used,
leave no half file and no temporary one, and stay below a bound of memory. What breaks this is listed in the results.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from corpus import GOOD, REFUSED, Item, corpus, write

from sstl.data.images import list_images, read_photo
from sstl.networks import create_network, save_weights
from sstl.ops.files import write_atomic
from sstl.report.environment import environment

SEED = 0
MEMORY = 2.5e9  # bytes that no command may exceed
SECONDS = 1800  # after which a command counts as hanging


@dataclass(frozen=True)
class Ended:
    """How a command ended; seconds and bytes where they were measured."""

    code: int
    out: str
    err: str
    seconds: float = 0
    peak_bytes: int = 0


Run = Callable[..., Ended]


class Trial:
    """The commands on one corpus: each method runs one and returns what was wrong.

    Args:
        folder: an empty one; the corpus and the results go below it.
        items: of the corpus.
        run: runs ``sstl ARGUMENTS``.
        steps: of the adaptation.
    """

    def __init__(self, folder: Path, items: list[Item], run: Run, steps: int = 2) -> None:
        self.folder, self.run, self.steps = folder, run, steps
        self.photos = folder / "photos"
        self.items = write(items, self.photos)
        self.weights = save_weights(folder / "w.safetensors", create_network("joint", size="tiny"))
        self.json = folder / "found.json"
        self.ended: dict[str, Ended] = {}
        # Below the folder loops the same files are met once, so that each item has one path.
        self.found = {self.name(path) for path in list_images(self.photos)} - {b"closed/unseen.png"}

    def name(self, path: Path | str) -> bytes:
        """Return the item's name that belongs to a path below the corpus."""
        return os.fsencode(os.path.relpath(path, self.photos))

    def of(self, fate: str) -> set[bytes]:
        """Return the names of the items that an images folder is searched for and that must come to ``fate``."""
        return {name for name, item in self.items.items() if item.fate == fate} & self.found

    def command(self, name: str, *arguments: object) -> list[str]:
        """Run a command and return what is wrong with how it ended."""
        ended = self.ended[name] = self.run(*arguments)
        wrong = {
            f"{name}: ended with {ended.code}: {ended.err[-500:]}": ended.code not in (0, 1),
            f"{name}: traceback: {ended.err[-2000:]}": "Traceback" in ended.err,
            f"{name}: took {ended.peak_bytes / 1e9:.2f} GB": ended.peak_bytes > MEMORY,
            f"{name}: ran code or wrote astray": any(path.name == "evil" for path in self.folder.rglob("*")),
            f"{name}: left temporary files": any(path.suffix == ".part" for path in self.folder.rglob("*")),
        }
        return [message for message, holds in wrong.items() if holds]

    def judged(self, name: str, done: set[bytes], failed: set[bytes]) -> list[str]:
        """Return what is wrong with who was done and who was named as unusable."""
        wrong = {
            "good files not done": self.of(GOOD) - done,
            "unusable files not named": self.of(REFUSED) - failed,
            "files neither done nor named": self.found - done - failed,
        }
        return [f"{name}: {message}: {sorted(names)[:5]} ({len(names)})" for message, names in wrong.items() if names]

    def derain(self) -> list[str]:
        """Restore the folder; every result must be a whole image of its photo's size."""
        out = self.folder / "out"
        wrong = self.command(
            "derain", "derain", self.photos, "-o", out, "--weights", self.weights, "--layers", "background,mask",
            "--json", self.json,
        )  # fmt: skip
        found = json.loads(self.json.read_text())["photos"]
        done = {self.name(photo["input"]): photo["written"] for photo in found if not photo["error"]}
        failed = {self.name(photo["input"]) for photo in found if photo["error"]} - {b"."}  # of the closed folder
        for name, files in done.items():
            size = read_photo(os.fsdecode(os.path.join(os.fsencode(self.photos), name))).pixels.shape  # noqa: PTH118
            if len(files) != 2 or any(read_photo(file).pixels.shape != size for file in files):
                wrong.append(f"derain: not what was asked for: {name!r} {files}")
        if any(photo["error"] and photo["written"] for photo in found):
            wrong.append("derain: files of photos that failed")
        return wrong + self.judged("derain", set(done), failed)

    def show(self) -> list[str]:
        """Look at the folder as a data set."""
        wrong = self.command("data show", "data", "show", self.photos, "--json", self.json)
        parts = json.loads(self.json.read_text())["parts"]
        failed = {name for part in parts for message in part["unreadable"] for name in self._named(message)}
        return wrong + self.judged("data show", self.found - failed, failed)

    def evaluate(self) -> list[str]:
        """Score the folder against itself, and without truth, with pages."""
        wrong = []
        for name, more in (("evaluate", ("--clean", self.photos)), ("evaluate --no-reference", ("--no-reference",))):
            wrong += self.command(
                name, "evaluate", "--rainy", self.photos, *more, "--weights", self.weights, "--json", self.json,
                "-o", self.folder / name,
            )  # fmt: skip
            found = json.loads(self.json.read_text())
            stems = {os.fsencode(os.path.splitext(os.fsdecode(key))[0]): key for key in self.found}  # noqa: PTH122
            done = {stems[os.fsencode(row["key"])] for row in found["images"]}
            failed = {stems[os.fsencode(failure["key"])] for failure in found["failures"]}
            too_small = {key for key, item in self.items.items() if min(_size(item.kind)) < 11}  # for SSIM and NIQE
            wrong += self.judged(name, done | too_small, failed)
        return wrong

    def adapt(self) -> list[str]:
        """Adapt to the folder; what it cannot read must not stop it."""
        wrong = self.command(
            "adapt", "adapt", self.photos, "-o", self.folder / "run", "--weights", self.weights, "--steps", self.steps,
        )  # fmt: skip
        errors = [line for line in self.ended["adapt"].err.splitlines() if "sstl: error: " in line]
        failed = {name for error in errors for name in self._named(error)}
        if good := self.of(GOOD) & failed:
            wrong.append(f"adapt: good files not used: {sorted(good)[:5]}")
        missing = [
            name for name in ("weights.safetensors", "report.html") if not (self.folder / "run" / name).is_file()
        ]
        return wrong + [f"adapt: wrote no {name}" for name in missing]

    def _named(self, message: str) -> Iterator[bytes]:
        """Yield the item that a message is about: as it is written, in one line, or with escaped bytes."""
        for name in self.found:
            text = os.fsdecode(os.path.join(os.fsencode(self.photos), name))  # noqa: PTH118
            escaped = text.encode(errors="backslashreplace").decode()
            if any(f"{form}: " in message for form in (text, escaped, " ".join(escaped.split()))):
                yield name


def _size(kind: str) -> tuple[int, int]:
    width, _, height = kind.partition("x")
    return (int(width), int(height)) if width.isdecimal() and height.isdecimal() else (99, 99)


def in_a_process(*arguments: object) -> Ended:
    """Run ``sstl ARGUMENTS`` as a user to whom permissions apply, and measure it."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-m", "sstl", *map(str, arguments)]
    start = time.perf_counter()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(["timeout", "-s", "KILL", str(SECONDS), *command], stdout=out, stderr=err)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode(errors="backslashreplace"))
    return Ended(process.returncode, *texts, time.perf_counter() - start, usage.ru_maxrss * 1024)


def main() -> int:
    """Run all commands on a corpus of more than a thousand files."""
    items = list(corpus(SEED))
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        items = [item for item in items if "unreadable" not in item.kind]
    with tempfile.TemporaryDirectory() as name:
        trial = Trial(Path(name), items, in_a_process)
        wrong = []
        for step in (trial.derain, trial.show, trial.evaluate, trial.adapt):
            wrong += step()
            print(f"{step.__name__}: {len(wrong)} wrong so far", flush=True)
    figures = {
        "command": "python experiments/reliability/hostile.py",
        "seed": SEED,
        "files": len(trial.items),
        "broken_or_odd": sum(item.kind != "good" for item in trial.items.values()),
        "fates": Counter(item.fate for item in trial.items.values()),
        "kinds": Counter(item.kind for item in trial.items.values()),
        "commands": {
            name: {"exit_code": ended.code, "seconds": ended.seconds, "peak_gigabytes": ended.peak_bytes / 1e9}
            for name, ended in trial.ended.items()
        },
        "memory_bound_gigabytes": MEMORY / 1e9,
        "wrong": wrong,
        "environment": environment(),
    }
    write_atomic(Path(__file__).with_suffix(".json"), json.dumps(figures, indent=1) + "\n")
    print("\n".join(wrong) or "nothing was wrong")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
