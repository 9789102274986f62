"""Which arithmetic a device is fast at."""

from __future__ import annotations

from typing import Literal

import torch

Precision = Literal["auto", "fp32", "bf16"]


def resolve_precision(precision: Precision, device: torch.device) -> torch.dtype:
    """Return the dtype to compute convolutions in.

    ``auto`` chooses bfloat16 where the processor multiplies it natively (AVX512-BF16 or AMX on a CPU, Ampere or later
    on a GPU) and float32 elsewhere: without the instructions oneDNN converts every operand and is slower than float32.
    """
    if precision != "auto":
        return {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.bfloat16 if device.type == "cpu" and native else torch.float32
