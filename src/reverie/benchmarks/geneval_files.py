"""GenEval's files (Ghosh et al. 2023, arXiv:2310.11513): the prompt file, the image folder, the results file.

The rule itself is in `geneval.py`. Two prompt files are in use, and their scores never share a column: the 553 short
prompts (`geneval`), and the same records with long prompts that a language model wrote (`geneval-long`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..files import write_atomically
from .geneval import TAGS, Detections, Verdict
from .outcome import Outcome, of_prompts, of_strata
from .prompt_files import Source
from .protocol import Sample

PROMPTS, IMAGES = 553, 4
OF_A_TAG = dict(zip(TAGS, (80, 99, 80, 94, 100, 100), strict=True))
SOURCE = Source(
    "GenEval", "https://github.com/djghosh13/geneval, file prompts/evaluation_metadata.jsonl, commit af4902f2", "MIT"
)
LONG = Source(
    "GenEval with long prompts",
    "https://github.com/yejy53/Echo-4o, file eval/gen/geneval/prompts/evaluation_metadata_long.jsonl, commit 28f36d76",
    "Apache-2.0",
)


def read(folder: str | Path | None, long: bool = False) -> tuple[Sample, ...]:
    """The 553 prompts; the id is the number of the line, which is also the name of the folder."""
    source = LONG if long else SOURCE
    if long:
        names = ("eval/gen/geneval/prompts/evaluation_metadata_long.jsonl", "evaluation_metadata_long_rewrite.jsonl")
        name = next((one for one in names if (Path(folder or ".") / Path(one).name).is_file()), names[0])
    else:
        name = "prompts/evaluation_metadata.jsonl"
    path = source.locate(folder, name)
    records = source.records(path, PROMPTS, ("tag", "include", "prompt"))
    tags = [record["tag"] for record in records]
    for tag, number in OF_A_TAG.items():
        if tags.count(tag) != number:
            raise source.broken(path, f"holds {tags.count(tag)} prompts of the tag {tag}, not {number}")
    return tuple(
        Sample(f"{number:05d}", record["prompt"], record["tag"], record, f"{number:05d}")
        for number, record in enumerate(records)
    )


def file(sample: Sample, index: int = 0) -> str:
    return f"{sample.id}/samples/{index:04d}.png"


def metadata(sample: Sample) -> tuple[str, str]:
    """The file that the official scorer finds the record in: name and text."""
    return f"{sample.id}/metadata.jsonl", json.dumps(sample.record) + "\n"


def find_images(folder: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """The images of a folder made elsewhere, each with its record, as the official scorer finds them."""
    found = []
    for place in sorted(path for path in Path(folder).iterdir() if path.is_dir() and path.name.isdigit()):
        record = SOURCE.records(SOURCE.locate(place, "metadata.jsonl"), 1, ("tag", "include", "prompt"))[0]
        for path in sorted((place / "samples").glob("*.png")):
            if path.stem.isdigit():
                found.append((path, record))
    if not found:
        raise ValueError(f"There are no NNNNN/samples/NNNN.png in {folder}: give a folder in GenEval's layout.")
    return found


@dataclass(frozen=True)
class Result:
    """A line of the official results file."""

    filename: str
    tag: str
    prompt: str
    correct: bool
    reason: str
    metadata: str
    details: str


def result(filename: str, record: Mapping[str, Any], detections: Detections, verdict: Verdict) -> Result:
    details = {name: [list(detections[name][rank]) for rank in ranks] for name, ranks in verdict.kept.items()}
    return Result(
        filename, record["tag"], record["prompt"], verdict.correct, verdict.reason, json.dumps(record),
        json.dumps(details),
    )  # fmt: skip


def write_results(path: str | Path, results: Sequence[Result]) -> None:
    text = "".join(json.dumps(vars(one)) + "\n" for one in results)
    write_atomically(Path(path), lambda partial: partial.write_text(text, "utf-8"))


def read_results(path: str | Path) -> list[Result]:
    """A results file, its own or one that the official scorer wrote."""
    if not Path(path).is_file():
        raise ValueError(f"There is no {path}: give the results file that GenEval's scorer wrote.")
    rows = []
    for number, line in enumerate(Path(path).read_text("utf-8").splitlines(), 1):
        try:
            rows.append(Result(**json.loads(line)))
        except (json.JSONDecodeError, TypeError) as error:
            raise ValueError(f"{path} is not a results file of GenEval (line {number}): write it anew.") from error
    return rows


def outcome(results: Sequence[Result], long: bool = False, images: int = IMAGES) -> Outcome:
    """Overall (mean of the tags), by tag, and over all images, with intervals over prompts."""
    values: dict[str, dict[str, list[float]]] = {}
    for one in results:
        values.setdefault(one.tag, {}).setdefault(one.metadata, []).append(float(one.correct))
    scores = {"overall": of_strata(values)}
    scores |= {tag: of_prompts(group) for tag, group in values.items()}
    scores["all images"] = of_strata(values, "items")
    prompts = {tag: {key: [max(row)] for key, row in group.items()} for tag, group in values.items()}
    scores["prompts with a correct image"] = of_strata(prompts, "items")
    notes = []
    if len(results) < PROMPTS * images:
        notes.append(f"{len(results)} of {PROMPTS * images} images: the official summary drops those that are missing")
    return Outcome("geneval-long" if long else "geneval", scores, tuple(notes))
