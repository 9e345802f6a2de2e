"""What is asked of a model while it paints, and how its answers are read (Thinking-while-Generating, arXiv 2511.16671).

Wordings are data (dialogue.yaml); here they are filled in. A `Story` holds the thoughts of one picture and says what is
painted from them and what later requests quote of them. `OfficialStory` does so with every quirk of the published
script (ZiyuGuo99/Thinking-while-Generating, twig.py), which the paper does not mention.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from reverie.judges import Answer
from reverie.judges.rules import share

OFFICIAL = "official"
SECTIONS = ("top", "middle", "bottom")
"""What the published requests call the regions; there are no more, and its script stops there."""


@dataclass(frozen=True)
class Dialogue:
    """One wording; the fields are explained in dialogue.yaml."""

    name: str
    first: str
    next: str
    critique: str
    divide: str = ""
    blind: str = ""
    critique_last: str = ""
    previous: str = ""
    previous_last: str = ""
    look_first: bool = False
    yes_or_no: bool = False
    joint: str = " "
    painting: str = "{thoughts}"
    special: tuple[str, ...] = ()


@cache
def dialogues() -> Mapping[str, Dialogue]:
    """All wordings, by name."""
    import yaml

    table = yaml.safe_load((Path(__file__).parent / "dialogue.yaml").read_text("utf-8"))
    return {name: Dialogue(name, **row | {"special": tuple(row.get("special", ()))}) for name, row in table.items()}


def dialogue(name: str) -> Dialogue:
    if name not in dialogues():
        raise ValueError(f"Nobody knows how to think while painting as {name!r}; known are {', '.join(dialogues())}.")
    return dialogues()[name]


def fill(template: str, values: Mapping[str, Any]) -> str:
    """The template with {names} replaced; braces inside the values stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda found: str(values[found[1]]), template)


@dataclass
class Story:
    """The thoughts about one picture, from the top down."""

    words: Dialogue
    prompt: str
    regions: int
    thoughts: list[str] = field(default_factory=list)
    """Of the regions that are done."""

    def __post_init__(self) -> None:
        told = " ".join(self.prompt.split())
        self.prompt = told.rstrip(".") or told  # the wordings go on behind it

    def heard(self, answer: str) -> str:
        """A thought as the model wrote it, as it is used: on one line."""
        return " ".join(answer.split())

    def painting(self, thought: str, again: bool) -> str:
        """What the next region is painted from; `again` if an attempt was rejected."""
        told = self.words.joint.join([*self.thoughts, thought])
        return fill(self.words.painting, {"prompt": self.prompt, "thoughts": told})

    def keep(self, thought: str, again: bool) -> None:
        """The region is done, painted from this thought."""
        self.thoughts.append(thought)

    def think(self, number: int, shown: bool) -> str:
        """The request for the thought about region `number` (from 1)."""
        template = self.words.first if number == 1 else self.words.next
        if number > 1 and not shown and self.words.blind:
            template = self.words.blind
        return fill(template, self._values(number) | {"written": self._written()})

    def judge(self, thought: str, last: bool) -> str:
        """The request for a critique of the region that was just painted from `thought`."""
        number, words = len(self.thoughts) + 1, self.words
        template = (last and words.critique_last) or words.critique
        before = ((last and words.previous_last) or words.previous) if self.thoughts else ""
        values = self._values(number) | {"thought": thought}
        return fill(template, values | {"previous": fill(before, {"previous": self._previous()})})

    def divide(self, most: int) -> str:
        """The request for the heights of at most `most` regions."""
        return fill(self.words.divide, {"prompt": self.prompt, "most": most})

    def read(self, answer: str, thought: str) -> Critique:
        return read_critique(answer, thought if self.words.yes_or_no else "")

    def settled(self, text: str) -> float:
        """The score of a critique that begins with `text`, however it goes on; -inf while that is open."""
        score = _SCORE.search(text)
        # Digits may follow, or a point and digits.
        return -math.inf if score is None or text[score.end() :] in ("", ".") else self.read(text, "").score

    def _values(self, number: int) -> dict[str, Any]:
        return {"prompt": self.prompt, "number": number, "regions": self.regions}

    def _written(self) -> str:
        return self.words.joint.join(self.thoughts)

    def _previous(self) -> str:
        return self.words.joint.join(self.thoughts)


