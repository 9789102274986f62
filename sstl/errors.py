"""The errors that sstl raises on purpose: one line each, naming what, where and what to do."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SstlError(Exception):
    """A mistake in usage, configuration or weights; the command line prints it and exits with 2."""

    exit_code = 2

    def __init__(self, message: str = "") -> None:
        """Keep the message as one line, whatever stood in the file that it quotes."""
        super().__init__(" ".join(message.splitlines()))


class ConfigError(SstlError):
    """A configuration file or override that cannot be used; names the file, the key and the value."""


class WeightsError(SstlError):
    """A weights or checkpoint file that cannot be used."""


class InputError(SstlError):
    """One input (photo, pair, folder) that could not be used; the others are still done."""

    exit_code = 1


class DivergenceError(SstlError):
    """Training stopped because the loss stayed NaN or infinite; the checkpoints from before are kept."""

    exit_code = 1


class LostProcessError(SstlError):
    """Training on several processes stopped because one of them is gone; what was saved is whole."""

    exit_code = 1


def nearest(name: str, known: Iterable[str]) -> str | None:
    """Return the known name that a mistyped one most likely stands for, or None."""
    return next(iter(difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.5)), None)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return ``" Did you mean 'x'?"`` for the known name nearest to ``name``, or the list of all known names."""
    names = sorted(known)
    near = nearest(name, names)
    return f" Did you mean '{near}'?" if near else f" Known: {', '.join(names) or 'none'}."
