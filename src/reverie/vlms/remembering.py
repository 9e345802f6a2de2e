"""A model whose answers are kept on disk, by all that they depend on: a judge that is loaded here.

    judge = Remembering(lambda: TransformersVLM.load(folder), "Qwen/Qwen3-VL-8B-Instruct", "runs/answers")

The model is loaded when the first question comes that has no answer yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..png import picture_hash
from . import VLM, Messages
from .answers import AnswerCache, Reply, key_of

if TYPE_CHECKING:
    from torch import Tensor


class Remembering:
    """A `VLM` (see vlms/__init__.py) around another one. Not for several threads."""

    def __init__(self, load: Callable[[], VLM], name: str, cache: str | Path | None = None) -> None:
        self._load, self.name = load, name
        self._vlm: VLM | None = None
        self.cache = AnswerCache(cache) if cache is not None else None

    @property
    def vlm(self) -> VLM:
        if self._vlm is None:
            self._vlm = self._load()
        return self._vlm

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        # at temperature 0 the seed changes nothing
        how = {"longest": max_new_tokens, "temperature": temperature, "seed": seed if temperature else 0}
        reply = self._ask(messages, how, lambda: Reply(self.vlm.write(messages, max_new_tokens, temperature, seed)))
        if on_text:
            on_text(reply.text)
        return reply.text

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        seeds = [0] * len(conversations) if seeds is None else seeds
        pairs = zip(conversations, seeds, strict=True)
        return [self.write(messages, max_new_tokens, temperature, seed) for messages, seed in pairs]

    def first_tokens(self, messages: Messages) -> dict[str, float]:
        """The likeliest first tokens of the answer with their probabilities, as `ServedVLM.first_tokens`."""

        def ask() -> Reply:
            tell: Callable[[Messages], dict[str, float]] | None = getattr(self.vlm, "first_tokens", None)
            if tell is None:
                raise ValueError(f"{self.name} does not say how likely its first tokens are: give another judge.")
            return Reply("", logprobs={token: math.log(p) for token, p in tell(messages).items() if p > 0})

        return {token: math.exp(value) for token, value in self._ask(messages, {"first": True}, ask).logprobs.items()}

    def yes_probability(self, messages: Messages) -> float:
        def ask() -> Reply:
            return Reply(repr(self.vlm.yes_probability(messages)))

        return float(self._ask(messages, {"yes": True}, ask).text)

    def features(self, messages: Messages) -> Tensor:
        return self.vlm.features(messages)

    def _ask(self, messages: Messages, how: Mapping[str, Any], ask: Callable[[], Reply]) -> Reply:
        if self.cache is None:
            return ask()
        asked = [[message.role, message.text, [picture_hash(one) for one in message.images]] for message in messages]
        question = {"model": self.name, **how, "messages": asked}
        key = key_of(question)
        found = self.cache.get(key)
        if found is None:
            found = ask()
            self.cache.put(key, question, found)
        return found
