"""Schedules: which part of the canvas each thought is about (Thinking-while-Generating, arXiv 2511.16671, "when").

A schedule is the step at which each region ends. Steps follow the picture row by row, so a region is a band of whole
rows wherever the generator has rows. Imports nothing heavy: plans are checked with it before a model is loaded.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverie.reason import Plan

MOST_REGIONS = 64
WORDS = ("uniform", "adaptive")

_NUMBER = r"\d{1,6}(?:\.\d{1,6})?"
_MARKER = re.compile(r"ratios?\W*?[:=]", re.IGNORECASE)
_RATIOS = re.compile(rf"{_NUMBER}(?:\s*%?\s*[:,;/|-]\s*{_NUMBER})*")


def explicit(schedule: str) -> tuple[float, ...] | None:
    """The heights of a schedule such as `2:1:1`; None for `uniform` and `adaptive`. ValueError for anything else."""
    if schedule in WORDS:
        return None
    parts = schedule.split(":")
    if len(parts) > MOST_REGIONS or not all(re.fullmatch(_NUMBER, part) and float(part) > 0 for part in parts):
        raise ValueError(
            f"schedule={schedule!r}: must be uniform, adaptive, or heights from the top such as 2:1:1 "
            f"(at most {MOST_REGIONS}, each above 0)."
        )
    return tuple(map(float, parts))


def bands(ratios: Sequence[float], steps: int, row: int = 1) -> tuple[int, ...]:
    """The steps at which regions of these relative heights end, on whole rows of `row` steps, each at least one row.

    Equal ratios give equal bands wherever the rows can be divided so. ValueError if there are more regions than rows.
    """
    rows = steps // row
    if not 1 <= len(ratios) <= rows:
        raise ValueError(f"regions={len(ratios)}: this canvas has {rows} rows, so take between 1 and {rows} regions.")
    total, count = math.fsum(ratios), len(ratios)
    wanted = [math.floor(rows * part / total + 0.5) for part in accumulate(ratios)]
    ends: list[int] = []
    for index, end in enumerate(wanted):
        # Between one row after the region above and one row for each region below.
        ends.append(min(max(end, ends[-1] + 1 if ends else 1), rows - (count - 1 - index)))
    return (*(end * row for end in ends[:-1]), steps)


def blocks(regions: int, steps: int) -> tuple[int, ...]:
    """The published uniform schedule: steps // regions tokens each, wherever rows end; the last takes the remainder."""
    if not 1 <= regions <= steps:
        raise ValueError(f"regions={regions}: this canvas has {steps} steps, so take between 1 and {steps} regions.")
    return (*(number * (steps // regions) for number in range(1, regions)), steps)


def read_ratios(answer: str, most: int) -> tuple[float, ...] | None:
    """The heights that a model proposes, after the word `RATIOS:` or as its whole answer; None if there are none, if
    one is 0, or if there are more than `most`."""
    marker = _MARKER.search(answer)
    rest = re.sub(r"[*`_()\[\]]", " ", answer[marker.end() :] if marker else answer).strip()
    found = _RATIOS.match(rest)
    if found is None or (marker is None and found.end() < len(rest.rstrip(" %."))):
        return None
    ratios = tuple(map(float, re.findall(_NUMBER, found[0])))
    return ratios if len(ratios) <= most and all(ratio > 0 for ratio in ratios) else None


def check_regions(plan: Plan) -> None:
    """Settles `regions` of a plan that leaves it open. ValueError, in one sentence, for what makes no sense."""
    for name, kind in (("schedule", str), ("keep_prompt", bool), ("official", bool)):
        if not isinstance(value := getattr(plan, name), kind):
            raise ValueError(f"{name}={value!r}: must be {'text' if kind is str else 'true or false'}.")
    ratios = explicit(plan.schedule)
    if plan.regions is None:
        usual = len(ratios) if ratios else 3
        object.__setattr__(plan, "regions", usual if plan.think == "during" else 1)
    count = plan.regions
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_REGIONS:
        raise ValueError(f"regions={count!r}: must be a whole number between 1 and {MOST_REGIONS}.")
    if isinstance(plan.threshold, bool) or not isinstance(plan.threshold, int | float) or not plan.threshold >= 0:
        raise ValueError(f"threshold={plan.threshold!r}: must be a number from 0 to 100, or more to accept nothing.")
    if plan.schedule != "uniform" and plan.think != "during":
        raise ValueError(f"schedule={plan.schedule!r}: regions are painted one by one with think=during only.")
    if ratios and count != len(ratios):
        raise ValueError(f"schedule={plan.schedule!r} has {len(ratios)} heights for {count} regions; leave one out.")
    if count > 1 and plan.think not in ("before", "during"):
        raise ValueError(f"regions={count}: only thoughts before and during painting are about regions; leave it at 1.")
    if plan.think == "after" and not plan.reflect:
        raise ValueError("think='after' is a critique of the finished image; say how many rounds with reflect.")
    if plan.think == "before" and count > 1 and plan.reflect:
        raise ValueError("several thoughts before painting are painted once; leave reflect at 0, or think=during.")
    if plan.interleaved and (plan.choose != "first" or plan.candidates > 1):
        raise ValueError("regions are judged one by one while painting; leave choose=first and candidates=1.")
    _check_switches(plan, count)


def _check_switches(plan: Plan, count: int) -> None:
    if plan.keep == "best" and not plan.reflect:
        raise ValueError("keep='best' chooses among attempts, and there is one only; allow more with reflect.")
    if plan.keep_prompt and (plan.think != "before" or count > 1):
        raise ValueError("keep_prompt goes with think=before in one thought; leave it out.")
    if not plan.official:
        return
    if plan.judge is not None:
        raise ValueError("official is the published procedure, in which a model criticises itself; leave judge out.")
    if plan.think != "during" or plan.schedule != "uniform" or count > 3 or plan.keep == "best":
        raise ValueError(
            "official is the published procedure: think=during, a uniform schedule of at most 3 regions, and the "
            "latest attempt kept; leave it out for anything else."
        )
