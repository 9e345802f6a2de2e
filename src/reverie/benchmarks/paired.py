"""By how much one run of a benchmark is better than another: paired by prompt, overall and by task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import rows, stats


@dataclass(frozen=True)
class Scored:
    """One image of a run, with its score."""

    id: str
    cluster: str
    tag: str
    value: float
    prompt: str


def scored_rows(out: str | Path) -> list[Scored]:
    """The images of a run that have a score."""
    return [
        Scored(row.id, row.cluster, row.tag, row.score, row.prompt)
        for row in rows.read_rows(out)
        if row.score is not None
    ]


def compare(first: str | Path, second: str | Path) -> dict[str, stats.Estimate]:
    """By how much the run in `second` is better than that in `first`: overall and per tag.

    ValueError where the two are not runs of the same list of prompts.
    """
    about: list[Mapping[str, Any]] = [rows.about(folder) for folder in (first, second)]
    for key in ("benchmark", "version", "checksum"):
        if about[0].get(key) != about[1].get(key):
            raise ValueError(f"{first} and {second} differ in their {key}: only runs of one list can be compared.")
    before, after = (
        [(row.id, row.cluster, row.tag, row.value) for row in scored_rows(folder)] for folder in (first, second)
    )
    found = {"overall": stats.compare(before, after, about[0]["weighting"])}
    common = {entry[0] for entry in before} & {entry[0] for entry in after}
    for tag in dict.fromkeys(tag for prompt, _, tag, _ in before if prompt in common):
        mine, theirs = ([entry for entry in run if entry[2] == tag] for run in (before, after))
        found[tag] = stats.compare(mine, theirs)
    return found
