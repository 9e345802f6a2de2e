"""The scoring rules of T2I-CompBench and its ++ tasks (Huang et al. 2023, arXiv:2307.06350; TPAMI 2025) for one image.

They are pure functions over what evaluators say: BLIP's yes-probabilities for noun phrases, UniDet's detections, a
depth map, CLIP cosines. Words come from any tagger as (text, part of speech) in spaCy's tags. `official=True` repeats
the bugs of Karine-Huang/T2I-CompBench at 1b709499: "on top of" and "on bottom of" have no rule and score 0; the
depth map is cut transposed; and in 3D a thing that is seen again before its partner replaces the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

import numpy as np

Box = Sequence[float]
"""x_min, y_min, x_max, y_max; y grows downward."""
Detections = Sequence[tuple[str, Box, float]]
"""Label, box and score, in the detector's order."""
Tokens = Sequence[tuple[str, str]]
"""Words with their part of speech."""

NEAR = 150.0  # pixels, in the detector's frame whose short side is 479
PERSONS = ("girl", "boy", "man", "woman")
RELATIONS = (
    "on side of", "next to", "near", "on the left of", "on the right of", "on the bottom of", "on the top of",
    "on top of",
)  # fmt: skip
RELATIONS_3D = ("in front of", "behind", "hidden")
ANCHORS = ("on top of", "on bottom of", "on the left", "on the right", "next to", "on side of", "near")
MENDED = {"on top of": "on the top of", "on bottom of": "on the bottom of"}
NOT_THINGS = ("top", "the side", "the left", "the right")
NUMBERS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8}
SAME_AS = {
    "boy": "person", "girl": "person", "man": "person", "woman": "person",
    "ship": "boat", "goldfish": "fish", "painting": "picture",
}  # fmt: skip


def split_name(file_name: str) -> tuple[str, int]:
    """Prompt and running number of an image, from "a cat near a dog_000123.png"."""
    stem = file_name.rsplit("/", 1)[-1]
    number = stem.rsplit(".", 1)[0].rsplit("_", 1)[-1]
    if "_" not in stem or not number.isdigit():
        raise ValueError(f"T2I-CompBench: {file_name} is not named prompt_number.png, such as a cat_000123.png.")
    return stem.split("_")[0], int(number)


# ---------------------------------------------------------------------------------------------- attributes


def phrases(noun_chunks: Iterable[str], number: int = 8) -> list[str]:
    """The noun phrases of a prompt that BLIP is asked about, at most `number`."""
    return [chunk for chunk in noun_chunks if chunk not in NOT_THINGS][:number]


def question(phrase: str) -> str:
    """What BLIP is asked about a phrase."""
    return f"{phrase}?".lower().translate(str.maketrans("", "", '.!"()*#:;~'))


def attribute_score(probabilities: Sequence[float]) -> str:
    """The product of the phrases' yes-probabilities (each of 4 decimals) in float32, as text of 4 decimals; 1.0000 of
    none."""
    product = np.float32(1)
    for probability in probabilities:
        product = np.float32(product * np.float32(probability))
    return f"{float(product):.4f}"


# -------------------------------------------------------------------------------------------- 2D positions


def overlap(a: Box, b: Box, pixel: float = 0.0) -> tuple[float, float, float]:
    """Intersection and the two areas; `pixel` 1 counts the pixels of both edges."""
    wide = max(min(a[2], b[2]) - max(a[0], b[0]) + pixel, 0.0)
    high = max(min(a[3], b[3]) - max(a[1], b[1]) + pixel, 0.0)
    areas = [(box[2] - box[0] + pixel) * (box[3] - box[1] + pixel) for box in (a, b)]
    return wide * high, areas[0], areas[1]


def iou(a: Box, b: Box, pixel: float = 0.0) -> float:
    shared, one, other = overlap(a, b, pixel)
    union = one + other - shared
    return shared / union if union else 0.0


def _offset(a: Box, b: Box) -> tuple[float, float]:
    """From the centre of a to that of b."""
    return (b[0] + b[2] - a[0] - a[2]) / 2, (b[1] + b[3] - a[1] - a[3]) / 2


