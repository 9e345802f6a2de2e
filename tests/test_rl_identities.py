"""What must hold of trees, advantages, the clipped loss and flow steps whatever the numbers are."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rl_toys import Flow, Words, written
from torch import Tensor

from reverie.models.flow_sde import (
    SdeNoise,
    Window,
    flow_step,
    gaussian_kl,
    random_window,
    sliding_window,
    trained_steps,
)
from reverie.training.advantage import Normalisation, group_advantages
from reverie.training.forward_loss import forward_loss, optimality
from reverie.training.learner import PolicyLearner
from reverie.training.policy_loss import PolicyRule, average, bounded_exp, combine, combine_jointly, k3, policy_terms
from reverie.training.rollout import Level, Path, Scored, grow, judge
from reverie.training.tree import Branch, Credit, Lesson, Segment, Tree, best_and_worst, lessons, reward_log

FAST = settings(max_examples=60, deadline=None)
REWARDS = st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=12)


def word(policy: str = "u", **values: object) -> Segment:
    return Segment(policy, "text", torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.zeros(1), **values)  # type: ignore[arg-type]


def leaf(reward: float, *segments: Segment, **others: float) -> Branch:
    return Branch(list(segments) or [word()], rewards={"r": reward, **others})


# ------------------------------------------------------------------------------------------------ advantages


@FAST
@given(REWARDS, st.sampled_from(["group", "none"]), st.floats(0.1, 10), st.floats(-3, 3))
def test_advantages_sum_to_zero_and_ignore_shift_scale_and_order(
    values: list[float], scale: str, factor: float, shift: float
) -> None:
    rewards = torch.tensor(values, dtype=torch.float64)
    groups = torch.arange(len(values)) % 2
    rule = Normalisation(scale, eps=0.0)
    got = group_advantages(rewards, groups, rule)
    for g in range(2):
        assert abs(float(got[groups == g].sum())) < 1e-6
    spread = min(float(rewards[groups == g].std()) for g in range(2))
    if scale == "group" and spread > 1e-3:
        assert torch.allclose(group_advantages(factor * rewards + shift, groups, rule), got, atol=1e-6)
        assert abs(float(got[groups == 0].std()) - 1) < 1e-6
    order = torch.randperm(len(values), generator=torch.Generator().manual_seed(0))
    assert torch.allclose(group_advantages(rewards[order], groups[order], rule), got[order], atol=1e-9)


def test_groups_without_difference_teach_exactly_nothing() -> None:
    rewards = torch.tensor([0.1, 0.1, 0.1, 0.7, math.nan, 0.3, 0.9, math.nan, math.nan], dtype=torch.float32)
    groups = torch.tensor([0, 0, 0, 1, 1, 2, 2, 2, 3])
    for rule in (Normalisation(eps=0.0), Normalisation("batch", eps=0.0), Normalisation("none", ddof=0)):
        got = group_advantages(rewards, groups, rule)
        assert got[[0, 1, 2, 3, 4, 7, 8]].tolist() == [0] * 7  # alike, alone, missing
        assert got[5] < 0 < got[6]
        assert torch.isfinite(got).all()


# ----------------------------------------------------------------------------------------------------- trees


def test_every_segment_earns_the_advantage_of_its_own_branching() -> None:
    """Dual tree: thoughts by the mean of their images; images with their siblings; a chain's segments all alike."""
    trees = [
        Tree(
            "p",
            [
                Branch([word("llm")], [leaf(0.0, word("dit"), word("fix")), leaf(1.0, word("dit"), word("fix"))]),
                Branch([word("llm")], [leaf(4.0, word("dit"), word("fix")), leaf(4.0, word("dit"), word("fix"))]),
            ],
        )
    ]
    rule = Normalisation("none")
    found = lessons(trees, {name: Credit({"r": 1.0}, rule) for name in ("llm", "dit", "fix")})
    assert [x.advantage for x in found["llm"]] == [-1.75, 1.75]
    assert [x.advantage for x in found["dit"]] == [-0.5, 0.5, 0.0, 0.0]
    assert [x.advantage for x in found["fix"]] == [-0.5, 0.5, 0.0, 0.0]
    among = lessons(trees, {"dit": Credit({"r": 1.0}, rule, among="prompt")})["dit"]
    assert [x.advantage for x in among] == [-2.25, -1.25, 1.75, 1.75]


