"""A twin of the policy that learns: the same weights as inference has them, for roll-outs with the fast engine.

While a network learns it is in float32 and may carry adapters; painting wants plain matrices in the type of inference.
So roll-outs are made by a copy, refreshed before each of them (14.8M weights take a millisecond on a GPU; for a 7B
model in bfloat16 the copy is 14 GB, see docs/reinforcement.md). What the twin writes is scored by the policy itself.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from ..models.janus import Janus
from .adapters import copy_merged


@dataclass
class Twin:
    """model: what paints and writes. source: the network that learns, or peft's wrapping of it."""

    model: Janus
    source: Any
    wrapped: bool

    @classmethod
    def of(cls, learner: Janus, wrapping: nn.Module | None = None, dtype: torch.dtype | None = None) -> Twin:
        """wrapping: peft's, if the learner has adapters. dtype: of the copy; by default bfloat16 on accelerators and
        that of the learner on a CPU."""
        device = learner.device
        with torch.device("meta"):
            model = Janus(learner.config)
        model = model.to_empty(device=device)
        dtype = dtype or (learner.dtype if device.type == "cpu" else torch.bfloat16)
        twin = cls(model.to(dtype).eval().requires_grad_(False), wrapping or learner, wrapping is not None)
        for (_, mine), (_, theirs) in zip(twin.model.named_buffers(), learner.named_buffers(), strict=True):
            mine.copy_(theirs)
        twin.refresh()
        return twin

    @torch.no_grad()
    def refresh(self) -> None:
        """The weights as they are now, adapters added."""
        if self.wrapped:
            copy_merged(self.source, self.model)
            return
        for mine, theirs in zip(self.model.parameters(), self.source.parameters(), strict=True):
            mine.copy_(theirs)

    def frozen(self) -> Janus:
        """Another copy, which stays as the twin is now."""
        return copy.deepcopy(self.model)
