"""One step of flow-matching sampling as a policy: where it may go, how likely that was, and nothing remembered.

A flow model is sampled by an ODE, which has no probabilities. Each variant below is an SDE with the same marginals (or,
for `cps`, the same coefficients) whose step is Gaussian, so a step is an action with a log-probability. Rolling out and
learning call the same function, `flow_step`: with `draw` it samples, with `x_next` it scores what was sampled.

Conventions: x = (1 - sigma) x0 + sigma noise, velocity v = noise - x0, sampling goes from sigma 1 down to 0.

Sources: Flow-GRPO (2505.05470, Eq. 9 and the public code: `sde`, `cps`, `wan`), DanceGRPO (2505.07818: `dance`),
MixGRPO (2507.21802: the sliding window), GRPO-Guard (2510.22319). Log-probabilities are means over the elements of a
latent, as published: a sum is exponentially sensitive to resolution. That tempers the ratio, and is why clip
ranges of flow policies are 1e-5 to 1e-4.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

VARIANTS = ("ode", "sde", "cps", "dance", "wan")


@dataclass(frozen=True)
class SdeNoise:
    """How much noise a step adds, and where."""

    variant: str = "sde"
    """`ode`: none. `sde`: Flow-GRPO's a sqrt(sigma / (1 - sigma)). `cps`: coefficients preserved, noise of a share
    sin(a pi / 2) of the next level. `dance`: constant. `wan`: sigma times the second level of the schedule."""
    level: float = 0.7
    """a of Flow-GRPO, eta of DanceGRPO; 0 is the ODE in every variant; `wan` does not use it."""

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise ValueError(f"noise variant {self.variant!r}: must be one of {', '.join(VARIANTS)}")
        if not 0 <= self.level < math.inf:
            raise ValueError(f"noise level {self.level}: must be 0 or more")
        if self.variant == "cps" and self.level > 1:
            raise ValueError(
                f"noise level {self.level}: cps takes 0 to 1, since its share of noise is sin(level pi / 2)"
            )

    @property
    def deterministic(self) -> bool:
        return self.variant == "ode" or (self.level == 0 and self.variant != "wan")


@dataclass
class FlowStep:
    """A batch of transitions, one row an image. All in float32, or float64 where the inputs are."""

    x_next: Tensor
    """(B, ...) where the step went; no gradient."""
    mean: Tensor
    """(B, ...) of the Gaussian; the gradient's only way to the velocity."""
    std: Tensor
    """(B, 1, ...) of the Gaussian, complete; 0 for a deterministic step."""
    rate: Tensor
    """(B, 1, ...) noise per square root of time, std / sqrt(sigma - sigma_next); for `cps` the complete std. This is
    what the published KL without dt and GRPO-Guard take."""
    log_prob: Tensor
    """(B,) mean over elements; 0 for a deterministic step, which is no action and must be marked as given."""


def flow_step(
    x: Tensor,
    velocity: Tensor,
    sigma: float | Tensor,
    sigma_next: float | Tensor,
    noise: SdeNoise,
    *,
    second: float | Tensor = 0.98,
    draw: Tensor | None = None,
    x_next: Tensor | None = None,
    storage: torch.dtype | None = None,
) -> FlowStep:
    """From x (B, ...) at noise level `sigma` to `sigma_next` (each a number or (B,)), along `velocity` (B, ...).

    `draw` (B, ...): standard normal; sample. `x_next` (B, ...): score this one. A deterministic step needs neither.
    `second`: the schedule's second level, sigmas[1], which stands for sigma = 1 where that divides by zero.
    `storage`: round the sample to this dtype before scoring; a roll-out kept in bf16 and scored unrounded shows ratios
    other than 1 before any update, by more than the clip range.
    """
    dtype = torch.float64 if x.dtype == velocity.dtype == torch.float64 else torch.float32
    x, velocity = x.detach().to(dtype), velocity.to(dtype)
    sigma, sigma_next, second = (_column(value, x) for value in (sigma, sigma_next, second))
    mean, std, rate = _gaussian(x, velocity, sigma, sigma_next, second, noise)
    if x_next is None:
        if draw is None and not noise.deterministic:
            raise ValueError("a stochastic step needs `draw` (standard normal) to sample, or `x_next` to score")
        x_next = mean.detach() if draw is None else mean.detach() + std * draw.to(dtype)
        if storage is not None:
            x_next = x_next.to(storage)
    x_next = x_next.detach().to(dtype)
    return FlowStep(x_next, mean, std, rate, _log_prob(x_next, mean, std, noise))


