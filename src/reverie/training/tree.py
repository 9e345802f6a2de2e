"""The tree of a roll-out: segments on its branches, rewards on its leaves, advantages at its branchings.

A segment is written by one policy: tokens of a thought, image tokens, commits of masked tokens, denoising steps. What
is written between two branchings is a `Branch`; siblings are compared, by the mean of the leaves below each, and a
segment earns the advantage of the branch it stands on (or, where that has no siblings, of the nearest above that has).
The published algorithms are shapes of this tree:

    Flow-GRPO                   prompt -> G x [steps]
    T2I-R1, TWIG-GRPO           prompt -> G x [text, image, text, image, ...]      one reward for every pass
    Dual-GRPO                   prompt -> J x [text] -> K x [steps]                thoughts by the mean of their images
    online DPO                  any of them: best and worst leaf of a prompt

Two equal thoughts are two branches: groups are places in the tree, never texts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from .advantage import Normalisation, group_advantages


@dataclass
class Segment:
    """What one policy wrote in one go, on the CPU or wherever it was made."""

    policy: str
    """Name of the policy that wrote it, and that can score it again."""
    modality: str
    """`text`, `image`, ...: steps of one kind are averaged and weighed together."""
    actions: Tensor
    """(L, ...) the steps: token ids, or latents after each denoising step."""
    sampled: Tensor
    """(L,) bool: True where the policy chose; False where the step was given (forced tokens, ODE steps)."""
    log_prob: Tensor
    """(L,) of each step when it was written; anything where it was given."""
    context: Any = None
    """All else that the policy needs to score it again: prompt ids, schedule, the latents it began with."""
    mean: Tensor | None = None
    """(L, ...) means of Gaussian steps when they were written; GRPO-Guard needs them."""
    rejected: bool = False
    """Written, then thrown away after a critique. Whether it learns is for `Credit` to say."""
    truncated: bool = False
    """Cut off at a limit of length. Only its writer knows: an image of fixed length always fills its limit."""

    def __post_init__(self) -> None:
        if not len(self.actions) == len(self.sampled) == len(self.log_prob):
            raise ValueError(
                f"a segment of {self.policy!r} has {len(self.actions)} actions, {len(self.sampled)} marks and "
                f"{len(self.log_prob)} log-probabilities; give one of each for every step"
            )

    def __len__(self) -> int:
        return len(self.actions)


@dataclass(eq=False)
class Branch:
    """What was written between one branching and the next; a leaf if nothing branches from it."""

    segments: list[Segment]
    branches: list[Branch] = field(default_factory=list)
    seed: int = 0
    rewards: dict[str, float] = field(default_factory=dict)
    """Of a leaf, by name; NaN where the judge failed."""
    result: Any = None
    """Of a leaf: the finished image."""

    def leaves(self) -> Iterator[Branch]:
        if not self.branches:
            yield self
        for branch in self.branches:
            yield from branch.leaves()


@dataclass(eq=False)
class Tree:
    """All that grew from one prompt."""

    prompt: str
    branches: list[Branch]
    key: str = ""
    """Trees of one key are one prompt's, for `among='prompt'`; the prompt itself if left out."""

    def __post_init__(self) -> None:
        self.key = self.key or self.prompt

    def leaves(self) -> Iterator[Branch]:
        for branch in self.branches:
            yield from branch.leaves()

    def paths(self) -> Iterator[list[Branch]]:
        """From the first branch to a leaf, for every leaf."""
        yield from _paths(self.branches)


def _paths(branches: Sequence[Branch]) -> Iterator[list[Branch]]:
    for branch in branches:
        if not branch.branches:
            yield [branch]
        for rest in _paths(branch.branches):
            yield [branch, *rest]


@dataclass(frozen=True)
class Credit:
    """What one policy is paid for, and whom it is compared with."""

    rewards: Mapping[str, float]
    """Weight of each reward. Rewards that are not named are logged and not trained on."""
    normalisation: Normalisation = field(default_factory=Normalisation)
    among: str = "siblings"
    """`siblings`: the branches of one branching; `prompt`: all branches of that depth under the same prompt."""
    ensemble: str = "sum"
    """`sum`: weigh the rewards, then normalise, as published; `each`: normalise every reward in its group, then weigh,
    so that a reward of small spread counts as much as one of large spread."""
    rejected: bool = True
    """Whether passes that a critique threw away learn as well; TWIG reinforces every pass."""
    truncated: bool = True

    def __post_init__(self) -> None:
        if self.among not in ("siblings", "prompt"):
            raise ValueError(f"among={self.among!r}: must be siblings or prompt")
        if self.ensemble not in ("sum", "each"):
            raise ValueError(f"ensemble={self.ensemble!r}: must be sum or each")
        if not self.rewards:
            raise ValueError(
                "name at least one reward and its weight; a policy that is paid for nothing learns nothing"
            )

    def teaches(self, segment: Segment) -> bool:
        return (self.rejected or not segment.rejected) and (self.truncated or not segment.truncated)


@dataclass
class Lesson:
    """A segment and what it earned."""

    segment: Segment
    advantage: float
    tree: int
    """Index of its tree, so that updates can be split by prompt."""


