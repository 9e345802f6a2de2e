"""The ceiling of a benchmark of the Atelier: right pictures, drawn, in its layout, to be judged like painted ones.

    python -m reverie.benchmarks.drawn atelier-rise runs/drawn/rise
    reverie evaluate atelier-rise --images runs/drawn/rise --out runs/ceiling/rise

What is missing to 100% there is the error of the inspector and the rule, and no painter's. With
`--through atelier-janus` each picture goes through the codes of that painter first: what is missing then, none that
paints in these codes can mend.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..atelier.draw import draw
from ..atelier.language_parse import Demand
from ..atelier.sample import compose
from ..atelier.scene import Scene
from .protocol import Sample
from .registry import load
from .sources import save

if TYPE_CHECKING:
    from ..training.damage import Rebuilder

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


def write(name: str, out: str | Path, through: str | None = None) -> int:
    """Draws a right picture for each sample into `out`; returns how many. through: a Janus of the Atelier by name or
    folder, or a run of its tokenizer, to whose codes pictures go and back."""
    benchmark = load(name)
    rebuild = None if through is None else rebuilder(through)
    for sample, scene in zip(benchmark.samples, truths(name, benchmark.samples), strict=True):
        picture = draw(scene)
        if rebuild:
            picture = rebuild([picture])[0]
        for index in range(benchmark.images_per_prompt):
            save(picture, Path(out) / benchmark.file(sample, index))
    return len(benchmark.samples)


def rebuilder(name: str) -> Rebuilder:
    """What sends pictures to the codes of a Janus, by name or folder, or of a run of its tokenizer, and back."""
    from ..models.registry import fetched, resolve
    from ..training.damage import Rebuilder

    folder = name if (Path(name) / "state.pt").is_file() else fetched(resolve(name)).folder
    assert folder is not None
    return Rebuilder(folder)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draws right pictures for a benchmark of the Atelier.")
    parser.add_argument("name")
    parser.add_argument("out")
    parser.add_argument("--through", metavar="MODEL", help="a painter to whose codes the pictures go, and back")
    given = parser.parse_args()
    print(f"{write(given.name, given.out, given.through)} samples in {given.out}")
