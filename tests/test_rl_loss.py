"""What must hold of the clipped loss and its KL, whatever the numbers are."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rl_toys import Flow, Words
from torch import Tensor

from reverie.models.flow_sde import (
    SdeNoise,
    Window,
)
from reverie.training.learner import PolicyLearner
from reverie.training.policy_loss import PolicyRule, average, bounded_exp, combine, combine_jointly, k3, policy_terms
from reverie.training.rollout import Level, grow
from reverie.training.tree import Credit, Lesson

FAST = settings(max_examples=60, deadline=None)


@pytest.mark.parametrize("storage", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("model", [Words("p", 4, 6), Flow(), Flow(noise=SdeNoise("cps", 0.8), window=Window(1, 3))])
def test_before_the_first_update_the_ratio_is_exactly_one(model: Words | Flow, storage: torch.dtype) -> None:
    policy = model.policy if isinstance(model, Flow) else model
    policy.storage = storage
    with torch.no_grad():
        for p in model.parameters():
            p += torch.randn(p.shape, generator=torch.Generator().manual_seed(4))
        trees = grow(list("abc"), [1, 2, 3], [Level(5, policy.write)])
    parts = [Lesson(branch.segments[0], 1.0, 0) for tree in trees for branch in tree.branches]
    for some in (parts, parts[4:7]):  # in another batch than it was written in
        learner = PolicyLearner(policy, Credit({"r": 1.0}), {policy.modality: PolicyRule(beta=0.1)})
        loss, log = learner.loss(some, 0)
        assert log[f"{policy.modality}/ratio_gap"] == 0
        assert torch.isfinite(loss)


def random_case(seed: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    new = -torch.rand(5, 7, generator=g, dtype=torch.float64) * 3
    old = new + 0.3 * torch.randn(5, 7, generator=g, dtype=torch.float64)
    reference = new + torch.randn(5, 7, generator=g, dtype=torch.float64)
    advantage = torch.randn(5, generator=g, dtype=torch.float64)
    mask = torch.rand(5, 7, generator=g) < 0.7
    return new, old, reference, advantage, mask


@FAST
@given(st.integers(0, 10**6), st.sampled_from(["rows", "tokens", "constant"]))
def test_gradient_of_the_clipped_loss(seed: int, kind: str) -> None:
    """Inside the clip range (or where clipping would reward going back): -A ratio / n; outside: none. And k3's."""
    new, old, reference, advantage, mask = random_case(seed)
    rule = PolicyRule(0.1, 0.2, 0.05, average=kind, length=9)
    new.requires_grad_()
    terms = policy_terms(new, old, advantage, mask, rule, reference=reference)
    (got,) = torch.autograd.grad(average(terms.loss, mask, rule), new)
    ratio, a = (new - old).exp().detach(), advantage[:, None]
    free = torch.where(a > 0, ratio < 1.2, ratio > 0.9)
    want = -a * ratio * free + 0.05 * (1 - (reference - new.detach()).exp())
    rows = mask.sum(1, keepdim=True).clamp(min=1) * 5
    count = {"rows": rows, "tokens": mask.sum().clamp(min=1), "constant": 45}[kind]
    assert torch.allclose(got, want * mask / count, atol=1e-12)


@FAST
@given(st.integers(0, 10**6))
def test_what_stands_under_the_mask_reaches_nothing(seed: int) -> None:
    new, old, reference, advantage, mask = random_case(seed)
    rule = PolicyRule(beta=0.05)
    values = []
    for rubbish in (0.0, math.nan, -math.inf):
        dirty = [torch.where(mask, x, rubbish) for x in (new, old, reference)]
        dirty[0].requires_grad_()
        terms = policy_terms(dirty[0], dirty[1], advantage, mask, rule, reference=dirty[2])
        loss = average(terms.loss, mask, rule)
        values.append((loss, *torch.autograd.grad(loss, dirty[0])))
    for loss, gradient in values[1:]:
        assert torch.equal(loss, values[0][0])
        assert torch.equal(gradient, values[0][1])
        assert (gradient[~mask] == 0).all()


@FAST
@given(st.floats(-60, 0), st.floats(-60, 0))
def test_k3_is_never_negative_and_zero_only_between_equals(p: float, q: float) -> None:
    new, reference = torch.tensor([p], dtype=torch.float64, requires_grad=True), torch.tensor([q], dtype=torch.float64)
    value = k3(new, reference)
    (slope,) = torch.autograd.grad(value.sum(), new)
    assert float(value.detach()) >= 0
    assert torch.isfinite(value).all()
    assert float(slope) * (p - q) >= 0  # pulls towards the reference
    assert float(k3(new.detach(), new.detach())) == 0
    far = torch.tensor([-200.0, 0.0, 300.0], requires_grad=True)
    (gradient,) = torch.autograd.grad(bounded_exp(far).sum(), far)
    assert torch.isfinite(gradient).all()
    assert gradient[2] > 0


