"""Judgements about drawn pictures, of which there is no end: what a judge of the Atelier learns beside painted ones.

A right picture or one with a fault in it (atelier/flaws.py), and the question whether it shows the prompt, whether it
can still become it, or what is wrong with it.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from ..data.prompts import ATELIER
from ..data.records import asked
from ..vlms import Message

if TYPE_CHECKING:
    from ..judges.vlm import Wording
    from .judge import Example

SIX_TASKS = 0.7
"""Share of prompts in the words of atelier-geneval; the others ask anything that the Atelier can draw."""


def drawn_example(rng: random.Random, wording: Wording, side: int = 96) -> Example:
    """One question about one picture, with its answer; right and wrong alike often."""
    from ..atelier.draw import draw
    from ..atelier.flaws import flaw
    from ..atelier.language_parse import parse
    from .judge import Example

    prompts = ATELIER["atelier-geneval" if rng.random() < SIX_TASKS else "atelier"](rng)
    for _ in range(rng.randrange(6)):  # the six tasks come in turn
        next(prompts)
    prompt = next(prompts).text
    found = flaw(parse(prompt), rng)
    right = rng.random() < 0.5
    question = rng.choice(("orm", "potential", "reflection", "reflection"))
    no = f"no. {found.reason}" if question == "reflection" else "no"
    *texts, answer = asked(wording, question, prompt, "yes" if right else no)
    picture = draw(found.after if right else found.before, side)
    turns = [Message("assistant" if i % 2 else "user", t, () if i else (picture,)) for i, t in enumerate(texts)]
    return Example(tuple(turns), answer)
