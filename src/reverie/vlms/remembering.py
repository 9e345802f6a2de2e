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
from . import VLM, Messages, seeds_of
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
        answer = self.write_batch([messages], max_new_tokens, temperature, [seed])[0]
        if on_text:
            on_text(answer)
        return answer

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """Questions without an answer yet are asked in one batch, equal ones once."""
        seeds = seeds_of(conversations, seeds)
        if self.cache is None:
            return self.vlm.write_batch(conversations, max_new_tokens, temperature, seeds)
        questions = [
            # at temperature 0 the seed changes nothing
            self._question(
                one, {"longest": max_new_tokens, "temperature": temperature, "seed": seed if temperature else 0}
            )
            for one, seed in zip(conversations, seeds, strict=True)
        ]
        keys = [key_of(question) for question in questions]
        known = {key: self.cache.get(key) for key in keys}
        new = [keys.index(key) for key, reply in known.items() if reply is None]
        if new:
            asked, drawn = [conversations[i] for i in new], [seeds[i] for i in new]
            answers = self.vlm.write_batch(asked, max_new_tokens, temperature, drawn)
            for i, answer in zip(new, answers, strict=True):
                known[keys[i]] = Reply(answer)
                self.cache.put(keys[i], questions[i], Reply(answer))
        return [reply.text for key in keys if (reply := known[key])]

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
        question = self._question(messages, how)
        key = key_of(question)
        found = self.cache.get(key)
        if found is None:
            found = ask()
            self.cache.put(key, question, found)
        return found

    def _question(self, messages: Messages, how: Mapping[str, Any]) -> dict[str, Any]:
        """All that the answer depends on."""
        asked = [[message.role, message.text, [picture_hash(one) for one in message.images]] for message in messages]
        return {"model": self.name, **how, "messages": asked}
