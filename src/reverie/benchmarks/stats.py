"""How sure a score is: Wilson intervals, a bootstrap over prompts, and paired differences between two runs.

Images of one prompt succeed and fail together, so where a prompt has several images the interval comes from drawing
whole prompts anew (a cluster bootstrap, percentile interval), within each task where the score is a mean over tasks.
Everything is 95% unless `level` says otherwise, and seeded, so that a report repeats.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np

RESAMPLES = 4000
SEED = 20231017
BLOCK = 8_000_000  # drawn prompts held at a time
Weighting = Literal["strata", "items"]


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval, over `items` values that belong to `clusters` prompts. mean is None of nothing."""

    mean: float | None
    low: float | None
    high: float | None
    items: int
    clusters: int

    def __str__(self) -> str:
        if self.mean is None:
            return "none"
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}]"


def wilson(successes: float, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a proportion (Wilson 1927); never empty, and inside [0, 1] even at 0 of n."""
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"A proportion needs 0 to n successes of n >= 1 tries; got {successes} of {n}.")
    z = NormalDist().inv_cdf((1 + level) / 2)
    p = successes / n
    centre = p + z * z / (2 * n)
    reach = z * np.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    # min and max with p: at 0 and n the ends are equal to p, which rounding must not step over
    return float(max(0.0, min(p, (centre - reach) / scale))), float(min(1.0, max(p, (centre + reach) / scale)))


def estimate(
    values: Sequence[float],
    clusters: Sequence[Hashable],
    strata: Sequence[Hashable] | None = None,
    weighting: Weighting = "items",
    level: float = 0.95,
    weights: Mapping[Any, float] | None = None,
) -> Estimate:
    """Mean and interval of values, each with the cluster (prompt) and stratum (task) that it belongs to.

    weighting: "items" takes the mean over all values, "strata" the mean of the strata's means, weighted by `weights`
    where they are given. One value a
    cluster, all 0 or 1, one stratum: Wilson. Otherwise the bootstrap; where that sees no spread at all (every value
    alike), Wilson with one try for each cluster, since forty right out of forty do not prove a hundred per cent.
    """
    if not len(values):
        return Estimate(None, None, None, 0, 0)
    table = _Table.of(values, clusters, strata, weights)
    mean = table.mean(weighting)
    number = len(table.sums)
    plain = number == len(values) and len(table.starts) == 1 and set(values) <= {0, 1}
    if plain:
        low, high = wilson(float(sum(values)), number, level)
        return Estimate(mean, low, high, len(values), number)
    low, high = table.interval(weighting, level)
    if low == high and 0 <= mean <= 1:
        low, high = wilson(mean * number, number, level)
    return Estimate(mean, min(low, mean), max(high, mean), len(values), number)


Run = Sequence[tuple[Hashable, Hashable, Hashable, float]]
"""Prompt, cluster, stratum and value of each image."""


def compare(first: Run, second: Run, weighting: Weighting = "items", level: float = 0.95) -> Estimate:
    """By how much the second run is better, over the prompts that both have, paired by prompt.

    The images of a prompt are averaged first, because nothing pairs the third image of one run with the third of
    another; prompts of one cluster are drawn together. `items` of the result counts prompts. ValueError where no
    prompt is common.
    """
    means: list[dict[Hashable, float]] = []
    places: dict[Hashable, tuple[Hashable, Hashable]] = {}
    for run in (first, second):
        found: dict[Hashable, list[float]] = {}
        for prompt, cluster, stratum, value in run:
            found.setdefault(prompt, []).append(value)
            places[prompt] = (cluster, stratum)
        means.append({prompt: sum(group) / len(group) for prompt, group in found.items()})
    common = [prompt for prompt in means[0] if prompt in means[1]]
    if not common:
        raise ValueError("The two runs have no prompt in common: compare runs of the same benchmark and version.")
    gaps = [means[1][prompt] - means[0][prompt] for prompt in common]
    table = _Table.of(gaps, [places[prompt][0] for prompt in common], [places[prompt][1] for prompt in common])
    mean = table.mean(weighting)
    low, high = table.interval(weighting, level)
    return Estimate(mean, min(low, mean), max(high, mean), len(gaps), len(table.sums))


@dataclass(frozen=True)
class _Table:
    """Clusters sorted by stratum: the sum and number of values of each (C,), where each stratum starts (S,), and what
    each counts for (S,)."""

    sums: np.ndarray
    sizes: np.ndarray
    starts: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(
        cls,
        values: Sequence[float],
        clusters: Sequence[Hashable],
        strata: Sequence[Hashable] | None,
        weights: Mapping[Any, float] | None = None,
    ) -> _Table:
        strata = strata if strata is not None else [0] * len(values)
        groups: dict[Hashable, dict[Hashable, list[float]]] = {}
        for value, cluster, stratum in zip(values, clusters, strata, strict=True):
            groups.setdefault(stratum, {}).setdefault(cluster, []).append(value)
        cells = [cell for group in groups.values() for cell in group.values()]
        starts = np.cumsum([0, *(len(group) for group in groups.values())])[:-1]
        shares = [1.0 if weights is None else weights[stratum] for stratum in groups]
        sums, sizes = [sum(cell) for cell in cells], [len(cell) for cell in cells]
        return cls(np.array(sums), np.array(sizes), starts, np.array(shares))

    def mean(self, weighting: Weighting) -> float:
        return float(self._means(self.sums[None], self.sizes[None], weighting)[0])

    def _means(self, sums: np.ndarray, sizes: np.ndarray, weighting: Weighting) -> np.ndarray:
        """(B, C) to (B,)"""
        if weighting == "items":
            return sums.sum(1) / sizes.sum(1)
        means = np.add.reduceat(sums, self.starts, 1) / np.add.reduceat(sizes, self.starts, 1)
        return np.average(means, axis=1, weights=self.weights)

    def interval(self, weighting: Weighting, level: float) -> tuple[float, float]:
        """Percentiles over resamples that draw each stratum's clusters anew, with replacement."""
        rng = np.random.default_rng(SEED)
        ends = [*self.starts[1:], len(self.sums)]
        means: list[np.ndarray] = []
        block = max(1, min(RESAMPLES, BLOCK // len(self.sums)))  # tens of thousands of prompts still fit in memory
        for begin in range(0, RESAMPLES, block):
            rows = min(block, RESAMPLES - begin)
            drawn = np.concatenate(
                [rng.integers(a, b, (rows, b - a)) for a, b in zip(self.starts, ends, strict=True)], axis=1
            )
            means.append(self._means(self.sums[drawn], self.sizes[drawn], weighting))
        low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)
