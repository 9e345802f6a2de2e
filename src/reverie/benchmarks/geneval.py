"""The scoring rule of GenEval (Ghosh et al. 2023, arXiv:2310.11513; djghosh13/geneval at af4902f2) as pure functions.

They see detections and colours only, so any detector and any colour reader fits. Geometry and score thresholds are
computed in float32, as the official code does: a score equal to float32(0.3) is dropped. Left out on purpose: the
detector and CLIP themselves. `judge` scores an image, `summarise` a run, `colour_crop` cuts what CLIP is shown.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TAGS = ("single_object", "two_object", "counting", "colors", "position", "color_attr")

Detections = Mapping[str, Sequence[Sequence[float]]]
"""Class to boxes [x1, y1, x2, y2, score] in the detector's order; y grows downward."""
ColourReader = Callable[[str, list[int]], list[str]]
"""(class, indices into its detections) to colour names. Called only when there are enough objects."""


@dataclass(frozen=True)
class Options:
    """The official defaults. `max_overlap` 1 switches suppression off, even between identical boxes."""

    threshold: float = 0.3
    counting_threshold: float = 0.9
    max_objects: int = 16
    max_overlap: float = 1.0
    position_threshold: float = 0.1


@dataclass(frozen=True)
class Verdict:
    """correct; reason: what failed, one line a failure, empty if nothing; kept: class to the indices that counted."""

    correct: bool
    reason: str
    kept: dict[str, list[int]]


@dataclass(frozen=True)
class Summary:
    """Shares of correct images: by tag (in order of first appearance), unweighted mean of the tags, of all images,
    and the share of prompts with at least one correct image. Shares are None where there is nothing."""

    total_images: int
    total_prompts: int
    image_accuracy: float | None
    prompt_accuracy: float | None
    tag_scores: dict[str, float]
    overall: float | None


# ----------------------------------------------------------------------------------------------- geometry


def iou(a: Sequence[float], b: Sequence[float]) -> float:
    """Intersection over union under the inclusive-pixel convention: a box from 3 to 3 is one pixel wide, one whose
    corners are swapped is empty. Two empty boxes do not overlap."""

    def area(x1: Any, y1: Any, x2: Any, y2: Any) -> Any:
        return max(x2 - x1 + np.float32(1), 0) * max(y2 - y1 + np.float32(1), 0)

    p, q = np.asarray(a, np.float32)[:4], np.asarray(b, np.float32)[:4]
    shared = area(*np.maximum(p[:2], q[:2]), *np.minimum(p[2:], q[2:]))
    union = area(*p) + area(*q) - shared
    return float(shared / union) if union else 0.0


def relations(a: Sequence[float], b: Sequence[float], margin: float = 0.1) -> list[str]:
    """In which relations box a stands to box b, sorted: none, one, or two on a diagonal.

    The offset of the centres is shrunk by `margin` of both sizes, but divided by its unshrunk length, so that large
    neighbours often stand in no relation.
    """
    boxes = np.stack([np.asarray(a, np.float32)[:4], np.asarray(b, np.float32)[:4]]).reshape(2, 2, 2)
    offset = boxes[0].mean(0) - boxes[1].mean(0)
    sizes = np.abs(boxes[:, 1] - boxes[:, 0])
    shrunk = np.sign(offset) * np.maximum(np.abs(offset) - np.float32(margin) * (sizes[0] + sizes[1]), np.float32(0))
    if np.all(np.abs(shrunk) < 1e-3):
        return []
    x, y = shrunk / np.linalg.norm(offset)
    found = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return sorted(name for name, holds in found.items() if holds)


def colour_crop(
    pixels: np.ndarray,
    mask: np.ndarray | None,
    box: Sequence[float],
    background: tuple[int, int, int] | None = (0x99, 0x99, 0x99),
    crop: bool = True,
) -> np.ndarray:
    """What the colour classifier is shown: (H, W, 3) uint8 and an (H, W) mask to an (h, w, 3) uint8 cut-out.

    Outside the mask stands `background` (None leaves the picture as it is). The box is rounded half to even; parts of
    it beyond the picture come out black.
    """
    shown = np.array(pixels, np.uint8)
    if mask is not None and background is not None:
        shown[~np.asarray(mask, bool)] = background
    if not crop:
        return shown
    x1, y1, x2, y2 = (round(float(edge)) for edge in box[:4])
    cut = np.zeros((max(y2 - y1, 0), max(x2 - x1, 0), 3), np.uint8)
    left, top, right, bottom = max(x1, 0), max(y1, 0), min(x2, shown.shape[1]), min(y2, shown.shape[0])
    if left < right and top < bottom:
        cut[top - y1 : bottom - y1, left - x1 : right - x1] = shown[top:bottom, left:right]
    return cut


