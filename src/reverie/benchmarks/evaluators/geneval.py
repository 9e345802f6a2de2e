"""GenEval's evaluator: Mask2Former finds the things, CLIP reads the colours of those that a prompt may ask about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL.Image import Image

from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.evaluators.colours import Colours, mentions_colour
from reverie.benchmarks.evaluators.detector import Instance, InstanceDetector
from reverie.benchmarks.geneval import Options
from reverie.models.image_text import ImageText


@dataclass
class GenevalEvaluator:
    """An `Evaluator` (see evaluations.py)."""

    detector: InstanceDetector
    clip: ImageText
    name: str
    always: bool = False
    """Whether colours are read whatever a prompt says: long prompts may name a colour in other words."""

    def __post_init__(self) -> None:
        self.colours = Colours(self.clip)

    def evaluate(self, files: Sequence[str], prompts: Sequence[str], images: Sequence[Image]) -> list[Evaluation]:
        """Detections above the lowest threshold of the rule; colours of things that a prompt may ask for."""
        found = self.detector.look(images, Options().threshold)
        asked = [self._asked(prompt, things) for prompt, things in zip(prompts, found, strict=True)]
        read = self.colours.read(images, asked)
        return [
            Evaluation(
                file,
                self.name,
                [(one.label, one.box, one.score) for one in things],
                _by_label(some, colours) or None,
            )
            for file, things, some, colours in zip(files, found, asked, read, strict=True)
        ]

    def _asked(self, prompt: str, things: Sequence[Instance]) -> list[Instance]:
        if self.always:
            return list(things)
        return [one for one in things if one.label in prompt] if mentions_colour(prompt) else []


def _by_label(things: Sequence[Instance], colours: Sequence[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for one, colour in zip(things, colours, strict=True):
        found.setdefault(one.label, []).append(colour)
    return found
