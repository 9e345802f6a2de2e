"""A VLM as a judge: ORM, PRM, PARM's clarity and potential, and reflection, in the wording that its checkpoint knows.

Scores come from the logits of one forward pass; nothing is written except the reason of a reflection. With a VLM that
is a `Reader`, views are read in batches, and the potential question goes on from what was read for the clarity question
about the same picture. The official reading instead draws the first token, after the filters of the checkpoint's
generation settings, as the published code does when it samples.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from reverie.canvas import Work
from reverie.judges import Answer, Reflection, View
from reverie.judges.manner import Manner, leaning
from reverie.judges.moved import FINISHED, answered, views_of
from reverie.judges.rules import passes, share
from reverie.room import free
from reverie.vlms import IMAGE, VLM, Message, Reader, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

REASON_TOKENS = 128
READ_AT_ONCE = 16
REMEMBERED = 0.2
"""Share of the free memory that may be kept of pictures that were read."""
NO_REASON = "It does not show what was asked for."


@dataclass(frozen=True)
class Wording:
    """What a judge is asked, see wordings.yaml; `see`, `edit`, `words` are how a painter is told what went wrong: one
    that looks at the flawed picture, one that changes it, and one that reads only."""

    orm: tuple[str, ...]
    clarity: tuple[str, ...]
    potential: tuple[str, ...]
    prm: tuple[str, ...]
    reflection: tuple[str, ...]
    see: str = "{prompt}\n{reason}"
    edit: str = "Change the picture so that it shows this: {prompt}\n{reason}"
    words: str = "{prompt} {reason}"

    @classmethod
    def of(cls, data: str | Mapping[str, Any]) -> Wording:
        """One of wordings.yaml by name, or data of the same form; ValueError for anything else."""
        if isinstance(data, str):
            if data not in known():
                raise ValueError(f"unknown judge wording {data!r}; there are {', '.join(known())}.")
            data = known()[data]
        names = {f.name for f in fields(cls)}
        wrong = (set(data) - names) or (names - {"see", "edit", "words"} - set(data))
        if wrong:
            raise ValueError(f"a judge wording has the fields {', '.join(sorted(names))}; check {sorted(wrong)[0]!r}.")
        turns: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in data.items()
        }
        for name, value in turns.items():
            questions = value if isinstance(value, tuple) else (value,)
            if not questions or len(questions) % 2 == 0 or not all(isinstance(text, str) for text in questions):
                raise ValueError(f"the judge wording's {name} must be texts that begin and end with the user's turn.")
        return cls(**turns)

    def conversation(self, question: str, prompt: str, picture: Image | None = None) -> list[Message]:
        """The turns of a question, the picture, if it is at hand, in the first. The prompt stays as it is, but cannot
        bring a picture."""
        prompt = prompt.replace(IMAGE, "< image>")
        texts = [text.replace("{prompt}", prompt) for text in getattr(self, question)]
        first = Message("user", texts[0], () if picture is None else (picture,))
        return [first, *(Message("user" if i % 2 else "assistant", text) for i, text in enumerate(texts[1:]))]


@cache
def known() -> dict[str, dict[str, Any]]:
    """The wordings of wordings.yaml."""
    import yaml

    return yaml.safe_load((Path(__file__).parent / "wordings.yaml").read_text("utf-8"))


@dataclass
class VLMJudge:
    """A `Judge` (see judges/__init__.py) over any VLM."""

    vlm: VLM
    wording: Wording
    name: str = "vlm"
    official: bool = False
    work: Work = field(default_factory=Work)
    manner: Manner = field(default_factory=Manner)
    """By the official rules it looks from one place and favours no answer."""

    @property
    def clear_from(self) -> float:
        return self.manner.clear_from

    def check(self, prompt: str) -> None:
        """Any prompt can be asked about."""

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        if self.official:
            return self._asked(question, views)
        return list(leaning(self._seen(question, views), self.manner.favours(question)))

    def _seen(self, question: str, views: Sequence[View]) -> list[Answer]:
        """Answers about finished pictures from all places, about others as they are."""
        if question not in FINISHED or not self.manner.moves:
            return self._asked(question, views)
        places = zip(*(views_of(view, self.manner.moves) for view in views), strict=True)
        told = (self._asked(question, list(seen)) for seen in places)
        return [answered(answers) for answers in zip(*told, strict=True)]

    def _asked(self, question: str, views: Sequence[View]) -> list[Answer]:
        talks = [self.wording.conversation(question, view.prompt, view.picture) for view in views]
        if not isinstance(self.vlm, Reader):
            shares = [self.vlm.yes_probability(talk) for talk in talks]
            return [Answer(yes, 1 - yes, "yes" if yes >= 0.5 else "no") for yes in shares]
        readings = self._read(talks, views, remember=question == "clarity")
        return [self._answer(question, view, reading) for view, reading in zip(views, readings, strict=True)]

    def _read(self, talks: list[list[Message]], views: Sequence[View], remember: bool) -> list[Reading]:
        """Keys and values of what is read stay with the views for the next question, as long as there is room: a judge
        of 7 billion weights keeps about 50 MB of a picture of one tile."""
        assert isinstance(self.vlm, Reader)
        before = [view.memory.pop(id(self), None) for view in views]
        left = free(getattr(getattr(self.vlm, "model", None), "device", "cpu"))
        budget, kept = math.inf if left is None else left * REMEMBERED, 0
        readings: list[Reading] = []
        for first in range(0, len(talks), READ_AT_ONCE):
            part = slice(first, first + READ_AT_ONCE)
            found = self.vlm.read(talks[part], before[part], remember=remember and kept <= budget)
            for view, reading in zip(views[part], found, strict=True):
                if reading.memory is not None:
                    view.memory[id(self)] = reading
                    kept += getattr(reading.memory, "nbytes", 0)
            readings += found
        return readings

    def reflect(self, views: Sequence[View]) -> list[Reflection]:
        answers = self.ask("reflection", views)
        wrong = [i for i, answer in enumerate(answers) if not passes(answer)]
        talks = [self.wording.conversation("reflection", views[i].prompt, views[i].picture) for i in wrong]
        written = self.vlm.write_batch(talks, REASON_TOKENS) if talks and self.manner.reasons else [""] * len(wrong)
        said = dict(zip(wrong, written, strict=True))
        return [
            Reflection(i not in said, share(answer), reason_of(said[i]) if i in said else "", answer.note)
            for i, answer in enumerate(answers)
        ]

    def _answer(self, question: str, view: View, reading: Reading) -> Answer:
        assert isinstance(self.vlm, Reader)
        yes, no = self.vlm.first_ids("yes"), self.vlm.first_ids("no")
        if self.official:
            chances = filtered(reading.logits, self.vlm.filters)
            token = self.vlm.token(draw(chances, _exponential(len(chances), question, view)))
            exact = {word: [i for i in ids if self.vlm.token(i) == word] for word, ids in (("yes", yes), ("no", no))}
            likely = [float(chances[ids].sum()) for ids in exact.values()]
            return Answer(likely[0], likely[1], token, note=_oddity(token, token.lower() in ("yes", "no")))
        chances = reading.logits.softmax(-1)
        best = int(chances.argmax())
        both = [float(chances[sorted(ids)].sum()) for ids in (yes - no, no - yes)]
        return Answer(both[0], both[1], self.vlm.token(best), note=_oddity(self.vlm.token(best), best in yes | no))


def _oddity(token: str, readable: bool) -> str | None:
    return None if readable else f"the judge's first word is {token!r}, neither yes nor no"


def reason_of(written: str) -> str:
    """The text behind a leading no or yes, or the N or Y that some judges say, in one line; a stock sentence where
    there is none."""
    text = re.sub(r"^\W*(yes|no|y|n)\b[\s.,:;!-]*", "", " ".join(written.split()), flags=re.IGNORECASE)
    return text if re.search(r"\w", text) else NO_REASON


def filtered(logits: Tensor, filters: tuple[int, float]) -> Tensor:
    """(V,) logits to probabilities after top-k, then top-p, as transformers' sampling has them."""
    top_k, top_p = filters
    if top_k:
        logits = logits.masked_fill(logits < logits.topk(min(top_k, len(logits))).values[-1], -torch.inf)
    if top_p < 1:
        values, order = logits.sort()
        unlikely = values.softmax(-1).cumsum(-1) <= 1 - top_p
        unlikely[-1] = False
        logits = logits.index_fill(0, order[unlikely], -torch.inf)
    return logits.softmax(-1)


def draw(chances: Tensor, exponential: Tensor) -> int:
    """A draw from (V,) probabilities, given as many Exp(1) numbers: what `torch.multinomial` does on the CPU."""
    return int((chances / exponential).argmax())


def _exponential(size: int, question: str, view: View) -> Tensor:
    """(size,) Exp(1) numbers that depend on question, prompt and picture alone, so that no batch changes them."""
    digest = hashlib.sha256(f"{question}\n{view.prompt}\n".encode() + view.picture.tobytes()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.empty(size).exponential_(generator=generator)
