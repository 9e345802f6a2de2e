"""Group and root-mean-square normalisation for training in bf16 on a CPU.

PyTorch's group norm leaves the channels-last layout and takes nearly half of a tokenizer's training step there
(`speed/` has the ratio). This one is the same function, y = (x - mean) / sqrt(var + eps) * w + b per group, with its
gradient written out so that both passes are a few streaming operations on (N, C, H, W) and the rest happens on (N, C).
Parameters and their names stay those of the modules they replace. `F.rms_norm` is taken apart by autograd into six
operations on the whole (B, T, D); the version here streams over it twice each way.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..models.llama import RMSNorm

M = TypeVar("M", bound=nn.Module)


def _wide(x: Tensor) -> torch.dtype:
    """The type that sums are kept in: float32, or wider if the data are."""
    return torch.promote_types(x.dtype, torch.float32)


class _Norm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float) -> Tensor:
        n, c, h, w = x.shape
        count = h * w * (c // groups)
        total = x.sum((2, 3), dtype=_wide(x)).view(n, groups, -1)
        square = (x * x).sum((2, 3), dtype=_wide(x)).view(n, groups, -1)
        mean = total.sum(-1, keepdim=True) / count  # (N, G, 1)
        var = (square.sum(-1, keepdim=True) / count - mean.square()).clamp(min=0)
        rstd = torch.rsqrt(var + eps)
        gain = rstd * weight.view(1, groups, -1)  # (N, G, C/G)
        shift = bias.view(1, groups, -1) - mean * gain
        ctx.save_for_backward(x, weight, mean, rstd)
        ctx.groups, ctx.count = groups, count
        return torch.addcmul(shift.view(n, c, 1, 1).to(x.dtype), x, gain.view(n, c, 1, 1).to(x.dtype))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        (dy,) = grads
        x, weight, mean, rstd = ctx.saved_tensors
        n, c, _, _ = x.shape
        w = weight.view(1, ctx.groups, -1)
        dsum = dy.sum((2, 3), dtype=_wide(x)).view(n, ctx.groups, -1)
        ddot = (dy * x).sum((2, 3), dtype=_wide(x)).view(n, ctx.groups, -1)
        along = (ddot - mean * dsum) * rstd  # sum of dy * normalised x, per channel
        dweight, dbias = along.sum(0).view(-1), dsum.sum(0).view(-1)
        mean_d = (dsum * w).sum(-1, keepdim=True) / ctx.count
        mean_dx = (along * w).sum(-1, keepdim=True) / ctx.count
        by_dy = (rstd * w).expand(n, ctx.groups, c // ctx.groups)
        by_x = (-rstd.square() * mean_dx).expand_as(by_dy)
        const = (-rstd * mean_d + rstd.square() * mean * mean_dx).expand_as(by_dy)

        def per_channel(t: Tensor) -> Tensor:
            return t.reshape(n, c, 1, 1).to(x.dtype)

        dx = torch.addcmul(per_channel(const), dy, per_channel(by_dy)).addcmul_(x, per_channel(by_x))
        return dx, dweight.to(weight.dtype), dbias.to(weight.dtype), None, None


class QuickGroupNorm(nn.GroupNorm):
    """`nn.GroupNorm` with the fast path above, for pictures."""

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim != 4:
            return super().forward(input)
        return _Norm.apply(input, self.weight, self.bias, self.num_groups, self.eps)


class _Rms(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=_wide(x))
        rstd = torch.rsqrt(norm.square_().div_(x.shape[-1]).add_(eps)).to(x.dtype)
        unit = x * rstd
        ctx.save_for_backward(unit, weight, rstd)
        return unit * weight

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        (dy,) = grads
        unit, weight, rstd = ctx.saved_tensors
        dweight = (dy * unit).flatten(0, -2).sum(0)
        dunit = dy * weight
        along = (dunit * unit).sum(-1, keepdim=True).div_(unit.shape[-1])
        return torch.addcmul(dunit, unit, along, value=-1).mul_(rstd), dweight, None


class QuickRMSNorm(RMSNorm):
    """`models.llama.RMSNorm` with the fast path above."""

    def forward(self, x: Tensor) -> Tensor:
        return _Rms.apply(x, self.weight.to(x.dtype), self.eps)


_QUICK = {nn.GroupNorm: QuickGroupNorm, RMSNorm: QuickRMSNorm}


def quicken(model: M) -> M:
    """Turn every GroupNorm and RMSNorm of the model into the fast one, in place; weights stay."""
    for module in model.modules():
        module.__class__ = _QUICK.get(type(module), type(module))
    return model
