"""Tiny policies whose optimum is known: tables over tokens, and an affine flow in the plane."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from reverie.canvas import draw_uniforms, pick
from reverie.models.flow_sde import SdeNoise, Window, flow_step
from reverie.training.learner import pad
from reverie.training.rollout import GaussianSteps, Path, Scored
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
    """An affine velocity field in the plane, sampled by the SDE inside a window and by the ODE elsewhere."""

    def __init__(self, steps: int = 6, noise: SdeNoise | None = None, window: Window | None = None) -> None:
        super().__init__()
        self.name, self.modality = "flow", "image"
        self.sigmas = torch.linspace(1, 0, steps + 1)
        self.noise, self.window = noise or SdeNoise("sde", 0.7), window or Window(0, steps - 1)
        self.slope, self.shift = nn.Parameter(torch.eye(2)), nn.Parameter(torch.zeros(2))
        self.register_buffer("first_slope", torch.eye(2))
        self.register_buffer("first_shift", torch.zeros(2))

    def velocity_at(self, x: Tensor, frozen: bool = False) -> Tensor:
        slope, shift = (self.first_slope, self.first_shift) if frozen else (self.slope, self.shift)
        return (x[:, None, :] * slope).sum(-1) - shift  # not a matrix product: rows must round alike in any batch

    def _step(self, x: Tensor, velocity: Tensor, i: int, **known: Tensor):
        noise = self.noise if i in self.window else SdeNoise("ode")
        return flow_step(x, velocity, float(self.sigmas[i]), float(self.sigmas[i + 1]), noise, second=0.8, **known)

    def write(self, paths: Sequence[Path]) -> list[list[Segment]]:
        steps = len(self.sigmas) - 1
        streams = [torch.Generator().manual_seed(path.seed) for path in paths]
        draws = torch.stack([torch.randn(steps + 1, 2, generator=g) for g in streams])
        x = start = draws[:, 0]
        latents, scores, means = [], [], []
        for i in range(steps):
            step = self._step(x, self.velocity_at(x), i, draw=draws[:, i + 1])
            x = step.x_next
            latents.append(x)
            scores.append(step.log_prob)
            means.append(step.mean)
        sampled = self.window.sampled(steps)
        rows = zip(torch.stack(latents, 1), torch.stack(scores, 1), torch.stack(means, 1), start, strict=True)
        return [[Segment(self.name, self.modality, a, sampled, lp, context=x0, mean=m)] for a, lp, m, x0 in rows]

    def _score(self, segments: Sequence[Segment], frozen: bool) -> Scored:
        latents = torch.stack([torch.cat([s.context[None], s.actions]) for s in segments])
        found = []
        for i in range(latents.shape[1] - 1):
            velocity = self.velocity_at(latents[:, i], frozen)
            found.append((self._step(latents[:, i], velocity, i, x_next=latents[:, i + 1]), velocity))
        width = (len(segments), -1)
        gaussian = GaussianSteps(
            torch.stack([step.mean for step, _ in found], 1),
            torch.stack([step.std.expand(len(segments), 1)[:, 0] for step, _ in found], 1).view(width),
            torch.stack([step.rate.expand(len(segments), 1)[:, 0] for step, _ in found], 1).view(width),
            (self.sigmas[:-1] - self.sigmas[1:]).sqrt().expand(len(segments), -1),
            torch.stack([velocity for _, velocity in found], 1),
        )
        return Scored(torch.stack([step.log_prob for step, _ in found], 1), None, gaussian)

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        return self._score(segments, frozen=False)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        with torch.no_grad():
            return self._score(segments, frozen=True)


def written(path: Path, policy: str) -> Tensor:
    """The actions of a policy's last segment on a path."""
    return [s.actions for s in path.segments if s.policy == policy][-1]
