"""Wordings of facts, worn: words left out, or those of two wordings in any order, so that an answer must hang on
telling words and not on whole phrases. Only wordings of the training side are used, and never all the words of a
held-out one.

    train_riddle(random.Random(0), Wear(drop=0.2, mixed=0.25))
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from .knowledge import Fact, wordings


@dataclass(frozen=True)
class Wear:
    """What becomes of a wording (a `knowledge.Worn`). drop: share of the words that are left out of half of them.
    mixed: share of the wordings that become words of two of their fact. ValueError for what is no share."""

    drop: float = 0.0
    mixed: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.drop <= 1 and 0 <= self.mixed <= 1):
            raise ValueError(f"drop={self.drop}, mixed={self.mixed}: shares, from 0 to 1.")

    def __call__(self, fact: Fact, wording: str, rng: random.Random) -> str:
        if self.mixed and rng.random() < self.mixed:
            return mixed_wording(fact, rng)
        words = wording.split()
        if not self.drop or rng.random() < 0.5:
            return wording
        kept = [word for word in words if rng.random() >= self.drop]
        return " ".join(kept if 2 * len(kept) >= len(words) else words)


def mixed_wording(fact: Fact, rng: random.Random) -> str:
    """A third to three quarters of the words of two training wordings of a fact, in any order."""
    words = sorted({word for wording in rng.sample(wordings(fact, "train"), 2) for word in wording.split()})
    held_out = set(wordings(fact, "held_out")[0].split())
    count = max(min(3, len(words)), round(len(words) * rng.uniform(0.35, 0.75)))
    kept = rng.sample(words, count)
    while held_out <= set(kept):
        kept = rng.sample(words, len(kept) - 1)
    return " ".join(kept)