def test_an_unbranched_stretch_earns_what_the_branching_above_earned() -> None:
    chain = [Branch([word("llm")], [leaf(value, word("dit"))]) for value in (1.0, 3.0)]
    found = lessons([Tree("p", chain)], {name: Credit({"r": 1.0}, Normalisation("none")) for name in ("llm", "dit")})
    assert [x.advantage for x in found["llm"]] == [x.advantage for x in found["dit"]] == [-1.0, 1.0]
    alone = Tree("p", [leaf(5.0)])
    assert lessons([alone], {"u": Credit({"r": 1.0})})["u"][0].advantage == 0
    pair = lessons([alone, Tree("p", [leaf(7.0)])], {"u": Credit({"r": 1.0}, Normalisation("none"), among="prompt")})
    assert [x.advantage for x in pair["u"]] == [-1.0, 1.0]


def test_equal_rewards_in_two_prompts_are_not_mixed() -> None:
    trees = [Tree("same", [leaf(0.0), leaf(1.0)]), Tree("same", [leaf(10.0), leaf(10.0)])]
    found = lessons(trees, {"u": Credit({"r": 1.0}, Normalisation("none"))})["u"]
    assert [x.advantage for x in found] == [-0.5, 0.5, 0.0, 0.0]
    assert [x.tree for x in found] == [0, 0, 1, 1]


def test_a_narrow_reward_counts_as_much_as_a_wide_one_when_each_is_normalised() -> None:
    """Published ensembles add raw rewards: a preference score of spread 0.01 is then drowned by a detector's 0 or 1."""
    tree = Tree("p", [leaf(d, hps=h) for d, h in ((0, 0.26), (1, 0.25), (0, 0.25), (1, 0.26))])
    both = {"r": 1.0, "hps": 1.0}
    added, apart = (
        [x.advantage for x in lessons([tree], {"u": Credit(both, Normalisation(eps=0.0), ensemble=kind)})["u"]]
        for kind in ("sum", "each")
    )
    assert added[3] - added[1] < 0.03 * (added[3] - added[0])
    assert apart == pytest.approx([0, 0, -(0.75**0.5), 0.75**0.5])
    halves = Credit({"r": 0.5, "hps": 0.5}, Normalisation(eps=0.0))  # mean or sum of rewards: the same
    assert [x.advantage for x in lessons([tree], {"u": halves})["u"]] == pytest.approx(added)


def test_weights_of_a_single_reward_are_honoured_and_unnamed_rewards_are_only_logged() -> None:
    tree = Tree("p", [leaf(1.0, held=0.0), leaf(3.0, held=9.0)])
    rule = Normalisation("none")
    assert [x.advantage for x in lessons([tree], {"u": Credit({"r": 2.0}, rule)})["u"]] == [-2.0, 2.0]
    assert [x.advantage for x in lessons([tree], {"u": Credit({"r": 0.0})})["u"]] == [0.0, 0.0]
    log = reward_log([tree])
    assert (log["reward/held"], log["reward/held_std"], log["reward/r"]) == (4.5, 4.5, 2.0)
    with pytest.raises(ValueError, match="no reward 'hps'"):
        lessons([tree], {"u": Credit({"hps": 1.0})})


def test_a_failed_judge_is_left_out_and_counted_never_taken_for_zero() -> None:
    words = Words("u", 2, 3)
    trees = grow(["p"], [3], [Level(3, words.write)])
    judge(trees, lambda paths: [written(p, "u") for p in paths], {"r": lambda prompts, images: [1.0, None, 3.0]})
    found = lessons(trees, {"u": Credit({"r": 1.0}, Normalisation("none"))})["u"]
    assert [x.advantage for x in found] == [-1.0, 0.0, 1.0]
    assert reward_log(trees)["reward/r_missing"] == pytest.approx(1 / 3)
    nested = Tree("p", [Branch([word()], [leaf(1.0), leaf(math.nan)]), Branch([word()], [leaf(3.0), leaf(5.0)])])
    top = [x.advantage for x in lessons([nested], {"u": Credit({"r": 1.0}, Normalisation("none"))})["u"]]
    assert top == [-1.5, 0.0, 0.0, 1.5, -1.0, 1.0]


