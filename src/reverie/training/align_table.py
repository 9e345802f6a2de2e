"""Reports of `align_report.py` as tables: `python -m reverie.training.align_table REPORT.json ... [--way drawn]`.

Several reports of the same episodes, made beside each other with some of the aligners each, become one. A row a way to
get vectors; object, detail and both with its 95% interval, then both in each of the ten tasks; a table for each number
of examples.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

WAYS = ("text", "decoder", "reader", "drawn")
TASKS = ("colour I", "II", "background I", "II", "style I", "II", "action I", "II", "texture I", "II")


def merged(reports: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Shots to rows; of rows that several reports have, the first."""
    found: dict[str, dict[str, Any]] = {}
    for report in reports:
        for shots, rows in report.items():
            for name, row in rows.items():
                found.setdefault(shots, {}).setdefault(name, row)
    return found


def table(rows: Mapping[str, Any], way: str) -> str:
    """Markdown, in percent; rows without this way are left out."""
    lines = [
        "| | object | detail | both | " + " | ".join(TASKS) + " |",
        "|---|" + "---|" * (3 + len(TASKS)),
    ]
    for name, row in rows.items():
        if way not in row:
            continue
        told = row[way]
        low, high = (percent(edge) for edge in told["interval"])
        cells = [percent(told["object"]), percent(told["detail"]), f"**{percent(told['both'])}** ({low} to {high})"]
        lines.append(f"| {name} | " + " | ".join([*cells, *(percent(task["both"]) for task in told["tasks"])]) + " |")
    return "\n".join(lines)


def percent(share: float) -> str:
    return f"{100 * share:.0f}"


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.align_table`."""
    parser = argparse.ArgumentParser(description="Reports of aligned vectors as tables.")
    parser.add_argument("reports", nargs="+", help="report.json of align_report, one or several")
    parser.add_argument("--way", choices=WAYS, nargs="+", default=["drawn"], help="who judges")
    given = parser.parse_args(arguments)
    found = merged([json.loads(Path(path).read_text("utf-8")) for path in given.reports])
    for shots, rows in found.items():
        for way in given.way:
            print(f"{shots}, {way}\n\n{table(rows, way)}\n")


if __name__ == "__main__":
    main()
