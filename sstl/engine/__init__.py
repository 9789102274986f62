"""The engine: configuration, the training loop, checkpoints and what a run writes."""

from sstl.engine.config import (
    DataConfig,
    GateConfig,
    MethodConfig,
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    ValidationConfig,
)
from sstl.engine.records import read_log
from sstl.engine.train import Interrupted, build_network, train

__all__ = [
    "DataConfig",
    "GateConfig",
    "Interrupted",
    "MethodConfig",
    "NetworkConfig",
    "OptimizerConfig",
    "TrainConfig",
    "ValidationConfig",
    "build_network",
    "read_log",
    "train",
]
