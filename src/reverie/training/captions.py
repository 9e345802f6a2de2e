"""What the painters of ThinkDiff read: captions of the Atelier in many wordings, with scenes that meet them.

Beside the demands that benchmarks ask for, a share of pictures are answers of in-context episodes: one thing with one
detail, in equal numbers for each detail, so that rare ones (styles, textures, actions) are painted as often as colours.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..atelier.language import Demand
    from ..atelier.scene import Scene

HEAD = "Create an image of"
"""With which a VLM is asked to begin (see `models.thinkdiff.INSTRUCTION`)."""


def pictured(
    rng: random.Random, episodes: float = 0.35, riddles: float = 0.1, fine: float = 0.0, pairs: float = 0.0
) -> tuple[Demand, Scene | None]:
    """What is to be shown, and the scene if it comes with one; others are for `sample.compose`.

    episodes: share of answers of training episodes, fine: of these, that are about an action or a texture whatever the
    others are about; riddles: share, of the rest, of answers of riddles; pairs: share, of what is left, of two coloured
    things, half of them in a place.
    """
    from ..atelier.episodes import THEMES, episode
    from ..atelier.knowledge import riddle
    from ..atelier.language import Demand, demand_of
    from ..atelier.sample import random_demand
    from ..atelier.scene import BACKGROUNDS

    if rng.random() < episodes:
        first = 2 * THEMES.index("action") + 1 if fine and rng.random() < fine else 1
        answer = episode(rng, rng.randint(first, 2 * len(THEMES)), 1).answer
        return demand_of(answer), answer
    if rng.random() < riddles:
        return Demand.from_record(riddle(rng, "train").demand), None
    if pairs and rng.random() < pairs:
        place = rng.choice(BACKGROUNDS[1:]) if rng.random() < 0.5 else "plain"
        return replace(random_demand(rng, "colour_attr"), background=place, style="plain"), None
    return random_demand(rng), None


def worded(demand: Demand, rng: random.Random, rich: float = 0.1, asked: float = 0.2) -> str:
    """One wording of the training side: the canonical one, a terse, plain or (a share of) rich one; a share of the
    others begins as a VLM is asked to begin."""
    from ..atelier.language import canonical, say

    if rng.random() < rich:
        return say(demand, rng, "rich", split="train")
    if rng.random() < asked:
        return f"{HEAD} {canonical(demand)}"
    if rng.random() < 0.35:
        return canonical(demand)
    return say(demand, rng, rng.choice(("terse", "plain", "plain")), split="train")