def test_segments_of_fixed_length_are_not_truncated_and_rejected_passes_learn_if_asked() -> None:
    full = word()  # as long as it may be, and not marked: an image always is
    tree = Tree("p", [leaf(0.0, full, word(rejected=True)), leaf(1.0, word(truncated=True), word())])
    for credit, count in (
        (Credit({"r": 1.0}), 4),
        (Credit({"r": 1.0}, rejected=False), 3),
        (Credit({"r": 1.0}, truncated=False), 3),
    ):
        assert len(lessons([tree], {"u": credit})["u"]) == count
    with pytest.raises(ValueError, match="one of each for every step"):
        Segment("u", "text", torch.zeros(2), torch.ones(1, dtype=torch.bool), torch.zeros(2))


def test_best_and_worst_leaves_become_pairs_and_unanimous_prompts_none() -> None:
    trees = [
        Tree("a", [Branch([word()], [leaf(1.0), leaf(5.0)]), leaf(0.0), leaf(math.nan)]),
        Tree("b", [leaf(2.0), leaf(2.0)]),
        Tree("c", [leaf(math.nan)]),
    ]
    ((prompt, best, worst),) = best_and_worst(trees, Credit({"r": 1.0}))
    assert prompt == "a"
    assert len(best) == 2
    assert (best[-1].rewards["r"], worst[-1].rewards["r"]) == (5.0, 0.0)


def test_a_path_depends_on_its_own_seed_alone() -> None:
    words = Words("u", 3, 5)
    with torch.no_grad():
        words.table.normal_(generator=torch.Generator().manual_seed(0))
    levels = [Level(2, words.write), Level(3, words.write)]
    both = grow(["a", "b"], [1, 2], levels)
    (alone,) = grow(["b"], [2], levels)
    for x, y in zip(both[1].leaves(), alone.leaves(), strict=True):
        assert torch.equal(x.segments[0].actions, y.segments[0].actions)
    seeds = [branch.seed for tree in both for top in tree.branches for branch in (top, *top.branches)]
    assert len(set(seeds)) == len(seeds) == 16


# ----------------------------------------------------------------------------------------- the clipped loss


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


class Unified:
    """One policy for text and image, as Janus is; it has no reference."""

    name = "ulm"

    def __init__(self) -> None:
        self.parts = {"text": Words("ulm", 2, 4), "image": Words("ulm", 9, 4, modality="image")}

    def write(self, paths: Sequence[Path]) -> list[list[Segment]]:
        text, image = (part.write(paths) for part in self.parts.values())
        return [t + i for t, i in zip(text, image, strict=True)]

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        (modality,) = {segment.modality for segment in segments}
        return self.parts[modality].log_prob(segments)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        raise AssertionError("with beta=0 nobody may ask for the reference")


def test_every_pass_earns_the_same_and_either_side_can_be_left_out() -> None:
    policy = Unified()
    tables = [part.table for part in policy.parts.values()]
    with torch.no_grad():
        (tree,) = grow(["p"], [1], [Level(4, policy.write)])
    for i, branch in enumerate(tree.branches):
        branch.rewards["r"] = float(i)
    some = lessons([tree], {"ulm": Credit({"r": 1.0})})["ulm"]
    assert [x.advantage for x in some[::2]] == [x.advantage for x in some[1::2]]
    rules = {"text": PolicyRule(), "image": PolicyRule()}
    pulls = {}
    for name, values in {
        "both": {},
        "text": {"weights": {"image": 0.0}},
        "image": {"weights": {"text": 0.0}},
        "joint": {"joint": True},
    }.items():
        loss, _ = PolicyLearner(policy, Credit({"r": 1.0}), rules, **values).loss(some, 0)
        pulls[name] = [
            torch.zeros(()) if g is None else g for g in torch.autograd.grad(loss, tables, allow_unused=True)
        ]
    assert (pulls["text"][1] == 0).all()
    assert (pulls["image"][0] == 0).all()
    assert torch.equal(pulls["both"][0], pulls["text"][0])
    assert torch.equal(pulls["both"][1], pulls["image"][1])
    assert torch.allclose(pulls["joint"][0], pulls["text"][0] * 2 / 11)  # 2 words among 9 codes
    assert torch.allclose(pulls["joint"][1], pulls["image"][1] * 9 / 11)
    with pytest.raises(ValueError, match="nothing that it could learn from"):
        PolicyLearner(policy, Credit({"r": 1.0}), rules, {"text": 0.0, "image": 0.0}).loss(some, 0)
    with pytest.raises(ValueError, match="give a PolicyRule"):
        PolicyLearner(policy, Credit({"r": 1.0}), {"text": PolicyRule()}).loss(some, 0)


