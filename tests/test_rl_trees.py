"""What must hold of advantages and of trees of segments, whatever the numbers are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rl_toys import Words, written

from reverie.training.advantage import Normalisation, group_advantages
from reverie.training.learner import PolicyLearner
from reverie.training.policy_loss import PolicyRule
from reverie.training.rollout import Level, Path, Scored, grow, judge
from reverie.training.tree import Branch, Credit, Segment, Tree, best_and_worst, lessons, reward_log

FAST = settings(max_examples=60, deadline=None)
REWARDS = st.lists(st.floats(-5, 5, width=32), min_size=4, max_size=12)


def word(policy: str = "u", **values: object) -> Segment:
    return Segment(policy, "text", torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.zeros(1), **values)  # type: ignore[arg-type]


def leaf(reward: float, *segments: Segment, **others: float) -> Branch:
    return Branch(list(segments) or [word()], rewards={"r": reward, **others})


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
