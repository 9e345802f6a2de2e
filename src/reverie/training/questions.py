"""What is asked in reinforcement: prompts of the Atelier with their truth, its edits, or what a file asks."""

from __future__ import annotations

import random
import re
from pathlib import Path

from .dual_grpo import Question


def questions(source: str, seed: int, riddles: float = 0.65) -> list[Question]:
    """`atelier:N`: of which a share of `riddles` must be reasoned about; `atelier-edits:N`; or a file of prompts (see
    data/prompts.py), whose lines may name the `image` that an edit is about."""
    name, _, count = source.rpartition(":")
    if name in ("atelier", "atelier-edits") and not re.fullmatch(r"[1-9]\d*", count):
        raise ValueError(f"prompts={source!r}: behind the colon stands how many, such as {name}:1000.")
    if name == "atelier":
        return _atelier(int(count), seed, riddles)
    if name == "atelier-edits":
        return _edits(int(count), seed)
    return _file(Path(source))


def _atelier(count: int, seed: int, riddles: float) -> list[Question]:
    from ..atelier.language import say
    from ..atelier.language_parse import Demand
    from ..atelier.lessons import train_riddle
    from ..atelier.sample import random_demand

    rng = random.Random(f"questions/{seed}")
    found: dict[str, Question] = {}
    stale = 0
    while len(found) < count and stale < 2000:
        if rng.random() < riddles:
            riddle = train_riddle(rng)
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
