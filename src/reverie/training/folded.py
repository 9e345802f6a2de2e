"""Low-rank adapters (LoRA, arXiv 2106.09685) that are added to the weights, once a step, and not to what they put out.

peft's layers (adapters.py) compute x W' + s (x A') B': two products and three passes more for every token. A small
network on large batches waits for exactly these. Here the layer's weight is W + s B A, one small product a matrix and a
step, which `torch.nn.utils.parametrize.cached` keeps for all passes of a loss; the gradients are the same. peft's way
needs less memory where weights are large, since it never makes W + s B A.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .adapters import Lora, copy_into, targets


class LowRank(nn.Module):
    """W (out, in) to W + scale * B A. B begins as zeros, so nothing changes at first."""

    def __init__(self, weight: Tensor, rank: int, scale: float):
        super().__init__()
        out, size = weight.shape
        self.lora_A = nn.Parameter(weight.new_empty(rank, size, dtype=torch.float32))
        self.lora_B = nn.Parameter(weight.new_zeros(out, rank, dtype=torch.float32))
        self.scale = scale
        nn.init.kaiming_uniform_(self.lora_A, a=math.sqrt(5))  # as peft does

    def forward(self, weight: Tensor) -> Tensor:
        """In the type of the products that it is for, so that none of them has to round it again."""
        kind = weight.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
        with torch.autocast(kind, enabled=False):  # sums of small differences want float32
            return torch.addmm(weight.float(), self.lora_B, self.lora_A, alpha=self.scale).to(dtype)


def fold(model: nn.Module, lora: Lora) -> nn.Module:
    """Adapters on the linear layers of `model` that learn, in place; nothing else learns any more."""
    chosen = targets(model, lora)
    model.requires_grad_(False)
    for layer in chosen.values():
        parametrize.register_parametrization(layer, "weight", LowRank(layer.weight, lora.rank, lora.alpha / lora.rank))
        layer.parametrizations["weight"].original.requires_grad_(False)  # type: ignore[index, union-attr]
    return model


def parts(model: nn.Module) -> dict[str, Tensor]:
    """The adapters of a network that `fold` changed: NAME.lora_A (r, in) and NAME.lora_B (out, r)."""
    return dict(_pieces(model))


def put(model: nn.Module, held: Mapping[str, Tensor]) -> None:
    """Sets adapters that `fold` made to those that `parts` returned. ValueError where they differ in names or sizes."""
    copy_into(parts(model), held)


def _pieces(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if parametrize.is_parametrized(module, "weight"):
            part = module.parametrizations["weight"][0]  # type: ignore[index, union-attr]
            if isinstance(part, LowRank):
                yield f"{name}.lora_A", part.lora_A
                yield f"{name}.lora_B", part.lora_B
