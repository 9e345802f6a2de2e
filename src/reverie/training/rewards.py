"""Rewards of public reinforcement runs, each by itself: what a picture is paid for, and by whom.

    preference      a reward model or any judge by name (hpsv2:..., imagereward, ...), for prompt and picture
    detector        things found, their places, their numbers, by a detector and the prompt's facts
    vqa             P(yes) to "PHRASE?" for every phrase of the facts, averaged
    orm             a VLM's P(yes) to whether the picture is faithful, of one forward pass

T2I-R1 (arXiv 2505.00703) uses the first three, Thinking-while-Generating (2511.16671) all four. Facts are what T2I-R1's
prompt file tells of a prompt. Its scoring code differs from its paper in places; here the paper counts:

- near, next to: distances are shares of the picture's short side, as boxes are, so not everything is near;
- "above" and "on top of" are places like any other, and so is every wording of the file;
- boxes are corners throughout, so one thing found twice is counted once;
- names of any number of words are looked for as they stand;
- a place pays 0.6 and being there 0.4, at most 1; a number pays when it is right;
- nothing is sampled, and all pictures of a roll-out are judged in batches;
- a judge that fails is left out of the mean, never a 0 (rollout.judge);
- each reward may be normalised in its group before weighing (tree.Credit), so none drowns another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from ..judges import Judge, View
from ..judges.rules import share
from ..vlms import VLM
from .rollout import Reward

if TYPE_CHECKING:
    from ..cluster.rewards import Judging

NEAR = 150 / 479
"""Of the short side: T2I-CompBench's 150 pixels in its detector's frame of 479."""
SIDES = {
    "left": ("left", "on the left of", "to the left of", "left of", "on the left side of"),
    "right": ("right", "on the right of", "to the right of", "right of", "on the right side of"),
    "above": ("above", "top", "on top of", "on the top of", "over"),
    "below": ("below", "bottom", "under", "beneath", "on bottom of", "on the bottom of"),
    "near": ("near", "next to", "next", "beside", "side", "on side of", "on the side of", "by the side of"),
}
"""Every wording of a place, by what it means for the second thing's place as seen from the first's."""
MEANS = {wording: side for side, wordings in SIDES.items() for wording in wordings}

Box = Sequence[float]
"""x1, y1, x2, y2 in shares of the picture's short side; y grows downward."""


@dataclass(frozen=True)
class Facts:
    """What a prompt asks for."""

    prompt: str
    nouns: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    """Nouns with what is said of them; where there are none, VQA asks for the nouns."""
    place: tuple[str, str, str] | None = None
    """First thing, second thing, and where the first stands as seen from the second."""
    counts: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        if self.place and self.place[2] not in MEANS:
            known = ", ".join(sorted(MEANS))
            raise ValueError(f"{self.prompt!r} asks for the place {self.place[2]!r}; known are {known}.")


