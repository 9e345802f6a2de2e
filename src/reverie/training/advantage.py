"""Advantages: rewards compared within their group.

    A = (r - mean of the group) / (std + eps),   std of the group, of the whole batch, or 1

A missing reward (NaN: a judge failed) is left out of mean and std, and its advantage is 0. A group in which nothing
differs, or in which at most one reward is there, has advantages of exactly 0: there is nothing to learn from it, and
(r - mean) / eps would be rounding noise. Sources: GRPO (2402.03300), Dr. GRPO (2503.20783: no std), Flow-GRPO
(2505.05470: population std, by default of the batch).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

SCALES = ("group", "batch", "none")


@dataclass(frozen=True)
class Normalisation:
    """What the centred reward is divided by."""

    scale: str = "group"
    """`group`: std of the group; `batch`: std of all rewards (of this process, if there are several); `none`: nothing,
    so that easy and hard prompts weigh by how much their rewards differ."""
    ddof: int = 1
    """1: sample std (n - 1); 0: population std."""
    eps: float = 1e-4

    def __post_init__(self) -> None:
        if self.scale not in SCALES:
            raise ValueError(f"scale={self.scale!r}: must be one of {', '.join(SCALES)}")
        if self.ddof not in (0, 1) or self.eps < 0:
            raise ValueError(f"ddof={self.ddof}, eps={self.eps}: ddof must be 0 or 1, eps 0 or more")


def group_advantages(rewards: Tensor, groups: Tensor, rule: Normalisation) -> Tensor:
    """Advantages of rewards (B,) or (B, T) within `groups` (B,), integer ids in any order; each of T columns apart.

    In float64 whatever comes in: means of float32 rewards differ from equal rewards by rounding.
    """
    if len(rewards) != len(groups):
        raise ValueError(f"{len(rewards)} rewards but {len(groups)} group ids; give one id for each row")
    r = rewards.to(torch.float64)
    there = ~r.isnan()
    _, index = groups.unique(return_inverse=True)
    mean, std, flat = _statistics(r, there, index, rule.ddof)
    centred = torch.where(there, r - mean[index], 0.0)
    if rule.scale == "group":
        centred = centred / (std[index] + rule.eps)
    elif rule.scale == "batch":
        _, whole, _ = _statistics(r, there, torch.zeros_like(index), rule.ddof)
        centred = centred / (whole[0] + rule.eps)
    return torch.where(there & ~flat[index], centred, 0.0)


def _statistics(r: Tensor, there: Tensor, index: Tensor, ddof: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std and whether nothing differs, of each group; each (G,) or (G, T)."""
    shape = (int(index.max()) + 1 if len(index) else 0, *r.shape[1:])
    where = index.reshape(-1, *[1] * (r.ndim - 1)).expand_as(r)
    known = torch.where(there, r, 0.0)
    empty = torch.zeros(shape, dtype=r.dtype, device=r.device)
    count = empty.scatter_add(0, where, there.to(r.dtype))
    mean = empty.scatter_add(0, where, known) / count.clamp(min=1)
    squares = torch.where(there, (r - mean.gather(0, where)) ** 2, 0.0)
    std = (empty.scatter_add(0, where, squares) / (count - ddof).clamp(min=1)).sqrt()
    low = torch.full_like(empty, torch.inf).scatter_reduce(0, where, torch.where(there, r, torch.inf), "amin")
    high = torch.full_like(empty, -torch.inf).scatter_reduce(0, where, torch.where(there, r, -torch.inf), "amax")
    return mean, std, low >= high
