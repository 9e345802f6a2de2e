"""Damaged images: painted ones in which some codes are another's, with all that is seen in them then.

A painter that is nearly always right leaves its judge few wrong images to learn from, and what is wrong with these is
mostly damage: half a wing, a stray leg, a patch of another colour. Painting such images costs what painting costs. Here
finished images of a folder of paths (paths.py) get connected patches of codes of other images, of the same prompt or
not, which is what guesses of codes that do not know each other look like; they are decoded and looked at like painted
ones. A folder of them is one of looks (looks.py) without unfinished moments; the image itself comes before its copies.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..choose import without_cache
from .looks import missing_shards, write_looks
from .paths import Label, Paths, codes_of
from .verifier import VerifierData

if TYPE_CHECKING:
    from ..atelier.inspector import Inspector, Sighting
    from ..canvas import Generator as GeneratorOfImages

PATCHES, CELLS = (1, 3), (1, 8)
"""How many patches an image gets, and of how many codes each."""


def build_damaged(
    paths: Paths,
    generator: GeneratorOfImages,
    inspector: Inspector,
    folder: Path,
    config: VerifierData,
    numbers: list[int],
    on_shard: Callable[[int, int], None] | None = None,
) -> None:
    """Makes the shards that are not there yet. ValueError for painters without codes on a square."""
    for number, shard in missing_shards(paths, folder, numbers, on_shard):
        canvas = without_cache(shard.canvas())
        rng = random.Random(f"damaged/{config.seed}/{number}")
        prompts = [label.prompt for label in shard.labels]
        codes = damaged(codes_of(generator, canvas), prompts, config.copies, rng)
        labels = [label for label in shard.labels for _ in range(config.copies + 1)]
        write_seen(codes, labels, generator, inspector, folder, number)


def write_seen(
    codes: Tensor, labels: Sequence[Label], painter: Any, inspector: Inspector, folder: Path, number: int
) -> None:
    """A shard of looks: (N, L) codes as the painter shows them, finished, their labels as the inspector sees them."""
    pictures = np.stack(painter.decoded(codes.to(painter.model.device))).transpose(0, 3, 1, 2)
    seen = inspector.look(torch.from_numpy(pictures))
    said = [labelled(*both) for both in zip(labels, seen, strict=True)]
    write_looks(inspector, folder, number, said, pictures[:, None], [[]] * len(said), [[]] * len(said), seen)


def grid_of(painter: Any) -> int:
    """Codes of a side of its images. ValueError for painters without codes on a square."""
    grid = getattr(getattr(getattr(painter, "model", None), "config", None), "grid", None)
    if not hasattr(painter, "decoded") or grid is None:
        raise ValueError("This painter's images are no codes on a square, so no codes of one can be put into another.")
    return grid


def damaged(codes: Tensor, prompts: list[str], copies: int, rng: random.Random) -> Tensor:
    """(N, L) codes of square images -> (N * (copies + 1), L): each image, and behind it its copies with patches of
    others. A patch is another image's at the same place, or from elsewhere in it."""
    count, side = len(codes), round(codes.shape[1] ** 0.5)
    if side * side != codes.shape[1]:
        raise ValueError(f"images of {codes.shape[1]} codes are no squares, so they cannot be damaged in patches.")
    found = codes.repeat_interleave(copies + 1, 0)
    others = [[other for other in range(count) if other != row] for row in range(count)]
    twins = [[other for other in others[row] if prompts[other] == prompts[row]] for row in range(count)]
    for place in range(len(found)):
        row, copy = divmod(place, copies + 1)
        for _ in range(rng.randint(*PATCHES) if copy and count > 1 else 0):
            donor = rng.choice(twins[row] if twins[row] and rng.random() < 0.5 else others[row])
            cells = patch(found[place], side, rng)
            shift = (0, 0) if rng.random() < 0.5 else (rng.randrange(side), rng.randrange(side))
            for y, x in cells:
                found[place, y * side + x] = codes[donor, (y + shift[0]) % side * side + (x + shift[1]) % side]
    return found


def patch(codes: Tensor, side: int, rng: random.Random) -> list[tuple[int, int]]:
    """Neighbouring cells (row, column), grown from one that is not the image's commonest code: where something is."""
    plain = codes.mode().values
    something = (codes != plain).nonzero()[:, 0].tolist() or list(range(len(codes)))
    cells = [divmod(rng.choice(something), side)]
    for _ in range(rng.randint(*CELLS) - 1):
        y, x = rng.choice(cells)
        down, right = rng.choice(((0, 1), (1, 0), (0, -1), (-1, 0)))
        if 0 <= y + down < side and 0 <= x + right < side:
            cells.append((y + down, x + right))
    return cells


def labelled(label: Label, sighting: Sighting) -> Label:
    """What the inspector's judge says of an image in which this is seen; of a prompt that it cannot read, as it was."""
    from ..atelier.faults import faults
    from ..judges.inspector import demanded

    try:
        demand = demanded(label.prompt)
    except ValueError:  # not in the Atelier's words
        return label
    reasons = faults(demand, sighting.to_scene())
    return replace(label, right=not reasons, score=None, reason=" ".join(reasons))
