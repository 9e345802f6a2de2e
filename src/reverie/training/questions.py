"""What is asked in reinforcement: prompts of the Atelier with their truth, its edits, or what a file asks."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from pathlib import Path

from ..atelier.knowledge import COMPOSED_SHARE
from .dual_grpo import Question


@dataclass
class Asks:
    """Section `data` of `dual-grpo`. prompts: `atelier:N`, `atelier-edits:N`, or a file of prompts (see
    data/prompts.py), whose lines may name the `image` that an edit is about."""

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
    return _file(Path(source))


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


def _file(path: Path) -> list[Question]:
    from PIL import Image, UnidentifiedImageError

    from ..data.prompts import read

    found = []
    for number, prompt in enumerate(read(str(path)).prompts):
        name = prompt.record.get("image")
        if not name:
            found.append(Question(prompt.text, prompt.text))
            continue
        try:
            with Image.open(path.parent / str(name)) as image:
                found.append(Question(f"{number}: {prompt.text}", prompt.text, (image.convert("RGB"),)))
        except (OSError, UnidentifiedImageError) as error:
            raise ValueError(f"{path.parent / str(name)} is no picture that can be opened.") from error
    return found