def relation_score(relation: str, a: Box, b: Box, official: bool = False) -> float:
    """How well a stands in a relation to b, in [0, 1]; 0 for a relation without rule."""
    if not official:
        relation = MENDED.get(relation, relation)
    x, y = _offset(a, b)
    if relation in ("next to", "on side of", "near"):
        return 1.0 if min(abs(x), abs(y)) < NEAR else NEAR / max(abs(x), abs(y))
    holds = {
        "on the left of": x > 0 and abs(x) > abs(y),
        "on the right of": x < 0 and abs(x) > abs(y),
        "on the top of": y > 0 and abs(y) > abs(x),
        "on the bottom of": y < 0 and abs(y) > abs(x),
    }.get(relation, False)
    if not holds:
        return 0.0
    shared = iou(a, b)
    return 1.0 if shared < 0.1 else 0.1 / shared


def relation_of(prompt: str, words: Sequence[str] = RELATIONS) -> str | None:
    return next((word for word in words if word in prompt), None)


def spatial_objects(tokens: Tokens, complex_prompt: bool = False) -> list[str]:
    """The names of the two objects that a prompt relates; fewer where they are not found."""
    if complex_prompt:
        names = _around_anchor(tokens)
    else:
        nouns = [word for word, tag in tokens if tag == "NOUN"]
        names = [nouns[0], nouns[-1]] if nouns else []
    return ["person" if name in PERSONS else name for name in names]


def _around_anchor(tokens: Tokens) -> list[str]:
    """Before the relation word the nearest noun or name, after it the next noun, or else the last name of a run that
    is followed by another word. Both or nothing."""
    words = [word for word, _ in tokens]
    for anchor in ANCHORS:
        parts = anchor.split()
        for start in range(len(words) - len(parts) + 1):
            if words[start : start + len(parts)] != parts:
                continue
            before = [word for word, tag in tokens[:start] if tag in ("NOUN", "PROPN")][-1:]
            after = _after(tokens[start + len(parts) :])
            return before + after if before and after else []
    return []


def _after(tokens: Tokens) -> list[str]:
    nouns = [word for word, tag in tokens if tag == "NOUN"]
    pairs = pairwise(tokens)
    names = [word for (word, tag), (_, after) in pairs if tag == "PROPN" and after != "PROPN"]
    return (nouns or names)[:1]


def spatial_score(
    prompt: str, tokens: Tokens, detections: Detections, complex_prompt: bool = False, official: bool = False
) -> float:
    """2D spatial score of an image, 0 or in [0.5, 1]: a quarter for each object's detector score and half for the
    relation; whatever is below 0.5 counts as 0."""
    names = spatial_objects(tokens, complex_prompt)
    words = RELATIONS if official else (*RELATIONS, "on bottom of")
    relation = relation_of(prompt, words)
    if len(names) != 2:
        return 0.0
    found = [next((one for one in detections if one[0] == name), None) for name in names]
    score = sum(0.25 * one[2] for one in found if one)
    first, second = found
    if first and second and relation:
        score += 0.5 * relation_score(relation, first[1], second[1], official)
    return score if score >= 0.5 else 0.0


# -------------------------------------------------------------------------------------------- 3D positions


def depth_relation_score(relation: str, a: Box, b: Box, depth: np.ndarray, official: bool = False) -> float:
    """How well a stands in front of or behind b by a depth map (H, W), larger is nearer."""
    low, high = float(depth.min()), float(depth.max())
    scaled = (depth - low) / (high - low) if high > low else np.zeros_like(depth)
    means = []
    for box in (a, b):
        x1, y1, x2, y2 = (int(edge) for edge in box)
        cut = scaled[x1:x2, y1:y2] if official else scaled[y1:y2, x1:x2]
        if not cut.size:
            return 0.0
        means.append(float(cut.mean()))
    gap = means[0] - means[1] if relation == "in front of" else means[1] - means[0]
    shared = iou(a, b)
    if gap <= 0 or shared in (0, 0.5):
        return 0.0
    return 1.0 if shared > 0.5 else shared / 0.5


