"""Asking a judge until its answer can be read, and saying what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ..vlms import VLM, Messages
from ..vlms.openai import NoAnswer, Unusable

T = TypeVar("T")


@dataclass(frozen=True)
class Answer(Generic[T]):
    """value: what was read, None if nothing could be; text: the last answer as it came."""

    value: T | None
    text: str
    tries: int
    outcome: Literal["scored", "unparsable", "judge error"]


def ask(
    judge: VLM, messages: Messages, parse: Callable[[str], T | None], tries: int = 3, max_new_tokens: int = 1024
) -> Answer[T]:
    """At most `tries` answers, each with a seed of its own, until `parse` makes something of one.

    Where the judge fails on this question, the outcome is "judge error". Where it would fail on every question (no
    server, a wrong key or name, a spent budget), Unusable goes through.
    """
    text = ""
    for attempt in range(tries):
        try:
            text = judge.write(messages, max_new_tokens, 0.0, attempt)
        except Unusable:
            raise
        except NoAnswer as error:
            return Answer(None, str(error), attempt + 1, "judge error")
        value = parse(text)
        if value is not None:
            return Answer(value, text, attempt + 1, "scored")
    return Answer(None, text, tries, "unparsable")
