"""How well a judge tells right pictures from wrong ones, on drawn pictures that it was not taught.

    python -m reverie.training.judge_report --judge atelier-judge --out runs/judge.json

For every prompt of atelier-geneval, whose compositions no judge of ours was asked about, a right picture and a flawed
one (atelier/flaws.py) are drawn, and the judge is asked about both. Told are, by task and in all: how often the right
one gets the higher P(yes), and how often each verdict is right.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np

from ..benchmarks.stats import wilson
from ..files import write_atomically


def cases(every: int, seed: int) -> list[tuple[str, str, Any, Any]]:
    """(task, prompt, right picture, wrong picture) for prompts of atelier-geneval."""
    from ..atelier.claims import seen_in, true_of
    from ..atelier.draw import draw
    from ..atelier.flaws import flaw
    from ..atelier.language_parse import parse
    from ..benchmarks.atelier_geneval import samples

    found = []
    for sample in samples()[::every]:
        rng, demand = random.Random(f"{seed}/{sample.id}"), parse(sample.prompt)
        for _ in range(100):  # what breaks the Atelier's rule may keep the benchmark's
            pair = flaw(demand, rng)
            if true_of(demand.include, seen_in(pair.after)) and not true_of(demand.include, seen_in(pair.before)):
                found.append((sample.tag, sample.prompt, draw(pair.after), draw(pair.before)))
                break
    return found


def report(judge: Any, every: int = 1, seed: int = 0, batch: int = 64) -> dict[str, Any]:
    """Shares by task and in all."""
    from ..judges import View
    from ..judges.rules import passes, share

    told: dict[str, list[tuple[float, bool, bool]]] = {}
    drawn = cases(every, seed)
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        views = [View(prompt, picture) for _, prompt, *both in part for picture in both]
        answers = judge.ask("orm", views)
        for (task, *_), right, wrong in zip(part, answers[::2], answers[1::2], strict=True):
            better = (share(right) > share(wrong)) + 0.5 * (share(right) == share(wrong))
            told.setdefault(task, []).append((better, passes(right), not passes(wrong)))
    told["all"] = [row for rows in told.values() for row in rows]
    return {task: _row(np.array(rows, float)) for task, rows in told.items()}


def _row(rows: np.ndarray) -> dict[str, Any]:
    low, high = wilson(rows[:, 0].sum(), len(rows))
    first, accepted, refused = rows.mean(0)
    told = {"right picture first": first, "low": low, "high": high}
    told |= {"right accepted": accepted, "wrong refused": refused}
    return {"pairs": len(rows)} | {name: round(float(share), 4) for name, share in told.items()}


def main() -> None:
    from ..loading import here
    from .qwen_judge import QuickJudge

    parser = argparse.ArgumentParser(description="Asks a judge about right and wrong drawn pictures.")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th prompt only")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    found = report(QuickJudge.load(given.judge, here(given.device)), given.every, given.seed)
    for task, row in found.items():
        print(task, row)
    if given.out:
        text = (
            json.dumps({"judge": given.judge, "every": given.every, "seed": given.seed, "rows": found}, indent=1) + "\n"
        )
        write_atomically(given.out, lambda part: part.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()
