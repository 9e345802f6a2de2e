"""In-context episodes as questions for `reverie data build features`: what an aligner learns from beside captions.

    python -m reverie.training.episode_book --count 8000 --out data/atelier/episodes

writes the pictures and `episodes.jsonl` ({"key", "images", "request"} a line). They are training episodes of all ten
tasks, with two, three or four examples; none of a benchmark's, and no answers: those are the VLM's own. An episode
depends on its number and the seed alone; a build that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..atelier.episodes import Episode, episode
from ..files import write_atomically
from .vlm_report import TASKS, question


def entry(number: int, seed: int = 0) -> Episode:
    """The episode of a number."""
    rng = random.Random(f"episode book/{seed}/{number}")
    return episode(rng, rng.choice(TASKS), rng.choice((2, 3, 4)))


def write_episodes(folder: str | Path, count: int, seed: int = 0, side: int = 96) -> Path:
    """Draws the examples of `count` episodes into `folder`; returns the file of questions. ValueError for fewer than
    one."""
    if count < 1:
        raise ValueError(f"count={count}: a book of episodes has at least one.")
    folder, lines = Path(folder), []
    for number in range(count):
        (asked,) = question(entry(number, seed), side)
        names = [f"pictures/{number:06}-{place}.png" for place in range(len(asked.images))]
        for name, picture in zip(names, asked.images, strict=True):
            if not (folder / name).is_file():
                write_atomically(folder / name, partial(picture.save, format="PNG"))
        lines.append(json.dumps({"key": f"episode {number:06}", "images": names, "request": asked.text}))
    path = folder / "episodes.jsonl"
    write_atomically(path, lambda part: part.write_text("\n".join(lines) + "\n", "utf-8"))
    return path


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.episode_book`."""
    parser = argparse.ArgumentParser(description="Draw the questions of in-context episodes.")
    parser.add_argument("--count", type=int, default=8000, help="episodes (default: %(default)s)")
    parser.add_argument("--out", required=True, help="folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other episodes")
    given = parser.parse_args(arguments)
    print(write_episodes(given.out, given.count, given.seed))


if __name__ == "__main__":
    main()
