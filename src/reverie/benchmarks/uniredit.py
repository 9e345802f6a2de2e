"""The aggregation of UniREditBench (Han et al. 2025, arXiv:2511.01295; Maplebb/UniREditBench at a7015c5c).

Three questions from 1 to 5 as in RISEBench; only the first number of an answer counts, the weights never change, and a
sample without readable answers is left out of everything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .risebench import DIMENSIONS, Entry, numbers, percentage

SHARES = {"ApprConsistency": 0.3, "Reasoning": 0.5, "VisualPlausibility": 0.2}
JUDGES = {"ApprConsistency": "judge1", "Reasoning": "judge2", "VisualPlausibility": "judge3"}


@dataclass(frozen=True)
class Row:
    """One sample: its class and, if it was judged, its scores by dimension, the weighted one, and whether all are 5."""

    name: str
    scores: Mapping[str, int]
    score: float | None
    passed: bool


def judge(name: str, answers: Mapping[str, str]) -> Row:
    """Without scores where the image is missing or an answer cannot be read."""
    found = {dimension: numbers(answers.get(key, "")) for dimension, key in JUDGES.items()}
    scores = {dimension: values[0] for dimension, values in found.items() if values}
    if "error" in answers or len(scores) < len(SHARES):
        return Row(name, {}, None, False)
    score = sum(share * scores[dimension] for dimension, share in SHARES.items())
    return Row(name, scores, score, all(value == 5 for value in scores.values()))


def table(rows: Sequence[Row]) -> dict[str, Entry]:
    """Score, the same in per cent, and pass rate: overall, by dimension, by class; None where nothing was judged."""
    found = {"Overall": _entry(rows)}
    for dimension in DIMENSIONS:
        mean, share, _ = _entry([Row(row.name, {}, row.scores[dimension], False) for row in rows if row.scores])
        found[f"Overall_{dimension}"] = mean, share, None
    for name in sorted({row.name for row in rows}):
        found[f"Class-{name}"] = _entry([row for row in rows if row.name == name])
    return found


def _entry(rows: Sequence[Row]) -> Entry:
    there = [row for row in rows if row.score is not None]
    if not there:
        return None, None, None
    mean = sum(row.score or 0.0 for row in there) / len(there)
    return mean, percentage(mean), sum(row.passed for row in there) / len(there)