def read_facts(path: str | Path) -> list[Facts]:
    """T2I-R1's prompt file: JSON Lines with prompt, nouns, attr_nouns, spatial_info {obj1, obj2, locality} and
    numeracy_info [{obj_name, num}], of which all but the prompt may be missing. ValueError, with the line, for
    others."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"there is no file of prompts {path}; give JSON Lines with `prompt` and its facts.")
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            spatial = row.get("spatial_info") or None
            place = (spatial["obj1"], spatial["obj2"], spatial["locality"].strip().lower()) if spatial else None
            counts = tuple((one["obj_name"], int(one["num"])) for one in row.get("numeracy_info") or ())
            phrases = tuple(row.get("attr_nouns") or ())
            found.append(Facts(row["prompt"], tuple(row.get("nouns") or ()), phrases, place, counts))
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number} is no prompt with its facts ({error}).") from error
    if not found:
        raise ValueError(f"{path} holds no prompts.")
    return found


# --- What is seen, as numbers.


def place_score(wording: str, first: Box, second: Box) -> float:
    """How well `first` stands in the place `wording` says of `second`, in [0, 1]: on the right side along the larger
    offset of the centres, less where the boxes overlap; near where one offset is below `NEAR`."""
    side = MEANS[wording]
    right, down = ((first[i] + first[i + 2] - second[i] - second[i + 2]) / 2 for i in (0, 1))
    if side == "near":
        return 1.0 if min(abs(right), abs(down)) < NEAR else NEAR / max(abs(right), abs(down))
    along, across = (right, down) if side in ("left", "right") else (down, right)
    along = -along if side in ("left", "above") else along
    if not (along > 0 and along > abs(across)):
        return 0.0
    shared = overlap(first, second)
    return 1.0 if shared < 0.1 else 0.1 / shared


def overlap(a: Box, b: Box) -> float:
    """Intersection over union."""
    wide, high = (max(0.0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1))
    union = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)) - wide * high
    return wide * high / union if union > 0 else 0.0


def distinct(boxes: Sequence[tuple[Box, float]], same: float = 0.5) -> list[tuple[Box, float]]:
    """(box, score) without those that lie on a better one by more than `same`, best first."""
    kept: list[tuple[Box, float]] = []
    for box, score in sorted(boxes, key=lambda one: -one[1]):
        if all(overlap(box, other) <= same for other, _ in kept):
            kept.append((box, score))
    return kept


def detection_score(facts: Facts, seen: Mapping[str, Sequence[tuple[Box, float]]], near_miss: float = 0.0) -> float:
    """What detections (name to boxes with scores) are worth for a prompt, in [0, 1].

    Numbers: the mean over things of whether there are as many as asked (near_miss where there are some, but not as
    many; T2I-R1's code has 0.2). Else a place: 0.6 for it and 0.4 for both things. Else the share of nouns found."""
    found = {name: distinct(boxes) for name, boxes in seen.items()}

    def rated(name: str, number: int) -> float:
        here = len(found.get(name, ()))
        return 1.0 if here == number else near_miss if here else 0.0

    if facts.counts:
        return sum(rated(name, number) for name, number in facts.counts) / len(facts.counts)
    if facts.place:
        first, second = (found.get(name, ()) for name in facts.place[:2])
        there = (bool(first) + bool(second)) / 2
        stands = place_score(facts.place[2], first[0][0], second[0][0]) if first and second else 0.0
        return 0.6 * stands + 0.4 * there
    return sum(bool(found.get(name)) for name in facts.nouns) / len(facts.nouns) if facts.nouns else 1.0


# --- Who looks.


class Finder(Protocol):
    """An open-vocabulary detector, such as `benchmarks.evaluators.boxes.BoxDetector`: label, box and score of what each
    picture holds, in a frame whose short side is 479."""

    def look(self, pictures: Sequence[Any], names: Sequence[Sequence[str]]) -> list[list[Any]]: ...


def detector_reward(finder: Finder, facts: Mapping[str, Facts], near_miss: float = 0.0) -> Reward:
    """`detection_score` of every picture."""
    from ..benchmarks.evaluators.boxes import SHORT

    def reward(prompts: Sequence[str], images: Sequence[Any]) -> list[float]:
        asked = [_names(facts[prompt]) for prompt in prompts]
        scores = []
        for prompt, seen in zip(prompts, finder.look(_pictures(images), asked), strict=True):
            boxes: dict[str, list[tuple[Box, float]]] = {}
            for label, box, score in seen:
                boxes.setdefault(label, []).append(([edge / SHORT for edge in box], score))
            scores.append(detection_score(facts[prompt], boxes, near_miss))
        return scores

    return reward


def _names(facts: Facts) -> list[str]:
    names = [*facts.nouns, *(facts.place[:2] if facts.place else ()), *(name for name, _ in facts.counts)]
    return list(dict.fromkeys(names))


def vqa_reward(vlm: VLM, facts: Mapping[str, Facts]) -> Reward:
    """The mean of P(yes) against P(no) over the prompt's phrases, all asked together; None where there is nothing to
    ask, so that it does not count."""
    from ..judges.vlm import VLMJudge, Wording

    plain = ("{prompt}?",)
    judge = VLMJudge(vlm, Wording(plain, plain, plain, plain, plain), "vqa")

    def reward(prompts: Sequence[str], images: Sequence[Any]) -> list[float | None]:
        pairs = zip(prompts, _pictures(images), strict=True)
        asked = [[View(phrase, picture) for phrase in _asked(facts[prompt])] for prompt, picture in pairs]
        answers = iter(judge.ask("orm", [view for views in asked for view in views]))
        chances = [[share(next(answers)) for _ in views] for views in asked]
        return [None if not row or np.isnan(row).any() else sum(row) / len(row) for row in chances]

    return reward


def _asked(facts: Facts) -> tuple[str, ...]:
    return facts.phrases or facts.nouns


def judge_reward(judge: Judge) -> Reward:
    """What any judge says of finished pictures: a score of its own, or P(yes) against P(no), of one forward pass.
    None where it could not be read."""

    def reward(prompts: Sequence[str], images: Sequence[Any]) -> list[float | None]:
        views = [View(prompt, picture) for prompt, picture in zip(prompts, _pictures(images), strict=True)]
        shares = [share(answer) for answer in judge.ask("orm", views)]
        return [None if np.isnan(value) else value for value in shares]

    return reward


def _pictures(images: Sequence[Any]) -> list[Image.Image]:
    return [image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image)) for image in images]


