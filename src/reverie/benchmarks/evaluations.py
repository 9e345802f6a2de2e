"""What evaluator models say about images, as data: the border between them and the scoring rules.

Detectors, taggers, BLIP and CLIP need libraries that cannot live in one environment, so they may run anywhere, in
another process or on another machine, and leave a JSON Lines file with an `Evaluation` for each image. From there on
everything is pure: `geneval` and `compbench` turn evaluations into results. An image without one stays without a score
and is named in the notes.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL.Image import Image

from ..files import write_atomically
from . import compbench as comp
from . import compbench_rules as rules
from . import geneval as rule
from . import geneval_files
from .outcome import Outcome
from .protocol import Sample

OFFICIAL = rule.Options()


@dataclass(frozen=True)
class Evaluation:
    """What evaluators say about one image; what a rule does not use may stay empty."""

    image: str
    """Path below the image folder, in the benchmark's layout."""
    evaluator: str = ""
    """Which models, with their versions."""
    detections: Sequence[tuple[str, Sequence[float], float]] = ()
    """Label, box [x1, y1, x2, y2] and score, in the detector's order; y grows downward."""
    colours: Mapping[str, Sequence[str]] | None = None
    """GenEval: label to the colour of each of its detections, in the same order."""
    tokens: Sequence[tuple[str, str]] = ()
    """The prompt's words with spaCy's part-of-speech tags."""
    noun_chunks: Sequence[str] = ()
    """The prompt's noun phrases by spaCy."""
    phrases: Mapping[str, float] | None = None
    """BLIP: `compbench_rules.question` of a phrase to the probability of yes."""
    clip: float | None = None
    """CLIP's cosine between image and prompt."""
    depth: Sequence[Sequence[float]] | None = None
    """Depth map (H, W) as rows; larger is nearer."""


class Evaluator(Protocol):
    """Whatever looks at images for a rule: a detector, BLIP with a tagger, CLIP. Returns an evaluation for each image
    with the fields that it is good for, or None for one that it has nothing to say about."""

    name: str

    def evaluate(
        self, files: Sequence[str], prompts: Sequence[str], images: Sequence[Image]
    ) -> Sequence[Evaluation | None]: ...


def write(path: str | Path, evaluations: Iterable[Evaluation]) -> None:
    text = "".join(json.dumps(asdict(one)) + "\n" for one in evaluations)
    write_atomically(Path(path), lambda partial: partial.write_text(text, "utf-8"))


