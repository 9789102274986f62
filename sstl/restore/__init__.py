"""Restoring photos: one image of any kind, or files and folders."""

from sstl.restore.folder import Job, Outcome, plan, restore_files
from sstl.restore.restorer import Layer, Restorer, load

__all__ = ["Job", "Layer", "Outcome", "Restorer", "load", "plan", "restore_files"]