@dataclass
class RewardChoice:
    """One reward of a recipe. weight: in the ensemble; 0 only logs it. Exactly one of the others, by name, hub id or
    folder: judge (a reward model or a VLM as ORM), vqa (a VLM), detector."""

    weight: float = 1.0
    judge: str | None = None
    vqa: str | None = None
    detector: str | None = None

    def __post_init__(self) -> None:
        if sum(name is not None for name in (self.judge, self.vqa, self.detector)) != 1:
            raise ValueError("a reward is a judge, a vqa model or a detector: name exactly one of them.")

    def open(self, facts: Mapping[str, Facts], device: str) -> Reward:
        if self.judge is not None:
            from ..judges.load import judge_by_name

            return judge_reward(judge_by_name(self.judge, device))
        if self.vqa is not None:
            from ..vlms.named import open_vlm

            return vqa_reward(open_vlm(self.vqa, device), facts)
        from ..benchmarks.evaluators.boxes import BoxDetector

        return detector_reward(BoxDetector.load(str(self.detector), device), facts)


def opened(
    choices: Mapping[str, RewardChoice], facts: Mapping[str, Facts], device: str, judging: Judging | None = None
) -> dict[str, Reward]:
    """The rewards by name, in actors where `judging` says so. Actors load onto the device that they are given."""
    if judging is None:
        return {name: choice.open(facts, device) for name, choice in choices.items()}
    from ..cluster.rewards import Elsewhere

    return {name: Elsewhere(partial(_opened_here, choice, facts), judging) for name, choice in choices.items()}


def _opened_here(choice: RewardChoice, facts: Mapping[str, Facts]) -> Reward:
    from ..loading import here

    return choice.open(facts, here(None))


def chosen(section: Mapping[str, Mapping[str, Any]]) -> dict[str, RewardChoice]:
    """A recipe's section `rewards`: name to `RewardChoice`. ValueError, in one sentence, for anything else."""
    found = {}
    for name, values in section.items():
        try:
            found[name] = RewardChoice(**values)
        except TypeError as error:
            raise ValueError(f"rewards.{name}: give weight and one of judge, vqa, detector ({error}).") from error
    if not any(choice.weight for choice in found.values()):
        raise ValueError("no reward has a weight, so there is nothing to learn from; give one of them some.")
    return found
