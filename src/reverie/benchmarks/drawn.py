"""The ceiling of a benchmark of the Atelier: right pictures, drawn, in its layout, to be judged like painted ones.

    python -m reverie.benchmarks.drawn atelier-rise runs/drawn/rise
    reverie evaluate atelier-rise --images runs/drawn/rise --out runs/ceiling/rise

What is missing to 100% there is the error of the inspector and the rule, and no painter's.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path

from ..atelier.draw import draw
from ..atelier.language_parse import Demand
from ..atelier.sample import compose
from ..atelier.scene import Scene
from .protocol import Sample
from .registry import load
from .sources import save

TRUTHS = {"atelier-cobsat": "answer", "atelier-rise": "after"}
"""Benchmarks whose records hold the scene that is right; those of the others hold a demand."""


def truths(name: str, samples: Sequence[Sample]) -> list[Scene]:
    """A right scene for each sample. ValueError for a benchmark without any."""
    if name in TRUTHS:
        return [Scene.from_json(sample.record[TRUTHS[name]]) for sample in samples]
    if not all("demand" in sample.record for sample in samples):
        raise ValueError(f"{name} keeps no scenes and no demands that could be drawn.")
    rng = random.Random(f"drawn {name}")
    return [compose(Demand.from_record(sample.record["demand"]), rng) for sample in samples]


def write(name: str, out: str | Path) -> int:
    """Draws a right picture for each sample into `out`; returns how many."""
    benchmark = load(name)
    for sample, scene in zip(benchmark.samples, truths(name, benchmark.samples), strict=True):
        for index in range(benchmark.images_per_prompt):
            save(draw(scene), Path(out) / benchmark.file(sample, index))
    return len(benchmark.samples)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws right pictures for a benchmark of the Atelier.")
    parser.add_argument("name")
    parser.add_argument("out")
    given = parser.parse_args()
    print(f"{write(given.name, given.out)} samples in {given.out}")
