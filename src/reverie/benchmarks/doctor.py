"""Whether whoever will look at a run's images is fit for it, in a minute: known pictures, right and wrong questions.

Everybody is asked the same about a picture that shows it and about one that does not. Who cannot tell the two apart
(finds nothing, finds everything, says yes to all, does not look) is right half of the time, whatever else it does. With
the usual 16 pictures, guessing reaches `FIT` once in 26 times where answers are compared in pairs, and once in 286
times where each counts alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from PIL.Image import Image

from .evaluators.boxes import SHORT, BoxDetector
from .evaluators.detector import Instance, InstanceDetector
from .geneval import COLOURS, iou
from .known import Known

FIT, POOR = 0.75, 0.6
"""Shares of right answers, half of which come by guessing."""
FIT_COLOURS, POOR_COLOURS = 0.6, 0.4
"""The same of ten colours, a tenth of which come by guessing."""
PLACED = 0.5
"""IoU of a box with the thing that it should hold."""
UNREADABLE = 0.2
"""Share of answers that cannot be read, from which on nobody is fit."""
Verdict = Literal["fit", "poor", "unfit"]


@dataclass(frozen=True)
class Finding:
    """What was found out about one of those who look. `right` and `said` are for people."""

    role: str
    who: str
    asked: int
    share: float | None
    """Of right answers; None where nothing could be asked."""
    verdict: Verdict
    said: str

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def graded(share: float, fit: float = FIT, poor: float = POOR) -> Verdict:
    return "fit" if share >= fit else "poor" if share >= poor else "unfit"


def broken(role: str, who: str, error: Exception) -> Finding:
    """Of somebody who does not answer at all."""
    return Finding(role, who, 0, None, "unfit", " ".join(str(error).split()))


# ------------------------------------------------------------------------------------------------- detectors


def instances(detector: InstanceDetector, known: Sequence[Known]) -> Finding:
    found = detector.look([one.picture for one in known])
    things = [[(one.label, one.box) for one in row] for row in found]
    return _found("detector", detector.name, things, known)


def boxes(detector: BoxDetector, known: Sequence[Known]) -> Finding:
    """Told what is there and what is not, where it needs to be told."""
    names = [[one.kind, wrong.kind] for one, wrong in _pairs(known)]
    found = detector.look([one.picture for one in known], names)
    factor = known[0].side / SHORT
    things = [[(label, tuple(edge * factor for edge in box)) for label, box, _ in row] for row in found]
    return _found("detector", detector.name, things, known)


def _found(role: str, who: str, found: Sequence[Sequence[tuple[str, Any]]], known: Sequence[Known]) -> Finding:
    """found: label and box of what was seen in each picture."""
    there = [[box for label, box in row if label == one.kind] for row, one in zip(found, known, strict=True)]
    false = [any(label == wrong.kind for label, _ in row) for row, (_, wrong) in zip(found, _pairs(known), strict=True)]
    hits = sum(map(bool, there))
    share = (hits + len(known) - sum(false)) / (2 * len(known))
    placed = [max(iou(box, one.box) for box in row) for row, one in zip(there, known, strict=True) if row]
    told = f"finds {hits} of {len(known)} things, and {sum(false)} that are not there"
    if not any(found):
        return Finding(role, who, 2 * len(known), share, "unfit", "finds nothing in any picture")
    if placed and np.median(placed) < PLACED:
        return Finding(role, who, 2 * len(known), share, "unfit", f"{told}; its boxes lie beside the things")
    return Finding(role, who, 2 * len(known), share, graded(share), told)


def colours(
    read: Callable[[Sequence[Image], Sequence[Sequence[Instance]]], list[list[str]]], who: str, known
) -> Finding:
    """Colours of things whose masks are known. read: of pictures and what is in them (`Colours.read`)."""
    things = [[Instance(one.kind, _whole(one.mask), 1.0, one.mask)] for one in known]
    names = [row[0] for row in read([one.picture for one in known], things)]
    right = sum(name == one.colour for name, one in zip(names, known, strict=True))
    share = right / len(known)
    if len(set(names)) == 1:
        return Finding("clip", who, len(known), share, "unfit", f"says {names[0]} to everything")
    told = f"reads {right} of {len(known)} colours ({len(set(names))} of {len(COLOURS)} ever named)"
    return Finding("clip", who, len(known), share, graded(share, FIT_COLOURS, POOR_COLOURS), told)


def _whole(mask: np.ndarray) -> tuple[float, float, float, float]:
    from .evaluators.detector import box_of

    return box_of(mask)


# ---------------------------------------------------------------------------------- scores of right and wrong


def compared(role: str, who: str, scores: Sequence[tuple[float | None, float | None]]) -> Finding:
    """Of scores of one thing on the right picture and on a wrong one; None for an answer that cannot be read."""
    flat = [score for pair in scores for score in pair]
    lost = sum(score is None for score in flat)
    if lost > UNREADABLE * len(flat):
        return Finding(role, who, len(flat), None, "unfit", f"{lost} of {len(flat)} answers cannot be read")
    read = [(right, wrong) for right, wrong in scores if right is not None and wrong is not None]
    share = sum(0.5 if right == wrong else float(right > wrong) for right, wrong in read) / max(1, len(read))
    told = f"prefers the right picture {sum(right > wrong for right, wrong in read)} of {len(read)} times"
    seen = {round(score, 6) for pair in read for score in pair}
    if len(seen) == 1:
        told = f"always says {_plain(seen.pop())}"
    elif all(right == wrong for right, wrong in read):
        told = "answers without looking: the same to right and wrong pictures"
    if lost:
        told += f"; {lost} of {len(flat)} answers cannot be read"
    return Finding(role, who, len(flat), share, graded(share), told)


def _plain(score: float) -> str:
    return {0.0: "no (0)", 1.0: "yes (1)"}.get(score, f"{score:g}")


def asked(role: str, who: str, ask: Callable[[Sequence[str], Sequence[Image]], Sequence[float]], known) -> Finding:
    """Of a scorer (texts, pictures) -> scores: BLIP, CLIP, reward models, judges."""
    texts = [one.words for one, _ in _pairs(known)]
    right = ask(texts, [one.picture for one, _ in _pairs(known)])
    wrong = ask(texts, [other.picture for _, other in _pairs(known)])
    return compared(role, who, list(zip(right, wrong, strict=True)))


def depth(model: Any, known: Sequence[Known]) -> Finding:
    """Drawings have no depth, so this only says whether it looks."""
    maps = model.maps([one.picture for one in known])
    flat = sum(float(np.ptp(one)) == 0 for one in maps)
    same = sum(np.array_equal(a, b) for a, b in zip(maps, [*maps[1:], maps[0]], strict=True))
    told = f"{flat} of {len(maps)} maps are flat, {same} are as the next one"
    fit = flat == same == 0
    share = 1 - max(flat, same) / len(maps)
    return Finding("depth", model.name, len(maps), share, "fit" if fit else "unfit", told if not fit else "it looks")


SENTENCES = {
    "a red cat on the left of a blue dog": (["cat", "dog"], ["a red cat", "a blue dog"]),
    "two green birds and three chairs": (["birds", "chairs"], ["two green birds", "three chairs"]),
    "a white cup next to a black book": (["cup", "book"], ["a white cup", "a black book"]),
}
"""Prompts with the nouns and noun phrases that rules look for."""


def tagger(model: Any) -> Finding:
    right = total = 0
    for prompt, (nouns, chunks) in SENTENCES.items():
        words = model.words(prompt)
        tagged = {word for word, tag in words.tokens if tag == "NOUN"}
        right += sum(noun in tagged for noun in nouns) + sum(chunk in words.noun_chunks for chunk in chunks)
        total += len(nouns) + len(chunks)
    told = f"{right} of {total} nouns and phrases"
    return Finding("tagger", model.name, total, right / total, graded(right / total, 0.9, 0.75), told)


def _pairs(known: Sequence[Known]) -> list[tuple[Known, Known]]:
    """Each with the one whose picture is wrong for it."""
    return list(zip(known, [*known[1:], known[0]], strict=True))
