"""What is asked in reinforcement: prompts of the Atelier with their truth, its edits, or what a file asks."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..atelier.knowledge import COMPOSED_SHARE
from .dual_grpo import Question

if TYPE_CHECKING:
    from ..data.prompts import Prompt


@dataclass
class Asks:
    """Section `data` of `dual-grpo`. prompts: `atelier:N`, `atelier-edits:N`, or a file of prompts (see
    data/prompts.py), whose lines may name the `image` that an edit is about, or what `training/tried.py` has tried."""

    prompts: str = ""
    riddles: float = 0.65
    """Share of the Atelier's that must be reasoned about."""
    composed: float = COMPOSED_SHARE
    """Share of the riddles drawn that ask for two facts."""
    drop: float = 0.0
    """Share of the words that are left out of half of the wordings of facts."""
    mixed: float = 0.0
    """Share of the wordings that become words of two of their fact, in any order: where all riddles of the training
    side are solved, there is nothing to compare."""
    differ: str = ""
    """Of a file of prompts that were tried: the reward in which the pictures of one must have differed; others teach a
    painter nothing. Empty: all are asked."""

    def __post_init__(self) -> None:
        if not self.prompts:
            raise ValueError("data.prompts: give atelier:N, atelier-edits:N or a file of prompts.")
        if not all(0 <= share <= 1 for share in (self.riddles, self.composed, self.drop, self.mixed)):
            raise ValueError("data: riddles, composed, drop and mixed are shares, from 0 to 1.")


def questions(asks: Asks, seed: int) -> list[Question]:
    """What is asked. ValueError for prompts that are none."""
    source = asks.prompts
    name, _, count = source.rpartition(":")
    if name in ("atelier", "atelier-edits") and not re.fullmatch(r"[1-9]\d*", count):
        raise ValueError(f"prompts={source!r}: behind the colon stands how many, such as {name}:1000.")
    if name == "atelier":
        return _atelier(int(count), seed, asks)
    if name == "atelier-edits":
        return _edits(int(count), seed)
    return _file(Path(source), asks.differ)


def kind_of(asked: Sequence[Question]) -> str | None:
    """What the truths of all are: demands (`atelier`), pairs of scenes (`atelier-edits`), or something else (None)."""
    from ..atelier.language_parse import Demand

    if all(isinstance(one.truth, Demand) for one in asked):
        return "atelier"
    return "atelier-edits" if all(isinstance(one.truth, tuple) for one in asked) else None


def _atelier(count: int, seed: int, asks: Asks) -> list[Question]:
    from ..atelier.language import say
    from ..atelier.language_parse import Demand
    from ..atelier.lessons import train_riddle
    from ..atelier.sample import random_demand
    from ..atelier.worn import Wear

    wear = Wear(asks.drop, asks.mixed)
    rng = random.Random(f"questions/{seed}")
    found: dict[str, Question] = {}
    stale = 0
    while len(found) < count and stale < 2000:
        if rng.random() < asks.riddles:
            riddle = train_riddle(rng, wear, asks.composed)
            prompt, demand = riddle.prompt, Demand.from_record(riddle.demand)
        else:
            demand = random_demand(rng)
            prompt = say(demand, rng, split="train")
        stale = stale + 1 if prompt in found else 0
        found.setdefault(prompt, Question(prompt, prompt, truth=demand))
    return list(found.values())


def _edits(count: int, seed: int) -> list[Question]:
    from ..atelier.draw import draw
    from ..atelier.edits import edit

    found = []
    for number in range(count):
        one = edit(random.Random(f"questions/{seed}/{number}"))
        found.append(Question(f"edit {number}", one.instruction, (draw(one.before),), (one.before, one.after)))
    return found


def _file(path: Path, differ: str) -> list[Question]:
    from PIL import Image, UnidentifiedImageError

    from ..atelier.language_parse import Demand
    from ..data.prompts import read

    found = []
    for number, prompt in enumerate(read(str(path)).prompts):
        if differ and not _differed(path, prompt, differ):
            continue
        name = prompt.record.get("image")
        if prompt.record.get("demand"):
            found.append(Question(prompt.text, prompt.text, truth=Demand.from_record(prompt.record["demand"])))
            continue
        if not name:
            found.append(Question(prompt.text, prompt.text))
            continue
        try:
            with Image.open(path.parent / str(name)) as image:
                found.append(Question(f"{number}: {prompt.text}", prompt.text, (image.convert("RGB"),)))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path.parent / str(name)} is no picture that can be opened.") from error
    if not found:
        raise ValueError(f"data.differ={differ!r}: no prompt of {path} has pictures that differ in it.")
    return found


def _differed(path: Path, prompt: Prompt, reward: str) -> bool:
    """Whether the pictures under some thought of a prompt earned different rewards."""
    groups = (prompt.record.get("rewards") or {}).get(reward)
    if not groups:
        raise ValueError(f"data.differ={reward!r}: {path} does not say what pictures earned; see training/tried.py.")
    return any(len({value for value in group if value is not None}) > 1 for group in groups)
