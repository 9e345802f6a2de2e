"""Reinforcement over trees: explore, compare, learn; for one policy or several, on the shared training loop.

A step of the loop is one update. A roll-out serves `updates` of them: its prompts split between them (so the first is
on-policy and the others nearly), or all of it every time. Who learns when is the schedule's to say: `balanced` lets all
learn always, `staged` one after another (Think-then-Generate, 2601.10332, section on Dual-GRPO). With std-normalised
advantages a constant factor on a reward cancels, so published factors of 0.5 and 0.5 mean only "both learn".
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path as File
from typing import Any

import torch
from torch import Tensor, nn

from ..canvas import copy_seed
from .alarms import Alarms, identical_images
from .learner import Learner, PolicyLearner
from .look import LOOKING
from .loop import LoopConfig, train
from .sharding import is_sharded, whole
from .tree import Lesson, Tree, lessons, reward_log

Explore = Callable[[Sequence[str], Sequence[int]], list[Tree]]
"""Prompts and a seed for each, to grown and judged trees (see `rollout.grow` and `rollout.judge`)."""


@dataclass(frozen=True)
class Stage:
    """From when on, and with which weight, each policy learns; 0 or left out: it does not."""

    start: int
    """Iteration (roll-out) at which the stage begins."""
    weights: Mapping[str, float]


@dataclass(frozen=True)
class Schedule:
    """Who learns when."""

    stages: tuple[Stage, ...]

    def __post_init__(self) -> None:
        starts = [stage.start for stage in self.stages]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)):
            raise ValueError(f"stages start at {starts}: the first must start at 0, each other after the one before")

    def weights(self, iteration: int) -> dict[str, float]:
        """Factors on the losses of those who learn now."""
        stage = [stage for stage in self.stages if stage.start <= iteration][-1]
        return {name: weight for name, weight in stage.weights.items() if weight > 0}


def balanced(*policies: str) -> Schedule:
    """All learn always."""
    return Schedule((Stage(0, dict.fromkeys(policies, 1.0)),))


def staged(order: Sequence[str], switches: Sequence[int]) -> Schedule:
    """One after another; `switches` are the iterations at which the next begins."""
    if len(switches) != len(order) - 1:
        raise ValueError(f"{len(order)} policies in turn need {len(order) - 1} switches, not {len(switches)}")
    return Schedule(tuple(Stage(start, {name: 1.0}) for name, start in zip(order, (0, *switches), strict=True)))


@dataclass
class GrpoConfig:
    prompts: int = 16
    """Prompts of a roll-out, for each process and batch of an update."""
    updates: int = 1
    """Optimiser steps for each roll-out."""
    reuse: str = "split"
    """`split`: each update takes its share of the prompts; `repeat`: every update takes all."""
    stop_on_alarm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.reuse not in ("split", "repeat"):
            raise ValueError(f"reuse={self.reuse!r}: must be split or repeat")
        if self.updates < 1 or self.prompts < 1:
            raise ValueError(f"updates={self.updates}, prompts={self.prompts}: both must be at least 1")
        if self.reuse == "split" and self.updates > self.prompts:
            raise ValueError(f"{self.prompts} prompts cannot be split between {self.updates} updates")


@dataclass
class Turn:
    """The data of one update: which roll-out, which of its updates, and what to explore."""

    iteration: int
    part: int
    prompts: list[str]
    seeds: list[int]
    place: int = 0
    """Which of the batches of the update."""


@dataclass
class GrpoTask:
    """The task for `training.loop.train`. `model` holds every learning policy's parameters."""

    model: nn.Module
    prompts: Sequence[str]
    explore: Explore
    learners: Sequence[Learner]
    schedule: Schedule
    config: GrpoConfig = field(default_factory=GrpoConfig)
    alarms: Alarms = field(default_factory=Alarms)
    begin: Callable[[int], None] | None = None
    """Called with the number of each iteration before it explores: windows slide by it, slow copies follow."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("there are no prompts to explore")
        known = {learner.name for learner in self.learners}
        for stage in self.schedule.stages:
            if unknown := sorted(set(stage.weights) - known):
                raise ValueError(
                    f"the schedule names {unknown[0]!r}; policies that learn are {', '.join(sorted(known))}"
                )
            if not any(stage.weights.values()):
                raise ValueError(f"nobody learns in the stage from iteration {stage.start} on; give a weight above 0")
        self.model.eval()  # dropout between writing and scoring would move the ratio off 1
        self._sounding: set[str] = set()
        self._held: dict[int, tuple[dict[str, list[Lesson]], dict[str, float]]] = {}
        self._iteration, self._batches = -1, 1
        self.turn: Turn | None = None
        """What is explored now, for whoever explores elsewhere."""
        self.latest: list[Tree] = []
        """The trees of the last roll-out, for whoever watches."""

    def share(self, batches: int) -> None:
        """Says how many batches make an update: those of all processes, and of all that accumulate."""
        self._batches = batches
        for learner in self.learners:
            if isinstance(learner, PolicyLearner):
                learner.lockstep = is_sharded(self.model)

    def batch(self, step: int) -> Turn:
        """From (seed, step) alone: prompts in an order that is shuffled anew for each pass over them."""
        update, which = divmod(step, self._batches)
        iteration, part = divmod(update, self.config.updates)
        return self.turn_at(iteration, which, part)

    def turn_at(self, iteration: int, which: int, part: int = 0) -> Turn:
        """Batch number `which` of an iteration."""
        first = (iteration * self._batches + which) * self.config.prompts
        places = range(first, first + self.config.prompts)
        seeds = [copy_seed(self.config.seed, 0, place + 1) for place in places]
        return Turn(iteration, part, [self._prompt(place) for place in places], seeds, which)

    def _prompt(self, place: int) -> str:
        epoch, index = divmod(place, len(self.prompts))
        order = list(range(len(self.prompts)))
        random.Random(f"{self.config.seed}/{epoch}").shuffle(order)
        return self.prompts[order[index]]

    def loss(self, turn: Turn) -> tuple[Tensor, dict[str, float | Tensor]]:
        weights = self.schedule.weights(turn.iteration)
        learning = [learner for learner in self.learners if learner.name in weights]
        if self._iteration != turn.iteration:
            self._iteration, self._held = turn.iteration, {}
            if self.begin is not None:
                self.begin(turn.iteration)
        if turn.place not in self._held:
            self._held[turn.place] = self._explored(turn, learning)
        held, log = self._held[turn.place]
        row: dict[str, float | Tensor] = {**log, "iteration": turn.iteration}
        losses = []
        for learner in learning:
            share = self._share(held[learner.name], turn)
            seed = copy_seed(self.config.seed + turn.place, 1, turn.iteration * 1000 + turn.part + 1)
            loss, told = learner.loss(share, seed)
            losses.append(weights[learner.name] * loss)
            row |= {f"{learner.name}/{name}": value.detach() for name, value in told.items()}
        self._heed(row, first=turn.part == 0)
        return torch.stack(losses).sum(), row

    def _explored(self, turn: Turn, learning: Sequence[Learner]) -> tuple[dict[str, list[Lesson]], dict[str, float]]:
        """The lessons of a new roll-out, and what to log of it."""
        with torch.no_grad(), whole(self.model):  # processes do not know how long each other's thoughts will be
            self.turn = turn
            trees = self.latest = self.explore(turn.prompts, turn.seeds)
        held = lessons(trees, {learner.name: learner.credit for learner in learning})
        if self.config.updates > 1:
            for learner in learning:
                earlier = [lesson for other, _ in self._held.values() for lesson in other[learner.name]]
                learner.remember([*earlier, *held[learner.name]])
        stale = getattr(self.explore, "staleness", None)
        log = {**reward_log(trees), "identical": identical_images(trees)}
        return held, log if stale is None else {**log, "staleness": float(stale)}

    def _share(self, held: list[Lesson], turn: Turn) -> list[Lesson]:
        if self.config.reuse == "repeat" or self.config.updates == 1:
            return held
        return [lesson for lesson in held if lesson.tree % self.config.updates == turn.part]

    def _heed(self, row: dict[str, float | Tensor], first: bool) -> None:
        """Counts the alarms in the row, and says what has begun to sound since the last."""
        found = self.alarms.sound({name: float(value) for name, value in row.items()}, first)
        row["alarms"] = len(found)
        if found and self.config.stop_on_alarm:
            raise RuntimeError(f"stopped at iteration {row['iteration']}: " + "; ".join(found.values()))
        for name in found.keys() - self._sounding:
            warnings.warn(f"iteration {row['iteration']}: {found[name]}", RuntimeWarning, stacklevel=2)
        self._sounding = set(found)


def reinforce(
    task: GrpoTask,
    loop: LoopConfig,
    out: str | File,
    recipe: Mapping[str, Any] | None = None,
    on_sample: Callable[[int, File], None] | None = None,
) -> nn.Module:
    """Runs the task in folder `out`; goes on from there if it was stopped. on_sample: see `loop.train`."""
    updates = task.config.updates
    if loop.workers:
        raise ValueError("reinforcement explores with the live weights: set loop.workers to 0")
    if loop.save_every % updates or loop.steps % updates:
        raise ValueError(
            f"loop.save_every={loop.save_every} and loop.steps={loop.steps} must be multiples of updates={updates}: "
            "a run cannot go on from the middle of a roll-out"
        )
    if not (recipe or {}).get("rollouts") or LOOKING.get() is not None:
        return train(task, loop, out, on_sample, recipe)
    from ..cluster.rollouts import Rollouts, Spread
    from .recipes import section

    assert recipe is not None
    spread = Spread(task, recipe, section(recipe, "rollouts", Rollouts), loop.steps // updates)
    task.explore = spread
    try:
        return train(task, loop, out, on_sample, recipe)
    finally:
        spread.close()
