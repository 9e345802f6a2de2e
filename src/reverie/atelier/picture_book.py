"""A folder of drawn pictures with captions, for what learns from files: features of a VLM, a vision tower, an aligner.

    python -m reverie.atelier.picture_book --count 6000 --out data/atelier/pictures

writes `pictures/000000.png`, ... and `captions.jsonl` ({"image", "caption", "scene"} a line). Most pictures show one
thing with one detail, as the answers of in-context episodes do, the others whatever benchmarks ask for; never what is
held out. A picture depends on its number and the seed alone; a build that was stopped goes on.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ..files import write_atomically
from .draw import draw
from .episodes import THEMES, episode
from .language import demand_of, say
from .sample import compose, random_demand
from .scene import Scene

SINGLE = 0.7
"""Share of pictures of one thing with one detail."""


def page(number: int, seed: int = 0) -> tuple[Scene, str]:
    """The scene of a number, and a caption in one of many wordings."""
    rng = random.Random(f"picture book/{seed}/{number}")
    if rng.random() < SINGLE:
        scene = episode(rng, rng.randint(1, 2 * len(THEMES)), 1).answer
    else:
        scene = compose(random_demand(rng), rng, loose=True)
    return scene, say(demand_of(scene), rng, rng.choice(("terse", "plain", "plain")), split="train")


def write_book(folder: str | Path, count: int, seed: int = 0, side: int = 96) -> Path:
    """Draws `count` pictures into `folder`; returns the file of captions. ValueError if the count is below 1."""
    if count < 1:
        raise ValueError(f"count={count}: a picture book has at least one picture.")
    folder, lines = Path(folder), []
    for number in range(count):
        scene, caption = page(number, seed)
        name = f"pictures/{number:06}.png"
        path = folder / name
        if not path.is_file():
            write_atomically(path, partial(draw(scene, side).save, format="PNG"))
        lines.append(json.dumps({"image": name, "caption": caption, "scene": scene.to_json()}))
    captions = folder / "captions.jsonl"
    write_atomically(captions, lambda part: part.write_text("\n".join(lines) + "\n", "utf-8"))
    return captions


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.atelier.picture_book`."""
    parser = argparse.ArgumentParser(description="Draw a folder of pictures with captions.")
    parser.add_argument("--count", type=int, default=6000, help="pictures (default: %(default)s)")
    parser.add_argument("--out", required=True, help="folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other pictures")
    given = parser.parse_args(arguments)
    print(write_book(given.out, given.count, given.seed))


if __name__ == "__main__":
    main()
