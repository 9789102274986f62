"""sstl: semi-supervised transfer learning of image rain removal.

The public names are imported on first use, so that ``import sstl`` and ``sstl --help`` stay instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOME = {
    "load": "sstl.restore",
    "Restorer": "sstl.restore",
    "adapt_to_photo": "sstl.restore.adapted",
    "create_network": "sstl.networks",
    "list_networks": "sstl.networks",
    "create_method": "sstl.methods",
    "list_methods": "sstl.methods",
    "synthesize": "sstl.rain",
    "list_recipes": "sstl.rain",
    "AddRain": "sstl.rain.transforms",
    "RandomRecipeRain": "sstl.rain.augmentation",
    "DerainColumns": "sstl.restore.columns",
    "export_network": "sstl.restore.export",
    "train": "sstl.engine",
    "adapt": "sstl.report.adaptation",
    "evaluate": "sstl.report.evaluation",
    "Restoration": "sstl.types",
    "PairedBatch": "sstl.types",
    "UnpairedBatch": "sstl.types",
    "SstlError": "sstl.errors",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    from sstl.engine import train as train
    from sstl.errors import SstlError as SstlError
    from sstl.methods import create_method as create_method
    from sstl.methods import list_methods as list_methods
    from sstl.networks import create_network as create_network
    from sstl.networks import list_networks as list_networks
    from sstl.rain import list_recipes as list_recipes
    from sstl.rain import synthesize as synthesize
    from sstl.rain.augmentation import RandomRecipeRain as RandomRecipeRain
    from sstl.rain.transforms import AddRain as AddRain
    from sstl.report.adaptation import adapt as adapt
    from sstl.report.evaluation import evaluate as evaluate
    from sstl.restore import Restorer as Restorer
    from sstl.restore import load as load
    from sstl.restore.adapted import adapt_to_photo as adapt_to_photo
    from sstl.restore.columns import DerainColumns as DerainColumns
    from sstl.restore.export import export_network as export_network
    from sstl.types import PairedBatch as PairedBatch
    from sstl.types import Restoration as Restoration
    from sstl.types import UnpairedBatch as UnpairedBatch


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'sstl' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
