"""DPG-Bench (Hu et al. 2024, ELLA, arXiv:2403.05135; TencentQQGYLab/ELLA at 3c228f1d): 1,065 dense prompts.

Four images of a prompt stand in one 2 x 2 grid; mPLUG-large answers questions about each, and a question counts only
if those that it depends on are answered with yes.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .outcome import Outcome, of_prompts
from .prompt_files import Source
from .protocol import Sample

if TYPE_CHECKING:
    from PIL.Image import Image

PROMPTS, IMAGES = 1065, 4
JUDGE = "mPLUG-large"
SOURCE = Source("DPG-Bench", "https://github.com/TencentQQGYLab/ELLA, folder dpg_bench, commit 3c228f1d", "Apache-2.0")


@dataclass(frozen=True)
class Question:
    number: int
    text: str
    parents: tuple[int, ...]
    """Questions that must be answered with yes for this one to count."""
    category: str
    """Such as "attribute - color"; what stands before the dash is the broad category."""


def read(folder: str | Path | None) -> tuple[Sample, ...]:
    """The prompts: one text file each, named by the item (`dpg_bench/prompts/*.txt`), or one prompts.jsonl of item_id
    and text. In the order of the item names."""
    if folder is None:
        SOURCE.locate(None, "prompts.jsonl")
    folder = Path(str(folder))
    packed = folder / "prompts.jsonl"
    if packed.is_file():
        records = SOURCE.records(packed, PROMPTS, ("item_id", "text"))
        texts = {str(record["item_id"]): record["text"].strip() for record in records}
    else:
        places = [folder / name for name in ("dpg_bench/prompts", "prompts", ".")]
        files = next((found for place in places if (found := sorted(place.glob("*.txt")))), [])
        if not files:
            raise ValueError(f"DPG-Bench: there are no prompt files in {folder}; {SOURCE.hint()}.")
        SOURCE.check_number(files[0].parent, files, PROMPTS)
        texts = {path.stem: SOURCE.text(path).strip() for path in files}
    empty = [item for item, text in texts.items() if not text]
    if empty:
        raise SOURCE.broken(folder, f"has no text for {empty[0]}")
    return tuple(Sample(item, text, "dpg", {"item_id": item}, item) for item, text in sorted(texts.items()))


def read_questions(folder: str | Path | None) -> dict[str, tuple[Question, ...]]:
    """The questions of each item from dpg_bench.csv, by its columns item_id, proposition_id, dependency, tuple (which
    begins with the category) and question_natural_language."""
    path = SOURCE.locate(folder, "dpg_bench/dpg_bench.csv")
    reader = csv.DictReader(io.StringIO(SOURCE.text(path)))
    needed = {"item_id", "proposition_id", "dependency", "tuple", "question_natural_language"}
    if missing := needed - set(reader.fieldnames or ()):
        raise SOURCE.broken(path, f"has no column {sorted(missing)[0]}")
    found: dict[str, list[Question]] = {}
    for line, row in enumerate(reader, 2):
        try:
            parents = tuple(int(part) for part in row["dependency"].split(",") if part.strip())
            category = row["tuple"].split("(")[0].strip(" -")
            question = Question(int(row["proposition_id"]), row["question_natural_language"], parents, category)
        except (ValueError, AttributeError) as error:
            raise SOURCE.broken(path, f"has no whole question in line {line}") from error
        found.setdefault(row["item_id"], []).append(question)
    return {item: tuple(questions) for item, questions in found.items()}


def file(sample: Sample, index: int = 0) -> str:
    """All images of a prompt stand in one picture, see `grid`."""
    return f"{sample.id}.png"


def grid(images: Sequence[Image]) -> Image:
    """Four images of one size as the 2 x 2 picture that the scorer cuts up."""
    from PIL import Image as pil

    if len(images) != IMAGES or len({image.size for image in images}) != 1:
        raise ValueError(f"DPG-Bench wants {IMAGES} images of one size for a prompt; got {len(images)}.")
    wide, high = images[0].size
    page = pil.new("RGB", (2 * wide, 2 * high))
    for place, image in enumerate(images):
        page.paste(image, (place % 2 * wide, place // 2 * high))
    return page


def cut(page: Image) -> list[Image]:
    """The four images of a grid, row by row."""
    wide, high = page.width // 2, page.height // 2
    if page.width % 2 or page.height % 2:
        raise ValueError(f"DPG-Bench wants a 2 x 2 grid of equal images; this one is {page.width} x {page.height}.")
    return [page.crop((x, y, x + wide, y + high)) for y in (0, high) for x in (0, wide)]


# --------------------------------------------------------------------------------------------------- scoring


def answered(answers: Sequence[str], numbers: Sequence[int]) -> dict[int, float]:
    """Question to 1 or 0; only "yes", so written, is yes."""
    return {number: float(answer == "yes") for number, answer in zip(numbers, answers, strict=True)}


def respect_parents(scores: Mapping[int, float], parents: Mapping[int, Sequence[int]], official: bool = False) -> dict:
    """The scores with 0 for every question one of whose parents is 0; parent 0 stands for none.

    official: in one walk down the list, so that a parent that is only zeroed later in the list does not reach its
    children. Otherwise until nothing changes.
    """
    found = dict(scores)
    while True:
        before = dict(found)
        for number in found:
            if any(parent and found.get(parent, 1.0) == 0 for parent in parents.get(number, ())):
                found[number] = 0.0
        if official or found == before:
            return found


def image_score(scores: Mapping[int, float]) -> float:
    return sum(scores.values()) / len(scores)


def prompt_score(
    answers: Sequence[Sequence[str]], parents: Mapping[int, Sequence[int]], official: bool = False
) -> list[float]:
    """The scores of a prompt's images, from the answers to its questions (in the order of `parents`)."""
    numbers = list(parents)
    return [image_score(respect_parents(answered(row, numbers), parents, official)) for row in answers]


