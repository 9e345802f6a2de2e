"""Rewards for rewritten prompts as such: whether the words demand what the Atelier's riddle demands. Nothing need be
painted for them, so a thinker can learn from thousands of thoughts in the time that some hundred pictures take.

    told    1 where the rewrite demands exactly what was asked for, as `think_report --words` counts
    near    what both demand, of what either demands: things, each with its count and looks; places of one to another;
            the background; 0 where the rewrite is no sentence of the Atelier
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..atelier.language_parse import Demand
    from .dual_grpo import Question
    from .rollout import Reward

WORDS = ("told", "near")


@dataclass(frozen=True)
class Rewritten:
    """What stands at the end of a path where nothing is painted. `info` is that of a picture: `prompt`, `readable`."""

    info: dict[str, Any] = field(default_factory=dict)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        """The text as bytes, by which equal ones are counted."""
        return np.frombuffer(self.info["prompt"].encode(), np.uint8).astype(dtype or np.uint8)


def told(wanted: Demand, text: str) -> bool:
    """Whether a text in the Atelier's language demands what is wanted, and no more."""
    from ..atelier.language_parse import parse

    try:
        return parse(text).to_record() == wanted.to_record()
    except ValueError:
        return False


def near(wanted: Demand, text: str) -> float:
    from ..atelier.language_parse import parse

    try:
        one, other = _parts(wanted), _parts(parse(text))
    except ValueError:
        return 0.0
    return (one & other).total() / (one | other).total()


def _parts(demand: Demand) -> Counter[Any]:
    """What is demanded, piece by piece."""
    found: Counter[Any] = Counter()
    for clause in demand.include:
        found[replace(clause, position=None)] += 1
        if clause.position is not None:
            relation, other = clause.position
            found[clause.kind, relation, demand.include[other].kind] += 1
    for name, value in (("background", demand.background), ("style", demand.style)):
        if value != "plain":
            found[name, value] += 1
    return found


def in_words(table: Mapping[str, Question]) -> dict[str, Reward]:
    """`told`, `near` and `readable` of what pictures were painted from, or of what would be painted. The truth of a
    question is its `Demand`."""
    from .picture_rewards import READABLE, readable

    def each(rule: Any) -> Reward:
        return lambda keys, leaves: [
            float(rule(table[key].truth, leaf.info["prompt"])) for key, leaf in zip(keys, leaves, strict=True)
        ]

    return {"told": each(told), "near": each(near), READABLE: readable}