def test_judges_see_the_raw_prompt_and_every_path_its_own_image() -> None:
    words = Words("u", 2, 9)
    trees = grow(["a", "b"], [1, 2], [Level(2, words.write), Level(2, words.write)])
    seen = []
    judge(
        trees,
        lambda paths: [(p.prompt, len(p.segments), p.seed) for p in paths],
        {"r": lambda prompts, images: [seen.append((p, *i)) or 0.0 for p, i in zip(prompts, images, strict=True)]},
    )
    assert [(row[0], row[1], row[2]) for row in seen] == [("a", "a", 2)] * 4 + [("b", "b", 2)] * 4
    assert [leaf.result[2] for tree in trees for leaf in tree.leaves()] == [row[3] for row in seen]
    assert [leaf.seed for tree in trees for leaf in tree.leaves()] == [row[3] for row in seen]
    with pytest.raises(ValueError, match="judged 1 of 8"):
        judge(trees, lambda paths: [0] * 8, {"r": lambda prompts, images: [1.0]})


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


def test_windows_of_a_group_and_what_lies_outside_them() -> None:
    """Each group its own window; inside it the SDE, outside the ODE; siblings may share their first noise."""
    model = Flow(steps=8)
    policy = model.policy
    policy.window = lambda path: random_window(2, 0, 6, seed=0, epoch=0, group=path.group)
    policy.same_start = True
    with torch.no_grad():
        trees = grow(list("abcdef"), range(6), [Level(3, policy.write)])
    rows = [[branch.segments[0] for branch in tree.branches] for tree in trees]
    assert len({row[0].context.first for row in rows}) > 2
    for row in rows:
        first = row[0].context.first
        assert all(s.context.first == first for s in row)
        assert all(torch.equal(s.context.start, row[0].context.start) for s in row)  # the ODE before it is shared
        assert not torch.equal(row[0].actions[0], row[1].actions[0])
        x = row[0].actions[1]
        for i in range(first + 2, 8):
            sigmas = policy.sigmas[i], policy.sigmas[i + 1]
            x = flow_step(x[None], x[None], *sigmas, SdeNoise("ode")).x_next[0]
        assert torch.equal(x, row[0].actions[-1])
        assert row[0].sampled.tolist() == [True, True, False]
    everything = [s for row in rows for s in row]
    scored = policy.log_prob(everything)
    assert torch.equal(scored.log_prob[:, :2].detach(), torch.stack([s.log_prob[:2] for s in everything]))
    policy.window = lambda path: Window(0, 1 + path.seed % 2)
    with pytest.raises(ValueError, match="windows of different sizes"):
        grow(list("abcdef"), range(6), [Level(3, policy.write)])


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


# ---------------------------------------------------------------------------------------------- flow steps