def test_first_step_is_the_policy_gradient() -> None:
    """Two tokens, on-policy: -A grad log p, by finite differences of the expected reward."""
    logits = torch.tensor([0.3, -0.4], dtype=torch.float64, requires_grad=True)
    reward = torch.tensor([1.0, 3.0], dtype=torch.float64)
    log_p = logits.log_softmax(-1)
    p = log_p.detach().exp()
    rule = PolicyRule(average="constant", length=1)
    terms = policy_terms(log_p[:, None], log_p[:, None], reward, torch.ones(2, 1), rule)
    (got,) = torch.autograd.grad((terms.loss[:, 0] * p).sum(), logits)

    def value(x: Tensor) -> float:
        return float((x.softmax(-1) * reward).sum())

    h = torch.tensor([1e-6, 0], dtype=torch.float64)
    slope = (value(logits.detach() + h) - value(logits.detach() - h)) / 2e-6
    assert float(got[0]) == pytest.approx(-slope, abs=1e-8)


def test_modalities_weigh_by_themselves_or_by_their_length() -> None:
    rule = PolicyRule()
    text, image = (
        policy_terms(torch.zeros(1, n), torch.zeros(1, n), torch.tensor([a]), torch.ones(1, n), rule)
        for n, a in ((10, 1.0), (90, -1.0))
    )
    parts, rules = {"text": text, "image": image}, {"text": rule, "image": rule}
    assert float(combine(parts, rules, {})) == pytest.approx(0.0)
    assert float(combine(parts, rules, {"image": 0.0})) == pytest.approx(-1.0)
    assert float(combine_jointly(parts, {})) == pytest.approx(0.8)


def test_chunks_idle_rows_and_padding_change_nothing() -> None:
    policy = Words("u", 3, 4)
    with torch.no_grad():
        policy.table.normal_(generator=torch.Generator().manual_seed(0))
        trees = grow(["a", "b"], [1, 2], [Level(4, policy.write)])
    segments = [branch.segments[0] for tree in trees for branch in tree.branches]
    for i, segment in enumerate(segments[::2]):  # different lengths, given steps, older scores
        keep = 1 + i % 3
        segment.actions, segment.sampled = segment.actions[:keep], segment.sampled[:keep].clone()
        segment.log_prob = segment.log_prob[:keep] - 0.1
        segment.sampled[0] = i != 1
    some = [Lesson(s, a, 0) for s, a in zip(segments, [1.0, 0, -2, 0, 0.5, 0, 0, 1], strict=True)]
    for average_by in ("rows", "tokens"):
        results = []
        for chunk, lazy in ((0, True), (2, True), (0, False)):
            # A bonus of next to nothing on entropy makes every row worth scoring.
            rule = PolicyRule(average=average_by, entropy=0.0 if lazy else 1e-12)
            learner = PolicyLearner(policy, Credit({"r": 1.0}), {"text": rule}, chunk=chunk)
            policy.calls = 0
            loss, log = learner.loss(some, 0)
            results.append((loss.detach(), *torch.autograd.grad(loss, policy.table)))
            assert policy.calls == (4 if chunk else 1)  # two chunks, and again on the way back
            assert float(log["text/idle"]) == (0.5 if lazy else 0.0)
        for result in results[1:]:
            for x, y in zip(result, results[0], strict=True):
                assert torch.allclose(x, y, atol=1e-7)


@pytest.mark.parametrize("measure", ["k3", "gaussian", "published", "velocity"])
def test_the_kl_of_a_policy_to_itself_is_zero_and_given_steps_leak_no_nan(measure: str) -> None:
    model = Flow(window=Window(1, 2))
    policy = model.policy
    with torch.no_grad():
        trees = grow(["a"], [1], [Level(4, policy.write)])
    some = [Lesson(b.segments[0], a, 0) for b, a in zip(trees[0].branches, (1.0, -1.0, 0.5, 0.0), strict=True)]
    rule = PolicyRule(1e-3, 1e-3, beta=1.0, kl=measure, guard=True)
    learner = PolicyLearner(policy, Credit({"r": 1.0}), {"image": rule})
    loss, log = learner.loss(some, 0)
    assert float(log["image/kl"]) == 0
    loss.backward()
    assert torch.isfinite(model.slope.grad).all()
    with torch.no_grad():
        model.shift += 0.1
    _, log = learner.loss(some, 0)
    assert float(log["image/kl"]) > 0


def test_bad_rules_are_refused_in_one_sentence() -> None:
    for values, sentence in (
        ({"average": "sum"}, "must be one of"),
        ({"average": "constant"}, "needs `length`"),
        ({"clip_low": 1.5}, "clip range"),
        ({"kl": "k1"}, "must be one of"),
        ({"beta": -1}, "beta must be"),
    ):
        with pytest.raises(ValueError, match=sentence):
            PolicyRule(**values)  # type: ignore[arg-type]
    words = Words("u", 2, 3)
    (tree,) = grow(["a"], [1], [Level(2, words.write)])
    some = [Lesson(branch.segments[0], 1.0, 0) for branch in tree.branches]
    learner = PolicyLearner(words, Credit({"r": 1.0}), {"text": PolicyRule(guard=True)})
    with pytest.raises(ValueError, match="no Gaussian steps"):
        learner.loss(some, 0)
