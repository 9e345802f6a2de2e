"""WISE (Niu et al. 2025, arXiv:2503.07265; PKU-YuanGroup/WISE at eb511744): pictures that ask for world knowledge.

There are two protocols of one name, here two benchmarks that never share a column, because prompts, judge and score
all differ: `wise-legacy` is the paper's (three scores 0 to 2 from GPT-4o-2024-05-13), `wise-verified` that of April
2026 (one score 0 or 1 from Qwen3.5-35B-A3B). `read` gives the prompts, `parse` the scores in a judge's answer, `tally`
the result of a run from the lines of its score files.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .outcome import Outcome, of_prompts, of_strata
from .prompt_files import Source
from .protocol import Sample

Protocol = Literal["legacy", "verified"]
CATEGORIES = ("CULTURE", "TIME", "SPACE", "BIOLOGY", "PHYSICS", "CHEMISTRY")
ENDS: dict[str, tuple[int, ...]] = {
    "legacy": (400, 567, 700, 800, 900, 1000),
    "verified": (400, 520, 640, 760, 880, 1000),
}
"""The last prompt id of each category."""
GROUPS = {"culture": CATEGORIES[:1], "space-time": CATEGORIES[1:3], "science": CATEGORIES[3:]}
FILES = {"culture": "cultural_common_sense", "space-time": "spatio-temporal_reasoning", "science": "natural_science"}
FIELDS: dict[str, tuple[str, ...]] = {"legacy": ("consistency", "realism", "aesthetic_quality"), "verified": ("score",)}
JUDGES = {"legacy": "GPT-4o-2024-05-13", "verified": "Qwen3.5-35B-A3B"}
TRIES = 3  # times that the official evaluator asks before it skips an image
SOURCE = Source(
    "WISE",
    "https://github.com/PKU-YuanGroup/WISE, commit eb511744",
    "none found, so the prompts are not distributed with this package",
    sums={
        "cultural_common_sense.json": "7a59216c768698280cea37caa574b52f3faf054d73b398b9bb6b3161baf8e3aa",
        "cultural_common_sense_rewrite.json": "4383290c349703776c24cfa864bfa3e065dae2e3f408cf46af702f2b7affea9f",
        "spatio-temporal_reasoning.json": "e27d797885ad86e64d857d0cc93d33e04be572a8dcae95692a2c7e7876233f9a",
        "spatio-temporal_reasoning_rewrite.json": "f63c98fff301e81c3ca6d3918683fb49757c3159d9b9e45dda8b2c9cf6a75d64",
        "natural_science.json": "b262fae58e413c7a4bd3c3d5a089f8c6529feac227e4b6606be261a949035544",
        "natural_science_rewrite.json": "6aee690e100ffb65b292de3fbe35ce89fa1ca2b92063a99d227d04eaa51af2b3",
        "cultural_common_sense_verified.json": "23482925266e2784b2ba24b75239fdc6691bf85ae253d2c4aa38b71b45fefa89",
        "spatio-temporal_reasoning_verified.json": "42c0b9d829365e392c2d4af283850dc76b1f922ab0c79198366de4f306eaf2b6",
        "natural_science_verified.json": "6f346c336f16f611e5c73e0fcacdccb336c200d534cf111526b22d50ea912555",
    },
)


def ids(protocol: Protocol, category: str) -> range:
    """The prompt ids of one of the six categories."""
    place = CATEGORIES.index(category)
    ends = (0, *ENDS[protocol])
    return range(ends[place] + 1, ends[place + 1] + 1)


def category_of(protocol: Protocol, prompt_id: int) -> str:
    return next(name for name, end in zip(CATEGORIES, ENDS[protocol], strict=True) if prompt_id <= end)


# --------------------------------------------------------------------------------------------------- prompts


def read(folder: str | Path | None, protocol: Protocol, rewrite: bool = False) -> tuple[Sample, ...]:
    """The 1,000 prompts. Only `Sample.prompt` may be shown to a generator; the explanation is for the judge.

    rewrite: the legacy prompts that say the answer outright, which measures drawing without knowledge.
    """
    if rewrite and protocol != "legacy":
        raise ValueError("WISE has rewritten prompts in its legacy protocol only: give protocol='legacy'.")
    place, ending = ("data_verified", "_verified") if protocol == "verified" else ("WISE_legacy/data", "")
    records: list[dict[str, Any]] = []
    for group, stem in FILES.items():
        path = SOURCE.locate(folder, f"{place}/{stem}{'_rewrite' if rewrite else ending}.json")
        number = sum(len(ids(protocol, category)) for category in GROUPS[group])
        records += SOURCE.records(path, number, ("Prompt", "Explanation", "prompt_id"))
    samples = [sample(record, protocol) for record in records]
    if sorted(int(one.id) for one in samples) != list(range(1, 1001)):
        raise SOURCE.broken(Path(str(folder)), f"does not hold the prompt ids 1 to 1000 of {protocol} once each")
    return tuple(sorted(samples, key=lambda one: int(one.id)))


def sample(record: Mapping[str, Any], protocol: Protocol) -> Sample:
    number = record["prompt_id"]
    if not isinstance(number, int) or not 1 <= number <= 1000:
        raise ValueError(f"WISE: prompt_id {number!r} is none of 1 to 1000; {SOURCE.hint()}.")
    return Sample(str(number), record["Prompt"], category_of(protocol, number), record, str(number))


def file(sample: Sample, index: int = 0) -> str:
    """One picture a prompt, all in one folder."""
    return f"{sample.id}.png" if index == 0 else f"{sample.id}_{index}.png"


# --------------------------------------------------------------------------------------------------- answers


def wiscore(consistency: float, realism: float, aesthetic_quality: float) -> float:
    """The score of one image in [0, 1] from three of 0 to 2 (WiScore)."""
    return (0.7 * consistency + 0.2 * realism + 0.1 * aesthetic_quality) / 2


LABELS = {name: name.replace("_", " ") for fields in FIELDS.values() for name in fields}
TAIL = r"(?:\s*\((?:0\s*[-–to]+\s*)?[12]\))?[*_]{0,2}\s*[:=]?\s*[*_]{0,2}\s*"  # "(0-2)", bold marks, a colon among them
LEGACY = re.compile(r"(consistency|realism|aesthetic quality)\*{0,2}\s*:?\s*(\d)", re.IGNORECASE)
VERIFIED = re.compile(r"\bscore\*{0,2}\s*:?\s*([01])\b", re.IGNORECASE)
ALONE = re.compile(r"^\s*([012])\s*$", re.MULTILINE)


def parse(text: str, protocol: Protocol, official: bool = False) -> dict[str, float]:
    """The scores that an answer gives; all fields of the protocol if it is complete.

    official: read as the official extractors do, which miss a colon inside bold marks, take 1.5 for 1 and let 7 pass.
    Otherwise those labels are found, and a score that is no whole number of the scale is no score.
    """
    if official:
        return _parse_officially(text, protocol)
    top = 2 if protocol == "legacy" else 1
    found: dict[str, float] = {}
    for name in FIELDS[protocol]:
        hits = re.findall(LABELS[name] + TAIL + r"(\d+(?:\.\d+)?)", text, re.IGNORECASE)
        if hits:
            value = float(hits[-1])
            if value in range(top + 1):
                found[name] = value
    return found or _alone(text, protocol)


def _parse_officially(text: str, protocol: Protocol) -> dict[str, float]:
    if protocol == "legacy":
        found = {name.lower().replace(" ", "_"): float(digit) for name, digit in LEGACY.findall(text)}
    else:
        hit = VERIFIED.search(text)
        found = {"score": float(hit[1])} if hit else {}
    return found or _alone(text, protocol)


def _alone(text: str, protocol: Protocol) -> dict[str, float]:
    """Scores on lines of their own, in order, where there are no labels."""
    lines = [float(digit) for digit in ALONE.findall(text)]
    if protocol == "legacy":
        return dict(zip(FIELDS["legacy"], lines, strict=False)) if len(lines) >= 3 else {}
    lines = [value for value in lines if value < 2]
    return {"score": lines[0]} if len(lines) == 1 else {}


def complete(scores: Mapping[str, float], protocol: Protocol) -> bool:
    return all(name in scores for name in FIELDS[protocol])


def score_line(sample: Sample, scores: Mapping[str, float]) -> str:
    """A line of the official score files, which `tally` and the official calculator read."""
    return json.dumps({"prompt_id": int(sample.id), "Subcategory": sample.record.get("Subcategory")} | dict(scores))


# ------------------------------------------------------------------------------------------------------ runs


@dataclass(frozen=True)
class Run:
    """What the calculator makes of score files: values by category and prompt id, and what keeps it from a result."""

    protocol: Protocol
    values: dict[str, dict[int, list[float]]]
    accepted: tuple[bool, ...]
    """Whether each file was taken."""
    missing: tuple[int, ...] | None
    """Ids that are missing for an overall score; None where nothing is missing or nothing was checked."""
    missing_in_file: tuple[int, ...] | None
    aborted: bool
    """Whether the official calculator reports nothing."""
    overall: bool
    """Whether there is an overall score: all categories asked for, and every id present."""

    def means(self) -> dict[str, float]:
        """By category, as the official calculator reports them."""
        return (
            {}
            if self.aborted
            else {name: sum(flat) / len(flat) for name in self.values if (flat := _flat(self.values[name]))}
        )

    def counts(self) -> dict[str, int]:
        return {} if self.aborted else {name: len(flat) for name in self.values if (flat := _flat(self.values[name]))}

    def overall_score(self) -> float | None:
        """The categories' means weighted by their share of the 1,000 prompts."""
        if not self.overall:
            return None
        means = self.means()
        return sum(means.get(name, 0.0) * len(ids(self.protocol, name)) / 1000 for name in CATEGORIES)


