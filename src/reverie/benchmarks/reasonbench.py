"""T2I-ReasonBench (Sun et al. 2025, arXiv:2508.17472; KaiyueSun98/T2I-ReasonBench at efc1d206): 800 prompts that must
be reasoned about, in four dimensions of 200.

A judge (Qwen2.5-VL-72B-Instruct) describes the image, then answers stored questions with 1, 0.5 or 0 each. Accuracy is
what to compare; quality, the second number, is nearly saturated. Both are in per cent.
"""

from __future__ import annotations

import csv
import io
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .outcome import Outcome, of_prompts, of_strata
from .prompt_files import Source
from .protocol import Sample


@dataclass(frozen=True)
class Dimension:
    """questions: fields of the question file in the order they are asked. columns: how the official CSV calls their
    scores and averages. shares: how much each set counts for accuracy; the last set is quality."""

    prompts: str
    questions_file: str
    questions: tuple[str, ...]
    columns: tuple[str, ...]
    averages: tuple[str, ...]
    shares: tuple[float, ...]

    @property
    def header(self) -> list[str]:
        """The first line of the official CSV."""
        answers = [part for place, name in enumerate(self.columns, 2) for part in (f"answer_{place}", name)]
        return ["id", "prompt", "answer_1", *answers, *self.averages]


def _plain(prompts: str, questions: str) -> Dimension:
    fields = ("reason_evaluation", "quality_evaluation")
    return Dimension(prompts, questions, fields, ("score_acc", "score_qual"), ("score_a_avg", "score_q_avg"), (1.0,))


def _detailed(name: str) -> Dimension:
    fields = (f"{name}_evaluation", "other_details_evaluation", "quality_evaluation")
    columns = (f"score_{name}", "score_detail", "score_qual")
    averages = (f"score_{name[0]}_avg", "score_d_avg", "score_q_avg")
    return Dimension(f"{name}_reasoning.json", f"evaluation_{name}.json", fields, columns, averages, (0.7, 0.3))


DIMENSIONS = {
    "idiom": _plain("idiom_interpretation.json", "evaluation_idiom.json"),
    "textual_image": _plain("textual_image_design.json", "evaluation_textual_image.json"),
    "entity": _detailed("entity"),
    "scientific": _detailed("scientific"),
}
PROMPTS = 200
JUDGE = "Qwen2.5-VL-72B-Instruct"
SOURCE = Source(
    "T2I-ReasonBench",
    "https://github.com/KaiyueSun98/T2I-ReasonBench, commit efc1d206",
    "none found, so the prompts are not distributed with this package",
    sums={
        "idiom_interpretation.json": "d0f21ef6111972f22dba1176f091f1b1a4390207fbaa806ab0ee0dbebd72956e",
        "textual_image_design.json": "e07a668f69b9fc057343de1cb7709d3bda68d972be9d84c12458096839f4c255",
        "entity_reasoning.json": "8a0af91d579e9c22f0877b6443e7a86176e8f78b445dcbee1b9b4ccc99698045",
        "scientific_reasoning.json": "7b4a67711d33461d0ebd0962e6b7877485fb82d8d6c7b93e649be6f4683b1f32",
        "evaluation_idiom.json": "9670e20f9694da1420402c97422fd0f09b8883fa21a254d186b84e01b7924090",
        "evaluation_textual_image.json": "435d7f2b1d5886c7ddd99423b4bd315491b020ef1804aed9629e9037c2ac1de7",
        "evaluation_entity.json": "84c91ae28c3ad53103475c182930fb071741dbc70cdc5f53618d859440f846da",
        "evaluation_scientific.json": "08c0f6a2be03952dc4d10d9a5dd5b877334875fc3cdb131a9ba707ff4c08ca30",
    },
)


# --------------------------------------------------------------------------------------------------- prompts


