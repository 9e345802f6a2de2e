"""RISEBench (Zhao et al. 2025, arXiv:2504.02826; PhoenixZ810/RISEBench at 5f226519): editing that needs reasoning.

360 samples (or the older 64) in four categories, an input image each. A judge (GPT-4.1-2025-04-14) rates consistency,
reasoning and plausibility from 1 to 5; a sample passes if everything asked for is 5. Accuracy is the headline.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .outcome import Outcome, of_prompts
from .prompt_files import Source
from .protocol import Sample

CATEGORIES = {
    "temporal_reasoning": ("Temporal", "Temp"), "causal_reasoning": ("Causal", "Causal"),
    "spatial_reasoning": ("Spatial", "Spa"), "logical_reasoning": ("Logical", "Logic"),
}  # fmt: skip
"""Category to its names in the official table: its own row, and the head of its subtasks' rows."""
SIZES = {"full": ("datav2_total_w_subtask.json", 360), "small": ("data_total.json", 64)}
DIMENSIONS = {"Reasoning": "Reasoning", "ApprConsistency": "Consistency", "VisualPlausibility": "Quality"}
FLAG = "consistency_free"
JUDGE, TRIES = "GPT-4.1-2025-04-14", 5
SOURCE = Source(
    "RISEBench",
    "https://huggingface.co/datasets/PhoenixZ/RISEBench (64 samples: https://github.com/PhoenixZ810/RISEBench)",
    "none stated, so the samples are not distributed with this package",
    "PhoenixZ/RISEBench",
    {"data_total.json": "8c60e730429e9f18df98e200fcefb9c246a4edeec17772eb1613076af2cb90c7"},
)


# --------------------------------------------------------------------------------------------------- samples


def read(folder: str | Path | None = None, size: str = "full") -> tuple[Sample, ...]:
    """The samples; `record` holds the paths of the images and the reference. Without a folder, from the hub."""
    if size not in SIZES:
        raise ValueError(f"RISEBench has the sizes {', '.join(SIZES)}, not {size!r}.")
    name, number = SIZES[size]
    path = SOURCE.locate(folder, name if folder is None or size == "full" else f"data/{name}")
    records = SOURCE.records(path, number, ("index", "category", "instruction", "image"))
    return tuple(sample(record) for record in records)


def sample(record: Mapping[str, Any]) -> Sample:
    if record["category"] not in CATEGORIES:
        raise ValueError(
            f"RISEBench: {record['index']} has the category {record['category']!r}, which is none of "
            f"{', '.join(CATEGORIES)}; {SOURCE.hint()}."
        )
    return Sample(record["index"], record["instruction"], record["category"], record, record["index"])


def file(sample: Sample, index: int = 0) -> str:
    """Where a picture lies below outputs/<model>/; jpg and jpeg are read too."""
    return f"images/{sample.tag}/{sample.id}.png"


def picture(folder: str | Path | None, name: str) -> Path:
    """A picture of the benchmark's own, in the folder of its files or in `data` below it; without one, from the hub."""
    below = None if folder is None else Path(folder) / "data" / name
    return below if below is not None and below.is_file() else SOURCE.locate(folder, name)


