"""Which types of numbers a device multiplies itself.

bfloat16 halves memory everywhere, and time only where there are instructions for it. Many CPUs, those of most laptops
among them, have none: what computes in it there converts number by number, and takes several times as long as float32.
"""

from __future__ import annotations

import platform
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def multiplies_bf16(device: str | torch.device) -> bool:
    """Whether products of bfloat16 are no slower than those of float32 there: on CPUs with AVX512_BF16 or AMX (x86) or
    BF16 (ARM), on CUDA from compute capability 8.0 on, and on other accelerators."""
    import torch

    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return True
    if platform.machine().lower() in ("x86_64", "amd64"):
        return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()


def warn_of_slow(kind: torch.dtype | None, device: str | torch.device) -> None:
    """A warning where a model of that type will be several times slower than in float32: `atelier-showo` takes 7 times
    as long on a core of an AMD EPYC with AVX2."""
    import torch

    if kind == torch.bfloat16 and not multiplies_bf16(device):
        where = torch.device(device).type
        warnings.warn(
            f"this {where} converts bfloat16 number by number: float32 takes twice the memory and is several times "
            "faster.",
            stacklevel=3,
        )
