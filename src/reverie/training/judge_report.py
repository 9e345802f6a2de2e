"""How well a judge tells right pictures from wrong ones, on drawn pictures that it was not taught.

    python -m reverie.training.judge_report --judge atelier-judge --out runs/judge.json

For every prompt of atelier-geneval, whose compositions no judge of ours was asked about, a right picture and a flawed
one (atelier/flaws.py) are drawn, and the judge is asked about both. It is asked about the right one also by a prompt
that is nearly its own (atelier/claims.py: one word changed, or two exchanged). Told are, by task and in all: how often
the right picture gets the higher P(yes), how often the right prompt does, and how often each verdict is right.
"""

from __future__ import annotations

import argparse
import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..benchmarks.stats import wilson
from ..files import write_atomically

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Case:
    """A prompt, one that is nearly the same, a picture of the first, and one in which something went wrong."""

    task: str
    prompt: str
    near: str
    right: Image
    wrong: Image


def cases(every: int, seed: int) -> list[Case]:
    """Of prompts of atelier-geneval."""
    from ..atelier.claims import said_of, seen_in, spoilt, true_of
    from ..atelier.draw import draw
    from ..atelier.flaws import flaw
    from ..atelier.language import canonical
    from ..atelier.language_parse import Demand, parse
    from ..benchmarks.atelier_geneval import samples

    found = []
    for sample in samples()[::every]:
        rng, include = random.Random(f"{seed}/{sample.id}"), parse(sample.prompt).include
        head = sample.prompt.removesuffix(" " + canonical(Demand(include)))
        for _ in range(100):  # what breaks the Atelier's rule may keep the benchmark's
            pair = flaw(Demand(include), rng)
            seen = seen_in(pair.after)
            near = spoilt(include, seen, rng)
            if true_of(include, seen) and not true_of(include, seen_in(pair.before)) and not true_of(near, seen):
                text = said_of(near, seen, head).text
                found.append(Case(sample.tag, sample.prompt, text, draw(pair.after), draw(pair.before)))
                break
    return found


def report(judge: Any, every: int = 1, seed: int = 0, batch: int = 64) -> dict[str, Any]:
    """Shares by task and in all."""
    from ..judges import View
    from ..judges.rules import passes, share

    told: dict[str, list[tuple[float, ...]]] = {}
    drawn = cases(every, seed)
    for first in range(0, len(drawn), batch):
        part = drawn[first : first + batch]
        asked = (
            [(x.prompt, x.right) for x in part]
            + [(x.prompt, x.wrong) for x in part]
            + [(x.near, x.right) for x in part]
        )
        answers = judge.ask("orm", [View(*pair) for pair in asked])
        for place, one in enumerate(part):
            right, wrong, near = answers[place :: len(part)]
            scores = [share(answer) for answer in (right, wrong, near)]
            first_of = [(scores[0] > other) + 0.5 * (scores[0] == other) for other in scores[1:]]
            row = (*first_of, passes(right), not passes(wrong), not passes(near))
            told.setdefault(one.task, []).append(row)
    told["all"] = [row for rows in told.values() for row in rows]
    return {task: _row(np.array(rows, float)) for task, rows in told.items()}


def _row(rows: np.ndarray) -> dict[str, Any]:
    low, high = wilson(rows[:, 0].sum(), len(rows))
    picture, prompt, accepted, refused, near = rows.mean(0)
    told = {"right picture first": picture, "low": low, "high": high, "right prompt first": prompt}
    told |= {"right accepted": accepted, "wrong refused": refused, "near refused": near}
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
