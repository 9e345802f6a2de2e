"""DPO: literal numbers, the start at log 2, shared masks, references, a preference learnt, guidance with a gradient."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from rl_toys import Words, written
from torch import Tensor, nn

from reverie.training.alarms import Alarms
from reverie.training.dpo import (
    DpoConfig,
    DpoTask,
    Pair,
    adapters_off,
    code_log_prob,
    dpo_loss,
    hidden_slots,
    reference_table,
)
from reverie.training.grpo import GrpoConfig, GrpoTask, balanced
from reverie.training.learner import PolicyLearner
from reverie.training.loop import LoopConfig, train
from reverie.training.policy_loss import PolicyRule
from reverie.training.rollout import Level, grow, judge
from reverie.training.tree import Credit, Tree

LENGTH, CODES = 6, 5


class Painter(nn.Module):
    """A masked-token model: each hidden slot is predicted from the sum of what is seen. Also a peft-like adapter."""

    def __init__(self) -> None:
        super().__init__()
        g = torch.Generator().manual_seed(0)
        self.base = nn.Parameter(torch.randn(CODES + 1, CODES, generator=g), requires_grad=False)
        self.adapter = nn.Parameter(torch.zeros(CODES + 1, CODES))
        self.slots = nn.Parameter(torch.zeros(LENGTH, CODES))
        self.on = True

    @contextlib.contextmanager
    def disable_adapter(self) -> Iterator[None]:
        self.on = False
        yield
        self.on = True

    def score(self, prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        table = self.base + self.adapter if self.on else self.base
        seen = torch.where(hidden, CODES, codes)
        told = torch.tensor([float(bool(prompt)) for prompt in prompts])
        logits = (
            table[seen].mean(1, keepdim=True)
            + (self.slots if self.on else torch.zeros_like(self.slots))
            + told[:, None, None]
        )
        return code_log_prob(logits, codes)


def pairs(count: int = 12) -> list[Pair]:
    """Winners end in 4, losers in 0."""
    g = torch.Generator().manual_seed(1)
    found = []
    for i in range(count):
        chosen, rejected = torch.randint(0, CODES, (2, LENGTH), generator=g)
        chosen[-1], rejected[-1] = 4, 0
        found.append(Pair(f"p{i}", chosen, rejected))
    return found


def task(**values: Any) -> DpoTask:
    painter = Painter()
    return DpoTask(painter, painter.score, pairs(), adapters_off(painter, painter.score), DpoConfig(batch=4, **values))


def loop(steps: int, **values: Any) -> LoopConfig:
    base = {"lr": 0.05, "precision": "no", "warmup": 0.0, "decay": 0.0, "ema": 0.0, "save_every": 5, "log_every": 5}
    return LoopConfig(steps=steps, **{**base, **values})  # type: ignore[arg-type]


def test_the_loss_in_literal_numbers() -> None:
    values = [torch.tensor([x], dtype=torch.float64) for x in (-3.0, -5.0, -4.0, -4.5)]
    loss, log = dpo_loss(*values, beta=0.5)
    assert float(loss) == pytest.approx(-math.log(1 / (1 + math.exp(-0.5 * ((-3 + 4) - (-5 + 4.5))))))
    assert float(log["margin"]) == pytest.approx(0.75)
    assert float(log["accuracy"]) == 1


def test_log_probabilities_of_four_tokens_by_hand() -> None:
    """A vocabulary of 2 words, then 3 codes, then the marks that frame an image."""
    logits = torch.tensor([[[9.0, 9, 0, 1, 2, 5]] * 4], dtype=torch.float64)
    codes = torch.tensor([[0, 1, 2, 2]])
    e = math.e
    alone = [math.log(x / (1 + e + e**2)) for x in (1, e, e**2, e**2)]
    assert torch.allclose(code_log_prob(logits, codes, 2, 3)[0], torch.tensor(alone, dtype=torch.float32))
    whole = 2 * e**9 + 1 + e + e**2 + e**5
    among_all = [math.log(x / whole) for x in (1, e, e**2, e**2)]
    assert torch.allclose(code_log_prob(logits, codes, 2)[0], torch.tensor(among_all, dtype=torch.float32))
    assert float(code_log_prob(logits, torch.tensor([[3]]), 2)[0, 0]) == pytest.approx(math.log(e**5 / whole))


@pytest.mark.parametrize("values", [{"masked": True}, {"masked": True, "draws": 3}, {"masked": False, "sft": 0.0}])
def test_before_training_the_loss_is_log_two(values: dict[str, Any]) -> None:
    one = task(**values)
    loss, _ = one.loss(one.batch(0))
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-6)


def test_equal_winner_and_loser_under_one_mask_teach_nothing() -> None:
    one = task()
    one.pairs = [Pair(p.prompt, p.chosen, p.chosen) for p in one.pairs]
    with torch.no_grad():
        one.model.adapter.normal_(generator=torch.Generator().manual_seed(3))
    loss, _ = one.loss(one.batch(0))
    loss.backward()
    assert float(loss.detach()) == pytest.approx(math.log(2), abs=1e-7)
    assert one.model.slots.grad.abs().max() < 1e-7


def test_cross_entropy_of_winners_is_their_mean_over_hidden_slots() -> None:
    plain, both = task(), task(sft=0.3)
    rows, _ = both.batch(0)
    with torch.no_grad():
        each = both.score(rows.prompts, rows.chosen, rows.hidden)
        difference = both.loss((rows, None))[0] - plain.loss((rows, None))[0]
    assert float(difference) == pytest.approx(-0.3 * float(each[rows.hidden].mean()), rel=1e-5)


def test_masks_belong_to_their_pair_and_hide_the_published_share() -> None:
    one = task(draws=2, drop_text=0.5)
    a, b = one._rows([3, 5], [0, 0]), one._rows([5], [0])
    assert torch.equal(a.hidden[2:], b.hidden)
    assert a.prompts[2:] == b.prompts
    assert not torch.equal(one._rows([5], [1]).hidden, b.hidden)  # another epoch, other masks
    share = [float(hidden_slots(str(i), 100).float().mean()) for i in range(2000)]
    assert sum(share) / 2000 == pytest.approx(2 / math.pi, abs=0.02)
    assert min(int(hidden_slots(str(i), 3).sum()) for i in range(200)) == 1


def test_pairs_come_once_an_epoch() -> None:
    one = task()
    seen = [int(i) for step in range(3) for i in one.batch(step)[0].index]
    assert sorted(seen) == list(range(12))


def test_a_preference_is_learnt_and_the_reference_stands_still(tmp_path: Path) -> None:
    one = task(drop_text=0.0)
    base = one.model.base.clone()
    train(one, loop(40), tmp_path)
    assert torch.equal(one.model.base, base)
    last = one.model.slots[-1]
    assert last[4] > 1 > -1 > last[0]
    _, log = one.loss(one.batch(100))
    assert float(log["accuracy"]) > 0.7
    with torch.no_grad():
        assert float(one.model.slots.abs().sum()) > 0
        ones = torch.ones(1, LENGTH, dtype=torch.bool)
        args = (["p"], one.pairs[0].chosen[None], ones)
        assert torch.equal(one.reference(*args), Painter().score(*args))


def test_a_table_made_once_is_the_reference(tmp_path: Path) -> None:
    one = task(draws=2)
    table = reference_table(one, tmp_path / "reference.safetensors")
    with torch.no_grad():
        one.model.slots += 1.0
        one.model.slots[:, 0] += 2.0
    again = reference_table(one, tmp_path / "reference.safetensors")
    assert torch.equal(table, again)  # read, not made from what has been trained since
    cached = DpoTask(one.model, one.score, one.pairs, table, one.config)
    for step in range(2):
        live, stored = one.loss(one.batch(step))[0], cached.loss(cached.batch(step))[0]
        assert torch.allclose(live, stored, atol=1e-6)
    with pytest.raises(ValueError, match="reference table"):
        DpoTask(one.model, one.score, one.pairs, table[:3], one.config)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: Path) -> None:
    whole = train(task(), loop(10), tmp_path / "whole")
    train(task(), loop(5), tmp_path / "cut")
    cut = train(task(), loop(10), tmp_path / "cut")
    assert torch.equal(whole.slots, cut.slots)


def test_guidance_by_a_reward_has_a_gradient_of_the_right_sign_and_costs_nothing_when_off() -> None:
    """The published guidance was a constant to the optimiser: generated and judged outside the graph."""
    policy = Words("u", 2, 3)
    judged = []

    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        judged.append(len(prompts))
        trees = grow(prompts, seeds, [Level(16, policy.write)])
        reward = {"r": lambda prompts, images: [float((image == 1).sum()) for image in images]}
        judge(trees, lambda paths: [written(p, "u") for p in paths], reward)
        return trees

    learner = PolicyLearner(policy, Credit({"r": 1.0}), {"text": PolicyRule()})
    online = GrpoTask(policy, ["a"], explore, [learner], balanced("u"), GrpoConfig(prompts=2), Alarms(identical=None))
    pair = [Pair("a", torch.tensor([0, 0]), torch.tensor([0, 0]))]  # says nothing, so that the reward alone speaks

    def score(prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        logits = policy.table[torch.cat([torch.full((len(codes), 1), 3), codes[:, :-1]], 1)]
        return code_log_prob(logits, codes)

    for weight in (0.0, 0.1):
        config = DpoConfig(batch=1, masked=False, online=weight)
        one = DpoTask(policy, score, pair, score, config, online)
        loss, row = one.loss(one.batch(0))
        policy.zero_grad()
        loss.backward()
        assert ("online/reward/r" in row) == bool(weight)
        assert judged == ([2] if weight else [])
        downhill = -policy.table.grad[3]
        assert (downhill[1] > 0 and downhill[1] > downhill[0]) if weight else bool((downhill == 0).all())
    with pytest.raises(ValueError, match="reward guidance"):
        DpoTask(policy, score, pair, score, DpoConfig(online=0.1))


def test_bad_pairs_are_refused_in_one_sentence() -> None:
    with pytest.raises(ValueError, match="one row of the same length"):
        Pair("p", torch.zeros(3), torch.zeros(4))
    with pytest.raises(ValueError, match="no pairs"):
        DpoTask(Painter(), Painter().score, [], Painter().score)
    with pytest.raises(ValueError, match="peft"):
        adapters_off(nn.Linear(1, 1), Painter().score)