def asked(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Which dimensions the judge is asked about."""
    if record["category"] == "logical_reasoning":
        return ("ApprConsistency", "Reasoning")
    if record.get(FLAG):
        return ("Reasoning", "VisualPlausibility")
    return ("ApprConsistency", "Reasoning", "VisualPlausibility")


# --------------------------------------------------------------------------------------------------- answers

ANSWER = re.compile(r"\*{0,2}final score(s?)\*{0,2}:?([\d*\s,]*)", re.IGNORECASE)


def numbers(text: str) -> list[int] | None:
    """All whole numbers that follow the words Final Score (or, if none do, Final Scores); None if there are none."""
    for plural in ("", "s"):
        for ending, run in ANSWER.findall(text):
            if ending.lower() == plural and (found := re.findall(r"\d+", run)):
                return [int(one) for one in found]
    return None


def score_of(text: str | None, official: bool = False) -> int | None:
    """The score that an answer gives. official: None where it gives several, on which the official aggregation stops;
    otherwise the first counts."""
    found = numbers(text) if text else None
    if not found or (official and len(found) > 1):
        return None
    return found[0]


# --------------------------------------------------------------------------------------------------- scoring


@dataclass(frozen=True)
class Row:
    """One sample, judged. scores: dimension to 1 to 5; None for one that was not asked for, all None if it failed."""

    index: str
    category: str
    subtask: str | None
    scores: dict[str, float | None]
    failed: bool
    score: float | None
    passed: bool


def judge(record: Mapping[str, Any], answers: Mapping[str, str | None], flagged: bool, official: bool = False) -> Row:
    """One sample from its answers (judge1 consistency, judge2 reasoning, judge3 plausibility; None if not asked).

    flagged: whether any sample of the list has the field `consistency_free`. official: then the weighted score ignores
    the consistency of every sample that lacks the field, as the official script does; and where the field says false,
    consistency need not be asked nor be 5, but the weighted score lacks it then and is None.
    """
    logical = record["category"] == "logical_reasoning"
    there = record.get(FLAG) is not None
    free_in_score = not logical and (bool(record[FLAG]) if there else official and flagged)
    free_in_pass = not logical and (there if official else bool(record.get(FLAG)))
    wanted = {"Reasoning": "judge2"}
    if answers.get("judge1") is not None or not (there if official else record.get(FLAG)):
        wanted["ApprConsistency"] = "judge1"
    if not logical:
        wanted["VisualPlausibility"] = "judge3"
    found = {name: score_of(answers.get(key), official) for name, key in wanted.items()}
    scores: dict[str, float | None] = dict.fromkeys(DIMENSIONS)
    if any(value is None for value in found.values()):
        return Row(record["index"], record["category"], record.get("subtask"), scores, True, None, False)
    for name, value in found.items():
        scores[name] = (5 if value else 1) if logical else value
    need = [name for name in wanted if not (free_in_pass and name == "ApprConsistency")]
    passed = all(scores[name] == 5 for name in need)
    score = weighted(scores, logical, free_in_score)
    return Row(record["index"], record["category"], record.get("subtask"), scores, False, score, passed)


def weighted(scores: Mapping[str, float | None], logical: bool, free: bool) -> float | None:
    """The weighted score from 1 to 5; halved, but not below 1, where the reasoning is 1."""
    shares = (0.3, 0.7, 0.0) if logical else (0.0, 0.8, 0.2) if free else (0.3, 0.5, 0.2)
    total = 0.0
    for name, share in zip(("ApprConsistency", "Reasoning", "VisualPlausibility"), shares, strict=True):
        value = scores[name]
        if share and value is None:
            return None
        total += share * (value or 0)
    return max(total * 0.5, 1.0) if scores["Reasoning"] == 1 else total


def judge_all(
    records: Sequence[Mapping[str, Any]], answers: Mapping[str, Mapping[str, str | None]], official: bool = False
) -> list[Row]:
    """All samples of a list from their answers by index."""
    flagged = any(record.get(FLAG) is not None for record in records)
    return [judge(record, answers.get(record["index"], {}), flagged, official) for record in records]


Entry = tuple[float | None, float | None, float | None]
"""Mean score, the same in per cent, and accuracy."""


def table(rows: Sequence[Row]) -> dict[str, Entry]:
    """The official table: overall, categories, dimensions, and subtasks. Samples that failed drop out of the means of
    scores, but not of the accuracy."""
    found: dict[str, Entry] = {"Overall": _entry(rows)}
    groups = {name: [row for row in rows if row.category == name] for name in CATEGORIES}
    for name, (title, _) in CATEGORIES.items():
        if groups[name]:
            found[title] = _entry(groups[name])
    for dimension in DIMENSIONS:
        ending = "_total" if dimension == "VisualPlausibility" else ""
        found[f"Overall_{dimension}{ending}"] = _dimension(rows, dimension)
    for name, (title, _) in CATEGORIES.items():
        for dimension, ending in DIMENSIONS.items():
            if groups[name] and not (name == "logical_reasoning" and dimension == "VisualPlausibility"):
                found[f"{title}_{ending}"] = _dimension(groups[name], dimension)
    for name, (_, head) in CATEGORIES.items():
        for subtask in dict.fromkeys(row.subtask for row in groups[name] if row.subtask):
            found[f"{head}-{subtask}"] = _entry([row for row in groups[name] if row.subtask == subtask])
    return found


def percentage(score: float) -> float:
    """1 to 5 as 0 to 100."""
    return 25 * (score - 1)


def _mean(values: Sequence[float | None]) -> float | None:
    there = [value for value in values if value is not None and not math.isnan(value)]
    return sum(there) / len(there) if there else None


def _entry(rows: Sequence[Row]) -> Entry:
    mean = _mean([row.score for row in rows])
    return mean, None if mean is None else percentage(mean), sum(row.passed for row in rows) / len(rows)


def _dimension(rows: Sequence[Row], name: str) -> Entry:
    mean = _mean([row.scores[name] for row in rows])
    return mean, None if mean is None else percentage(mean), None


def outcome(rows: Sequence[Row], size: str = "full", official: bool = False) -> Outcome:
    """Accuracy (the headline), weighted score in per cent, and accuracy by category, with intervals over samples."""
    scores = {"accuracy": of_prompts({row.index: [float(row.passed)] for row in rows})}
    scaled = {row.index: [None if row.score is None else percentage(row.score)] for row in rows}
    scores["score (%)"] = of_prompts(scaled)
    for name, (title, _) in CATEGORIES.items():
        group = {row.index: [float(row.passed)] for row in rows if row.category == name}
        if group:
            scores[title] = of_prompts(group)
    notes = [f"{failed} samples had no readable answer: they do not pass"] if (failed := _failed(rows)) else []
    if official:
        notes.append(
            "bugs repeated: one consistency_free sample removes consistency from most weighted scores; consistency is "
            "judged against the reference image where there is one"
        )
    else:
        notes.append(
            "bugs mended: consistency_free concerns only the samples that have it; consistency is judged against the "
            "original"
        )
    if len(rows) != SIZES[size][1]:
        notes.append(f"{len(rows)} of {SIZES[size][1]} samples")
    return Outcome(f"risebench-{size}", scores, tuple(notes), official)


def _failed(rows: Sequence[Row]) -> int:
    return sum(row.failed for row in rows)