def spatial_3d_score(
    prompt: str, tokens: Tokens, detections: Detections, depth: np.ndarray, official: bool = False
) -> float:
    """3D spatial score of an image in [0, 1]. A name fits every label that contains it; both names may be one thing."""
    names = spatial_objects(tokens)
    relation = relation_of(prompt, RELATIONS_3D)
    if len(names) != 2:
        return 0.0
    hits = [[one for one in detections if name in one[0]] for name in names]
    found = [group[0] for group in hits if group]
    if len(found) == 2 and official:
        found = _placed(names, detections)
    score = sum(0.25 * one[2] for one in found)
    if len(found) == 2 and relation:
        score += 0.5 * depth_relation_score(relation, found[0][1], found[1][1], depth, official)
    return score


def _placed(names: Sequence[str], detections: Detections) -> list[tuple[str, Box, float]]:
    """The two things as the official search leaves them: it goes on until both are found, and takes a name that comes
    again meanwhile for the better one."""
    found: dict[int, tuple[str, Box, float]] = {}
    for one in detections:
        found |= {place: one for place, name in enumerate(names) if name in one[0]}
        if len(found) == 2:
            break
    return [found[0], found[1]]


# ------------------------------------------------------------------------------------------------ numeracy


def duplicate(a: Box, b: Box, limit: float = 0.9) -> bool:
    """Whether two boxes count as one thing: they overlap by more than `limit`, or one is that far inside the other."""
    shared, one, other = overlap(a, b, 1.0)
    return iou(a, b, 1.0) > limit or shared > limit * one or shared > limit * other


def noun_table(lines: Iterable[str]) -> dict[str, str]:
    """Singulars and plurals of the noun list ("bottle - bottles") to the name that detectors use."""
    table = {}
    for line in lines:
        singular, _, plural = (part.strip() for part in line.partition(" - "))
        for word in (singular, plural):
            if word:
                table[word] = SAME_AS.get(singular, singular)
    return table


def numbers_asked(tokens: Sequence[str], nouns: Mapping[str, str]) -> list[tuple[str, int]]:
    """Which objects a prompt asks for and how many of each, from its words."""
    asked = []
    for place, word in enumerate(tokens):
        if word.lower() not in NUMBERS:
            continue
        for length in (2, 1):
            name = nouns.get(" ".join(tokens[place + 1 : place + 1 + length]).lower())
            if name:
                asked.append((name, NUMBERS[word.lower()]))
                break
    return asked


def numeracy_score(tokens: Sequence[str], detections: Detections, nouns: Mapping[str, str]) -> float:
    """Numeracy score of an image in [0, 1]: every object asked for weighs alike, half for being there, half for being
    there in the right number. Detections of one thing under one label are merged."""
    kept: list[tuple[str, Box]] = []
    for label, box, _ in detections:
        if not any(label == other and duplicate(box, there) for other, there in kept):
            kept.append((label, box))
    labels = [label for label, _ in kept]
    asked = numbers_asked(tokens, nouns)
    score = 0.0
    for name, number in asked:
        if name not in labels:
            labels = [name if name in label else label for label in labels]
        here = labels.count(name)
        score += ((here > 0) + (here == number)) / (2 * len(asked))
    return score


# ------------------------------------------------------------------------------------------------- complex


def three_in_one(
    prompts: Sequence[str],
    spatial_prompts: Iterable[str],
    action_prompts: Iterable[str],
    attribute: Sequence[float],
    spatial: Sequence[float],
    action: Sequence[float],
    images_per_prompt: int = 10,
) -> list[float]:
    """Scores of the complex prompts' images, prompt by prompt: attribute with 2D spatial, with CLIP, or with both, as
    the prompt stands in the spatial list, in the action list, or in neither."""
    total = len(prompts) * images_per_prompt
    for name, values in (("attribute", attribute), ("spatial", spatial), ("action", action)):
        if len(values) != total:
            raise ValueError(
                f"3-in-1 needs {total} {name} scores ({len(prompts)} prompts with {images_per_prompt} images each); "
                f"got {len(values)}."
            )
    related, acting = ({_bare(prompt) for prompt in group} for group in (spatial_prompts, action_prompts))
    scores = []
    for place in range(total):
        prompt = _bare(prompts[place // images_per_prompt])
        if prompt in related:
            scores.append((spatial[place] + attribute[place]) / 2)
        elif prompt in acting:
            scores.append((action[place] + attribute[place]) / 2)
        else:
            scores.append((attribute[place] + spatial[place] + action[place]) / 3)
    return scores


def _bare(prompt: str) -> str:
    return prompt.strip().lower().split(".")[0]