def read(folder: str | Path | None, dimension: str) -> tuple[Sample, ...]:
    """The 200 prompts of a dimension, each with its questions. The prompt is that of the prompt file: in 11 records the
    question file has another text."""
    if dimension not in DIMENSIONS:
        raise ValueError(f"T2I-ReasonBench has the dimensions {', '.join(DIMENSIONS)}, not {dimension!r}.")
    kind = DIMENSIONS[dimension]
    prompts = SOURCE.records(SOURCE.locate(folder, f"prompts/{kind.prompts}"), PROMPTS, ("id", "prompt"))
    path = SOURCE.locate(folder, f"deepseek_evaluation_qs/{kind.questions_file}")
    asked = {record["id"]: record for record in SOURCE.records(path, PROMPTS, ("id", *kind.questions))}
    for record in prompts:
        if record["id"] not in asked:
            raise SOURCE.broken(path, f"has no questions for prompt {record['id']}")
    return tuple(sample(record, asked[record["id"]], dimension) for record in prompts)


def sample(prompt: Mapping[str, Any], questions: Mapping[str, Any], dimension: str) -> Sample:
    name = f"{dimension}-{prompt['id']:04d}"
    return Sample(name, prompt["prompt"], dimension, {**prompt, "questions": questions}, name)


def question_sets(sample: Sample) -> list[list[tuple[str, str]]]:
    """The sets of questions about an image, each question with its criterion."""
    sets = []
    for field in DIMENSIONS[sample.tag].questions:
        found = sample.record["questions"][field]
        numbers = [key[1:] for key in found if key.startswith("q")]
        sets.append([(found[f"q{number}"], found.get(f"c{number}", "")) for number in numbers])
    return sets


def file(sample: Sample, index: int = 0) -> str:
    """One folder for each dimension; jpg is read too."""
    number = f"{sample.record['id']:04d}"
    return f"{sample.tag}/{number}.png" if index == 0 else f"{sample.tag}/{number}_{index}.png"


def is_picture(name: str) -> bool:
    """Whether the official scripts take a file of a dimension's folder for an image."""
    stem, _, suffix = name.rpartition(".")
    return suffix in ("png", "jpg") and stem[:4].isdigit() and len(stem) >= 4


# --------------------------------------------------------------------------------------------------- answers


def answer_object(text: str, official: bool = False) -> dict[str, Any] | None:
    """The JSON object in an answer, or None.

    official: from the first brace to the first closing one, so that a brace inside breaks it, on which the official
    script stops. Otherwise the first object that can be read, trailing commas forgiven.
    """
    start = text.find("{")
    if official:
        end = text.find("}", start)
        return _loads(text[start : end + 1]) if start >= 0 and end >= 0 else None
    while start >= 0:
        for candidate in (text[start:], _without_trailing_commas(text[start:])):
            try:
                found, _ = json.JSONDecoder().raw_decode(candidate)
            except json.JSONDecodeError:
                continue
            return found
        start = text.find("{", start + 1)
    return None


def _loads(text: str) -> dict[str, Any] | None:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return None


def _without_trailing_commas(text: str) -> str:
    return re.sub(r",(\s*[}\]])", r"\1", text)


def scores_in(text: str, questions: int | None = None, official: bool = False) -> list[float] | None:
    """The scores that an answer gives, numbers or numbers written as text; None if there are none to be read.

    Unless official, also None where they are not as many as the questions, or not in [0, 1].
    """
    found = answer_object(text, official)
    if not isinstance(found, dict):
        return None
    values = found.get("score") if official else found.get("score", found.get("scores"))
    if not isinstance(values, list):
        return None
    try:
        scores = [float(value) for value in values]
    except (TypeError, ValueError):
        return None
    if official:
        return scores
    fits = questions is None or len(scores) == questions
    return scores if scores and fits and all(0 <= score <= 1 for score in scores) else None


def average(scores: Sequence[float] | None) -> float | None:
    return sum(scores) / len(scores) if scores else None


# --------------------------------------------------------------------------------------------------- scoring

Averages = Sequence[float | None]
"""The averages of an image's question sets, in order; None for one that could not be read."""


def image_averages(answers: Sequence[str], counts: Sequence[int] | None = None, official: bool = False) -> Averages:
    """From the answers to an image's question sets. counts: how many questions each set has."""
    numbers: Sequence[int | None] = counts or [None] * len(answers)
    return [average(scores_in(text, n, official)) for text, n in zip(answers, numbers, strict=True)]


