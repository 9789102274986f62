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
from sstl.engine.folder import check_output, clear_run
from sstl.engine.gate import learn_routes
from sstl.engine.lock import only_run
from sstl.engine.train import Interrupted, build_network, train
from sstl.ops.files import read_log

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
    "check_output",
    "clear_run",
    "learn_routes",
    "only_run",
    "read_log",
    "train",
]
