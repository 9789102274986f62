"""Training methods: one file per method."""

from sstl.methods import adabn as adabn
from sstl.methods import adversarial as adversarial
from sstl.methods import best_so_far as best_so_far
from sstl.methods import consistency as consistency
from sstl.methods import default as default
from sstl.methods import distillation as distillation
from sstl.methods import entropy as entropy
from sstl.methods import jorder_e as jorder_e
from sstl.methods import mean_teacher as mean_teacher
from sstl.methods import sirr as sirr
from sstl.methods import sirr_released as sirr_released
from sstl.methods import streak_transfer as streak_transfer
from sstl.methods import supervised as supervised
from sstl.methods import syn2real as syn2real
from sstl.methods import test_time as test_time
from sstl.methods.base import METHODS, Method, create_method, list_methods

__all__ = ["METHODS", "Method", "create_method", "list_methods"]
