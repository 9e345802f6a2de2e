"""T2I-CompBench's evaluators, put together for one category: the tagger reads the prompt, and whoever the rule of the
category needs looks at the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL.Image import Image

from reverie.benchmarks import compbench_rules as rules
from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.evaluators.tagger import Words

DIGITS = 4
"""Of depths, so that a map stays short on disk."""


@dataclass
class CompbenchEvaluator:
    """An `Evaluator` (see evaluations.py). parts: role to whoever plays it."""

    category: str
    parts: Mapping[str, Any]
    name: str
    nouns: Mapping[str, str]

    def evaluate(self, files: Sequence[str], prompts: Sequence[str], images: Sequence[Image]) -> list[Evaluation]:
        """Everything that the category's rule reads; an image is prepared once for each model."""
        tagger = self.parts.get("tagger")
        words = [tagger.words(prompt) if tagger else Words((), (), ()) for prompt in prompts]
        phrases = self._phrases(words, images)
        boxes = self._boxes(words, images)
        cosines = self._cosines(prompts, words, images)
        depths = self._depths(images)
        return [
            Evaluation(
                file,
                self.name,
                detections=boxes[place],
                tokens=words[place].tokens,
                noun_chunks=words[place].noun_chunks,
                phrases=phrases[place],
                clip=cosines[place],
                depth=depths[place],
            )
            for place, file in enumerate(files)
        ]

    def _phrases(self, words: Sequence[Words], images: Sequence[Image]) -> list[dict[str, float] | None]:
        if "vqa" not in self.parts:
            return [None] * len(images)
        asked = [list(dict.fromkeys(map(rules.question, rules.phrases(one.noun_chunks)))) for one in words]
        answers = self.parts["vqa"].answers(images, asked)
        return [dict(zip(texts, row, strict=True)) for texts, row in zip(asked, answers, strict=True)]

    def _boxes(self, words: Sequence[Words], images: Sequence[Image]) -> list[Sequence[tuple[str, list[float], float]]]:
        if "detector" not in self.parts:
            return [()] * len(images)
        return list(self.parts["detector"].look(images, [self.names(one) for one in words]))

    def names(self, words: Words) -> list[str]:
        """The things that the category's rule will look for among the detections."""
        if self.category == "numeracy":
            asked = rules.numbers_asked([word for word, _ in words.tokens], self.nouns or _singulars(words))
            return [name for name, _ in asked]
        return rules.spatial_objects(words.tokens, self.category == "complex")

    def _cosines(
        self, prompts: Sequence[str], words: Sequence[Words], images: Sequence[Image]
    ) -> list[float] | list[None]:
        if "clip" not in self.parts:
            return [None] * len(images)
        # Complex prompts are shown to CLIP without their adjectives, which BLIP has been asked about.
        plain = [one.without_adjectives() for one in words] if self.category == "complex" else prompts
        return self.parts["clip"].cosines(plain, images)

    def _depths(self, images: Sequence[Image]) -> list[Any]:
        if "depth" not in self.parts:
            return [None] * len(images)
        return [np.round(depth.astype(float), DIGITS).tolist() for depth in self.parts["depth"].maps(images)]


def _singulars(words: Words) -> dict[str, str]:
    """A noun list made of the prompt's own nouns, where the benchmark's is not at hand."""
    pairs = zip(words.tokens, words.lemmas, strict=True)
    return {word.lower(): rules.SAME_AS.get(lemma, lemma) for (word, tag), lemma in pairs if tag in ("NOUN", "PROPN")}
