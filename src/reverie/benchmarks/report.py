"""What a run says: scores.json and table.md for machines and people, report.html to look at (`page.py`)."""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..reason import make_plan
from . import page
from .outcome import Outcome, of_prompts, of_strata
from .protocol import Benchmark, Row
from .stats import Estimate

PACKAGES = ("reverie", "torch", "transformers", "diffusers", "numpy", "pillow")
PENDING = "{missing} of {expected} images are not judged yet: the scores are of those that are"

TROUBLE = {
    "missing": "{number} images are not in the folder",
    "not painted": "{number} images were refused by the painter and count as missing: rows.jsonl says why",
    "judge error": "the judge failed on {number} images: run the same command again to ask once more",
}
"""Ends that leave a run incomplete."""


def write(
    out: Path,
    benchmark: Benchmark,
    run: Mapping[str, Any],
    rows: Sequence[Row],
    spent: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """All files from the rows of a run; returns what scores.json holds."""
    scores = score(benchmark, run, rows, spent, notes)
    write_whole(out / "scores.json", json.dumps(scores, indent=1) + "\n")
    write_whole(out / "table.md", table(scores))
    write_whole(out / "report.html", page.html_of(out, benchmark, scores, rows))
    if benchmark.export and len(rows) == run["expected"]:
        benchmark.export(out, rows)
    return scores


def write_whole(path: Path, text: str) -> None:
    write_atomically(path, lambda partial: partial.write_text(text, "utf-8"))


def score(
    benchmark: Benchmark,
    run: Mapping[str, Any],
    rows: Sequence[Row],
    spent: Mapping[str, Any],
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """Every score with n and a 95% interval, the headline first, and what is needed to know what was measured."""
    found = (benchmark.outcome or _by_tag(benchmark))(rows)
    told = [*notes, *found.notes]
    if len(rows) < run["expected"]:
        told.insert(0, PENDING.format(missing=run["expected"] - len(rows), expected=run["expected"]))
    ends: Counter[str] = Counter(row.end for row in rows)
    told += [note.format(number=ends[end]) for end, note in TROUBLE.items() if ends[end]]
    scores = {name: vars(one) for name, one in found.scores.items()}
    return {
        **run,
        "complete": len(rows) == run["expected"] and not run["limited"] and not set(TROUBLE) & set(ends),
        "images_scored": sum(row.score is not None for row in rows),
        "rules": _rules(benchmark),
        "official_judge": benchmark.official_judge,
        "overall": next(iter(scores.values()), vars(Estimate(None, None, None, 0, 0))),
        "scores": scores,
        "percent": [name for name in scores if benchmark.percent or "(%)" in name],
        "notes": told,
        "ends": dict(ends),
        "spent": dict(spent),
        "versions": {"python": platform.python_version(), "platform": platform.platform()}
        | {name: _version(name) for name in PACKAGES},
    }


def _rules(benchmark: Benchmark) -> str | None:
    """Whose rules count; the Atelier's benchmarks have no code of others that could have bugs."""
    if benchmark.eyes == "inspector":
        return None
    return "official, bugs included" if benchmark.official else "mended"


def _by_tag(benchmark: Benchmark) -> Any:
    """The scores of a benchmark without rules of its own: the mean, overall and by tag."""

    def outcome(rows: Sequence[Row]) -> Outcome:
        tags: dict[str, dict[str, list[float | None]]] = {}
        everything: dict[str, list[float | None]] = {}
        prompts: dict[str, list[float]] = {}
        clusters: dict[str, str] = {}
        for row in rows:
            tags.setdefault(row.tag, {}).setdefault(row.cluster, []).append(row.score)
            everything.setdefault(row.cluster, []).append(row.score)
            prompts.setdefault(row.id, []).append(float(row.score == 1))
            clusters[row.id] = row.cluster
        together = of_prompts(everything)
        scores = {"overall": of_strata(tags) if benchmark.weighting == "strata" else together}
        scores |= {tag: of_prompts(group) for tag, group in tags.items()}
        if benchmark.weighting == "strata":
            scores["all images"] = together
        if max(map(len, prompts.values()), default=0) > 1:
            right: dict[str, list[float | None]] = {}
            for name, values in prompts.items():
                right.setdefault(clusters[name], []).append(max(values))
            scores["prompts with a correct image"] = of_prompts(right)
        return Outcome(benchmark.name, scores)

    return outcome


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------------------------------------------- in words


def title(scores: Mapping[str, Any]) -> str:
    name = f"{scores['benchmark']} {scores['version']}"
    return name if scores["complete"] else f"{name}, incomplete: {sum(scores['ends'].values())} images"


def about(scores: Mapping[str, Any]) -> str:
    """One sentence: what was run, and what it took."""
    source = f"model {scores['model']}" if scores["model"] else f"pictures of {scores['images']}"
    spent = scores["spent"]
    ends = ", ".join(f"{number} {end}" for end, number in scores["ends"].items()) or "nothing yet"
    rules = f"; rules {scores['rules']}" if scores["rules"] else ""
    return (
        f"{source}, {_plan(scores['plan'])}, seed {scores['seed']}, judge {scores['judge']}{rules}; images of "
        f"{scores['prompts']} prompts: {ends}; {spent['painting']:.0f} s painting, {spent['judging']:.0f} s judging; "
        f"list {scores['checksum'][:12]}"
    )


def _plan(plan: Any) -> str:
    """A plan in few words: of reverie's own, what is not as usual."""
    if not isinstance(plan, Mapping):
        return "no plan" if plan is None else f"plan {plan}"
    usual = make_plan().to_json()
    told = [f"{name.replace('_', ' ')} {value}" for name, value in plan.items() if usual.get(name) != value]
    return f"plan {', '.join(told)}" if told else "painted directly"


def table(scores: Mapping[str, Any]) -> str:
    """Markdown: a line for each score, and what has to be said about them."""
    lines = [
        f"## {title(scores)}",
        "",
        "| score | n | prompts | mean | 95% interval |",
        "| --- | ---: | ---: | ---: | :---: |",
    ]
    for name, entry in scores["scores"].items():
        if entry["mean"] is None:
            lines.append(f"| {name} | 0 | 0 | none | |")
            continue
        digits = 1 if name in scores["percent"] else 3
        numbers = [f"{entry[key]:.{digits}f}" for key in ("mean", "low", "high")]
        lines.append(
            f"| {name} | {entry['items']} | {entry['clusters']} | {numbers[0]} | {numbers[1]} to {numbers[2]} |"
        )
    return "\n".join([*lines, "", f"{about(scores)}.", *(f"- {note}" for note in scores["notes"]), ""])
