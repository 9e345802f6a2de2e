"""Reports of `think_report` side by side, as a table in Markdown: each category with its interval, and by how much each
report is better than the first, over the same prompts and seeds.

    python -m reverie.training.think_table SFT=sft.json Dual-GRPO=dual.json --images 2

Differences are paired by prompt and their 95% interval is a bootstrap over prompts (`benchmarks.stats.compare`); one
that leaves out 0 is marked. `--images N` takes the first N pictures of each prompt, where one report has more of them;
`--value reasoning` what a judge said besides its score, such as one of the two questions about an edit.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..benchmarks.stats import Estimate, compare
from .think_report import summary

Rows = list[dict[str, Any]]


def rows_of(path: Path, entry: str | None, images: int | None, value: str | None = None) -> Rows:
    """The rows of one entry (`atelier-wise/think`) of a report, the only one if none is named; value: what counts in
    place of the score. ValueError, naming the file, where there is no such entry or value, or fewer pictures of a
    prompt than asked for."""
    try:
        report = json.loads(path.read_text("utf-8"))
        found = {name: one["rows"] for name, one in report.items() if name != "about"}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no report of think_report.") from error
    if (len(found) != 1) if entry is None else (entry not in found):
        raise ValueError(f"{path} holds {', '.join(found)}; give --entry, one of them.")
    rows: Rows = found[entry or next(iter(found))]
    if value is not None:
        if any(value not in (row.get("value") or ()) for row in rows):
            raise ValueError(f"{path} has pictures of which no {value} is told.")
        rows = [row | {"score": float(row["value"][value])} for row in rows]
    if images is None:
        return rows
    rows = [row for row in rows if row.get("index", 0) < images]
    if len(rows) != images * len({row["id"] for row in rows}):
        raise ValueError(f"{path} holds fewer than {images} pictures of a prompt.")
    return rows


def better(first: Rows, second: Rows) -> Estimate:
    """By how much the second rows score higher, paired by prompt."""
    one, other = ([(row["id"], row["cluster"], row["tag"], row["score"]) for row in rows] for rows in (first, second))
    return compare(one, other)


def table(reports: Mapping[str, Rows]) -> str:
    """In percent; categories in the order of the first report, then all."""
    scores = {name: summary(rows, "items") for name, rows in reports.items()}
    names = list(reports)
    tags = [tag for tag in scores[names[0]] if tag != "all"]
    lines = ["| category | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for tag in tags:
        lines.append(f"| {tag} | " + " | ".join(_score(scores[name].get(tag)) for name in names) + " |")
    lines.append("| **overall** | " + " | ".join(f"**{_score(scores[name]['all'])}**" for name in names) + " |")
    gaps = [better(reports[names[0]], reports[name]) for name in names[1:]]
    lines.append(f"| better than {names[0]} by | | " + " | ".join(map(_gap, gaps)) + " |")
    return "\n".join(lines)


def _score(score: Mapping[str, Any] | None) -> str:
    if score is None or score["mean"] is None:
        return ""
    return f"{100 * score['mean']:.1f} ({100 * score['low']:.1f} to {100 * score['high']:.1f})"


def _gap(gap: Estimate) -> str:
    assert gap.mean is not None
    assert gap.low is not None
    assert gap.high is not None
    sure = " *" if gap.low > 0 or gap.high < 0 else ""
    return f"{100 * gap.mean:+.1f} ({100 * gap.low:+.1f} to {100 * gap.high:+.1f}){sure}"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Reports of think_report side by side.")
    parser.add_argument("reports", nargs="+", metavar="NAME=FILE")
    parser.add_argument("--entry", help="of each report, such as atelier-wise/think")
    parser.add_argument("--images", type=int, help="of each prompt at most")
    parser.add_argument("--value", help="what counts in place of the score, such as reasoning")
    given = parser.parse_args(arguments)
    try:
        found = {}
        for one in given.reports:
            name, sign, file = one.partition("=")
            if not sign:
                raise ValueError(f"{one!r} is not of the form NAME=FILE.")
            found[name] = rows_of(Path(file), given.entry, given.images, given.value)
        print(table(found))
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
