"""The ledger of an evaluation: a line for each image and candidate that was measured, so that it can be interrupted."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sstl.data.files import Image
from sstl.errors import SstlError
from sstl.ops.files import read_log, write_atomic
from sstl.report.evaluation import Remember, Values, finite

NAME = "images.jsonl"


class Ledger:
    """An append-only JSONL file in the folder of an evaluation.

    A line holds the values of one candidate on one image, under the fingerprint of all that decides them but the code:
    the pixels of the image and of its clean one, and the candidate's conditions. Values are looked up by fingerprint,
    so that images that changed are measured again, and the same image in another set is not.

    Args:
        folder: the folder; made if it is missing.
        protocol: of the figures; a folder holds those of one protocol.
        overwrite: start anew.
        first: whether this process makes the file; of several that share an evaluation, one does before the others.

    Raises:
        SstlError: the folder holds figures of another protocol, or other files and no ledger.
    """

    def __init__(self, folder: Path, protocol: str, overwrite: bool = False, first: bool = True) -> None:
        path = folder / NAME
        if not overwrite and folder.is_dir() and any(folder.iterdir()) and not path.is_file():
            raise SstlError(f"{folder} is not empty and holds no evaluation; give another folder, or --overwrite.")
        found: list[dict[str, Any]] = [] if overwrite else [*read_log(path)]
        head, *lines = found or [{"protocol": protocol}]
        if head.get("protocol") != protocol:
            raise SstlError(
                f"{folder} holds figures under {head.get('protocol')}, these are under {protocol}, and protocols are "
                "never mixed; give another folder, or --overwrite to start anew."
            )
        # Written anew, because a kill may have cut the last line short.
        if first:
            write_atomic(path, "".join(json.dumps(line) + "\n" for line in (head, *lines)))
        self.known = {line["fingerprint"]: _infinite(line["values"]) for line in lines}
        self.file = path.open("a", encoding="utf-8")

    def remember(self, conditions: Mapping[str, Mapping[str, Any]]) -> Remember:
        """Return the `Remember` of candidates under their conditions, by name."""

        def look_up(name: str, images: Sequence[Image], measure: Callable[[], Values]) -> Values:
            fingerprint = _fingerprint(conditions.get(name, {}), images)
            if fingerprint not in self.known:
                values = measure()
                self._append({"fingerprint": fingerprint, "candidate": name, "values": finite(values)})
                self.known[fingerprint] = values
            return self.known[fingerprint]

        return look_up

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def _append(self, line: dict[str, Any]) -> None:
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fingerprint(conditions: Mapping[str, Any], images: Sequence[Image]) -> str:
    pixels = [(image.shape, hashlib.sha256(image.tobytes()).hexdigest()) for image in images]
    return hashlib.sha256(json.dumps([conditions, pixels], sort_keys=True).encode()).hexdigest()[:32]


def _infinite(values: Mapping[str, float | None]) -> Values:
    """Return the values with what JSON cannot hold: only PSNR is ever infinite."""
    return {metric: math.inf if value is None else value for metric, value in values.items()}
