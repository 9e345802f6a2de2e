"""Growing trees: who writes at each level, how often it branches, how leaves are judged; and what a policy must say.

A policy writes with the same function with which it later scores what it wrote, so that before the first update every
ratio is exactly 1. Each path has a seed of its own, a hash of its place in the tree: what is written on it depends on
that seed and what stands before, never on the rest of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from ..canvas import copy_seed
from .tree import Branch, Segment, Tree


@dataclass
class GaussianSteps:
    """What a policy of denoising steps knows beside log-probabilities; see `models.flow_sde.FlowStep`."""

    mean: Tensor
    """(B, L, ...)"""
    std: Tensor
    """(B, L)"""
    rate: Tensor
    """(B, L)"""
    sqrt_dt: Tensor
    """(B, L)"""
    velocity: Tensor
    """(B, L, ...)"""


@dataclass
class Scored:
    """Segments, scored: rows padded at the end to the longest."""

    log_prob: Tensor
    """(B, L)"""
    entropy: Tensor | None = None
    """(B, L), where the policy can say it; else -log_prob serves as an estimate, for the log."""
    gaussian: GaussianSteps | None = None


class Policy(Protocol):
    """Whoever writes segments and can score them."""

    @property
    def name(self) -> str: ...

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        """Scores segments of one modality, with gradient."""

    def reference(self, segments: Sequence[Segment]) -> Scored:
        """The same by the model that learning began with (adapters off, or a frozen copy), without gradient."""


@dataclass(frozen=True)
class Path:
    """All that stands before what is to be written."""

    prompt: str
    seed: int
    segments: tuple[Segment, ...] = ()
    group: int = 0
    """The same for siblings, and for no others: for whatever a group shares."""


Writer = Callable[[Sequence[Path]], Sequence[Sequence[Segment]]]
"""Writes the segments of one branch for every path: one pass of a policy, or a whole loop of thoughts and regions."""

Finish = Callable[[Sequence[Path]], Sequence[Any]]
"""Makes the image of every finished path."""

Reward = Callable[[Sequence[str], Sequence[Any]], Sequence[float | None]]
"""Judges images (second) for prompts (first); None where the judge failed."""


@dataclass(frozen=True)
class Level:
    """One level of the tree: how many branches at each place, and who writes them."""

    branches: int
    write: Writer

    def __post_init__(self) -> None:
        if self.branches < 1:
            raise ValueError(f"a level of {self.branches} branches: give at least 1")


def grow(prompts: Sequence[str], seeds: Sequence[int], levels: Sequence[Level]) -> list[Tree]:
    """A tree for each prompt; every level is written for all prompts in one batch. Call it without gradient."""
    if len(prompts) != len(seeds):
        raise ValueError(f"{len(prompts)} prompts but {len(seeds)} seeds; give one seed for each prompt")
    trees = [Tree(prompt, []) for prompt in prompts]
    frontier = [(tree.branches, Path(tree.prompt, seed)) for tree, seed in zip(trees, seeds, strict=True)]
    for depth, level in enumerate(levels):
        places = [
            (branches, Path(path.prompt, copy_seed(path.seed, depth, copy + 1), path.segments, path.seed))
            for branches, path in frontier
            for copy in range(level.branches)
        ]
        written = level.write([path for _, path in places])
        frontier = []
        for (branches, path), segments in zip(places, written, strict=True):
            branch = Branch(list(segments), seed=path.seed)
            branches.append(branch)
            frontier.append((branch.branches, Path(path.prompt, path.seed, (*path.segments, *segments))))
    return trees


def judge(trees: Sequence[Tree], finish: Finish, rewards: Mapping[str, Reward]) -> None:
    """Makes the images of all leaves and writes every reward on them, NaN where a judge gave None or no number."""
    paths, leaves = [], []
    for tree in trees:
        for branches in tree.paths():
            paths.append(Path(tree.prompt, branches[-1].seed, tuple(s for b in branches for s in b.segments)))
            leaves.append(branches[-1])
    results = finish(paths)
    for leaf, result in zip(leaves, results, strict=True):
        leaf.result = result
    for name, reward in rewards.items():
        values = reward([path.prompt for path in paths], results)
        if len(values) != len(leaves):
            raise ValueError(
                f"reward {name!r} judged {len(values)} of {len(leaves)} images; return None for the others"
            )
        for leaf, value in zip(leaves, values, strict=True):
            leaf.rewards[name] = float(value) if value is not None and math.isfinite(value) else math.nan
