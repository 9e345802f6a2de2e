"""Reinforcement in the Atelier: a Janus is paid by what the inspector sees in its pictures (trees: janus_grpo.py).

With `dual` the thinker is paid by whether the right things are there, the painter by how well they are painted as well.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..atelier.exercises import exercise
from ..atelier.faults import faults, score
from ..atelier.inspector import Inspector, Sighting
from ..atelier.knowledge import riddle
from ..atelier.language import say
from ..atelier.language_parse import Demand
from ..atelier.sample import random_demand
from ..atelier.second_look import Field, look_again
from .alarms import Alarms
from .grpo import GrpoConfig, GrpoTask
from .janus_grpo import JanusRl, Learning, janus_task
from .rollout import Reward


@dataclass
class AtelierRl(JanusRl):
    """The prompts, and what the inspector pays for."""

    prompts: int = 4000
    """Different prompts."""
    riddles: float = 0.5
    """Share of prompts that say what is meant only to those who know; the others name it. `paint` takes none."""
    exercises: float = 0.0
    """Share of prompts, riddles apart, that are as complex as those of `atelier-compbench` (atelier/exercises.py)."""
    textures: bool = True
    """Whether prompts ask for textures, which not every painter's codes can show (benchmarks/drawn.py)."""
    faithful: float = 1.0
    """Weight of the reward that is trained on most: the share of what was asked that the inspector finds."""
    sure: float = 0.0
    """Weight of the painter's second reward: how sure the inspector is of what it sees. `rewards`, if given, counts
    instead of both; it may also name `exact` and `careful`."""

    def credits(self) -> tuple[dict[str, float], dict[str, float]]:
        if self.rewards:
            return self.rewards, self.rewards
        return {"faithful": self.faithful}, {"faithful": self.faithful, "sure": self.sure}


@dataclass
class Asked:
    """A prompt of the Atelier and what its picture must show."""

    prompt: str
    demand: Demand


def questions(config: AtelierRl, seed: int) -> list[Asked]:
    """Training prompts; nothing that the benchmarks hold out is among them."""
    rng = random.Random(f"reinforce/{seed}")
    found: dict[str, Asked] = {}
    while len(found) < config.prompts:
        if config.tree != "paint" and rng.random() < config.riddles:
            puzzle = riddle(rng, "train")
            asked = Asked(puzzle.prompt, Demand.from_record(puzzle.demand))
        else:
            demand = exercise(rng, config.exercises) if config.exercises else random_demand(rng)
            asked = Asked(say(demand, rng, split="train"), demand)
        if config.textures or all(clause.texture == "plain" for clause in asked.demand.include):
            found.setdefault(asked.prompt, asked)
    return list(found.values())


def inspector_rewards(inspector: Inspector, demands: dict[str, Demand], careful: bool = False) -> dict[str, Reward]:
    """`faithful`: share of checks passed, `exact`: nothing to object, `sure`: the inspector's mean score. The pictures
    of a roll-out are looked at once for all three. careful: one more by this name, `faithful` with textures and actions
    read by drawing (atelier/second_look.py), a tenth of a second of CPU for each picture that is to show any: what the
    network believes of them in paintings is often wrong, and a policy that is paid for it learns to please it."""
    latest: tuple[Sequence[Any], list[Sighting]] = ((), [])

    def look(images: Sequence[Any]) -> list[Sighting]:
        nonlocal latest
        if latest[0] is not images:
            latest = images, inspector.look([Image.fromarray(image) for image in images])
        return latest[1]

    def each(rule: Callable[[Demand, Sighting], float]) -> Reward:
        return lambda prompts, images: [
            rule(demands[prompt], sighting) for prompt, sighting in zip(prompts, look(images), strict=True)
        ]

    def drawn_again(prompts: Sequence[str], images: Sequence[Any]) -> list[float]:
        seen = zip(prompts, images, look(images), strict=True)
        return [careful_score(demands[prompt], Image.fromarray(image), sighting) for prompt, image, sighting in seen]

    rewards: dict[str, Reward] = {
        "faithful": each(lambda demand, sighting: score(demand, sighting.to_scene()) / 100),
        "exact": each(lambda demand, sighting: float(not faults(demand, sighting.to_scene()))),
        "sure": each(lambda _, sighting: float(np.mean([thing.score for thing in sighting.objects] or [0.0]))),
    }
    return rewards | ({"careful": drawn_again} if careful else {})


def careful_score(demand: Demand, picture: Image.Image, sighting: Sighting) -> float:
    """Share of the checks of a demand that a picture passes, with textures and actions read by drawing."""
    fields: list[Field] = ["texture"] if any(clause.texture != "plain" for clause in demand.include) else []
    fields += ["action"] if any(clause.action for clause in demand.include) else []
    kinds = {clause.kind for clause in demand.include}
    return score(demand, look_again(picture, sighting, fields, kinds).to_scene()) / 100


def atelier_task(
    learning: Learning,
    inspector: Inspector,
    config: AtelierRl,
    grpo: GrpoConfig,
    alarms: Alarms | None = None,
) -> GrpoTask:
    """`janus_task` on the Atelier's prompts and rewards."""
    asked = questions(config, grpo.seed)
    demands = {one.prompt: one.demand for one in asked}
    rewards = inspector_rewards(inspector, demands, careful="careful" in config.rewards)
    return janus_task(learning, [one.prompt for one in asked], rewards, config, grpo, alarms)
