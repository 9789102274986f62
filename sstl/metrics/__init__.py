"""Metrics: how near a restored image is to the clean one, or what can be said without it. NumPy only."""

from sstl.metrics.detection import Detection, detection, f1_of_all_ones
from sstl.metrics.directionality import directionality
from sstl.metrics.leakage import leakage
from sstl.metrics.leftover import leftover
from sstl.metrics.luma import matlab_luma
from sstl.metrics.niqe import Statistics, fit_niqe, niqe
from sstl.metrics.preference import Preference, preference, sign_test, wilson
from sstl.metrics.protocols import PROTOCOLS, Protocol, Score, score
from sstl.metrics.psnr import psnr
from sstl.metrics.rainmap import rain_map
from sstl.metrics.ssim import ssim
from sstl.metrics.summary import Summary, summarize

__all__ = [
    "PROTOCOLS",
    "Detection",
    "Preference",
    "Protocol",
    "Score",
    "Statistics",
    "Summary",
    "detection",
    "directionality",
    "f1_of_all_ones",
    "fit_niqe",
    "leakage",
    "leftover",
    "matlab_luma",
    "niqe",
    "preference",
    "psnr",
    "rain_map",
    "score",
    "sign_test",
    "ssim",
    "summarize",
    "wilson",
]