def _column(value: float | Tensor, like: Tensor) -> Tensor:
    """A number, or one for each row, as (B or 1, 1, ...) beside `like`."""
    column = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return column.reshape(-1, *[1] * (like.ndim - 1))


def _gaussian(
    x: Tensor, v: Tensor, sigma: Tensor, sigma_next: Tensor, second: Tensor, noise: SdeNoise
) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, complete std and rate of the step."""
    dt = sigma_next - sigma  # < 0
    noise_hat = x + (1 - sigma) * v
    if noise.deterministic:
        zero = torch.zeros_like(dt)
        return x + v * dt, zero, zero
    if noise.variant == "cps":
        std = sigma_next * math.sin(noise.level * math.pi / 2)
        kept = (sigma_next**2 - std**2).clamp(min=0).sqrt()
        return (1 - sigma_next) * (x - sigma * v) + kept * noise_hat, std, std
    if noise.variant == "sde":
        rate = noise.level * (sigma / (1 - torch.where(sigma == 1, second, sigma))).sqrt()
    elif noise.variant == "wan":
        rate = second * sigma
    else:
        rate = torch.full_like(dt, noise.level)
    # The score of the marginal is -noise_hat / sigma; half the added variance flows back along it.
    mean = x + (v + rate**2 / (2 * sigma) * noise_hat) * dt
    return mean, rate * (-dt).sqrt(), rate


def _log_prob(x_next: Tensor, mean: Tensor, std: Tensor, noise: SdeNoise) -> Tensor:
    """(B,) as published: a full Gaussian density, but for `cps` the bare squared distance."""
    if noise.deterministic:
        return mean.flatten(1).mean(1) * 0
    square = (x_next - mean) ** 2
    if noise.variant == "cps":
        return -square.flatten(1).mean(1)
    density = -square / (2 * std**2) - std.log() - 0.5 * math.log(2 * math.pi)
    return density.flatten(1).mean(1)


def clean_image(x: Tensor, velocity: Tensor, sigma: float | Tensor) -> Tensor:
    """The predicted x0 (B, ...). DanceGRPO takes it for the image instead of a last noisy step."""
    return x - _column(sigma, x) * velocity


def gaussian_kl(mean: Tensor, reference: Tensor, std: Tensor) -> Tensor:
    """(B,) KL between two steps of one std, mean over elements. With `FlowStep.std` it is the paper's; with
    `FlowStep.rate` that of the public Flow-GRPO code, which leaves dt out."""
    return ((mean - reference) ** 2 / (2 * std**2)).flatten(1).mean(1)


def velocity_gap(velocity: Tensor, reference: Tensor) -> Tensor:
    """(B,) squared distance of velocities, mean over elements: the KL's stand-in that users report to work better."""
    return ((velocity - reference) ** 2).flatten(1).mean(1)


@dataclass(frozen=True)
class Window:
    """Which steps of a schedule are stochastic and trained; the others run the ODE and are given."""

    start: int
    size: int

    def __contains__(self, step: int) -> bool:
        return self.start <= step < self.start + self.size

    def sampled(self, steps: int) -> Tensor:
        """(steps,) bool: True inside the window."""
        index = torch.arange(steps)
        return (index >= self.start) & (index < self.start + self.size)


def random_window(size: int, low: int, high: int, *, seed: int, epoch: int, group: int) -> Window:
    """Flow-GRPO-Fast: `size` steps somewhere in [low, high), anew for each group of each epoch.

    Keyed, not drawn from a shared stream: the public code reseeds with the rank alone, so its window never moves.
    """
    if not 0 < size <= high - low:
        raise ValueError(f"window of {size} steps does not fit between steps {low} and {high}")
    start = random.Random(f"{seed}/{epoch}/{group}").randint(low, high - size)
    return Window(start, size)


def sliding_window(
    size: int, steps: int, iteration: int, *, every: int = 25, stride: int = 1, wrap: bool = False
) -> Window:
    """MixGRPO: the window starts at the noisiest step and moves on by `stride` every `every` iterations, until it
    touches the end; with `wrap` it then begins again."""
    if not 0 < size <= steps:
        raise ValueError(f"window of {size} steps does not fit into {steps} steps")
    if every < 1 or stride < 1:
        raise ValueError(f"every={every}, stride={stride}: both must be at least 1")
    last = steps - size
    moves = iteration // every
    if wrap:
        moves %= math.ceil(last / stride) + 1
    return Window(min(moves * stride, last), size)


def trained_steps(steps: int) -> Window:
    """Flow-GRPO without a window: all but the last step, whose std is so small that rounding rules its ratio."""
    return Window(0, max(1, int(steps * 0.99)))
