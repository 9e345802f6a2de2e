"""ThinkDiff as a painter (arXiv 2502.10458): pictures and words before the prompt are read by a vision-language model
or a vision tower, and an aligner's vectors stand where a diffusion pipeline expects the output of its T5 encoder.

Everything else is as for any diffusion canvas (see diffusion.py): forks, pruning, rewinding, previews, a new prompt in
mid-painting. A prompt without a context goes through the pipeline's own T5, which is loaded only then, or where
guidance by two ways needs the negative prompt. FLUX gives T5's vectors no mask, so what guides away is always as long
as what it guides away from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from reverie.canvas import Canvas, Conditions, Work
from reverie.generators.diffusion import DiffusionPainter, Guided, Key, TextCache, hash_of
from reverie.generators.flow_canvas import FlowCanvas
from reverie.models.diffusion_family import Text
from reverie.models.thinkdiff import Condition

Mind = Callable[[Sequence[Any], str], Condition]
"""(context, prompt) to what is painted from; the context holds PIL images and strings in their order."""


class ThinkDiffPainter(DiffusionPainter):
    """A `Generator` (see canvas.py) that takes a context."""

    takes_context = True

    def __init__(self, pipeline: Any, mind: Mind, need_t5: Callable[[], None] = lambda: None, **settings: Any):
        """mind: reads contexts. need_t5: is called before the pipeline's own T5 is used, to load it if it is not.
        settings: those of `DiffusionPainter`."""
        super().__init__(pipeline, **settings)
        self.mind, self.need_t5 = mind, need_t5
        self.thoughts: dict[Key, str] = {}
        """What the VLM answered to each context and prompt, for people."""

    def start(self, conditions: Conditions, seeds: Sequence[int]) -> FlowCanvas:
        """Blank canvases, their contexts read."""
        canvas = super().start(conditions, seeds)
        canvas.cache = self._read(conditions, work=canvas.work)
        return canvas

    def answers(self, conditions: Conditions) -> list[str]:
        """What the VLM answered to each context of a canvas that was started; of ThinkDiff-CLIP, the prompt."""
        return [self.thoughts[prompt, marks(context)] for prompt, context in with_contexts(conditions)]

    def recondition(self, canvas: Canvas, conditions: Conditions) -> FlowCanvas:
        """A new prompt; the context stays where no other is given."""
        if not conditions.contexts:
            conditions = replace(conditions, contexts=canvas.conditions.contexts)
        return super().recondition(canvas, conditions)

    def plain_work(self, conditions: Conditions) -> Work:
        """As for words alone: what a context costs beyond them is spent on thinking."""
        return super().plain_work(replace(conditions, contexts=()))

    def _needed(self, conditions: Conditions) -> dict[Key, tuple[Any, ...]]:
        return {(prompt, marks(context)): context for prompt, context in with_contexts(conditions)}

    def _assembled(self, conditions: Conditions, cache: TextCache, size: tuple[int, int]) -> list[Guided]:
        weight = self._weight(conditions)
        guided = []
        for prompt, context in with_contexts(conditions):
            text = cache.texts[prompt, marks(context)]
            blank = cache.texts[self._opposite_key(text)] if self._ways(weight) == 2 else None
            guided.append(Guided(text, blank, weight, size))
        return guided

    def _read(self, conditions: Conditions, old: TextCache | None = None, work: Work | None = None) -> TextCache:
        cache = super()._read(conditions, old, work)
        if self._ways(self._weight(conditions)) == 2:
            for text in list(cache.texts.values()):
                key = self._opposite_key(text)
                if key not in cache.texts:
                    known = old.texts.get(key) if old is not None else None
                    cache.texts[key] = known or self._opposite(text)
        return cache

    def _opposite_key(self, text: Text) -> Key:
        return self.negative, (f"{text.states.shape[1]} vectors long",)

    def _opposite(self, text: Text) -> Text:
        self.need_t5()
        return self.family.opposite(self.negative, text)

    def _encoded(self, prompt: str, pictures: Sequence[Any], work: Work) -> Text:
        if not pictures:
            self.need_t5()
            return super()._encoded(prompt, pictures, work)
        condition = self.mind(pictures, prompt)
        self.thoughts[prompt, marks(pictures)] = condition.text
        work.include(condition.work)
        work.prefilled += condition.vectors.shape[1]
        return self.family.swap(condition.vectors, condition.pooled_text)

    def _parts(self, guided: Sequence[Guided]) -> Iterator[slice]:
        """Only rows with as many vectors go through the transformer together: there is no mask that could even them."""
        first = 0
        for part in super()._parts(guided):
            for row in range(part.start + 1, part.stop):
                if guided[row].text.states.shape != guided[first].text.states.shape:
                    yield slice(first, row)
                    first = row
            yield slice(first, part.stop)
            first = part.stop


def with_contexts(conditions: Conditions) -> list[tuple[str, tuple[Any, ...]]]:
    """Each prompt and what stands before it."""
    contexts = conditions.contexts or ((),) * len(conditions)
    return list(zip(conditions.prompts, contexts, strict=True))


def marks(context: Sequence[Any]) -> tuple[str, ...]:
    """Tells contexts apart: words as they are, pictures by their pixels."""
    return tuple(f"text {part}" if isinstance(part, str) else hash_of(part) for part in context)
