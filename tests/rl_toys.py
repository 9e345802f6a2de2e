"""Tiny policies whose optimum is known: tables over tokens, and an affine flow in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reverie.canvas import draw_uniforms, pick
from reverie.models.flow_sde import SdeNoise, Window
from reverie.training.flow_policy import FlowPolicy
from reverie.training.learner import pad
from reverie.training.rollout import Path, Scored
from reverie.training.tree import Segment


class Words(nn.Module):
    """Writes `length` tokens, each from a table row chosen by the one before (or by what stands before the segment).

    `after`: names of policies whose last token the first one depends on. Sampling and scoring share `_logits`.
    """

    def __init__(self, name: str, length: int, vocabulary: int, modality: str = "text", after: str = "") -> None:
        super().__init__()
        self.name, self.length, self.modality, self.after = name, length, modality, after
        self.vocabulary = vocabulary
        self.table = nn.Parameter(torch.zeros(vocabulary + 1, vocabulary))
        self.register_buffer("start", torch.zeros(vocabulary + 1, vocabulary))
        self.calls = 0

    def _logits(self, before: Tensor, table: Tensor) -> Tensor:
        return table[before]

    def _before(self, path: Path) -> int:
        tokens = [int(s.actions[-1]) for s in path.segments if s.policy == self.after]
        return tokens[-1] if tokens else self.vocabulary

    def write(self, paths: Sequence[Path]) -> list[list[Segment]]:
        uniforms = draw_uniforms([path.seed for path in paths], self.length)
        first = torch.tensor([self._before(path) for path in paths])
        before, tokens, scores = first, [], []
        for step in range(self.length):
            logits = self._logits(before, self.table)
            before = pick(logits, uniforms[:, step])
            tokens.append(before)
            scores.append(logits.log_softmax(-1).gather(1, before[:, None])[:, 0])
        everything = torch.ones(self.length, dtype=torch.bool)
        return [
            [Segment(self.name, self.modality, a, everything, lp, context=int(f))]
            for a, lp, f in zip(torch.stack(tokens, 1), torch.stack(scores, 1), first, strict=True)
        ]

    def _score(self, segments: Sequence[Segment], table: Tensor) -> Scored:
        self.calls += 1
        actions = pad([s.actions for s in segments])
        first = torch.tensor([s.context for s in segments])
        before = torch.cat([first[:, None], actions[:, :-1]], 1)
        log_probs = self._logits(before, table).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Scored(log_probs.gather(2, actions[..., None])[..., 0], entropy)

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        return self._score(segments, self.table)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        with torch.no_grad():
            return self._score(segments, self.start)


class Flow(nn.Module):
    """An affine velocity field in the plane."""

    def __init__(self, steps: int = 6, noise: SdeNoise | None = None, window: Window | None = None) -> None:
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.eye(2)), nn.Parameter(torch.zeros(2))
        self.policy = FlowPolicy(
            "flow",
            lambda x, sigma, conditions: self.velocity_at(x),
            torch.linspace(1, 0, steps + 1),
            (2,),
            noise or SdeNoise("sde", 0.7),
            (lambda path: window) if window else None,
            frozen=lambda x, sigma, conditions: x.float() @ torch.eye(2),
        )

    def velocity_at(self, x: Tensor) -> Tensor:
        return (x.float()[:, None, :] * self.slope).sum(-1) - self.shift  # no matrix product: rows must round alike


def written(path: Path, policy: str) -> Tensor:
    """The actions of a policy's last segment on a path."""
    return [s.actions for s in path.segments if s.policy == policy][-1]
