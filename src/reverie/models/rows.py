"""Matrix products over a fixed number of rows, so that rounding does not depend on the batch (docs/determinism.md)."""

from collections.abc import Callable
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
    return fixed_rows(function, rows, F.pad(x, (0, 0, 0, -x.shape[0] % rows)))[: x.shape[0]]