# ------------------------------------------------------------------------------------------------ one image


def keep(boxes: Sequence[Sequence[float]], threshold: float, options: Options = Options()) -> list[int]:
    """Indices of the detections of one class that count, best first. Of equal scores the later one stands first."""
    scores = np.array([box[4] for box in boxes], np.float32)
    ranked = [i for i in range(len(boxes)) if scores[i] > np.float32(threshold)]
    ranked = sorted(ranked, key=lambda i: (scores[i], i), reverse=True)[: options.max_objects]
    if options.max_overlap >= 1:
        return ranked
    kept: list[int] = []
    for i in ranked:
        if all(iou(boxes[i], boxes[j]) < options.max_overlap for j in kept):
            kept.append(i)
    return kept


def judge(
    record: Mapping[str, Any], detections: Detections, colours: ColourReader, options: Options = Options()
) -> Verdict:
    """Whether an image shows what a prompt record (tag, include, exclude) demands.

    Extra objects hurt only where `exclude` names them. Clauses are independent of each other, but a clause placed
    relative to one that failed fails too.
    """
    threshold = options.counting_threshold if record.get("tag") == "counting" else options.threshold
    kept = {name: ranks for name, boxes in detections.items() if (ranks := keep(boxes, threshold, options))}
    reasons: list[str] = []
    targets: list[list[Sequence[float]] | None] = []  # the boxes of each clause, None where it failed
    for clause in record.get("include", ()):
        ranks = kept.get(clause["class"], [])[: clause["count"]]
        boxes = [detections[clause["class"]][i] for i in ranks]
        failure = _missing(clause, ranks, colours) or _misplaced(clause, boxes, targets, options)
        targets.append(None if failure else boxes)
        reasons += [failure] if failure else []
    for clause in record.get("exclude", ()):
        found = len(kept.get(clause["class"], ()))
        if found >= clause["count"]:
            reasons.append(f"expected {clause['class']}<{clause['count']}, found {found}")
    return Verdict(not reasons, "\n".join(reasons), kept)


def _missing(clause: Mapping[str, Any], ranks: list[int], colours: ColourReader) -> str:
    """Why there are too few objects, or too few of the demanded colour; empty if there are enough."""
    name, count, colour = clause["class"], clause["count"], clause.get("color")
    if len(ranks) < count:
        return f"expected {name}>={count}, found {len(ranks)}"
    if colour is None:
        return ""
    seen = colours(name, ranks)
    if seen.count(colour) >= count:
        return ""
    others = ", ".join(f"{seen.count(other)} {other}" for other in COLOURS if other in seen)
    return f"expected {colour} {name}>={count}, found {seen.count(colour)} {colour}; and {others}"


def _misplaced(
    clause: Mapping[str, Any],
    boxes: Sequence[Sequence[float]],
    targets: Sequence[list[Sequence[float]] | None],
    options: Options,
) -> str:
    """Why an object is not where it should be; empty if all are, each relative to every object of the target."""
    if not clause.get("position"):
        return ""
    wanted, index = clause["position"]
    group = targets[index]
    if group is None:
        return f"no target for {clause['class']} to be {wanted}"
    for box in boxes:
        for target in group:
            found = relations(box, target, options.position_threshold)
            if wanted not in found:
                return f"expected {clause['class']} {wanted} target, found {' and '.join(found)} target"
    return ""


# -------------------------------------------------------------------------------------------------- a run


def summarise(results: Iterable[tuple[str, str, bool]]) -> Summary:
    """Of (tag, prompt identity, correct) for each image. A tag that is absent drops out of the mean."""
    by_tag: dict[str, list[bool]] = {}
    by_prompt: dict[str, bool] = {}
    for tag, prompt, correct in results:
        by_tag.setdefault(tag, []).append(bool(correct))
        by_prompt[prompt] = by_prompt.get(prompt, False) or bool(correct)
    images = sum(map(len, by_tag.values()))
    scores = {tag: sum(values) / len(values) for tag, values in by_tag.items()}
    return Summary(
        images,
        len(by_prompt),
        sum(map(sum, by_tag.values())) / images if images else None,
        sum(by_prompt.values()) / len(by_prompt) if by_prompt else None,
        scores,
        sum(scores.values()) / len(scores) if scores else None,
    )