@dataclass
class OfficialStory(Story):
    """The same, to the letter of the published script. Its generation prompt is one growing string, of which every
    region writes a tail; what others quote of it depends on whether the latest region was accepted or redone."""

    working: str = ""
    """The texts of all regions so far, as the next first attempt and the next thought's request take them."""
    stored: str = ""
    """The same as a critique and a redo take them: after a redo, every pair of blanks is missing (not made one)."""
    tail: str = ""

    def __post_init__(self) -> None:
        pass  # the prompt is quoted as it was typed

    def heard(self, answer: str) -> str:
        return without_roles(answer)

    def painting(self, thought: str, again: bool) -> str:
        told = self.stored if again else self.working
        return f"{told} {thought}" if self.thoughts else thought

    def keep(self, thought: str, again: bool) -> None:
        self.working = self.painting(thought, again)
        self.stored = self.working.replace("  ", "") if again else self.working
        self.tail = "" if again or self.thoughts else "\n\nAssistant:<begin_of_image>"
        super().keep(thought, again)

    def read(self, answer: str, thought: str) -> Critique:
        return read_official_critique(answer)

    def settled(self, text: str) -> float:
        # Without a revision, which may still come, the score is 100. A role is no part of what is read.
        score = re.search(r"SCORE:\s*(\d+)[^\dUA]", text)
        return float(score[1][:18]) if score else -math.inf

    def _values(self, number: int) -> dict[str, Any]:
        return super()._values(number) | {"section": SECTIONS[number - 1]}

    def _written(self) -> str:
        return f"User: {self.working}{self.tail}"

    def _previous(self) -> str:
        return self.stored


@dataclass(frozen=True)
class Critique:
    """What a model says of a region. No revision means that there is nothing to paint instead."""

    score: float
    """0 to 100."""
    revision: str
    understood: bool = True
    """Whether a score was found; if not, it is 100, as published: what cannot be read does not reject."""


def scored(answer: Answer) -> str:
    """What a judge said of a region, as a model would write it: its score, or P(yes), of 100, and its reason."""
    value = share(answer)
    words = [] if math.isnan(value) else [f"SCORE: {100 * min(max(value, 0.0), 1.0):.1f}"]
    return " ".join([*words, *filter(None, (answer.reason or answer.note,))])


def without_roles(answer: str) -> str:
    return answer.replace("User: ", "").replace("Assistant: ", "")


def read_official_critique(answer: str) -> Critique:
    """As the published script reads it: upper case only, nothing but blanks before the number, the revision up to the
    end of the answer. Without a usable revision the score becomes 100."""
    answer = without_roles(answer)
    score = re.search(r"SCORE:\s*(\d+)", answer)
    revision = re.search(r"IMPROVED_DESCRIPTION:\s*(.*)", answer, re.DOTALL)
    text = revision[1].strip() if revision else ""
    # A number of any length: its first digits say enough.
    return Critique(float(score[1][:18]) if score and text else 100.0, text, score is not None)


_SCORE = re.compile(r"\bscore\W{0,12}?(-?\d{1,9}(?:\.\d{1,9})?)", re.IGNORECASE)
_REVISION = re.compile(r"\bimproved[_ ]description[\s*_`]*[:=]", re.IGNORECASE)
_SECOND_SCORE = re.compile(r"^[\s*_`#>-]*score\b", re.IGNORECASE | re.MULTILINE)
_YES_OR_NO = re.compile(r"\W*(yes|no)\b", re.IGNORECASE)


def read_critique(answer: str, again: str = "") -> Critique:
    """A score with a revision, in about any form that models give it ("**Score:** [83.5]/100"); or, where that was
    asked, a bare yes (100) or no (0), for which `again` is the revision."""
    score, revision = _SCORE.search(answer), _REVISION.search(answer)
    text = ""
    if revision:
        # A score may also follow the description; it is no part of it.
        text = " ".join(_SECOND_SCORE.split(answer[revision.end() :])[0].split()).strip("\"'`*“” []")
    if score:
        return Critique(min(max(float(score[1]), 0.0), 100.0), text)
    word = _YES_OR_NO.match(answer)
    if word and again:
        return Critique(100.0, "") if word[1].lower() == "yes" else Critique(0.0, again)
    return Critique(100.0, text, understood=False)
