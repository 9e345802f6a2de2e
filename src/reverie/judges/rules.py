"""From answers to decisions: the selection rules of "verify and reinforce" (arXiv 2501.13926) as pure functions.

Two readings of the same answers. `GREEDY` is the default: P(yes) against P(no) over all spellings, so a run repeats.
`OFFICIAL` is what the published code does (its parm.py and selector.py): an answer counts by its sampled first token, a
score by the exact word in lower case, and anything that is no verdict has a fixed meaning. Ties go to the first.

- clarity: official, only the answer "no" is unclear. - potential: kept or rejected, with a number that is P(no); a path
that never becomes clear is rejected with 1, an unreadable answer with 50, so that it comes last. - best of N': the
highest P(yes). - nobody left: the lowest number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from reverie.judges import Answer

NEVER_CLEAR = 1.0
UNREADABLE = 50.0


@dataclass(frozen=True)
class Rules:
    """How answers are read. Scores and numbers compare by size; scores may be -inf, numbers are finite."""

    name: str
    clear: Callable[[Answer], bool]
    potential: Callable[[Answer | None], tuple[bool, float]]
    """(kept, number); None stands for a path that was never clear."""
    score: Callable[[Answer], float]
    ask_the_last_one: bool
    """Whether a lone survivor is scored, too."""


def share(answer: Answer) -> float:
    """The judge's score, or P(yes) / (P(yes) + P(no)); NaN if there is neither."""
    if answer.score is not None:
        return answer.score if math.isfinite(answer.score) else math.nan
    both = answer.yes + answer.no
    return answer.yes / both if both > 0 else math.nan  # also false for NaN


def passes(answer: Answer) -> bool:
    """Yes at least as likely as no; an unreadable answer does not pass."""
    return share(answer) >= 0.5 if answer.passed is None else answer.passed


def _greedy_potential(answer: Answer | None) -> tuple[bool, float]:
    if answer is None:
        return False, NEVER_CLEAR
    if math.isnan(share(answer)):
        return False, UNREADABLE
    return passes(answer), 1 - share(answer)


def _greedy_score(answer: Answer) -> float:
    return -math.inf if math.isnan(share(answer)) else share(answer)


def word(answer: Answer) -> str:
    """`yes`, `no`, or something else: the first token in lower case. Judges without words pass or do not."""
    if answer.token or answer.score is None:
        return answer.token.lower()
    return "yes" if passes(answer) else "no"


def _official_clear(answer: Answer) -> bool:
    return word(answer) != "no"


def _official_potential(answer: Answer | None) -> tuple[bool, float]:
    if answer is None:
        return False, NEVER_CLEAR
    if word(answer) not in ("yes", "no"):
        return False, UNREADABLE
    return word(answer) == "yes", answer.no if answer.score is None else 1 - answer.score


def _official_score(answer: Answer) -> float:
    if word(answer) not in ("yes", "no"):
        return 0.0
    return answer.yes if answer.score is None else answer.score


GREEDY = Rules("greedy", passes, _greedy_potential, _greedy_score, False)
OFFICIAL = Rules("official", _official_clear, _official_potential, _official_score, True)
RULES = {rules.name: rules for rules in (GREEDY, OFFICIAL)}


def highest(scores: Sequence[float]) -> int:
    """The place of the largest; the first of equals."""
    return max(range(len(scores)), key=lambda i: scores[i])


def lowest(numbers: Sequence[float]) -> int:
    """The place of the smallest; the first of equals."""
    return min(range(len(numbers)), key=lambda i: numbers[i])
