"""GenEval 2 (Kamath et al. 2025, arXiv:2512.16853; facebookresearch/GenEval2 at a6e82d22).

800 prompts of 3 to 10 atoms. Soft-TIFA: Qwen3-VL-8B-Instruct answers every question about an image in one token, and
the probability of the accepted spellings is the soft score. The headline is the geometric mean over a prompt's
questions (GM), averaged over prompts.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from .outcome import Outcome, of_prompts
from .prompt_files import Source
from .protocol import Sample

PROMPTS, ATOMS = 800, range(3, 11)
SKILLS = ("object", "attribute", "count", "position", "verb")
JUDGE = "Qwen3-VL-8B-Instruct"
WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
COUNTS = {word: number for number, word in enumerate(WORDS, 1)}
SOURCE = Source(
    "GenEval 2",
    "https://github.com/facebookresearch/GenEval2, file geneval2_data.jsonl, commit a6e82d22",
    "CC BY-NC 4.0, for non-commercial use, so the prompts are not distributed with this package",
)


def read(folder: str | Path | None) -> tuple[Sample, ...]:
    """The 800 prompts, 100 of each number of atoms; `record` holds the questions, their answers and their skills."""
    path = SOURCE.locate(folder, "geneval2_data.jsonl")
    records = SOURCE.records(path, PROMPTS, ("prompt", "atom_count", "vqa_list", "skills"))
    for place, record in enumerate(records, 1):
        if len(record["vqa_list"]) != len(record["skills"]):
            raise SOURCE.broken(path, f"has another number of questions than of skills in record {place}")
    return tuple(
        Sample(f"{number:04d}", record["prompt"], f"{record['atom_count']} atoms", record, record["prompt"])
        for number, record in enumerate(records)
    )


def file(sample: Sample, index: int = 0) -> str:
    """The official scorer takes a JSON map from prompt to path, see `image_map`; the names are ours."""
    return f"{sample.id}.png" if index == 0 else f"{sample.id}_{index}.png"


def image_map(samples: Sequence[Sample], folder: str | Path) -> dict[str, str]:
    """The JSON map from prompt to the path of its image."""
    return {sample.prompt: str(Path(folder) / file(sample)) for sample in samples}


def spellings(answer: str) -> tuple[str, ...]:
    """The texts whose first tokens count as this answer: words in both cases, numbers as word and digit, all of them
    with and without a space in front."""
    word = answer.lower()
    plain = (word, str(COUNTS[word])) if word in COUNTS else (word, word.capitalize())
    return tuple(space + text for text in plain for space in ("", " "))


def soft_score(first_tokens: Mapping[str, float], answer: str) -> float:
    """The summed probability of the accepted spellings, from the answer's likeliest first tokens. Numbers and yes or no
    are single tokens in the official judge's vocabulary."""
    return sum(first_tokens.get(spelling, 0.0) for spelling in spellings(answer))


def question(text: str) -> str:
    """What the judge is asked."""
    return f"{text} Answer in one word."


def arithmetic(scores: Sequence[float]) -> float:
    return sum(scores) / len(scores)


def geometric(scores: Sequence[float]) -> float:
    """0 as soon as one score is 0."""
    if min(scores) <= 0:
        return 0.0
    return math.exp(sum(map(math.log, scores)) / len(scores))


def outcome(samples: Sequence[Sample], scores: Mapping[str, Sequence[float]], official: bool = False) -> Outcome:
    """Soft-TIFA GM and AM in per cent, GM by number of atoms and AM by skill, from sample id to the soft scores.

    official: there are no scores by skill where a skill does not occur, as the official script stops then.
    """
    there = [sample for sample in samples if sample.id in scores]
    for sample in there:
        if len(scores[sample.id]) != len(sample.record["skills"]):
            raise ValueError(
                f"GenEval 2: prompt {sample.id} has {len(sample.record['skills'])} questions, but "
                f"{len(scores[sample.id])} scores."
            )
    means = {sample.id: geometric(scores[sample.id]) for sample in there}
    found = {
        "soft_tifa_gm": of_prompts({key: [value] for key, value in means.items()}, 100),
        "soft_tifa_am": of_prompts({sample.id: [arithmetic(scores[sample.id])] for sample in there}, 100),
    }
    for number in sorted({sample.record["atom_count"] for sample in there}):
        group = {one.id: [means[one.id]] for one in there if one.record["atom_count"] == number}
        found[f"{number} atoms"] = of_prompts(group, 100)
    skills: dict[str, dict[str, list[float]]] = {skill: {} for skill in SKILLS}
    for sample in there:
        for skill, value in zip(sample.record["skills"], scores[sample.id], strict=True):
            skills.setdefault(skill, {}).setdefault(sample.id, []).append(value)
    if all(skills.values()) or not official:
        found |= {skill: of_prompts(group, 100) for skill, group in skills.items() if group}
    notes = [] if len(there) == PROMPTS else [f"{len(there)} of {PROMPTS} prompts have a score"]
    bug = "there are no scores by skill where one of the skills does not occur"
    notes.append(f"bug repeated: {bug}" if official else f"bug mended: {bug}")
    return Outcome("geneval2", found, tuple(notes), official)
