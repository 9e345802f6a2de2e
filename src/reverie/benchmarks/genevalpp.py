"""GenEval++ (Ye et al. 2025, Echo-4o, arXiv:2508.09987; yejy53/Echo-4o at 28f36d76): 280 harder prompts of seven kinds.

A judge (GPT-4.1) goes through a checklist made from the record and says 1 or 0. A missing image is wrong, and so is
one about which the judge gives no readable answer in three tries.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .outcome import Outcome, of_prompts, of_strata
from .prompt_files import Source
from .protocol import Sample

PROMPTS, OF_A_TAG, TRIES = 280, 40, 3
TAGS = (
    "color_attr", "spatial_count_attr", "color_spatial_attr", "color_count_attr", "multi_object_count_attr",
    "size_spatial_attr", "counting",
)  # fmt: skip
JUDGE = "GPT-4.1"
MISSING, FAILED = 0, -1
"""What stands for the verdict on a missing image, and for a judge that failed."""
SOURCE = Source(
    "GenEval++", "https://github.com/yejy53/Echo-4o, file test_scripts/Geneval++.jsonl, commit 28f36d76", "Apache-2.0"
)


def read(folder: str | Path | None) -> tuple[Sample, ...]:
    """The 280 prompts, 40 of each tag; the id is the line number, from 1."""
    path = SOURCE.locate(folder, "test_scripts/Geneval++.jsonl")
    records = SOURCE.records(path, PROMPTS, ("tag", "include", "prompt"))
    tags = [record["tag"] for record in records]
    wrong = [tag for tag in {*TAGS, *tags} if tags.count(tag) != OF_A_TAG]
    if wrong:
        raise SOURCE.broken(path, f"holds {tags.count(wrong[0])} prompts of the tag {wrong[0]}, not {OF_A_TAG}")
    return tuple(
        Sample(str(number), record["prompt"], record["tag"], record, str(number))
        for number, record in enumerate(records, 1)
    )


def file(sample: Sample, index: int = 0) -> str:
    """1.jpg to 280.jpg, by line."""
    return f"{sample.id}.jpg" if index == 0 else f"{sample.id}_{index}.jpg"


def checklist(record: Mapping[str, Any]) -> list[str]:
    """What a record demands, a sentence each."""
    lines = []
    include = record["include"]
    for clause in include:
        words = [str(clause["count"]), clause.get("size"), clause.get("color"), clause["class"]]
        line = "exactly " + " ".join(word for word in words if word)
        if clause.get("region"):
            line += f", in the {clause['region']} part of the image"
        if clause.get("position"):
            relation, place = clause["position"]
            line += f", {relation} the {include[place]['class']}"
        lines.append(line)
    lines += [f"fewer than {clause['count']} {clause['class']}" for clause in record.get("exclude", ())]
    return lines


def parse(text: str) -> int | None:
    """The verdict in an answer: the field `correct` of its JSON object, 1 or 0; None if it cannot be read."""
    for block in re.findall(r"\{.*\}", text, re.DOTALL):
        try:
            value = json.loads(block).get("correct")
        except (json.JSONDecodeError, AttributeError):
            continue
        if value in (0, 1):
            return int(value)
    hit = re.search(r'"?correct"?\s*[:=]\s*"?([01]|true|false)\b', text, re.IGNORECASE)
    return {"1": 1, "0": 0, "true": 1, "false": 0}[hit[1].lower()] if hit else None


def accuracies(verdicts: Sequence[tuple[str, object]]) -> tuple[dict[str, float], float, float]:
    """Of (tag, verdict) for each image: by tag, mean of the tags, and share of all, each with 4 decimals as the
    official script prints them. Only 1 is right; None, 0 and -1 are wrong."""
    by_tag: dict[str, list[bool]] = {}
    for tag, verdict in verdicts:
        by_tag.setdefault(tag, []).append(verdict == 1)
    exact = {tag: sum(values) / len(values) for tag, values in by_tag.items()}
    tags = {tag: round(value, 4) for tag, value in exact.items()}
    if not tags:
        raise ValueError("GenEval++ has no verdict to add up: judge some images first.")
    everything = sum(map(sum, by_tag.values())) / sum(map(len, by_tag.values()))
    return tags, round(sum(tags.values()) / len(tags), 4), round(everything, 4)


def outcome(verdicts: Mapping[str, Mapping[str, Sequence[object]]]) -> Outcome:
    """Mean of the tags, accuracy over all images, and by tag, from tag to sample id to the verdicts on its images."""
    values = {
        tag: {key: [float(verdict == 1) for verdict in row] for key, row in group.items()}
        for tag, group in verdicts.items()
    }
    scores = {"overall": of_strata(values), "all images": of_strata(values, "items")}
    scores |= {tag: of_prompts(group) for tag, group in values.items()}
    flat = [verdict for group in verdicts.values() for row in group.values() for verdict in row]
    notes = []
    if failed := sum(verdict == FAILED or verdict is None for verdict in flat):
        notes.append(f"the judge failed on {failed} images: they count as wrong")
    if len(flat) < PROMPTS:
        notes.append(f"{len(flat)} of {PROMPTS} images")
    return Outcome("geneval++", scores, tuple(notes))