@pytest.mark.parametrize("shape", [(3, 6), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 4)])
@pytest.mark.parametrize("variant", ["sde", "cps", "dance", "wan"])
def test_a_step_scored_again_is_the_step(variant: str, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    x, v, draw = (torch.randn(shape, generator=g) for _ in range(3))
    noise = SdeNoise(variant, 0.6)
    for storage in (None, torch.bfloat16):
        for sigma, following in ((1.0, 0.9), (0.5, 0.3), (0.02, 0.0)):
            first = flow_step(x, v, sigma, following, noise, second=0.9, draw=draw, storage=storage)
            stored = first.x_next.to(storage or torch.float32)
            again = flow_step(x, v, sigma, following, noise, second=0.9, x_next=stored)
            assert torch.equal(first.log_prob, again.log_prob)
            assert torch.isfinite(first.log_prob).all()
    still = flow_step(x, v, 0.5, 0.3, SdeNoise("ode"))
    assert torch.allclose(still.x_next, x - 0.2 * v, atol=1e-6)
    if variant != "wan":
        zero = flow_step(x, v, 0.5, 0.3, SdeNoise(variant, 0.0), draw=draw)
        assert torch.equal(zero.x_next, still.x_next)
        assert (zero.log_prob == 0).all()
    with pytest.raises(ValueError, match="needs `draw`"):
        flow_step(x, v, 0.5, 0.3, noise)


def test_cps_at_full_noise_draws_all_of_it_anew() -> None:
    """diffusers' stochastic sampling: predicted clean image, noised to the next level."""
    g = torch.Generator().manual_seed(1)
    x, v, draw = (torch.randn(2, 8, generator=g, dtype=torch.float64) for _ in range(3))
    step = flow_step(x, v, 0.7, 0.4, SdeNoise("cps", 1.0), draw=draw)
    assert torch.allclose(step.x_next, 0.6 * (x - 0.7 * v) + 0.4 * draw, atol=1e-12)


@pytest.mark.parametrize("noise", [SdeNoise("sde", 0.7), SdeNoise("dance", 0.5), SdeNoise("wan")])
def test_sampling_keeps_the_marginals_of_a_known_flow(noise: SdeNoise) -> None:
    """Data N(m, s^2): the exact velocity is known, and sampling must end at its mean and standard deviation. Not so for
    `cps`, which takes predicted noise and image for the true ones and so loses variance at every step."""
    m, s, steps, count = 0.8, 0.5, 200, 20000
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, generator=g, dtype=torch.float64)
    for now, then in itertools.pairwise(sigmas):
        variance = (1 - now) ** 2 * s**2 + now**2
        pull = (x - (1 - now) * m) / variance
        v = now * pull - (m + (1 - now) * s**2 * pull)  # E[noise | x] - E[x0 | x]
        draw = torch.randn(count, 1, generator=g, dtype=torch.float64)
        x = flow_step(x, v, now, then, noise, second=float(sigmas[1]), draw=draw).x_next
    assert float(x.mean()) == pytest.approx(m, abs=0.02)
    assert float(x.std()) == pytest.approx(s, abs=0.03)


def test_gaussian_kl_is_the_textbook_one() -> None:
    a, b = torch.randn(2, 3, 4, dtype=torch.float64).unbind(0)
    std = torch.full((3, 1), 0.3, dtype=torch.float64)
    textbook = torch.distributions.kl_divergence(
        torch.distributions.Normal(a, std.expand(3, 4)), torch.distributions.Normal(b, std.expand(3, 4))
    )
    assert torch.allclose(gaussian_kl(a, b, std), textbook.mean(1))


def test_windows_cover_their_range_and_come_again_from_their_key() -> None:
    windows = [random_window(2, 0, 5, seed=1, epoch=e, group=g) for e in range(40) for g in range(3)]
    assert Counter(w.start for w in windows).keys() == {0, 1, 2, 3}
    assert windows == [random_window(2, 0, 5, seed=1, epoch=e, group=g) for e in range(40) for g in range(3)]
    assert Window(1, 2).sampled(5).tolist() == [False, True, True, False, False]
    assert [step in Window(1, 2) for step in range(5)] == Window(1, 2).sampled(5).tolist()
    moves = [sliding_window(4, 10, i, every=5, stride=2).start for i in range(0, 40, 5)]
    assert moves == [0, 2, 4, 6, 6, 6, 6, 6]
    assert [sliding_window(4, 10, i, every=5, stride=2, wrap=True).start for i in range(0, 40, 5)] == [0, 2, 4, 6] * 2
    assert (trained_steps(10), trained_steps(1)) == (Window(0, 9), Window(0, 1))
    with pytest.raises(ValueError, match="does not fit"):
        random_window(6, 0, 5, seed=1, epoch=0, group=0)


def test_the_forward_loss_pulls_to_good_images_and_away_from_bad_ones() -> None:
    g = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(3, 6, generator=g), torch.randn(3, 6, generator=g)
    sigma = torch.tensor([0.3, 0.5, 0.8])
    x = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
    truth = noise - x0
    old = truth + 0.1 * torch.randn(3, 6, generator=g)
    for good, sign in ((1.0, 1), (0.0, -1)):
        velocity = old.clone().requires_grad_()
        forward_loss(velocity, old, x, x0, sigma, torch.full((3,), good), mix=0.5).sum().backward()
        assert (sign * ((truth - old) * -velocity.grad).sum(1) > 0).all()
    even = old.clone().requires_grad_()
    forward_loss(even, old, x, x0, sigma, torch.full((3,), 0.5)).sum().backward()
    assert even.grad.abs().max() < 1e-6  # nothing known: no pull at the policy that painted
    assert optimality(torch.tensor([-9.0, 0.0, 2.5, 9.0]), 5.0).tolist() == [0.0, 0.5, 0.75, 1.0]
