"""What pictures on their way ask of models, and how a batch of such questions is answered together.

A program (during.py) yields an `Ask` for words or a `Weigh` for a verdict. The questions of all pictures are written
in one batch, equal ones once, and thoughts ahead of the critique before them where that costs nothing (`Foresight`).
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reverie.dialogue import scored
from reverie.events import Event, Thought
from reverie.judges import View
from reverie.thinkers import Thinker, as_written
from reverie.vlms import Brief, Message

if TYPE_CHECKING:
    from reverie.judges import Judge
    from reverie.reason import Plan


@dataclass(frozen=True)
class Ask:
    """An answer to this message. `aloud` if it is a thought that may be told while it is written."""

    message: Message
    region: int | None = None
    aloud: bool = False
    ahead: Ask | None = None
    """What is asked next if this answer changes nothing."""
    enough: Callable[[str], bool] | None = None
    """Whether an answer that begins so changes nothing, however it goes on."""


@dataclass(frozen=True)
class Weigh:
    """What the judge says of the picture: a text, as a model would write it (`dialogue.scored`)."""

    view: View
    question: str


@dataclass
class Foresight:
    """Thoughts that were written beside the critique before them, as they are if it accepts: in the same steps of the
    model, and the beginning that both requests share enters once. Only of a model whose answers do not depend on what
    is written beside them (`Brief`); given up where critiques reject as often as they accept."""

    open: bool
    thoughts: dict[int, tuple[Message, str]] = field(default_factory=dict)
    """By image, beside what was asked."""
    used: int = 0
    wasted: int = 0

    def asked(self, asks: Mapping[int, Ask]) -> dict[int, Ask]:
        """What to ask ahead, by image."""
        ahead = {image: ask.ahead for image, ask in asks.items() if ask.ahead}
        return ahead if self.open and self.wasted <= self.used else {}

    def heard(self, asks: Mapping[int, Ask]) -> dict[int, str]:
        """The answers that are there already; what was asked otherwise than foreseen is forgotten."""
        foreseen = {image: self.thoughts.pop(image) for image in asks if image in self.thoughts}
        found = {image: answer for image, (message, answer) in foreseen.items() if message == asks[image].message}
        self.used, self.wasted = self.used + len(found), self.wasted + len(foreseen) - len(found)
        return found


def written(
    thinker: Thinker, plan: Plan, asks: Mapping[int, Ask], foresight: Foresight
) -> Generator[Event, None, dict[int, Any]]:
    """The answers to all questions, each different one asked once; a single thought is told as it is written."""
    different: list[Message] = []
    enough: list[Callable[[str], bool] | None] = []
    ahead = foresight.asked(asks)
    for ask in [*asks.values(), *ahead.values()]:
        if ask.message not in different:
            different.append(ask.message)
            enough.append(ask.enough)
    image, first = next(iter(asks.items()))
    if len(different) == 1 and first.aloud:
        answers: list[str] = []

        def write(on_text: Callable[[str], None]) -> str:
            # What is told leaves out a last letter that is not complete; what counts is the answer.
            answers.append(thinker.vlm.write(different, plan.thought_tokens, on_text=on_text))
            return answers[0]

        for fragment in as_written(write):
            yield Thought(image, fragment, region=first.region)
    else:
        talks = [[message] for message in different]
        if isinstance(thinker.vlm, Brief):
            answers = thinker.vlm.write_until(talks, plan.thought_tokens, enough)
        else:
            answers = thinker.vlm.write_batch(talks, plan.thought_tokens)

    def answer(ask: Ask) -> str:
        return answers[different.index(ask.message)]

    foresight.thoughts |= {image: (ask.message, answer(ask)) for image, ask in ahead.items()}
    return {image: answer(ask) for image, ask in asks.items()}


def weighed(judge: Judge | None, wishes: Mapping[int, Weigh]) -> dict[int, str]:
    """What the judge says of all pictures about which it is asked the same."""
    found: dict[int, str] = {}
    for question in dict.fromkeys(wish.question for wish in wishes.values()):
        assert judge is not None  # a plan that names a judge is not run without one
        asked = {image: wish.view for image, wish in wishes.items() if wish.question == question}
        found |= zip(asked, map(scored, judge.ask(question, list(asked.values()))), strict=True)
    return found
