"""Matrix products over a fixed number of rows, so that rounding does not depend on the batch (docs/determinism.md)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def fixed_rows(function: Callable, rows: int, *inputs: Tensor) -> Any:
    """`function` over (M, ...) inputs in blocks of exactly `rows` rows; M must be a multiple of it.

    A matrix product may round a row differently when the number of rows around it changes; at a fixed number it does
    not. So this is what makes an image independent of its batch.
    """
    if inputs[0].shape[0] == rows:
        return function(*inputs)
    parts = [function(*block) for block in zip(*(x.split(rows) for x in inputs), strict=True)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(group) for group in zip(*parts, strict=True))


def padded_rows(function: Callable, rows: int, x: Tensor) -> Tensor:
    """`fixed_rows` for any number of rows: zeros fill the last block and are cut off again."""
    return fixed_rows(function, rows, pad_rows(x, rows))[: x.shape[0]]


def pad_rows(x: Tensor, rows: int) -> Tensor:
    """(M, D) with zeros behind it up to a multiple of `rows`; the same tensor if M is one."""
    surplus = -x.shape[0] % rows
    return F.pad(x, (0, 0, 0, surplus)) if surplus else x


class Packed:
    """x to x @ cat(weights)', without gradient, the weights laid out beforehand as oneDNN wants them.

    An ordinary product rearranges its weights on every call, which with 32 rows costs as much as the product itself in
    bfloat16 on AMX. The layout is made for `rows` rows; other numbers work, more slowly.
    """

    def __init__(self, weights: Sequence[Tensor], rows: int):
        whole = torch.cat([weight.detach() for weight in weights])
        self.weight = torch.ops.mkldnn._reorder_linear_weight(whole, rows)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, self.weight, None, "none", [], "")

    @staticmethod
    def possible(weight: Tensor) -> bool:
        if weight.device.type != "cpu" or not torch.backends.mkldnn.is_available() or torch.is_grad_enabled():
            return False
        bfloat = weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return weight.dtype == torch.float32 or bfloat
