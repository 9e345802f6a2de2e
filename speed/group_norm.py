"""The normalisations of training/quick_norm.py against those of torch: forward and backward, bfloat16.

python speed/group_norm.py
"""

import copy
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from reverie.models.llama import RMSNorm
from reverie.training.quick_norm import quicken


def step(module: nn.Module, x: Tensor, gradient: Tensor) -> None:
    module(x).backward(gradient)


def ratio(module: nn.Module, x: Tensor, repeats: int = 15, clock: Callable[[], float] = time.process_time) -> float:
    """How many times faster the quick one is, in turns, by medians."""
    quick = quicken(copy.deepcopy(nn.ModuleList([module])))[0]
    x = x.requires_grad_()
    gradient = torch.randn_like(x)
    seconds: dict[nn.Module, list[float]] = {module: [], quick: []}
    for _ in range(repeats):
        for candidate, spent in seconds.items():
            begin = clock()
            step(candidate, x, gradient)
            spent.append(clock() - begin)
    slow, fast = (statistics.median(spent[2:]) for spent in seconds.values())
    return slow / fast


def pictures(channels: int, side: int, batch: int = 16) -> Tensor:
    x = torch.randn(batch, channels, side, side, dtype=torch.bfloat16)
    return x.to(memory_format=torch.channels_last)


def main() -> None:
    torch.set_num_threads(1)
    result = {}
    for side in (12, 24):
        norm = nn.GroupNorm(32, 128, eps=1e-6).bfloat16()
        result[f"group norm, 16 x 128 x {side} x {side}"] = ratio(norm, pictures(128, side))
    result["rms norm, 32 x 200 x 256"] = ratio(RMSNorm(256, 1e-6).bfloat16(), torch.randn(32, 200, 256).bfloat16())
    for name, times in result.items():
        print(f"{name:36} {times:.2f} x")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
