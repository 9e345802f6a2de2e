"""Which colour a thing has: GenEval's zero-shot classification of its cut-out by CLIP ViT-L/14.

Each of the ten colours is the mean of three sentences' features, brought back to length 1; the nearest one wins. What
CLIP is shown comes from `geneval.colour_crop`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch.nn.functional as F
from PIL.Image import Image, fromarray
from torch import Tensor

from reverie.benchmarks.evaluators.detector import Instance
from reverie.benchmarks.geneval import COLOURS, colour_crop
from reverie.models.image_text import ImageText

SENTENCES = ("a photo of a {colour} {thing}", "a photo of a {colour}-colored {thing}", "a photo of a {colour} object")


class Colours:
    """Reads the colours of found things."""

    def __init__(self, clip: ImageText):
        self.clip = clip
        self._known: dict[str, Tensor] = {}

    def read(self, pictures: Sequence[Image], things: Sequence[Sequence[Instance]]) -> list[list[str]]:
        """The colour of every thing in every picture; each cut-out is looked at once."""
        cuts = [
            fromarray(colour_crop(np.asarray(picture.convert("RGB")), one.mask, one.box))
            for picture, found in zip(pictures, things, strict=True)
            for one in found
        ]
        if not cuts:
            return [[] for _ in things]
        seen = iter(self.clip.pictures(cuts))
        return [[COLOURS[int((self.of(one.label) @ next(seen)).argmax())] for one in found] for found in things]

    def of(self, thing: str) -> Tensor:
        """(10, D): what the colours look like on a thing."""
        if thing not in self._known:
            texts = [sentence.format(colour=colour, thing=thing) for colour in COLOURS for sentence in SENTENCES]
            features = self.clip.texts(texts).view(len(COLOURS), len(SENTENCES), -1)
            self._known[thing] = F.normalize(features.mean(1), dim=-1)
        return self._known[thing]


def mentions_colour(prompt: str) -> bool:
    """Whether a prompt names one of the ten colours; others ask for none."""
    words = {word.strip(".,;:!?").lower() for word in prompt.replace("-", " ").split()}
    return bool(words & set(COLOURS))
