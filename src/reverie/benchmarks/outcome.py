"""What the scoring of a public benchmark returns: named scores with intervals, and what has to be said about them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from . import stats

Group = Mapping[Any, Sequence[float | None]]
"""Prompt to the values of its images; None where there is no value."""


@dataclass(frozen=True)
class Outcome:
    """scores: the headline first; notes: which bugs were repeated or mended, and what is missing."""

    benchmark: str
    scores: dict[str, stats.Estimate]
    notes: tuple[str, ...] = ()
    official: bool = False

    def to_json(self) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark,
            "rules": "official, bugs included" if self.official else "mended",
            "scores": {name: vars(score) for name, score in self.scores.items()},
            "notes": list(self.notes),
        }


def of_prompts(group: Group, scale: float = 1.0) -> stats.Estimate:
    """Mean over all values of a group, its interval over prompts; times `scale`."""
    return of_strata({None: group}, "items", scale=scale)


def of_strata(
    groups: Mapping[Any, Group],
    weighting: stats.Weighting = "strata",
    weights: Mapping[Any, float] | None = None,
    scale: float = 1.0,
) -> stats.Estimate:
    """Mean of the groups' means (weighted, where weights are given), or of all values."""
    rows: list[tuple[float, Any, Any]] = [
        (value, (stratum, prompt), stratum)
        for stratum, group in groups.items()
        for prompt, values in group.items()
        for value in values
        if value is not None
    ]
    values = [value for value, _, _ in rows]
    clusters, strata = [cluster for _, cluster, _ in rows], [stratum for _, _, stratum in rows]
    return scaled(stats.estimate(values, clusters, strata, weighting, weights=weights), scale)


def scaled(score: stats.Estimate, factor: float) -> stats.Estimate:
    """The score and its interval in another unit, such as per cent."""
    if score.mean is None or factor == 1:
        return score
    assert score.low is not None
    assert score.high is not None
    return replace(score, mean=score.mean * factor, low=score.low * factor, high=score.high * factor)