def outcome(
    prompts: Mapping[str, Sequence[Sequence[str]]],
    questions: Mapping[str, Sequence[Question]],
    official: bool = False,
) -> Outcome:
    """Score in per cent, total and by category (broad ones first), from item to the answers for each of its images.

    official: the first question of the table is lost, and with it the whole item if another question depends on it;
    categories are scored on the last image of each grid, before dependencies. Otherwise on all images, after them.
    """
    totals: dict[str, list[float]] = {}
    broad: dict[str, dict[str, list[float]]] = {}
    narrow: dict[str, dict[str, list[float]]] = {}
    first = next(iter(questions), None) if official else None
    for item, rows in prompts.items():
        asked = list(questions[item])
        if item == first:
            asked, rows = asked[1:], [row[1:] for row in rows]
            if not asked or any(questions[item][0].number in question.parents for question in asked):
                continue
        parents = {question.number: question.parents for question in asked}
        plain = [answered(row, list(parents)) for row in rows]
        settled = [respect_parents(scores, parents, official) for scores in plain]
        totals[item] = [image_score(scores) for scores in settled]
        for scores in plain[-1:] if official else settled:
            for question in asked:
                names = (broad, question.category.split("-")[0].strip()), (narrow, question.category)
                for group, name in names:
                    group.setdefault(name, {}).setdefault(item, []).append(scores[question.number])
    found = {"total": of_prompts(totals, 100)}
    for group in (broad, narrow):
        found |= {name: of_prompts(values, 100) for name, values in sorted(group.items())}
    notes = [] if len(totals) == PROMPTS else [f"{len(totals)} of {PROMPTS} prompts have a score"]
    if official:
        notes.append(
            "bugs repeated: the first question of the table is lost, categories count the last image only and before "
            "dependencies, dependencies are followed in the order of the list"
        )
    else:
        notes.append("bugs mended: all questions, all images and dependencies in any order count")
    return Outcome("dpg-bench", found, tuple(notes), official)
