"""Training methods: one file per method."""

from sstl.methods import supervised as supervised
from sstl.methods.base import METHODS, Method, create_method, list_methods

__all__ = ["METHODS", "Method", "create_method", "list_methods"]
