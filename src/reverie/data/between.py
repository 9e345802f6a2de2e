"""Images between right and wrong: drawn ones that are in part what a prompt says, as a painter's codes have them.

A good painter errs at the borders: a colour between two names, half a thing in another colour, a leg too many. It makes
few such images of prompts that may be learnt from, and a judge that has seen few cannot order them. Here each image is
drawn twice, as its prompt says and with a fault (atelier/flaws.py), and what becomes of the two is one of

    whole    the right one
    tinted   the mean of both pixel by pixel, if they differ by a colour alone: a colour between two
    parted   codes of the wrong one where the two differ, on one side or scattered, and of the right one elsewhere

all of it by the painter's tokenizer, to codes and back. What each shows is what the inspector sees, so that its own
limits between colours are learnt. A folder of them is one of looks (looks.py) without unfinished moments. Scenes are of
the training side; between two colours may lie one that is not.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..benchmarks.protocol import image_seed
from .damaged import grid_of, write_seen
from .looks import looks_files
from .paths import Label, PathBuild

if TYPE_CHECKING:
    from ..atelier.inspector import Inspector
    from ..atelier.language import Demand
    from ..atelier.scene import Scene
    from ..canvas import Generator as GeneratorOfImages
    from .prompts import Prompt

WHOLE, COLOUR = 0.25, 0.6
"""Share of right images, and of wrong colours among the faults of prompts that name one."""
LEAST = 0.15
"""A mean has at least so much of either image."""


@dataclass(frozen=True)
class Pair:
    """A right scene, a wrong one, and whether they differ by a colour alone."""

    right: Scene
    wrong: Scene
    tint: bool


def build_between(
    prompts: Sequence[Prompt],
    generator: GeneratorOfImages,
    inspector: Inspector,
    folder: Path,
    build: PathBuild,
    on_shard: Callable[[int, int], None] | None = None,
) -> bool:
    """Makes the shards of this part that are not there yet, and says whether those of all parts are. ValueError for
    painters without codes on a square and prompts that are not the Atelier's."""
    count = -(-len(prompts) * build.per_prompt // build.batch)
    mine = range(build.part, count, build.parts)
    for done, number in enumerate(mine, 1):
        if not looks_files(folder, number)[1].is_file():
            _shard(prompts, generator, inspector, folder, build, number)
        if on_shard is not None:
            on_shard(done, len(mine))
    return all(looks_files(folder, number)[1].is_file() for number in range(count))


def _shard(
    prompts: Sequence[Prompt],
    generator: GeneratorOfImages,
    inspector: Inspector,
    folder: Path,
    build: PathBuild,
    number: int,
) -> None:
    from ..judges.inspector import demanded

    rows = range(number * build.batch, min((number + 1) * build.batch, len(prompts) * build.per_prompt))
    labels, pairs, lots = [], [], []
    for which, copy in (divmod(row, build.per_prompt) for row in rows):
        text = prompts[which].text
        seed = image_seed(build.seed, text, copy)
        lots.append(random.Random(f"between/{seed}"))
        pairs.append(pair(demanded(text), lots[-1]))
        labels.append(Label(text, copy, seed, True))
    write_seen(between(generator, pairs, lots), labels, generator, inspector, folder, number)


def pair(demand: Demand, rng: random.Random) -> Pair:
    """What is asked for, and something that is not."""
    from ..atelier.flaws import flaw
    from ..atelier.sample import compose

    named = any(clause.colour for clause in demand.include)
    if named and rng.random() < COLOUR:
        right = compose(demand, rng)
        return Pair(right, miscoloured(right, rng), True)
    found = flaw(demand, rng)
    return Pair(found.after, found.before, False)


def miscoloured(scene: Scene, rng: random.Random) -> Scene:
    """One thing of those that have a colour has another, which is no benchmark's own."""
    from ..atelier.language import held_out_colour
    from ..atelier.scene import COLOURS

    place = rng.choice([i for i, thing in enumerate(scene.things) if thing.colour])
    old = scene.things[place]
    new = rng.choice([name for name in COLOURS if name != old.colour and not held_out_colour(name, old.kind)])
    return scene.with_things(replace(t, colour=new) if i == place else t for i, t in enumerate(scene.things))


def between(painter: Any, pairs: Sequence[Pair], lots: Sequence[random.Random]) -> Tensor:
    """(N, L) codes of one image of each pair; `lots`: what is drawn for each. ValueError for painters without codes."""
    from ..atelier.draw import draw

    grid = grid_of(painter)
    side = len(painter.decoded(torch.zeros(1, grid**2, dtype=torch.long, device=painter.model.device))[0])
    right, wrong = (
        torch.from_numpy(np.stack([np.asarray(draw(scene, side).convert("RGB")) for scene in scenes]))
        for scenes in zip(*((one.right, one.wrong) for one in pairs), strict=True)
    )
    first, parted = right.clone(), []
    for row, (one, rng) in enumerate(zip(pairs, lots, strict=True)):
        whole, tinted = rng.random() < WHOLE, one.tint and rng.random() < 0.5
        if not whole and tinted:
            share = rng.uniform(LEAST, 1 - LEAST)
            first[row] = right[row].float().lerp(wrong[row].float(), share).round().byte()
        elif not whole:
            parted.append(row)
    codes = encoded(painter, first)
    others = encoded(painter, wrong[parted]) if parted else codes[:0]
    for row, other in zip(parted, others, strict=True):
        codes[row] = torch.where(mask(codes[row] != other, lots[row]), other, codes[row])
    return codes


@torch.no_grad()
def encoded(painter: Any, pictures: Tensor) -> Tensor:
    """(N, S, S, 3) uint8 to (N, L) codes, with the painter's own tokenizer."""
    pixels, model = pictures.permute(0, 3, 1, 2).contiguous(), painter.model
    if hasattr(model, "encode"):  # Show-o, which takes bytes
        return model.encode(pixels).cpu()
    return model.encode_image(pixels.to(model.device).float() / 127.5 - 1).cpu()


def mask(differ: Tensor, rng: random.Random) -> Tensor:
    """(L,) some of the places of a square that differ: those on one side of a line, more or less scattered."""
    places = differ.nonzero()[:, 0]
    side = round(len(differ) ** 0.5)
    where = torch.stack((places // side, places % side), 1).float() / side
    line = torch.tensor([rng.uniform(-1, 1), rng.uniform(-1, 1)])
    scatter = rng.choice((0.0, 0.1, 0.5))
    order = where @ line + scatter * torch.tensor([rng.gauss(0, 1) for _ in places.tolist()])
    chosen = places[order.argsort()[: max(1, round(rng.uniform(LEAST, 1 - LEAST) * len(places)))]]
    found = torch.zeros_like(differ)
    found[chosen] = True
    return found