def tally(files: Sequence[Iterable[str]], protocol: Protocol, category: str = "all", official: bool = False) -> Run:
    """A run from the lines of its score files (JSON Lines), by the rules of the official calculator.

    category: `all`, or a key of `GROUPS`. Nothing is reported where ids are missing: for `all` any of 1 to 1000, for
    one file and a category any of that category; several files and a category are not checked and have no overall.
    Lines that are no JSON, or whose id is none of 1 to 1000, are skipped; a line whose scores are no numbers counts as
    present; ids that come twice are all averaged. official: also take `true` for 1, in ids and in scores.
    """
    if category != "all" and category not in GROUPS:
        raise ValueError(f"WISE has no category {category!r}: give all, {', '.join(GROUPS)}.")
    checked = None if category == "all" else [n for name in GROUPS[category] for n in ids(protocol, name)]
    values: dict[str, dict[int, list[float]]] = {name: {} for name in CATEGORIES}
    present: set[int] = set()
    accepted: list[bool] = []
    lost: tuple[int, ...] | None = None
    for lines in files:
        rows = [row for line in lines if (row := _row(line, official)) is not None]
        here = {number for number, _ in rows}
        if checked and len(files) == 1 and (gone := tuple(n for n in checked if n not in here)):
            accepted.append(False)
            lost = gone
            continue
        accepted.append(True)
        present |= here
        for number, record in rows:
            if (value := _value(record, protocol, official)) is not None:
                values[category_of(protocol, number)].setdefault(number, []).append(value)
    missing = tuple(n for n in range(1, 1001) if n not in present) if category == "all" else ()
    aborted = bool(missing) or not any(accepted)
    return Run(
        protocol,
        {name: group for name, group in values.items() if group},
        tuple(accepted),
        missing or None,
        lost,
        aborted,
        category == "all" and not aborted,
    )


