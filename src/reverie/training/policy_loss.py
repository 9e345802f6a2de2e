"""The one policy loss, for tokens and SDE steps alike: clipped surrogate, KL to a reference, masks, lengths, weights.

    ratio = exp(log_prob - old_log_prob)
    loss  = -min(ratio A, clip(ratio, 1 - low, 1 + high) A) + beta KL            per step, where sampled

then averaged over steps and rows (`average`). A step is a token, a batch of committed tokens, or a denoising step; the
loss sees only log-probabilities (B, L), advantages (B,) or (B, L), and the mask of steps that the policy itself chose.

Sources: PPO (1707.06347, Eq. 7), GRPO (2402.03300, Eq. 3-4: k3), DAPO (2503.14476: asymmetric clipping, token mean),
Dr. GRPO (2503.20783: constant length), Flow-GRPO (2505.05470), GRPO-Guard (2510.22319). The Think-then-Generate paper
prints the advantage outside the minimum; taken literally that clips negative advantages on the wrong side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

AVERAGES = ("rows", "tokens", "constant")
KLS = ("k3", "gaussian", "published", "velocity")
LIMIT = 20.0
"""Log-ratios beyond this go on linearly: exp(20) is far outside any trust region, exp(89) is infinite in float32."""


@dataclass(frozen=True)
class PolicyRule:
    """How one policy learns."""

    clip_low: float = 0.2
    clip_high: float = 0.2
    """Ratios are clipped to [1 - clip_low, 1 + clip_high]; flow policies take 1e-5 to 1e-4, see models/flow_sde.py."""
    beta: float = 0.0
    """Weight of the KL to the reference; 0 never computes the reference."""
    kl: str = "k3"
    """How the KL is measured. `k3`: from log-probabilities. Of Gaussian steps: `gaussian`, exact; `published`, as in
    Flow-GRPO's code, which leaves the length of the step out; `velocity`, squared distance of velocities."""
    guard: bool = False
    """Repair the ratios of Gaussian steps as GRPO-Guard does, see `ratio_guard`."""
    average: str = "tokens"
    """`rows`: mean over each row's steps, then over rows (GRPO); `tokens`: over all steps (DAPO); `constant`: the sum
    over rows times `length` (Dr. GRPO)."""
    length: int = 0
    """For `constant`: the longest a row may be."""
    advantage_limit: float = math.inf
    """Advantages are clamped to this; Flow-GRPO takes 5."""
    entropy: float = 0.0
    """Bonus for entropy, where the policy reports it; no sheet asks for it, tiny policies profit."""

    def __post_init__(self) -> None:
        if self.average not in AVERAGES:
            raise ValueError(f"average={self.average!r}: must be one of {', '.join(AVERAGES)}")
        if self.kl not in KLS:
            raise ValueError(f"kl={self.kl!r}: must be one of {', '.join(KLS)}")
        if self.average == "constant" and self.length < 1:
            raise ValueError("average='constant' needs `length`, the number of steps a row may have at most")
        if not 0 <= self.clip_low <= 1 or self.clip_high < 0:
            raise ValueError(f"clip range -{self.clip_low}, +{self.clip_high}: low must be in [0, 1], high 0 or more")
        if self.beta < 0 or self.advantage_limit <= 0:
            raise ValueError("beta must be 0 or more and advantage_limit above 0")


@dataclass
class PolicyTerms:
    """The loss per step, before averaging, with what it was made from; all (B, L), zero where nothing was sampled."""

    loss: Tensor
    policy: Tensor
    ratio: Tensor
    kl: Tensor
    mask: Tensor
    log: dict[str, Tensor]
    """Scalars: ratio, ratio_gap, clip_low, clip_high, clipped, kl, approx_kl, entropy, advantage."""


def bounded_exp(x: Tensor) -> Tensor:
    """exp(x), continued beyond LIMIT by its tangent: finite, and the gradient still points home."""
    top = math.exp(LIMIT)
    return torch.where(x > LIMIT, top * (1 + x - LIMIT), x.clamp(max=LIMIT).exp())


def k3(log_prob: Tensor, reference: Tensor) -> Tensor:
    """Schulman's estimate of KL(policy || reference) from one sample: exp(d) - d - 1, d = reference - policy; >= 0."""
    d = reference - log_prob
    return torch.where(d > LIMIT, bounded_exp(d) - d - 1, torch.expm1(d.clamp(max=LIMIT)) - d)


