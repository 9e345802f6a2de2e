"""A flow-matching model as a policy: paints by the SDE inside a window and by the ODE elsewhere, and scores the window.

Any model with a velocity will do: guidance, encoders and reference belong to the function that is handed in. Only the
transitions of the window are kept (and the finished image, as a given step), so memory and learning cost what the
window costs. Writing and scoring take the same step function and the same batch of rows, one window step at a time.

Sources: Flow-GRPO and Flow-GRPO-Fast (2505.05470 and its public code), MixGRPO (2507.21802), DanceGRPO (2505.07818:
one initial noise for a group).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ..models.flow_sde import FlowStep, SdeNoise, Window, flow_step, trained_steps
from .rollout import GaussianSteps, Path, Scored
from .tree import Segment

Velocity = Callable[[Tensor, Tensor, Sequence[Any]], Tensor]
"""x (B, ...), noise levels (B,) and a condition for each row, to velocities (B, ...). Rows must not feel each other."""

ODE = SdeNoise("ode")


@dataclass(frozen=True)
class Painted:
    """What it takes to score a flow segment again."""

    condition: Any
    start: Tensor
    """(...) the latent that the window begins with."""
    first: int
    """The window's first step."""


@dataclass
class FlowPolicy:
    """Paints latents of `shape` along the schedule `sigmas`."""

    name: str
    velocity: Velocity
    sigmas: Tensor
    """(N + 1,) noise levels from 1 down to 0."""
    shape: tuple[int, ...]
    noise: SdeNoise
    window: Callable[[Path], Window] | None = None
    """Which steps are stochastic and trained; left out: all but the last. All paths need windows of one size. For one
    window a group, key it with `Path.group`."""
    frozen: Velocity | None = None
    """The reference's velocity; needed where the rule has a KL."""
    condition: Callable[[Path], Any] = lambda path: path.prompt
    same_start: bool = False
    """Siblings begin with the same noise, so that they differ by what they did and not by where they began."""
    storage: torch.dtype = torch.float32
    """Latents are rounded to this before they are scored, since that is what will be scored again."""
    modality: str = "image"

    def write(self, paths: Sequence[Path]) -> list[list[Segment]]:
        """One segment for each path. Call it without gradient."""
        steps = len(self.sigmas) - 1
        windows = [self.window(path) if self.window else trained_steps(steps) for path in paths]
        if len({window.size for window in windows}) > 1:
            raise ValueError("windows of different sizes in one batch; give every path a window of the same size")
        conditions = [self.condition(path) for path in paths]
        x, draws = self._noise(paths, steps)
        x = x.to(self.storage)
        latents, trace = [], []
        for i in range(steps):
            latents.append(x)
            step = self._step(x, [i] * len(paths), conditions, self.velocity, windows, draws[:, i])[0]
            trace.append(step)
            x = step.x_next.to(self.storage)
        size = windows[0].size
        kept = torch.tensor([[w.start + i for i in range(size)] for w in windows], dtype=torch.long)
        rows = torch.arange(len(paths))[:, None]
        scores = torch.stack([step.log_prob for step in trace], 1)[rows, kept]
        means = torch.stack([step.mean for step in trace], 1)[rows, kept]
        after = torch.stack([*latents[1:], x], 1)
        marks = torch.tensor([True] * size + [False])
        return [
            [
                Segment(
                    self.name,
                    self.modality,
                    torch.cat([after[row, kept[row]], x[row, None]]),
                    marks,
                    torch.cat([scores[row], scores.new_zeros(1)]),
                    Painted(conditions[row], latents[window.start][row] if size else x[row], window.start),
                    torch.cat([means[row], x[row, None].to(means)]),
                )
            ]
            for row, window in enumerate(windows)
        ]

    def _noise(self, paths: Sequence[Path], steps: int) -> tuple[Tensor, Tensor]:
        """Where each path begins (B, ...), and the draws of its steps (B, N, ...), from its own CPU streams."""

        def draw(seed: int, count: int) -> Tensor:
            return torch.randn(count, *self.shape, generator=torch.Generator().manual_seed(seed))

        own = torch.stack([draw(path.seed, steps + 1) for path in paths]).to(self.sigmas.device)
        if not self.same_start:
            return own[:, 0], own[:, 1:]
        start = torch.stack([draw(path.group, 1)[0] for path in paths])
        return start.to(self.sigmas.device), own[:, 1:]

    def _step(
        self,
        x: Tensor,
        index: Sequence[int],
        conditions: Sequence[Any],
        velocity: Velocity,
        windows: Sequence[Window] | None = None,
        draw: Tensor | None = None,
        x_next: Tensor | None = None,
    ) -> tuple[FlowStep, Tensor]:
        """Step `index` of each row, and its velocity; stochastic for the rows whose window it lies in."""
        place = torch.tensor(index, device=self.sigmas.device)
        now, then = self.sigmas[place], self.sigmas[place + 1]
        v = velocity(x, now, conditions)
        second = self.sigmas[1]
        chosen = [True] * len(x) if windows is None else [i in w for i, w in zip(index, windows, strict=True)]
        if not any(chosen):
            return flow_step(x, v, now, then, ODE, storage=self.storage), v
        step = flow_step(x, v, now, then, self.noise, second=second, draw=draw, x_next=x_next, storage=self.storage)
        if not all(chosen):
            step = _mixed(step, flow_step(x, v, now, then, ODE, storage=self.storage), chosen)
        return step, v

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        return self._score(segments, self.velocity)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        if self.frozen is None:
            raise ValueError(f"policy {self.name!r} has no reference; give `frozen`, or a rule with beta=0")
        with torch.no_grad():
            return self._score(segments, self.frozen)

    def _score(self, segments: Sequence[Segment], velocity: Velocity) -> Scored:
        contexts = [segment.context for segment in segments]
        conditions = [context.condition for context in contexts]
        device = self.sigmas.device
        x = torch.stack([context.start for context in contexts]).to(device)
        actions = torch.stack([segment.actions for segment in segments]).to(device)
        found = []
        for i in range(actions.shape[1] - 1):
            index = [context.first + i for context in contexts]
            found.append((index, *self._step(x, index, conditions, velocity, x_next=actions[:, i])))
            x = actions[:, i]
        return self._scored(found, actions)

    def _scored(self, found: Sequence[tuple[list[int], FlowStep, Tensor]], actions: Tensor) -> Scored:
        """The steps side by side, and one of zeros for the finished image, which was given."""
        none = torch.zeros(len(actions), 1, device=actions.device)
        still = torch.zeros(len(actions), 1, *self.shape, device=actions.device)

        def beside(columns: Sequence[Tensor], last: Tensor) -> Tensor:
            return torch.cat([*(column[:, None] for column in columns), last], 1)

        def of_rows(column: Tensor) -> Tensor:
            return column.reshape(-1).expand(len(actions))

        steps = [step for _, step, _ in found]
        times = [(self.sigmas[index] - self.sigmas[torch.tensor(index) + 1]).sqrt() for index, _, _ in found]
        gaussian = GaussianSteps(
            beside([step.mean for step in steps], still),
            beside([of_rows(step.std) for step in steps], none),
            beside([of_rows(step.rate) for step in steps], none),
            beside(times, none),
            beside([velocity for *_, velocity in found], still),
        )
        return Scored(beside([step.log_prob for step in steps], none), None, gaussian)


def _mixed(noisy: FlowStep, still: FlowStep, chosen: Sequence[bool]) -> FlowStep:
    """Row by row from one or the other."""
    pick = torch.tensor(chosen, device=noisy.mean.device)
    tall = pick.reshape(-1, *[1] * (noisy.mean.ndim - 1))
    return FlowStep(
        torch.where(tall, noisy.x_next, still.x_next),
        torch.where(tall, noisy.mean, still.mean),
        torch.where(tall, noisy.std, still.std),
        torch.where(tall, noisy.rate, still.rate),
        torch.where(pick, noisy.log_prob, still.log_prob),
    )
