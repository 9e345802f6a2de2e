"""DiffusionNFT: reinforcement on the forward process. No SDE, no log-probabilities: any sampler may make the images.

A finished image x0 is noised again, x = (1 - sigma) x0 + sigma noise, and the model's velocity v is mixed with that of
the policy which painted it, v_old:  v+ = (1 - m) v_old + m v,  v- = (1 + m) v_old - m v.  A good image (optimality
r near 1) pulls v+ towards itself, a bad one pulls v-, and so pushes v away:

    loss = r |x0(v+) - x0|^2 / w+  +  (1 - r) |x0(v-) - x0|^2 / w-,      w = mean |x0(v) - x0|, no gradient

Source: 2509.16117 (Eq. 5 and the public code, whose factors 1 / m and `limit` are kept so that its rates carry over).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..models.flow_sde import clean_image, velocity_gap
from .tree import Credit, Lesson, Segment


class VelocityPolicy(Protocol):
    """A flow model that painted segments whose last action is the finished image."""

    @property
    def name(self) -> str: ...

    def velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        """At x (B, ...) and noise levels (B,), with each segment's conditions, with gradient."""

    def old_velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        """The same by the slowly following copy that paints, without gradient."""

    def reference_velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        """The same by the model that learning began with, without gradient."""


def optimality(advantage: Tensor, limit: float) -> Tensor:
    """Advantages as probabilities of being good: -limit or less is 0, nothing is 1/2, limit or more is 1."""
    return (advantage / (2 * limit) + 0.5).clamp(0, 1)


def forward_loss(
    velocity: Tensor, old: Tensor, x: Tensor, x0: Tensor, sigma: Tensor, good: Tensor, mix: float = 1.0
) -> Tensor:
    """(B,) losses; velocities, x and x0 (B, ...), sigma and `good` (B,), m of the mixture `mix`."""
    old = old.detach()
    pull = _distance(clean_image(x, (1 - mix) * old + mix * velocity, sigma), x0)
    push = _distance(clean_image(x, (1 + mix) * old - mix * velocity, sigma), x0)
    return (good * pull + (1 - good) * push) / mix


def _distance(guess: Tensor, x0: Tensor) -> Tensor:
    """(B,) mean square over mean absolute error, so that noisy levels do not outweigh clean ones."""
    error = guess - x0
    weight = error.detach().abs().flatten(1).mean(1).clamp(min=1e-5)
    return (error**2).flatten(1).mean(1) / weight


@dataclass
class ForwardLearner:
    """Learns from finished images alone; stands beside `PolicyLearner` in a GRPO task."""

    policy: VelocityPolicy
    credit: Credit
    mix: float = 1.0
    limit: float = 5.0
    """Advantage at which an image counts as surely good."""
    beta: float = 0.0
    """Weight of the squared distance to the reference's velocity."""

    @property
    def name(self) -> str:
        return self.policy.name

    def remember(self, lessons: Sequence[Lesson]) -> None:
        """Nothing: the copy that paints is kept by the policy."""

    def loss(self, lessons: Sequence[Lesson], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """One noise level and one noise for each image, from `seed`."""
        if not lessons:
            raise ValueError(f"policy {self.name!r} painted nothing that it could learn from; see its credit")
        segments = [lesson.segment for lesson in lessons]
        x0 = torch.stack([segment.actions[-1] for segment in segments])
        stream = torch.Generator().manual_seed(seed)
        # Away from 0, where x0 is known and nothing can be learnt.
        sigma = (torch.rand(len(x0), generator=stream) * 0.98 + 0.01).to(x0)
        noise = torch.randn(x0.shape, generator=stream).to(x0)
        level = sigma.reshape(-1, *[1] * (x0.ndim - 1))
        x = (1 - level) * x0 + level * noise
        velocity = self.policy.velocity(segments, x, sigma)
        with torch.no_grad():
            old = self.policy.old_velocity(segments, x, sigma)
        good = optimality(torch.tensor([lesson.advantage for lesson in lessons]).to(x0), self.limit)
        losses = forward_loss(velocity, old, x, x0, sigma, good, self.mix) * self.limit
        log = {"good": good.mean(), "deviation": velocity_gap(velocity.detach(), old).mean()}
        if self.beta:
            with torch.no_grad():
                reference = self.policy.reference_velocity(segments, x, sigma)
            gap = velocity_gap(velocity, reference)
            losses = losses + self.beta * gap
            log["kl"] = gap.detach().mean()
        return losses.mean(), log
