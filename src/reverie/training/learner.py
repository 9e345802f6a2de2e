"""From lessons to a loss: a policy scores its segments again, and learns from the difference.

Segments of one modality are padded to a batch; steps that were given, rows whose advantage is 0 and nothing else to
learn, are not scored at all. `chunk` bounds memory: each chunk's activations are computed again on the way back.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from ..models.flow_sde import gaussian_kl, velocity_gap
from .policy_loss import Guard, PolicyRule, PolicyTerms, combine, combine_jointly, policy_terms, ratio_guard
from .processes import most
from .rollout import GaussianSteps, Policy, Scored
from .tree import Credit, Lesson, Segment


class Learner(Protocol):
    """One policy's way to learn: what it is paid for, and its loss."""

    @property
    def name(self) -> str:
        """Of the policy, as its segments carry it."""

    @property
    def credit(self) -> Credit: ...

    def loss(self, lessons: Sequence[Lesson], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        """A scalar to minimise, and what to log; `seed` for learners that draw noise."""

    def remember(self, lessons: Sequence[Lesson]) -> None:
        """Called with all lessons of a roll-out before its first update, where several updates follow."""


@dataclass
class PolicyLearner:
    """Policy gradient: the clipped loss over everything that the policy wrote."""

    policy: Policy
    credit: Credit
    rules: Mapping[str, PolicyRule]
    """For each modality that the policy writes."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of each modality in the loss, default 1; 0 leaves it out, as the ablations that train one side only."""
    joint: bool = False
    """One mean over all steps of all modalities, as T2I-R1; default a mean for each."""
    rescore: bool = False
    """Take old log-probabilities from scoring, not from writing: for policies that write with a cache and score whole
    sequences, where rounding alone would clip. The largest difference is logged as `drift`."""
    chunk: int = 0
    """Segments scored at a time; 0 for all."""
    lockstep: bool = False
    """Whether all processes must score equally often, since each call of a sharded network is a message to all."""
    rescored: dict[int, Tensor] = field(default_factory=dict, repr=False)

    @property
    def name(self) -> str:
        return self.policy.name

    def remember(self, lessons: Sequence[Lesson]) -> None:
        if self.rescore:
            with torch.no_grad():
                self.rescored = {
                    id(lesson.segment): row[: len(lesson.segment)]
                    for part in _by_modality(lessons, self.rules).values()
                    for lesson, row in zip(part, self._score([x.segment for x in part]).log_prob, strict=True)
                }

    def loss(self, lessons: Sequence[Lesson], seed: int) -> tuple[Tensor, dict[str, Tensor]]:
        parts: dict[str, PolicyTerms] = {}
        log: dict[str, Tensor] = {}
        for modality, part in _by_modality(lessons, self.rules).items():
            if self.weights.get(modality, 1.0) == 0:
                continue
            terms = parts[modality] = self._terms(part, self.rules[modality])
            log |= {f"{modality}/{name}": value for name, value in terms.log.items()}
            log[f"{modality}/length"] = terms.mask.sum(1).mean()
        if not parts:
            raise ValueError(f"policy {self.name!r} wrote nothing that it could learn from; see its credit and weights")
        total = combine_jointly(parts, self.weights) if self.joint else combine(parts, self.rules, self.weights)
        return total, log

    def _terms(self, lessons: Sequence[Lesson], rule: PolicyRule) -> PolicyTerms:
        """The clipped loss of segments of one modality."""
        pays = [bool(lesson.advantage or rule.beta or rule.entropy) for lesson in lessons]
        pays[0] |= not any(pays)  # processes that had nothing to do would leave the others waiting
        active = [lesson for lesson, some in zip(lessons, pays, strict=True) if some]
        idle = [lesson for lesson, some in zip(lessons, pays, strict=True) if not some]
        segments = [lesson.segment for lesson in active]
        scored = self._score(segments)
        mask = pad([segment.sampled for segment in segments]).to(scored.log_prob.device)
        old = self._old(segments, scored)
        reference = self.policy.reference(segments) if rule.beta else None
        terms = policy_terms(
            scored.log_prob,
            old,
            torch.tensor([lesson.advantage for lesson in active], device=mask.device),
            mask,
            rule,
            reference=reference.log_prob if reference else None,
            kl=_gaussian_kl(scored, reference, rule.kl, mask) if reference and rule.kl != "k3" else None,
            entropy=scored.entropy,
            guard=_guard(scored, segments, mask) if rule.guard else None,
        )
        if scored.gaussian is not None:
            del terms.log["entropy"]  # a density's, of no fixed sign
        if self.rescore:
            written = pad([segment.log_prob for segment in segments]).to(scored.log_prob)
            terms.log["drift"] = torch.where(mask, scored.log_prob.detach() - written, 0.0).abs().max()
        terms.log["idle"] = torch.tensor(len(idle) / len(lessons))
        return _with_idle(terms, idle)

    def _old(self, segments: Sequence[Segment], scored: Scored) -> Tensor:
        """Log-probabilities (B, L) of the policy that wrote; its own where it scores before any update."""
        if self.rescore and not self.rescored:
            return scored.log_prob.detach()
        rows = [self.rescored[id(s)] if self.rescored else s.log_prob for s in segments]
        return pad(rows).to(scored.log_prob)

    def _score(self, segments: Sequence[Segment]) -> Scored:
        chunks = [segments]
        if self.chunk:
            chunks = [segments[i : i + self.chunk] for i in range(0, len(segments), self.chunk)]
        # Where a network is sharded, every process computes as often as the one that has most to do.
        idle = [chunks[0]] * (most(len(chunks)) - len(chunks)) if self.chunk and self.lockstep else []
        if not idle and len(chunks) == 1:
            return self.policy.log_prob(segments)
        if not torch.is_grad_enabled():
            return _joined([self.policy.log_prob(chunk) for chunk in (*chunks, *idle)][: len(chunks)])
        scored = [checkpoint(self.policy.log_prob, chunk, use_reentrant=False) for chunk in (*chunks, *idle)]
        for one in scored[len(chunks) :]:
            scored[0] = replace(scored[0], log_prob=scored[0].log_prob + 0.0 * one.log_prob.sum())
        return _joined(scored[: len(chunks)])


def _by_modality(lessons: Sequence[Lesson], rules: Mapping[str, PolicyRule]) -> dict[str, list[Lesson]]:
    found: dict[str, list[Lesson]] = {}
    for lesson in lessons:
        modality = lesson.segment.modality
        if modality not in rules:
            raise ValueError(
                f"policy {lesson.segment.policy!r} wrote {modality!r} segments; give a PolicyRule for them"
            )
        found.setdefault(modality, []).append(lesson)
    return found


def pad(rows: Sequence[Tensor], length: int = 0) -> Tensor:
    """Rows (L_i, ...) to (B, max L_i or `length`, ...), zeros at the end."""
    length = max(length, *(len(row) for row in rows))
    padded = rows[0].new_zeros(len(rows), length, *rows[0].shape[1:])
    for i, row in enumerate(rows):
        padded[i, : len(row)] = row
    return padded


def _joined(parts: Sequence[Scored]) -> Scored:
    """Chunks of one batch, padded to one length."""
    longest = max(part.log_prob.shape[1] for part in parts)

    def join(tensors: Sequence[Tensor]) -> Tensor:
        wide = [torch.cat([t, t.new_zeros(len(t), longest - t.shape[1], *t.shape[2:])], 1) for t in tensors]
        return torch.cat(wide)

    entropies = [part.entropy for part in parts if part.entropy is not None]
    steps = [part.gaussian for part in parts if part.gaussian is not None]
    names = ("mean", "std", "rate", "sqrt_dt", "velocity")
    gaussian = GaussianSteps(*(join([getattr(step, name) for step in steps]) for name in names)) if steps else None
    return Scored(join([part.log_prob for part in parts]), join(entropies) if entropies else None, gaussian)


def _with_idle(terms: PolicyTerms, idle: Sequence[Lesson]) -> PolicyTerms:
    """Rows that were not scored, put back with a loss of 0: they still count in every mean."""
    if not idle:
        return terms
    mask = pad([lesson.segment.sampled for lesson in idle], terms.mask.shape[1]).to(terms.mask)
    length, nothing = mask.shape[1], torch.zeros_like(mask)

    def under(x: Tensor, rows: Tensor) -> Tensor:
        return torch.cat([_widen(x, length), rows])

    return PolicyTerms(
        under(terms.loss, nothing),
        under(terms.policy, nothing),
        under(terms.ratio, mask),
        under(terms.kl, nothing),
        under(terms.mask, mask),
        terms.log,
    )


def _widen(x: Tensor, length: int) -> Tensor:
    return torch.cat([x, x.new_zeros(len(x), length - x.shape[1])], 1)


def _steps(scored: Scored) -> GaussianSteps:
    if scored.gaussian is None:
        raise ValueError("this policy reports no Gaussian steps; use kl='k3' and guard=False for tokens")
    return scored.gaussian


def _gaussian_kl(scored: Scored, reference: Scored, measure: str, mask: Tensor) -> Tensor:
    """(B, L) by one of the measures of `PolicyRule.kl`."""
    mine, other = _steps(scored), _steps(reference)
    shape = scored.log_prob.shape
    if measure == "velocity":
        return velocity_gap(mine.velocity.flatten(0, 1), other.velocity.detach().flatten(0, 1)).view(shape)
    scale = mine.std if measure == "gaussian" else mine.rate
    # Given steps and padding have no noise; 0 / 0 there would reach the gradient through any mask put on later.
    scale = torch.where(mask, scale, 1.0).reshape(-1, *[1] * (mine.mean.ndim - 2))
    return gaussian_kl(mine.mean.flatten(0, 1), other.mean.detach().flatten(0, 1), scale).view(shape)


def _guard(scored: Scored, segments: Sequence[Segment], mask: Tensor) -> Guard:
    steps = _steps(scored)
    means = [segment.mean for segment in segments if segment.mean is not None]
    if len(means) < len(segments):
        raise ValueError("guard=True needs the means of the steps as they were written; keep them in Segment.mean")
    return ratio_guard(steps.mean, pad(means).to(steps.mean), steps.rate, steps.sqrt_dt, mask)
