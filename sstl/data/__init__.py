"""Data: files and tables of images, found by name, read one at a time."""

from sstl.data.cache import Cached, cached
from sstl.data.manifest import KINDS, Row, groups_across_splits, read_manifest
from sstl.data.pairing import Pair, file_keys, find_layer_folder, pair_folders
from sstl.data.sources import (
    ImageSource,
    OneLayer,
    PairSource,
    Source,
    SourceConfig,
    StreaksOf,
    open_images,
    open_pairs,
    open_streaks,
)

__all__ = [
    "KINDS",
    "Cached",
    "ImageSource",
    "OneLayer",
    "Pair",
    "PairSource",
    "Row",
    "Source",
    "SourceConfig",
    "StreaksOf",
    "cached",
    "file_keys",
    "find_layer_folder",
    "groups_across_splits",
    "open_images",
    "open_pairs",
    "open_streaks",
    "pair_folders",
    "read_manifest",
]
