"""T2I-CompBench and T2I-CompBench++ (Huang et al. 2023, arXiv:2307.06350; TPAMI 2025): prompts, files, results.

Eight categories of 300 prompts, ten images each in the papers; the rules for one image are in `compbench_rules.py`,
and `RULES` says which belongs to which category. Left out on purpose: the optional judge with 1 to 5 scales, which
papers rarely use, and the evaluators themselves.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .compbench_rules import split_name
from .outcome import Outcome, of_prompts
from .prompt_files import Source
from .protocol import Sample

RULES = {
    "color": "blip_vqa", "shape": "blip_vqa", "texture": "blip_vqa", "spatial": "unidet_2d", "3d_spatial": "unidet_3d",
    "numeracy": "unidet_count", "non_spatial": "clip", "complex": "three_in_one",
}  # fmt: skip
CATEGORIES = tuple(RULES)
PLUS_PLUS = ("3d_spatial", "numeracy")  # added by T2I-CompBench++
COMPLEX_PARTS = {"spatial": 58, "action": 212, "spatialaction": 30}
PROMPTS, IMAGES = 300, 10
RESULTS = {
    "blip_vqa": "annotation_blip", "unidet_2d": "labels/annotation_obj_detection_2d",
    "unidet_3d": "labels/annotation_obj_detection_3d", "unidet_count": "annotation_num", "clip": "annotation_clip",
    "three_in_one": "annotation_3_in_1",
}  # fmt: skip
"""Folder of a rule's vqa_result.json below the output folder."""
BY_NUMBER = ("unidet_2d", "unidet_3d", "unidet_count")
"""Rules whose question_id is the image's running number; for the others it is the place in the sorted list."""
SOURCE = Source(
    "T2I-CompBench",
    "https://github.com/Karine-Huang/T2I-CompBench, folder examples/dataset, commit 1b709499",
    "MIT",
)


def read(folder: str | Path | None, category: str, split: str = "val") -> tuple[Sample, ...]:
    """The prompts of a category: the 300 of the test split `val`, or the 700 of `train`."""
    if category not in CATEGORIES:
        raise ValueError(f"T2I-CompBench has no category {category!r}: give one of {', '.join(CATEGORIES)}.")
    if split not in ("val", "train"):
        raise ValueError(f"T2I-CompBench has the splits val and train, not {split!r}.")
    path = SOURCE.locate(folder, f"examples/dataset/{category}_{split}.txt")
    prompts = SOURCE.lines(path, PROMPTS if split == "val" else 700)
    for number, prompt in enumerate(prompts, 1):
        if "_" in prompt or "/" in prompt:
            raise SOURCE.broken(path, f"has an underscore or slash in line {number}, which file names cannot hold")
    return tuple(
        Sample(f"{category}-{number:06d}", prompt, category, {"prompt": prompt, "number": number}, prompt)
        for number, prompt in enumerate(prompts)
    )


def complex_parts(folder: str | Path | None) -> dict[str, tuple[str, ...]]:
    """The complex prompts that are about space, about action, and about both, as the 3-in-1 score needs them."""
    return {
        part: tuple(SOURCE.lines(SOURCE.locate(folder, f"examples/dataset/complex_val_{part}.txt"), number))
        for part, number in COMPLEX_PARTS.items()
    }


def nouns(folder: str | Path | None) -> list[str]:
    """The lines of the noun list that the numeracy rule needs, for `compbench_rules.noun_table`."""
    return SOURCE.lines(SOURCE.locate(folder, "examples/dataset/new_objects.txt"), 101)


def file(sample: Sample, index: int = 0, images: int = IMAGES) -> str:
    """Where an image lies below a category's output folder. The number runs through the whole category, so it depends
    on how many images a prompt has."""
    return f"samples/{sample.prompt}_{sample.record['number'] * images + index:06d}.png"


def find_images(folder: str | Path) -> list[tuple[Path, str, int]]:
    """The images of a category made elsewhere, sorted as the official scorers do: file, prompt, running number."""
    found = []
    for path in Path(folder, "samples").glob("*.png"):
        found.append((path, *split_name(path.name)))
    if not found:
        raise ValueError(f"There is no samples/*.png in {folder}: give the output folder of one category.")
    return sorted(found, key=lambda entry: entry[2])


def write_results(folder: str | Path, rule: str, numbers: Sequence[int], answers: Sequence[float | str]) -> Path:
    """The vqa_result.json of a rule, as the official scorer writes it."""
    ids = numbers if rule in BY_NUMBER else range(len(answers))
    rows = [{"question_id": place, "answer": answer} for place, answer in zip(ids, answers, strict=True)]
    path = Path(folder) / RESULTS[rule] / "vqa_result.json"
    write_atomically(path, lambda partial: partial.write_text(json.dumps(rows), "utf-8"))
    return path


def read_results(path: str | Path) -> dict[int, float]:
    """question_id to answer of a vqa_result.json, its own or one that the official scorer wrote."""
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"There is no {path}: run the scorer first, or give the vqa_result.json that it wrote.")
    try:
        rows: list[dict[str, Any]] = json.loads(file.read_text("utf-8"))
        return {int(row["question_id"]): float(row["answer"]) for row in rows}
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path} is not a vqa_result.json (a list of question_id and answer).") from error


def outcome(
    results: Mapping[str, Mapping[str, Sequence[float | None]]], images: int = IMAGES, official: bool = False
) -> Outcome:
    """Category scores in [0, 1] from category to prompt to the scores of its images; None where one is missing.

    There is no overall score, because the categories are measured in different ways.
    """
    scores = {category: of_prompts(results[category]) for category in CATEGORIES if category in results}
    notes = []
    if official:
        notes.append(
            'bugs repeated: no rule for "on top of" and "on bottom of"; depth maps cut transposed; in 3D a thing seen '
            "again replaces the first"
        )
    else:
        notes.append('bugs mended: "on top of", "on bottom of", the depth map\'s axes, the first thing seen in 3D')
    if images != IMAGES:
        notes.append(f"{images} images for each prompt, not {IMAGES} as in the papers")
    for category, prompts in results.items():
        missing = sum(value is None for values in prompts.values() for value in values)
        wanted = PROMPTS * images
        there = sum(map(len, prompts.values())) - missing
        if there < wanted:
            notes.append(f"{category}: {there} of {wanted} images have a score")
    return Outcome("t2i-compbench", scores, tuple(notes), official)
