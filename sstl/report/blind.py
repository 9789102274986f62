"""Blind comparison of two folders of restorations: which photos, in which order, on which sides, and the votes."""

from __future__ import annotations

import io
import json
import random
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from sstl.data.images import list_images, read_photo, read_rgb8, to_pil
from sstl.data.pairing import file_keys
from sstl.errors import ConfigError, InputError
from sstl.metrics import Preference, preference
from sstl.ops.files import write_atomic
from sstl.report.ledger import file_hash

Choice = Literal["left", "right", "same"]
Winner = Literal["a", "b", "same"]
CHOICES: tuple[Choice, ...] = ("left", "right", "same")

_KIND = "sstl-votes-1"
_LAYERS = (".streak", ".mask", ".doubt")  # what sstl derain writes beside NAME as NAME.streak.png and so on


@dataclass(frozen=True)
class Trial:
    """A photo to vote on.

    Attributes:
        name: its name in both folders, without suffix.
        a: how the first folder restored it.
        b: how the second did.
        photo: the rainy input, if it is shown.
        left: which of the two is shown on the left.
    """

    name: str
    a: Path
    b: Path
    photo: Path | None = None
    left: Literal["a", "b"] = "a"

    def picture(self, place: str) -> Path | None:
        """Return the file that is shown at ``place``: left, right or photo."""
        left, right = (self.a, self.b) if self.left == "a" else (self.b, self.a)
        return {"left": left, "right": right, "photo": self.photo}[place]

    def winner(self, choice: Choice) -> Winner:
        """Return who is better if the picture at ``choice`` is."""
        winners: dict[Choice, Winner] = {"left": self.left, "right": "b" if self.left == "a" else "a", "same": "same"}
        return winners[choice]


def find_trials(a: Path, b: Path, photos: Path | None = None) -> tuple[list[Trial], list[str]]:
    """Pair the images of two folders, and those of ``photos`` if given, by their names; the suffix does not matter.

    Layers that ``sstl derain`` writes beside its results are left out.

    Returns:
        The trials by name, and what is left out of them: a sentence for each image without a partner, that cannot be
        opened, or whose partner has another size.

    Raises:
        ConfigError: a folder is missing, A and B are one, or there is no photo to vote on.
    """
    for folder in (a, b, *([photos] if photos else [])):
        if not folder.is_dir():
            raise ConfigError(f"{folder}: no such folder; give folders of images.")
    if a.resolve() == b.resolve():
        raise ConfigError(f"{a} and {b} are the same folder; give two restorations of the same photos.")
    of_a, of_b, of_photos = _by_name(a), _by_name(b), _by_name(photos) if photos else {}
    failures = [f"{of_a[name]} has no partner in {b}; it is left out." for name in sorted(of_a.keys() - of_b.keys())]
    failures += [f"{of_b[name]} has no partner in {a}; it is left out." for name in sorted(of_b.keys() - of_a.keys())]
    trials = []
    for name in tqdm(sorted(of_a.keys() & of_b.keys()), desc="check photos", unit="photo", leave=False):
        trial = Trial(name, of_a[name], of_b[name], of_photos.get(name))
        if problem := _problem(trial):
            failures.append(problem)
        else:
            trials.append(trial)
    if not trials:
        reason = f" The first of {len(failures)} problems: {failures[0]}" if failures else ""
        raise ConfigError(f"{a} and {b} have no photo in common to vote on.{reason}")
    if photos and not any(trial.photo for trial in trials):
        raise ConfigError(f"{photos} has none of the photos by name; give the folder that was restored.")
    return trials, failures


def in_random_order(trials: Sequence[Trial], seed: int) -> list[Trial]:
    """Return the trials in an order, and on sides, that follow from the seed.

    A is on the left in half of them, so that a voter who favours one side favours neither restoration.
    """
    draw = random.Random(seed)
    order, a_left = list(trials), [i % 2 == 0 for i in range(len(trials))]
    draw.shuffle(order)
    draw.shuffle(a_left)
    return [replace(trial, left="a" if is_left else "b") for trial, is_left in zip(order, a_left, strict=True)]


def png(path: Path) -> bytes:
    """Return an image file as an 8-bit PNG with its colour profile and nothing else that its file tells.

    Raises:
        InputError: it cannot be read.
    """
    photo = replace(read_photo(path), exif=None, dpi=None)
    buffer = io.BytesIO()
    # The browser is on the same machine: small files are not worth waiting for.
    to_pil(photo, keep_wide=False).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


