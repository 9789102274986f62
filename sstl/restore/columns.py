"""Deraining as a function for ``datasets.Dataset.map``: columns of images in, columns of images out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sstl.networks.weights import DEFAULT, read_info
from sstl.restore.restorer import Restorer, load


class DerainColumns:
    """A function for ``dataset.map``, by rows or ``batched=True``: derains columns of images.

    Images are of any kind that ``Restorer.restore`` takes (the ``Image`` feature gives PIL images); None stays None.
    The weights are loaded at first use, in each process of ``num_proc``. ``datasets`` knows the function again by the
    weights file's content and the options, so that its cache holds as long as these stay.

    Args:
        weights: shipped weights by name, a file, a folder or ``hub:ORG/NAME``.
        columns: the columns of images.
        suffix: of the new columns' names; "" replaces the images.
        options: of ``sstl.load``: device, precision, tile, deveil.

    Raises:
        WeightsError: there are no such weights.
    """

    def __init__(
        self,
        weights: str | Path = DEFAULT,
        columns: str | Sequence[str] = ("image",),
        suffix: str = "",
        **options: Any,
    ) -> None:
        self.path = Path(read_info(weights)["path"])
        self.content = hashlib.sha256(self.path.read_bytes()).hexdigest()
        self.columns = (columns,) if isinstance(columns, str) else tuple(columns)
        self.suffix, self.options = suffix, options
        self._restorer: Restorer | None = None

    def __call__(self, rows: Mapping[str, Any]) -> dict[str, Any]:
        """Return the new columns of a row, or of a batch of rows."""
        return {f"{column}{self.suffix}": self._derain(rows[column]) for column in self.columns}

    def __getstate__(self) -> dict[str, Any]:
        """Leave the loaded weights out: what is hashed and sent to other processes is how to load them."""
        return {**vars(self), "_restorer": None}

    def _derain(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._derain(image) for image in value]
        if self._restorer is None:
            self._restorer = load(self.path, **self.options)
        return None if value is None else self._restorer.restore(value)
