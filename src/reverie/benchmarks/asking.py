"""Asking a judge until its answer can be read, and saying what became of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from ..vlms import VLM, Messages
from ..vlms.openai import BudgetSpent, NoAnswer

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

    A judge that cannot be reached ends in the outcome "judge error"; a spent budget goes through as BudgetSpent.
    """
    text = ""
    for attempt in range(tries):
        try:
            text = judge.write(messages, max_new_tokens, 0.0, attempt)
        except BudgetSpent:
            raise
        except NoAnswer as error:
            return Answer(None, str(error), attempt + 1, "judge error")
        value = parse(text)
        if value is not None:
            return Answer(value, text, attempt + 1, "scored")
    return Answer(None, text, tries, "unparsable")