def image_scores(averages: Averages, dimension: str) -> tuple[float, float] | None:
    """Accuracy and quality of an image in [0, 1]; None where an average is missing."""
    *main, quality = averages
    if quality is None or any(value is None for value in main):
        return None
    shares = DIMENSIONS[dimension].shares
    return sum(share * value for share, value in zip(shares, main, strict=True) if value is not None), quality


def cell(value: object) -> float | None:
    """A cell of the official CSV as a number; None for one that is none, such as those of the last line."""
    try:
        number = float(str(value))
    except ValueError:
        return None
    return None if math.isnan(number) else number


def read_csv(path: str | Path, dimension: str) -> dict[str, Averages]:
    """Image to averages from an official CSV; its last line, which holds the final scores, drops out."""
    if not Path(path).is_file():
        raise ValueError(f"There is no {path}: give the CSV that T2I-ReasonBench's script wrote for {dimension}.")
    with Path(path).open(encoding="utf-8", newline="") as file:
        reader = csv.DictReader(file)
        names = DIMENSIONS[dimension].averages
        if missing := [name for name in names if name not in (reader.fieldnames or ())]:
            raise ValueError(f"{path} has no column {missing[0]}: it is not a CSV of the dimension {dimension}.")
        rows = {row["id"]: [cell(row[name]) for name in names] for row in reader}
    return {name: averages for name, averages in rows.items() if is_picture(name)}


def write_csv(path: str | Path, dimension: str, rows: Sequence[tuple[str, str, str, Sequence[str], Averages]]) -> None:
    """The official CSV, from file name, prompt, description, answers and averages of each image."""
    kind = DIMENSIONS[dimension]
    file = io.StringIO()
    writer = csv.writer(file)
    writer.writerow(kind.header)
    for name, prompt, description, answers, averages in rows:
        told = [part for text in answers for part in (text, json.dumps(scores_in(text)))]
        writer.writerow([name, prompt, description, *told, *averages])
    final = dimension_scores([averages for *_, averages in rows], dimension)
    if final:
        writer.writerow(
            ["", "", *(f"{what}: {value}" for what, value in zip(("accuracy", "quality"), final, strict=True))]
        )
    write_atomically(Path(path), lambda partial: partial.write_text(file.getvalue(), "utf-8"))


def dimension_scores(rows: Sequence[Averages], dimension: str) -> tuple[float, float] | None:
    """Accuracy and quality of a dimension in per cent with 2 decimals, over the images that have all averages."""
    scores = [found for row in rows if (found := image_scores(row, dimension))]
    if not scores:
        return None
    accuracy, quality = (sum(values) / len(scores) for values in zip(*scores, strict=True))
    return round(accuracy * 100, 2), round(quality * 100, 2)


def outcome(images: Mapping[str, Mapping[str, Averages]], official: bool = False) -> Outcome:
    """Accuracy and quality, overall (mean of the dimensions) and by dimension, from dimension to prompt to averages."""
    found = {
        name: {prompt: image_scores(averages, name) for prompt, averages in group.items()}
        for name, group in images.items()
    }
    scores = {}
    for place, what in enumerate(("accuracy", "quality")):
        values = {
            name: {prompt: [pair[place] if pair else None] for prompt, pair in group.items()}
            for name, group in found.items()
        }
        scores[what] = of_strata(values, scale=100)
        scores |= {f"{name} {what}": of_prompts(group, 100) for name, group in values.items()}
    notes = [
        f"dimension {name} is missing: the overall scores are not T2I-ReasonBench's"
        for name in DIMENSIONS
        if name not in found
    ]
    for name, group in found.items():
        if (lost := sum(pair is None for pair in group.values())) or len(group) < PROMPTS:
            notes.append(f"{name}: {len(group) - lost} of {PROMPTS} images have a score")
    if official:
        notes.append("bugs repeated: answers with a brace inside are lost; the number of scores is not checked")
    else:
        notes.append("bugs mended: nested answers are read; answers must hold one score in [0, 1] for each question")
    notes.append("the published entity script stops at the first image; it is scored as its repaired form does")
    return Outcome("t2i-reasonbench", scores, tuple(notes), official)