def lessons(trees: Sequence[Tree], credits: Mapping[str, Credit]) -> dict[str, list[Lesson]]:
    """For each policy named in `credits`, its segments with their advantages, in the order of the trees."""
    places = list(_places(trees))
    found: dict[str, list[Lesson]] = {}
    for name, credit in credits.items():
        own = [p for p in places if any(s.policy == name for s in p.branch.segments)]
        earned = _earned(own, places, credit)
        found[name] = [
            Lesson(segment, earned[place.judged], place.tree)
            for place in own
            for segment in place.branch.segments
            if segment.policy == name and credit.teaches(segment)
        ]
    return found


@dataclass
class _Place:
    """A branch in its tree."""

    branch: Branch
    judged: Branch
    """Itself, or the nearest branch above that has siblings: the one whose advantage it bears."""
    siblings: int
    """Which branching it is one of; a number for each."""
    depth: int
    tree: int
    key: str


def _places(trees: Sequence[Tree]) -> Iterator[_Place]:
    branching = 0

    def walk(branches: list[Branch], above: Branch | None, depth: int, tree: int) -> Iterator[_Place]:
        nonlocal branching
        branching += 1
        group = branching
        for branch in branches:
            judged = branch if len(branches) > 1 or above is None else above
            yield _Place(branch, judged, group, depth, tree, trees[tree].key)
            yield from walk(branch.branches, judged, depth + 1, tree)

    for index, tree in enumerate(trees):
        yield from walk(tree.branches, None, 0, index)


def _earned(own: list[_Place], places: list[_Place], credit: Credit) -> dict[Branch, float]:
    """The advantage of every branch that judges one of `own`."""
    judged = {place.judged for place in own}

    def group(place: _Place) -> Any:
        return place.siblings if credit.among == "siblings" else (place.key, place.depth)

    wanted = {group(place) for place in places if place.branch in judged}
    members = [place for place in places if place.judged is place.branch and group(place) in wanted]
    numbers = {key: i for i, key in enumerate(dict.fromkeys(group(place) for place in members))}
    groups = torch.tensor([numbers[group(place)] for place in members], dtype=torch.long)
    values = group_values([place.branch for place in members], credit)
    advantages = group_advantages(values, groups, credit.normalisation)
    if credit.ensemble == "each":
        weights = torch.tensor(list(credit.rewards.values()), dtype=torch.float64)
        advantages = advantages @ weights / weights.abs().sum().clamp(min=1e-12)
    return {place.branch: float(value) for place, value in zip(members, advantages, strict=True)}


def group_values(branches: Sequence[Branch], credit: Credit) -> Tensor:
    """What each branch is worth: mean over its leaves of the weighed rewards (B,); with `each`, of every one (B, R).

    A leaf without one of the rewards is left out of the mean; without any leaf the value is NaN.
    """
    if not branches:
        return torch.empty(0, dtype=torch.float64)
    leaves = [(i, _named(leaf, credit.rewards)) for i, branch in enumerate(branches) for leaf in branch.leaves()]
    owner = torch.tensor([i for i, _ in leaves])
    values = torch.tensor([named for _, named in leaves], dtype=torch.float64)
    if credit.ensemble == "sum":
        values = values @ torch.tensor(list(credit.rewards.values()), dtype=torch.float64)
    there = ~values.isnan()
    empty = torch.zeros(len(branches), *values.shape[1:], dtype=torch.float64)
    count = empty.index_add(0, owner, there.to(torch.float64))
    return empty.index_add(0, owner, torch.where(there, values, 0.0)) / count  # 0 / 0: NaN, as wanted


def _named(leaf: Branch, names: Mapping[str, float]) -> list[float]:
    for name in names:
        if name not in leaf.rewards:
            raise ValueError(f"no reward {name!r} on the leaves; there are {', '.join(sorted(leaf.rewards)) or 'none'}")
    return [leaf.rewards[name] for name in names]


def best_and_worst(trees: Sequence[Tree], credit: Credit) -> list[tuple[str, list[Branch], list[Branch]]]:
    """(prompt, path to the best leaf, path to the worst) of every tree whose leaves differ: pairs for DPO.

    Leaves whose reward is missing are no candidates; the first of equals wins.
    """
    found = []
    for tree in trees:
        paths = [(float(group_values([path[-1]], credit).mean()), path) for path in tree.paths()]
        known = [(value, path) for value, path in paths if not math.isnan(value)]
        if not known:
            continue
        best, worst = max(known, key=lambda pair: pair[0]), min(known, key=lambda pair: pair[0])
        if best[0] > worst[0]:
            found.append((tree.prompt, best[1], worst[1]))
    return found


def reward_log(trees: Sequence[Tree]) -> dict[str, float]:
    """Every reward apart, trained on or not: mean, std within the leaves of a prompt, share of prompts whose leaves do
    not differ, share of leaves on which it is missing."""
    log: dict[str, float] = {}
    names = sorted({name for tree in trees for leaf in tree.leaves() for name in leaf.rewards})
    for name in names:
        rows = [torch.tensor([leaf.rewards[name] for leaf in tree.leaves()], dtype=torch.float64) for tree in trees]
        known = [row[~row.isnan()] for row in rows]
        stds = [float(row.std(correction=0)) for row in known if len(row)]
        log[f"reward/{name}"] = float(torch.cat(known).mean()) if stds else 0.0
        log[f"reward/{name}_std"] = sum(stds) / max(1, len(stds))
        log[f"reward/{name}_flat"] = sum(len(row) == 0 or bool(row.min() == row.max()) for row in known) / len(rows)
        log[f"reward/{name}_missing"] = float(torch.cat(rows).isnan().double().mean())
    return log