def _row(line: str, official: bool) -> tuple[int, dict[str, Any]] | None:
    """Prompt id and record of a line, if it has them."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    number = record.get("prompt_id") if isinstance(record, dict) else None
    if not isinstance(number, int) or (isinstance(number, bool) and not official) or not 1 <= number <= 1000:
        return None
    return int(number), record


def _value(record: Mapping[str, Any], protocol: Protocol, official: bool) -> float | None:
    numbers = []
    for name in FIELDS[protocol]:
        value = record.get(name)
        if not isinstance(value, int | float) or (isinstance(value, bool) and not official):
            return None
        numbers.append(float(value))
    if protocol == "legacy":
        return wiscore(*numbers)
    return numbers[0] if numbers[0] in (0, 1) else None


def _flat(group: Mapping[int, Sequence[float]]) -> list[float]:
    return [value for values in group.values() for value in values]


def outcome(run: Run, official: bool = False) -> Outcome:
    """Overall and by category, each with its interval over prompts.

    Where ids are missing, the official calculator reports nothing. Otherwise the categories are reported for what is
    there, and the mean under a name that no complete run has.
    """
    values = {} if official and run.aborted else run.values
    weights = {name: len(ids(run.protocol, name)) / 1000 for name in CATEGORIES}
    scores = {name: of_prompts(group) for name, group in values.items()}
    if run.overall:
        scores = {"overall": of_strata(values, weights=weights)} | scores
    elif values:
        scores = {"mean of what is there": of_strata(values, "items")} | scores
    notes = []
    bugs = "a score whose colon stands inside bold marks is not read, 1.5 is read as 1, 7 passes"
    notes.append(f"bugs repeated: {bugs}" if official else f"bugs mended: {bugs}")
    for gone, what in ((run.missing, "the run"), (run.missing_in_file, "the file")):
        if gone:
            notes.append(f"{len(gone)} prompt ids are missing from {what}, first {gone[0]}: there is no overall score")
    return Outcome(f"wise-{run.protocol}", scores, tuple(notes), official)