def policy_terms(
    log_prob: Tensor,
    old_log_prob: Tensor,
    advantage: Tensor,
    mask: Tensor,
    rule: PolicyRule,
    *,
    reference: Tensor | None = None,
    kl: Tensor | None = None,
    entropy: Tensor | None = None,
    guard: Guard | None = None,
) -> PolicyTerms:
    """The loss of each step. `log_prob`, `old_log_prob`, `mask`: (B, L); `advantage`: (B,) or (B, L).

    The KL comes from `reference`, log-probabilities (B, L), by k3; or as `kl` (B, L) from a policy that knows it in
    closed form. Whatever stands where the mask is 0, NaN included, reaches neither loss nor gradient.
    """
    keep = mask.bool()
    exact = torch.promote_types(log_prob.dtype, torch.float32)  # a ratio has no room in bf16
    new, old = _only(log_prob.to(exact), keep), _only(old_log_prob.detach().to(exact), keep)
    advantage = (advantage[:, None] if advantage.ndim == 1 else advantage).to(new.dtype)
    advantage = _only(advantage.detach().expand_as(new), keep).clamp(-rule.advantage_limit, rule.advantage_limit)
    log_ratio = new - old
    if guard is not None:
        log_ratio = (log_ratio + _only(guard.bias, keep)) * guard.scale
    ratio = bounded_exp(log_ratio)
    low, high = 1 - rule.clip_low, 1 + rule.clip_high
    policy = -torch.minimum(ratio * advantage, ratio.clamp(low, high) * advantage)
    if guard is not None:
        policy = policy * guard.weight
    gap = _divergence(new, reference, kl, keep)
    loss = policy + rule.beta * gap if rule.beta else policy
    surprise = -new if entropy is None else _only(entropy, keep)
    if rule.entropy and entropy is not None:
        loss = loss - rule.entropy * surprise
    weight = keep.to(new.dtype)
    with torch.no_grad():
        share = _Share(weight)
        below, above = ratio < low, ratio > high
        log = {
            "ratio": share(ratio),
            "ratio_gap": ((ratio - 1).abs() * weight).max() if weight.numel() else weight.sum(),
            "clip_low": share(below & (advantage < 0)),
            "clip_high": share(above & (advantage > 0)),
            "clipped": share(below | above),
            "kl": share(gap),
            "approx_kl": 0.5 * share((new - old) ** 2),
            "entropy": share(surprise),
            "advantage": share(advantage.abs()),
        }
    return PolicyTerms(loss * weight, policy * weight, ratio * weight, gap * weight, weight, log)


def _only(x: Tensor, keep: Tensor) -> Tensor:
    """x where it counts, else 0; a product with the mask would let NaN through."""
    return torch.where(keep, x, torch.zeros((), dtype=x.dtype, device=x.device))


def _divergence(new: Tensor, reference: Tensor | None, kl: Tensor | None, keep: Tensor) -> Tensor:
    if kl is not None:
        return _only(kl, keep)
    if reference is not None:
        return k3(new, _only(reference.detach(), keep))
    return torch.zeros_like(new)


class _Share:
    """Mean over the steps that count."""

    def __init__(self, weight: Tensor):
        self.weight, self.total = weight, weight.sum().clamp(min=1)

    def __call__(self, x: Tensor) -> Tensor:
        return (x.to(self.weight.dtype) * self.weight).sum() / self.total


def average(values: Tensor, mask: Tensor, rule: PolicyRule) -> Tensor:
    """A scalar from values (B, L). A row without any step contributes 0 to `rows`, and still counts as a row."""
    weight = mask.to(values.dtype)
    values = values * weight
    if rule.average == "rows":
        return (values.sum(1) / weight.sum(1).clamp(min=1)).mean()
    if rule.average == "tokens":
        return values.sum() / weight.sum().clamp(min=1)
    return values.sum() / (len(values) * rule.length)


def combine(parts: Mapping[str, PolicyTerms], rules: Mapping[str, PolicyRule], weights: Mapping[str, float]) -> Tensor:
    """One loss from several kinds of steps (text, image), each averaged by its own rule, then weighed (default 1).

    So 576 image tokens do not drown 60 tokens of thought, as they do under `combine_jointly`.
    """
    losses = [weights.get(name, 1.0) * average(terms.loss, terms.mask, rules[name]) for name, terms in parts.items()]
    return torch.stack(losses).sum()


def combine_jointly(parts: Mapping[str, PolicyTerms], weights: Mapping[str, float]) -> Tensor:
    """One mean over ALL steps, text and image together, as T2I-R1 (2505.00703) computes it; weighed if asked."""
    total = torch.stack([weights.get(name, 1.0) * terms.loss.sum() for name, terms in parts.items()]).sum()
    steps = torch.stack([weights.get(name, 1.0) * terms.mask.sum() for name, terms in parts.items()]).sum()
    return total / steps.clamp(min=1)


@dataclass
class Guard:
    """GRPO-Guard's repair of the ratios of flow policies: they are systematically below 1, more so at noisy steps."""

    bias: Tensor
    """(B, L) added to the log-ratio: the distance of the means, in units of the step's noise."""
    scale: Tensor
    """(1, L) factor on the log-ratio, so that one clip range suits every step."""
    weight: Tensor
    """(1, L) factor on the policy loss, so that every step pulls alike."""


def ratio_guard(mean: Tensor, old_mean: Tensor, rate: Tensor, sqrt_dt: Tensor, mask: Tensor) -> Guard:
    """The guard of steps with means (B, L, ...), noise rates and square roots of time (B, L) (see `FlowStep.rate`).

    Rate and time are means over the batch, as published, of the steps that were sampled (`mask`).
    """
    count = mask.sum(0, keepdim=True)

    def typical(x: Tensor) -> Tensor:
        """(1, L); 1 where nobody sampled, so that nothing is divided by 0."""
        return torch.where(count > 0, torch.where(mask.bool(), x, 0.0).sum(0, keepdim=True) / count.clamp(min=1), 1.0)

    s, d = typical(rate), typical(sqrt_dt)
    distance = ((mean - old_mean.detach()) ** 2).flatten(2).mean(2)
    return Guard(distance / (2 * (s * d) ** 2), s * d, 1 / d**2)
