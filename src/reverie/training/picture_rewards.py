"""Rewards for pictures of the two levels, by name: judges of any kind, the Atelier's inspector, and likeness.

A reward is given keys of questions (see dual_grpo.py) and the pictures of a roll-out, all at once. Several names may
come from one look: the pictures of a roll-out are looked at once by the inspector, whatever is asked about them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from ..judges import View
from ..judges.rules import share
from .dual_grpo import Question
from .rollout import Reward

if TYPE_CHECKING:
    from ..atelier.inspector import Inspector, Sighting
    from ..judges import Judge

ATELIER = ("faithful", "exact", "sure")
EDITS = ("reasoning", "consistency")
LIKENESS, READABLE = "similarity", "readable"
BATCH = 256
"""Pictures that the inspector looks at together."""


def judge_reward(judge: Judge, table: Mapping[str, Question], rewritten: bool = False) -> Reward:
    """What a judge answers to `orm` about the typed prompt, or the rewritten one: its score, or P(yes) against P(no);
    None where it gave none. Any judge of `judges.load`, a model behind a server included."""

    def reward(keys: Sequence[str], pictures: Sequence[Any]) -> list[float | None]:
        views = [
            View(picture.info["prompt"] if rewritten else table[key].text, picture)
            for key, picture in zip(keys, pictures, strict=True)
        ]
        values = [share(answer) for answer in judge.ask("orm", views)]
        return [value if np.isfinite(value) else None for value in values]

    return reward


def readable(keys: Sequence[str], pictures: Sequence[Any]) -> list[float | None]:
    """1 where the thought ended in a prompt, 0 where the typed one had to be painted."""
    return [float(picture.info["readable"]) for picture in pictures]


def similarity(table: Mapping[str, Question]) -> Reward:
    """Of an edit: 1 minus the mean absolute difference from the source picture, in units of the whole range."""

    def one(key: str, picture: Any) -> float | None:
        question = table[key]
        if not question.pictures:
            return None
        source = np.asarray(question.pictures[-1].convert("RGB").resize(picture.size), np.float32)
        return 1 - float(np.abs(np.asarray(picture, np.float32) - source).mean()) / 255

    return lambda keys, pictures: [one(key, picture) for key, picture in zip(keys, pictures, strict=True)]


class Look:
    """What the inspector sees, once for each batch of pictures."""

    def __init__(self, inspector: Inspector):
        self.inspector = inspector
        self._latest: tuple[Sequence[Any], list[Sighting]] = ((), [])

    def __call__(self, pictures: Sequence[Any]) -> list[Sighting]:
        if self._latest[0] is not pictures:
            self._latest = pictures, self.inspector.look(stacked(pictures), batch=BATCH)
        return self._latest[1]


def stacked(pictures: Sequence[Any]) -> Any:
    """Pictures of one size as uint8 (B, 3, H, W); others as they are."""
    if len({picture.size for picture in pictures}) != 1:
        return list(pictures)
    return torch.from_numpy(np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])).permute(0, 3, 1, 2)


def atelier_rewards(inspector: Inspector, table: Mapping[str, Question]) -> dict[str, Reward]:
    """`faithful`: share of checks passed; `exact`: right by the rule of atelier-wise; `sure`: the inspector's mean
    score. The truth of a question is its `Demand`."""
    from ..atelier.faults import score
    from ..benchmarks.atelier_wise import failures

    look = Look(inspector)

    def each(rule: Callable[[Any, Sighting], float]) -> Reward:
        return lambda keys, pictures: [
            rule(table[key].truth, seen) for key, seen in zip(keys, look(pictures), strict=True)
        ]

    return {
        "faithful": each(lambda demand, seen: score(demand, seen.to_scene()) / 100),
        "exact": each(lambda demand, seen: float(not failures(demand, seen))),
        "sure": each(lambda _, seen: float(np.mean([thing.score for thing in seen.objects] or [0.0]))),
    }


def atelier_edit_rewards(inspector: Inspector, table: Mapping[str, Question]) -> dict[str, Reward]:
    """By the rules of atelier-rise: `reasoning`, 1 / (1 + faults of what changes); `consistency`, 1 where everything
    else is as it was, less for each thing that strayed and for pixels that changed outside. The truth of a question is
    the pair of scenes before and after."""
    from ..benchmarks.atelier_rise import ALLOWED, otherwise, strayed, unreasoned

    look = Look(inspector)

    def consistency(key: str, seen: Sighting, picture: Any) -> float:
        before, after = table[key].truth
        kept = 1 / (1 + len(strayed(before, after, seen)))
        return kept * (1 - min(1.0, max(0.0, otherwise(before, after, picture) - ALLOWED) * 4))

    def reasoning(key: str, seen: Sighting) -> float:
        before, after = table[key].truth
        return 1 / (1 + len(unreasoned(before, after, seen)))

    return {
        "reasoning": lambda keys, pictures: [
            reasoning(key, seen) for key, seen in zip(keys, look(pictures), strict=True)
        ],
        "consistency": lambda keys, pictures: [
            consistency(key, seen, picture) for key, seen, picture in zip(keys, look(pictures), pictures, strict=True)
        ],
    }