class Ballot:
    """The votes on some photos, kept in a JSON-lines file that is written anew, whole or not at all, at each vote.

    The first line tells the folders and the seed; each other line is a vote: the photo, what was on the left, the
    choice, the winner, hashes of both files and the time. Safe to use from several threads.

    Args:
        a: the first folder; images in it are those of the trials.
        b: the second folder.
        trials: from ``find_trials``.
        path: the file; if it exists its votes count and its seed is used.
        seed: of the order and the sides; drawn if None and there is no file, so that nobody can know them.

    Raises:
        ConfigError: the file is none of votes, has another seed, or its votes are on other images.
    """

    def __init__(self, a: Path, b: Path, trials: Sequence[Trial], path: Path, seed: int | None = None) -> None:
        self.path = path
        head, self.votes = _read(path) if path.exists() else ({}, [])
        kept = head.get("seed")
        if kept is not None and seed not in (None, kept):
            raise ConfigError(f"{path} was begun with --seed {kept}; leave it out, or give another file by --votes.")
        self.seed: int = next(s for s in (kept, seed, random.SystemRandom().randrange(2**32)) if s is not None)
        self.head = {"kind": _KIND, "a": str(a), "b": str(b), "seed": self.seed}
        self.trials = in_random_order(trials, self.seed)
        self._check({trial.name: trial for trial in trials})
        self.lock = threading.RLock()

    @property
    def position(self) -> int | None:
        """The number of the first photo without a vote, from 0; None if all have one."""
        voted = {vote["photo"] for vote in self.votes}
        return next((i for i, trial in enumerate(self.trials) if trial.name not in voted), None)

    def state(self) -> dict[str, Any]:
        """Return what a voter may know: the current number (None: all voted), the counts, where there is a photo."""
        with self.lock:
            position = self.position
            return {
                "number": position,
                "count": len(self.trials),
                "voted": len(self.votes),
                "photo": [trial.photo is not None for trial in self.trials],
            }

    def vote(self, number: int | None, choice: Choice) -> bool:
        """Keep a vote on photo ``number``; False if that is not the current one: a second click, another window."""
        with self.lock:
            if number is None or number != self.position:
                return False
            trial = self.trials[number]
            line = {
                "photo": trial.name,
                "left": trial.left,
                "choice": choice,
                "winner": trial.winner(choice),
                "hashes": _hashes(trial),
                "time": datetime.now(UTC).isoformat(timespec="seconds"),
            }
            self._keep([*self.votes, line])
            return True

    def undo(self, number: int | None) -> bool:
        """Take the last vote back; False if there is none or ``number`` is not the current photo (None: all voted)."""
        with self.lock:
            if number != self.position or not self.votes:
                return False
            self._keep(self.votes[:-1])
            return True

    def counted(self) -> Preference:
        """Return the count of the votes so far; "first" is A."""
        winners = [vote["winner"] for vote in self.votes]
        return preference(*(winners.count(who) for who in ("a", "same", "b")))

    def result(self) -> dict[str, Any]:
        """Return the count with both folders' names and the winner of each photo, for JSON."""
        with self.lock:
            return {
                **self.head,
                "count": len(self.trials),
                "preference": asdict(self.counted()),
                "sentence": sentence(self.counted()),
                "photos": [{"photo": vote["photo"], "winner": vote["winner"]} for vote in self.votes],
            }

    def text(self) -> str:
        """Return the count as lines of text, with the photos that each won."""
        found = self.counted()
        won: dict[Winner, list[str]] = {"a": [], "same": [], "b": []}
        for vote in self.votes:
            won[vote["winner"]].append(vote["photo"])
        titles = {"a": f"A better ({self.head['a']})", "same": "same", "b": f"B better ({self.head['b']})"}
        lines = [f"{len(names):5} {titles[who]}: {', '.join(names) or 'none'}" for who, names in won.items()]
        return "\n".join([f"{len(self.votes)} of {len(self.trials)} photos are voted on", *lines, sentence(found)])

    def _keep(self, votes: list[dict[str, Any]]) -> None:
        write_atomic(self.path, "".join(json.dumps(line) + "\n" for line in (self.head, *votes)))
        self.votes = votes

    def _check(self, trials: Mapping[str, Trial]) -> None:
        for vote in self.votes:
            trial = trials.get(vote["photo"])
            if trial is None or _hashes(trial) != vote["hashes"]:
                raise ConfigError(
                    f"{self.path} holds a vote on '{vote['photo']}', which is gone or changed, or A and B are swapped; "
                    "give another file by --votes."
                )


def sentence(found: Preference) -> str:
    """Say what the votes tell."""
    if found.share is None or found.interval is None:
        return "No vote was decided, so that nothing can be said of which is better."
    low, high = (100 * bound for bound in found.interval)
    verdict = "is better than" if found.share > 0.5 else "is worse than"
    if found.p >= 0.05:
        verdict = "cannot be told apart from"
    return (
        f"A {verdict} B by these votes: A was better in {100 * found.share:.1f} % of the {found.first + found.second} "
        f"decided, 95 % interval {low:.1f} to {high:.1f} % (Wilson); sign test p = {found.p:.2g}."
    )


def _by_name(folder: Path) -> dict[str, Path]:
    files = list_images(folder)
    named = dict(zip(file_keys(folder, files), files, strict=True))
    return {name: path for name, path in named.items() if not any(_is_layer(name, layer, named) for layer in _LAYERS)}


def _is_layer(name: str, layer: str, names: Mapping[str, Path]) -> bool:
    return name.endswith(layer) and name.removesuffix(layer) in names


def _problem(trial: Trial) -> str:
    """Return why the trial cannot be shown, or nothing; all is decoded, so that a voter meets no broken picture."""
    try:
        (height, width), (high, wide), *_ = [
            read_rgb8(path).shape[:2] for path in (trial.a, trial.b, trial.photo) if path
        ]
    except InputError as error:
        return str(error)
    if (height, width) == (high, wide):
        return ""
    return f"{trial.a} is {width} x {height} and {trial.b} is {wide} x {high}; restorations of one photo have one size."


def _hashes(trial: Trial) -> list[str]:
    return [file_hash(path)[:16] for path in (trial.a, trial.b)]


def _read(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    try:
        head, *votes = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if head["kind"] != _KIND or not isinstance(head["seed"], int):
            raise ValueError("another kind of file")
        for vote in votes:
            if vote["winner"] not in ("a", "b", "same") or not isinstance(vote["photo"], str) or "hashes" not in vote:
                raise ValueError("no vote")
    except (ValueError, LookupError, TypeError):
        raise ConfigError(f"{path} is not a file of votes, or a damaged one; give another one by --votes.") from None
    return head, votes
