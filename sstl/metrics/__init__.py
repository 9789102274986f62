"""Metrics: how near a restored image is to the clean one, under protocols that are never mixed. NumPy only."""

from sstl.metrics.detection import Detection, detection, f1_of_all_ones
from sstl.metrics.luma import matlab_luma
from sstl.metrics.protocols import PROTOCOLS, Protocol, Score, score
from sstl.metrics.psnr import psnr
from sstl.metrics.rainmap import rain_map
from sstl.metrics.ssim import ssim
from sstl.metrics.summary import Summary, summarize

__all__ = [
    "PROTOCOLS",
    "Detection",
    "Protocol",
    "Score",
    "Summary",
    "detection",
    "f1_of_all_ones",
    "matlab_luma",
    "psnr",
    "rain_map",
    "score",
    "ssim",
    "summarize",
]
