"""The Atelier's inspector as a judge: it finds the things in a picture and compares them with what the prompt demands.

It understands prompts in the Atelier's language only, and says in words what is wrong (see atelier/faults.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from reverie.atelier.faults import cannot_become, faults, score, seen
from reverie.atelier.inspector import Inspector
from reverie.atelier.language_parse import Demand, parse
from reverie.atelier.scene import Scene
from reverie.canvas import Work
from reverie.judges import Answer, Reflection, View
from reverie.judges.load import check_atelier


@lru_cache(maxsize=1024)
def demanded(prompt: str) -> Demand:
    """ValueError for what is not the Atelier's language."""
    return parse(prompt)


def unreadable(error: ValueError) -> str:
    return f"atelier-inspector cannot judge by this prompt: {error}"


@dataclass
class InspectorJudge:
    """A `Judge` (see judges/__init__.py). Scores are the share of checks that hold."""

    inspector: Inspector
    name: str = "atelier-inspector"
    work: Work = field(default_factory=Work)

    def check(self, prompt: str) -> None:
        check_atelier(prompt)

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        scenes = self._scenes(views)
        return [self._answer(question, view, scene) for view, scene in zip(views, scenes, strict=True)]

    def reflect(self, views: Sequence[View]) -> list[Reflection]:
        found = []
        for view, scene in zip(views, self._scenes(views), strict=True):
            try:
                demand = demanded(view.prompt)
            except ValueError as error:
                found.append(Reflection(True, math.nan, note=unreadable(error)))
                continue
            reasons = faults(demand, scene)
            found.append(Reflection(not reasons, score(demand, scene) / 100, " ".join(reasons)))
        return found

    def _scenes(self, views: Sequence[View]) -> list[Scene]:
        """What the pictures hold; each is looked at once."""
        new = [view for view in views if id(self) not in view.memory]
        self.work.vision_encodes += len(new)
        for view, sighting in zip(new, self.inspector.look([view.picture for view in new]), strict=True):
            view.memory[id(self)] = sighting.to_scene()
        return [view.memory[id(self)] for view in views]

    def _answer(self, question: str, view: View, scene: Scene) -> Answer:
        if question == "clarity":
            visible = seen(scene, view.painted)
            return Answer(score=float(bool(visible)), reason=None if visible else "nothing is to be seen yet")
        try:
            demand = demanded(view.prompt)
        except ValueError as error:
            return Answer(score=math.nan, passed=False, note=unreadable(error))
        if question == "orm":
            reasons = faults(demand, scene)
            return Answer(score=score(demand, scene) / 100, passed=not reasons, reason=" ".join(reasons) or None)
        reasons = cannot_become(demand, scene, view.painted)
        return Answer(score=1 / (1 + len(reasons)), passed=not reasons, reason=" ".join(reasons) or None)
