"""Any Python function as a judge, and several judges as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reverie.canvas import Work
from reverie.judges import Answer, Judge, Reflection, View
from reverie.judges.rules import passes, share

if TYPE_CHECKING:
    from PIL.Image import Image

Scorer = Callable[[list[str], list["Image"]], Sequence[Any]]


@dataclass
class FunctionJudge:
    """A function (prompts, pictures) -> scores, higher is better; a score may come with its reason, as a pair.

    Asked about unfinished pictures it sees them as they are. They count as clear once `clear_from` of them is painted,
    and may go on, or be finished, from a score of `threshold` on. span: the scores that become 0 and 1, for functions
    that are weighed against others; what lies outside is cut off.
    """

    function: Scorer
    name: str = "python"
    clear_from: float = 0.5
    threshold: float = 0.5
    work: Work = field(default_factory=Work)
    span: tuple[float, float] | None = None

    def check(self, prompt: str) -> None:
        """The function takes what comes."""

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        if question == "clarity":
            return [Answer(score=min(1.0, v.painted), passed=v.painted >= self.clear_from) for v in views]
        return [self._answer(value) for value in self._called(views)]

    def reflect(self, views: Sequence[View]) -> list[Reflection]:
        found = []
        for answer in self.ask("orm", views):
            aligned = bool(answer.passed)
            reason = "" if aligned else answer.reason or "It does not show what was asked for."
            found.append(Reflection(aligned, share(answer), reason))
        return found

    def _called(self, views: Sequence[View]) -> Sequence[Any]:
        if not views:
            return ()
        values = self.function([view.prompt for view in views], [view.picture for view in views])
        count = len(values) if hasattr(values, "__len__") else type(values).__name__
        if count != len(views):
            raise ValueError(f"the judge {self.name} gave {count} scores for {len(views)} pictures; give one for each.")
        return values

    def _answer(self, value: Any) -> Answer:
        value, reason = value if isinstance(value, tuple) and len(value) == 2 else (value, None)
        try:
            score = float(value)
        except (TypeError, ValueError):
            score = math.nan
        if not math.isfinite(score):
            return Answer(score=math.nan, passed=False, note=f"the judge {self.name} gave {value!r}, no score")
        if self.span is not None:
            low, high = self.span
            score = min(1.0, max(0.0, (score - low) / (high - low)))
        return Answer(score=score, passed=score >= self.threshold, reason=reason)


@dataclass
class Ensemble:
    """Several judges with weights: the weighted mean of their scores. A member that cannot be read is left out."""

    members: Sequence[tuple[Judge, float]]

    def __post_init__(self) -> None:
        self.members = tuple(self.members)
        if not self.members or any(not (math.isfinite(weight) and weight > 0) for _, weight in self.members):
            raise ValueError("an ensemble needs judges, each with a weight above 0.")

    @property
    def name(self) -> str:
        return " + ".join(f"{weight:g} {judge.name}" for judge, weight in self.members)

    @property
    def clear_from(self) -> float:
        """Below this no member calls a picture clear."""
        return min(getattr(judge, "clear_from", 0.0) for judge, _ in self.members)

    @property
    def work(self) -> Work:
        return sum((judge.work for judge, _ in self.members), Work())

    def check(self, prompt: str) -> None:
        for judge, _ in self.members:
            judge.check(prompt)

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        asked = [judge.ask(question, views) for judge, _ in self.members]
        return [self._mean(answers) for answers in zip(*asked, strict=True)]

    def reflect(self, views: Sequence[View]) -> list[Reflection]:
        """Aligned where the members for it weigh at least half; the reasons of those against it, one after another."""
        asked = [judge.reflect(views) for judge, _ in self.members]
        found = []
        for answers in zip(*asked, strict=True):
            pairs = list(zip(answers, (weight for _, weight in self.members), strict=True))
            readable = [(answer, weight) for answer, weight in pairs if math.isfinite(answer.score)]
            pairs = readable or pairs
            whole = sum(weight for _, weight in pairs)
            aligned = sum(weight for answer, weight in pairs if answer.aligned) * 2 >= whole
            score = sum(answer.score * weight for answer, weight in pairs) / whole
            reasons = "" if aligned else " ".join(answer.reason for answer in answers if not answer.aligned)
            found.append(Reflection(aligned, score, reasons))
        return found

    def _mean(self, answers: Sequence[Answer]) -> Answer:
        pairs = [(a, weight) for a, (_, weight) in zip(answers, self.members, strict=True) if not math.isnan(share(a))]
        reasons = " ".join(dict.fromkeys(answer.reason for answer in answers if answer.reason)) or None
        notes = "; ".join(dict.fromkeys(answer.note for answer in answers if answer.note)) or None
        if not pairs:
            return Answer(score=math.nan, passed=False, reason=reasons, note=notes)
        whole = sum(weight for _, weight in pairs)
        mean = sum(weight * share(answer) for answer, weight in pairs) / whole
        passed = sum(weight for answer, weight in pairs if passes(answer)) * 2 >= whole
        return Answer(score=mean, passed=passed, reason=reasons, note=notes)
