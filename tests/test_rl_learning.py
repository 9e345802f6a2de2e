"""Reinforcement learns from scratch where the optimum is known: text, image, both, with credit at the right level."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path as File
from typing import Any

import pytest
import torch
from rl_toys import Flow, Words, written
from torch import nn

from reverie.models.flow_sde import SdeNoise, Window
from reverie.training.alarms import Alarms
from reverie.training.forward_loss import ForwardLearner
from reverie.training.grpo import GrpoConfig, GrpoTask, Schedule, Stage, balanced, reinforce, staged
from reverie.training.learner import PolicyLearner
from reverie.training.loop import LoopConfig
from reverie.training.policy_loss import PolicyRule
from reverie.training.rollout import Level, Path, grow, judge
from reverie.training.tree import Credit, Segment, Tree

QUIET = Alarms(entropy=None, identical=None)


def loop(steps: int, lr: float, **values: Any) -> LoopConfig:
    base = {"precision": "no", "decay": 0.0, "warmup": 0.0, "weight_decay": 0.0, "ema": 0.0, "log_every": 10}
    return LoopConfig(steps=steps, lr=lr, save_every=steps, **{**base, **values})  # type: ignore[arg-type]


def explorer(levels: Sequence[Level], finish: Callable[..., Any], **rewards: Callable[..., Any]) -> Callable[..., Any]:
    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        trees = grow(prompts, seeds, levels)
        judge(trees, finish, rewards)
        return trees

    return explore


def rows(folder: File) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def count_of(token: int) -> Callable[..., list[float]]:
    return lambda prompts, images: [float((image == token).float().mean()) for image in images]


# ---------------------------------------------------------------------------------------------- one policy


def test_text_learns_the_word_that_pays(tmp_path: File) -> None:
    policy = Words("u", length=4, vocabulary=6)
    explore = explorer(
        [Level(8, policy.write)], lambda paths: [written(p, "u") for p in paths], word=count_of(3), other=count_of(1)
    )
    learner = PolicyLearner(policy, Credit({"word": 1.0}), {"text": PolicyRule()})
    task = GrpoTask(policy, ["a", "b"], explore, [learner], balanced("u"), GrpoConfig(prompts=4), QUIET)
    reinforce(task, loop(40, 0.3), tmp_path)
    log = rows(tmp_path)
    assert log[0]["reward/word"] < 0.4
    assert log[-1]["reward/word"] > 0.97
    assert log[-1]["reward/other"] < 0.05  # logged beside, not trained on
    assert all(row["u/text/ratio_gap"] == 0 for row in log)  # one update a roll-out: on-policy, exactly


@pytest.mark.parametrize(
    ("noise", "window", "clip", "guard"),
    [
        (SdeNoise("sde", 0.7), None, 1e-3, False),
        (SdeNoise("cps", 0.8), Window(0, 3), 1e-3, False),
        (SdeNoise("dance", 0.5), Window(1, 3), 1e-2, False),
        (SdeNoise("sde", 0.7), None, 1e-3, True),
    ],
)
def test_a_flow_learns_where_to_paint(
    tmp_path: File, noise: SdeNoise, window: Window | None, clip: float, guard: bool
) -> None:
    policy = Flow(noise=noise, window=window)
    target = torch.tensor([1.0, -0.5])
    explore = explorer(
        [Level(16, policy.policy.write)],
        lambda paths: [written(p, "flow")[-1] for p in paths],
        near=lambda prompts, images: [-float((image - target).norm()) for image in images],
    )
    rule = PolicyRule(clip, clip, average="rows", advantage_limit=5, guard=guard)
    learner = PolicyLearner(policy.policy, Credit({"near": 1.0}), {"image": rule})
    config = GrpoConfig(prompts=2, updates=2)
    task = GrpoTask(policy, ["p"], explore, [learner], balanced("flow"), config, QUIET)
    reinforce(task, loop(60, 0.1), tmp_path)
    log = rows(tmp_path)
    assert log[-1]["reward/near"] > 0.4 * log[0]["reward/near"]  # rewards are negative: at most 40% of the distance
    assert (policy.shift.detach() @ target) > 0


def test_forward_process_learns_without_log_probabilities(tmp_path: File) -> None:
    painter = ForwardFlow()
    target = torch.tensor([1.0, -0.5])
    explore = explorer(
        [Level(16, painter.policy.write)],
        lambda paths: [written(p, "flow")[-1] for p in paths],
        near=lambda prompts, images: [-float((image - target).norm()) for image in images],
    )
    learner = ForwardLearner(painter, Credit({"near": 1.0}))
    task = GrpoTask(painter, ["p"], explore, [learner], balanced("flow"), GrpoConfig(prompts=2), QUIET)
    reinforce(task, loop(60, 0.1), tmp_path)
    log = rows(tmp_path)
    assert log[-1]["reward/near"] > 0.5 * log[0]["reward/near"]


class ForwardFlow(Flow):
    """Paints by the ODE alone."""

    def __init__(self) -> None:
        super().__init__(window=Window(0, 0))
        self.name = "flow"

    def velocity(self, segments: Sequence[Segment], x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.velocity_at(x)

    def old_velocity(self, segments: Sequence[Segment], x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return self.velocity_at(x)

    def reference_velocity(self, segments: Sequence[Segment], x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
        return x


# ------------------------------------------------------------------------------------------- several policies


def two_levels() -> tuple[nn.ModuleDict, Callable[..., Any], list[PolicyLearner]]:
    """Thought z of 4, image x of 4 given z. `sem` pays z = 2. `aes` pays x = z, and always pays z = 0: a text that were
    paid for aes would choose 0."""
    text = Words("llm", length=1, vocabulary=4)
    image = Words("dit", length=1, vocabulary=4, modality="image", after="llm")

    def finish(paths: Sequence[Path]) -> list[tuple[int, int]]:
        return [(int(written(p, "llm")), int(written(p, "dit"))) for p in paths]

    explore = explorer(
        [Level(5, text.write), Level(4, image.write)],
        finish,
        sem=lambda prompts, images: [float(z == 2) for z, _ in images],
        aes=lambda prompts, images: [float(x == z or z == 0) for z, x in images],
    )
    learners = [
        PolicyLearner(text, Credit({"sem": 1.0}), {"text": PolicyRule()}),
        PolicyLearner(image, Credit({"aes": 0.5, "sem": 0.5}), {"image": PolicyRule()}),
    ]
    return nn.ModuleDict({"llm": text, "dit": image}), explore, learners


def test_both_levels_are_paid_for_their_own_doing(tmp_path: File) -> None:
    model, explore, learners = two_levels()
    task = GrpoTask(model, ["p"], explore, learners, balanced("llm", "dit"), GrpoConfig(prompts=4), QUIET)
    reinforce(task, loop(50, 0.15, rates={"dit": 2.0}), tmp_path)
    thought = model["llm"].table[4].softmax(-1)
    assert thought[2] > 0.9
    drawn = model["dit"].table.softmax(-1)
    assert drawn[2, 2] > 0.9
    assert drawn[0].max() < 0.5  # under thought 0 all images are paid alike: nothing to learn
    assert rows(tmp_path)[-1]["reward/sem"] > 0.9


def test_staged_learning_changes_one_policy_at_a_time(tmp_path: File) -> None:
    model, explore, learners = two_levels()
    start = {name: p.detach().clone() for name, p in model.named_parameters()}
    task = GrpoTask(model, ["p"], explore, learners, staged(["llm", "dit"], [10]), GrpoConfig(prompts=2), QUIET)
    reinforce(task, loop(10, 0.1, weight_decay=0.1), tmp_path / "early")
    assert not torch.equal(model["llm"].table, start["llm.table"])
    assert torch.equal(model["dit"].table, start["dit.table"])
    thought = model["llm"].table.detach().clone()
    reinforce(task, loop(20, 0.1, weight_decay=0.1), tmp_path / "early")
    assert torch.equal(model["llm"].table, thought)
    assert not torch.equal(model["dit"].table, start["dit.table"])
    assert Schedule((Stage(0, {"a": 0.5, "b": 0}),)).weights(7) == {"a": 0.5}


def test_a_chain_of_text_and_image_shares_one_reward(tmp_path: File) -> None:
    """TWIG-GRPO: text and image of one branch earn the same; training either side alone reaches less than both."""

    def run(weights: dict[str, float], folder: File) -> float:
        text = Words("m", length=2, vocabulary=4)
        image = Words("n", length=4, vocabulary=4, modality="image", after="m")

        def write(paths: Sequence[Path]) -> list[list[Segment]]:
            thoughts = text.write(paths)
            after = [Path(p.prompt, p.seed + 1, tuple(t)) for p, t in zip(paths, thoughts, strict=True)]
            return [t + i for t, i in zip(thoughts, image.write(after), strict=True)]

        explore = explorer(
            [Level(8, write)],
            lambda paths: [torch.cat([written(p, "m"), written(p, "n")]) for p in paths],
            word=count_of(1),
        )
        learners = [
            PolicyLearner(text, Credit({"word": 1.0}), {"text": PolicyRule()}),
            PolicyLearner(image, Credit({"word": 1.0}), {"image": PolicyRule()}),
        ]
        model = nn.ModuleDict({"m": text, "n": image})
        task = GrpoTask(model, ["p"], explore, learners, Schedule((Stage(0, weights),)), GrpoConfig(prompts=4), QUIET)
        reinforce(task, loop(30, 0.25), folder)
        return rows(folder)[-1]["reward/word"]

    both, words, codes = (
        run(weights, tmp_path / str(i)) for i, weights in enumerate([{"m": 1.0, "n": 1.0}, {"m": 1.0}, {"n": 1.0}])
    )
    assert both > 0.95
    assert both > codes > words


# ------------------------------------------------------------------------------------------------ the run


def word_task(updates: int = 1, alarms: Alarms = QUIET, **values: Any) -> GrpoTask:
    policy = Words("u", length=3, vocabulary=5)
    explore = explorer([Level(6, policy.write)], lambda paths: [written(p, "u") for p in paths], word=count_of(3))
    learner = PolicyLearner(policy, Credit({"word": 1.0}), {"text": PolicyRule(beta=0.01)}, rescore=updates > 1)
    config = GrpoConfig(prompts=4, updates=updates, **values)
    return GrpoTask(policy, list("abcdefg"), explore, [learner], balanced("u"), config, alarms)


def test_a_stopped_run_goes_on_as_if_it_had_not_been(tmp_path: File) -> None:
    whole = reinforce(word_task(2), loop(12, 0.1), tmp_path / "whole")
    reinforce(word_task(2), loop(6, 0.1), tmp_path / "cut")
    cut = reinforce(word_task(2), loop(12, 0.1), tmp_path / "cut")
    assert torch.equal(whole.table, cut.table)


def test_two_updates_share_a_roll_out() -> None:
    for reuse, trees in (("split", 2), ("repeat", 4)):
        task = word_task(2, reuse=reuse)
        seen = []
        for step in range(2):
            loss, row = task.loss(task.batch(step))
            seen.append(row["u/text/ratio_gap"])
            assert len(task._share(task._held[0][0]["u"], task.batch(step))) == trees * 6
            loss.backward()
            with torch.no_grad():
                task.model.table -= task.model.table.grad
        assert seen[0] == 0 < seen[1]
    with pytest.raises(ValueError, match="multiples of updates"):
        reinforce(word_task(2), loop(9, 0.1), File("unused"))


def test_prompts_come_once_an_epoch_and_seeds_never_twice() -> None:
    task = word_task()
    turns = [task.batch(step) for step in range(7)]
    prompts = [p for turn in turns for p in turn.prompts]
    assert all(sorted(prompts[i : i + 7]) == list("abcdefg") for i in range(0, 28, 7))
    assert len({seed for turn in turns for seed in turn.seeds}) == 28


def test_alarms_sound_when_a_policy_collapses(tmp_path: File) -> None:
    with pytest.raises(RuntimeError, match="identical"):
        reinforce(word_task(alarms=Alarms(identical=0.6), stop_on_alarm=True), loop(40, 0.5), tmp_path / "a")
    with pytest.warns(RuntimeWarning, match="u/text/entropy fell below"):
        reinforce(word_task(alarms=Alarms(entropy=0.3, identical=None)), loop(40, 0.5), tmp_path / "b")
    sounding = Alarms(shortest=5, longest=9, kl=1).sound(
        {"u/text/length": 3, "m/image/length": 3, "u/text/kl": 2, "u/text/ratio_gap": math.inf}, first_update=False
    )
    assert sounding.keys() == {"u/text/length", "u/text/kl"}
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        task = word_task(alarms=Alarms(entropy=9.0, identical=None))
        counts = [task.loss(task.batch(step))[1]["alarms"] for step in range(3)]
    assert counts == [1, 1, 1]
    assert len(heard) == 1  # said once, when it begins