def read(path: str | Path) -> dict[str, Evaluation]:
    """Evaluations by image. ValueError for a line that is none, and where an image comes twice."""
    if not Path(path).is_file():
        raise ValueError(f"There is no {path}: give the evaluations that the evaluator models wrote.")
    known = {field.name for field in fields(Evaluation)}
    found: dict[str, Evaluation] = {}
    for number, line in enumerate(Path(path).read_text("utf-8").split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            one = Evaluation(**record)
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no evaluation (fields {', '.join(sorted(known))}).") from error
        if one.image in found:
            raise ValueError(f"{path}, line {number}: {one.image} comes twice, so it is unclear which counts.")
        found[one.image] = one
    return found


class Recorded:
    """An `Evaluator` that looks up what others saw: a file of evaluations."""

    def __init__(self, path: str | Path) -> None:
        self.found = read(path)
        names = sorted({one.evaluator for one in self.found.values() if one.evaluator})
        self.name = ", ".join(names) or f"evaluations of {Path(path).name}"

    def evaluate(
        self, files: Sequence[str], prompts: Sequence[str], images: Sequence[Image]
    ) -> list[Evaluation | None]:
        """None for an image of which the file says nothing."""
        return [self.found.get(file) for file in files]


# ----------------------------------------------------------------------------------------------------- rules


def geneval(
    samples: Sequence[Sample],
    evaluations: Mapping[str, Evaluation],
    images: int = geneval_files.IMAGES,
    options: rule.Options = OFFICIAL,
) -> list[geneval_files.Result]:
    """A line of GenEval's results file for each image that has an evaluation."""
    results = []
    for sample in samples:
        for index in range(images):
            one = evaluations.get(geneval_files.file(sample, index))
            if one is not None:
                results.append(judge_geneval(sample, one, options))
    return results


def judge_geneval(sample: Sample, one: Evaluation, options: rule.Options = OFFICIAL) -> geneval_files.Result:
    """The line of GenEval's results file for one image."""
    boxes: dict[str, list[list[float]]] = {}
    for label, box, score in one.detections:
        boxes.setdefault(label, []).append([*box, score])

    def colours(name: str, ranks: list[int]) -> list[str]:
        if one.colours is None or len(one.colours.get(name, ())) != len(boxes[name]):
            raise ValueError(
                f"{one.image}: {sample.prompt!r} asks for colours, but {name} has none for each detection."
            )
        return [one.colours[name][rank] for rank in ranks]

    verdict = rule.judge(sample.record, boxes, colours, options)
    return geneval_files.result(one.image, sample.record, boxes, verdict)


def compbench(
    category: str,
    samples: Sequence[Sample],
    evaluations: Mapping[str, Evaluation],
    images: int = comp.IMAGES,
    official: bool = False,
    nouns: Mapping[str, str] | None = None,
    parts: Mapping[str, Sequence[str]] | None = None,
) -> dict[str, list[float | None]]:
    """Prompt to the scores of its images in a category of T2I-CompBench; None for an image without an evaluation.

    nouns: `compbench_rules.noun_table`, for numeracy. parts: `compbench.complex_parts`, for complex.
    """
    kind = comp.RULES[category]
    if kind == "unidet_count" and nouns is None:
        raise ValueError("The numeracy rule needs the noun list: give nouns=noun_table(compbench.nouns(folder)).")
    if kind == "three_in_one" and parts is None:
        raise ValueError("The 3-in-1 rule needs the parts of the complex prompts: give parts=complex_parts(folder).")
    scores: dict[str, list[float | None]] = {}
    for sample in samples:
        row: list[float | None] = []
        for index in range(images):
            one = evaluations.get(comp.file(sample, index, images))
            row.append(
                None if one is None else score_compbench(kind, sample.prompt, one, official, nouns or {}, parts or {})
            )
        scores[sample.prompt] = row
    return scores


def score_compbench(
    kind: str,
    prompt: str,
    one: Evaluation,
    official: bool,
    nouns: Mapping[str, str],
    parts: Mapping[str, Sequence[str]],
) -> float:
    """The score of one image by a rule of T2I-CompBench, see `compbench`."""
    if kind == "blip_vqa":
        return _attributes(one)
    if kind == "clip":
        return _cosine(one)
    if kind == "unidet_2d":
        return rules.spatial_score(prompt, one.tokens, one.detections, official=official)
    if kind == "unidet_count":
        return rules.numeracy_score([word for word, _ in one.tokens], one.detections, nouns)
    if kind == "unidet_3d":
        if one.depth is None:
            raise ValueError(f"{one.image}: the 3D rule needs a depth map in its evaluation.")
        depth = np.asarray(one.depth, np.float64)
        return rules.spatial_3d_score(prompt, one.tokens, one.detections, depth, official)
    spatial = rules.spatial_score(prompt, one.tokens, one.detections, True, official)
    return rules.three_in_one(
        [prompt], parts["spatial"], parts["action"], [_attributes(one)], [spatial], [_cosine(one)], 1
    )[0]


def _attributes(one: Evaluation) -> float:
    asked = [rules.question(phrase) for phrase in rules.phrases(one.noun_chunks)]
    known = one.phrases or {}
    if missing := [question for question in asked if question not in known]:
        raise ValueError(f"{one.image}: there is no answer to {missing[0]!r} in its evaluation.")
    return float(rules.attribute_score([round(known[question], 4) for question in asked]))


def _cosine(one: Evaluation) -> float:
    if one.clip is None:
        raise ValueError(f"{one.image}: the rule needs CLIP's cosine in its evaluation.")
    return one.clip


def geneval_outcome(
    samples: Sequence[Sample], evaluations: Mapping[str, Evaluation], long: bool = False, images: int = 4
) -> Outcome:
    """GenEval's scores straight from evaluations."""
    return geneval_files.outcome(geneval(samples, evaluations, images), long, images)
