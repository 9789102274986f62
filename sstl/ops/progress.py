"""Progress bars that are hidden where nobody looks."""

from __future__ import annotations


def hidden(hide: bool) -> dict[str, bool]:
    """Return the arguments for tqdm that hide a bar; without ``hide`` the variable TQDM_DISABLE decides, as with -q."""
    return {"disable": True} if hide else {}
