"""Training the Atelier's inspector on drawn scenes, damaged in the ways generated pictures are.

Losses: the penalty-reduced focal loss of CenterNet (Zhou et al. 2019, arXiv 1904.07850, equation 1) on the centre
heatmaps; L1 for place and scale, cross-entropy for words at the true centres, each only where the picture tells it
(`damage.py` says what it hides); cross-entropy for background and style. Pictures without any thing in them are part of
every batch, so that nothing is found in nothing.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..atelier.draw import box, colour_of, draw
from ..atelier.inspector import (
    ACTION_NAMES,
    BIG,
    COLOUR_NAMES,
    FIELDS,
    KIND_NAMES,
    STATE_NAMES,
    InspectorNet,
    InspectorSizes,
    colour_shows,
)
from ..atelier.kinds import KINDS
from ..atelier.layout import arrange, random_scene, random_thing
from ..atelier.sample import compose, random_demand
from ..atelier.scene import BACKGROUNDS, STYLES, TEXTURES, Scene, Thing
from .damage import NOWHERE, Rebuilder, damage, empty_picture
from .quick_norm import quicken

IGNORE = -100
WORDS = tuple(name for name in FIELDS if name != "place")
WEIGHTS = {"place": 1.0, "kind": 1.0, "colour": 0.5, "texture": 1.0, "action": 0.5, "state": 0.5, "picture": 0.5}


@dataclass
class InspectorConfig:
    """What the inspector is trained on.

    asked: share of scenes of the sort that prompts ask for, the rest being anything; of these, plain: see
    `layout.random_scene`; crowded: share remade with three to six different things, which teach more for the same
    computation than six alike; contained: share of either sort with one thing inside or on another, rare otherwise.
    scattered: share of scenes whose things leave the usual arrangement; damaged and empty: shares of pictures;
    tokenizer: folder of a run of `training/tokenizer.py`, and rebuilt: the share of pictures that go through it.
    """

    batch: int = 32
    asked: float = 0.35
    plain: float = 0.55
    crowded: float = 0.5
    contained: float = 0.18
    scattered: float = 0.3
    damaged: float = 0.5
    empty: float = 0.05
    tokenizer: str | None = None
    rebuilt: float = 0.35


class InspectorTask:
    """`training.loop.Task` of the inspector."""

    model: nn.Module

    def __init__(self, config: InspectorConfig, sizes: InspectorSizes | None = None, seed: int = 0):
        self.config, self.seed = config, seed
        net = InspectorNet(sizes)
        self.sizes = net.sizes
        self.model = quicken(net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.rebuilder = Rebuilder(config.tokenizer) if config.tokenizer else None

    def batch(self, step: int) -> dict[str, Tensor]:
        """pixels (B, 3, side, side) uint8; picture (B, 2) int64; things: see `targets`."""
        rng, config = random.Random(f"inspector/{self.seed}/{step}"), self.config
        pictures, hidden_from, scenes = [], [], []
        for _ in range(config.batch):
            if rng.random() < config.empty:
                scene, picture = self._empty(rng)
            else:
                scene = any_scene(rng, config)
                scene = scatter(scene, rng) if rng.random() < config.scattered else scene
                picture = draw(scene, self.sizes.side)
            scenes.append(scene)
            pictures.append(picture)
        if self.rebuilder:
            chosen = [i for i in range(config.batch) if rng.random() < config.rebuilt]
            for i, picture in zip(chosen, self.rebuilder([pictures[i] for i in chosen], rng), strict=True):
                pictures[i] = picture
        for i, picture in enumerate(pictures):
            cut = 1.0
            if rng.random() < config.damaged:
                pictures[i], cut = damage(picture, rng)
            hidden_from.append(cut)
        pixels = torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2)
        return {"pixels": pixels.contiguous(), **targets(scenes, hidden_from, self.sizes.grid)}

    def _empty(self, rng: random.Random) -> tuple[Scene, Image.Image]:
        if self.rebuilder and rng.random() < 0.25:
            return Scene((), NOWHERE), self.rebuilder.dreams(1, rng)[0]
        return empty_picture(rng, self.sizes.side)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        net: Any = self.model
        heat, features, picture = net(batch["pixels"])
        image, level, row, column = batch["where"].unbind(1)
        read = net.read(features[image, row, column], level == 1)
        truth = centre_map(batch, heat.shape)
        parts = {"heat": focal(heat.float(), truth, max(1, len(image)))}
        parts["place"] = (read["place"] - batch["place"]).abs().sum() / max(1, len(image))
        for i, name in enumerate(WORDS):
            parts[name] = words_loss(read[name], batch["words"][:, i])
        ground, style = picture.float().split([len(BACKGROUNDS), len(STYLES)], 1)
        truth_ground, truth_style = batch["picture"].unbind(1)
        parts["picture"] = words_loss(ground, truth_ground) + words_loss(style, truth_style)
        loss = torch.stack([WEIGHTS.get(name, 1.0) * part for name, part in parts.items()]).sum()
        right = (read["kind"].argmax(1) == batch["words"][:, 0]).float().mean()
        return loss, {name: part.detach() for name, part in parts.items()} | {"kinds_right": right}


def any_scene(rng: random.Random, config: InspectorConfig) -> Scene:
    """A scene for training: see `asked`, `crowded` and `contained` of the configuration."""
    if rng.random() < config.asked:
        theme = "contain" if rng.random() < config.contained else None
        return compose(random_demand(rng, theme), rng, loose=rng.random() < 0.5)
    scene, chance = random_scene(rng, config.plain), rng.random()
    if chance < config.crowded:
        n, relation = rng.randint(3, 6), None
    elif chance < config.crowded + config.contained:
        n, relation = 2, rng.choice(("inside", "inside", "on"))
    else:
        return scene
    return scene.with_things(arrange([random_thing(rng, config.plain) for _ in range(n)], rng, relation))


def scatter(scene: Scene, rng: random.Random) -> Scene:
    """The scene with every thing a little off its place and size; containers and what they hold stay."""
    if any(thing.scale > BIG for thing in scene.things):
        return scene
    moved = []
    for thing in scene.things:
        scale = thing.scale * rng.uniform(0.82, 1.1)
        x, y = thing.x + rng.uniform(-0.05, 0.05), thing.y + rng.uniform(-0.05, 0.05)
        moved.append(replace(thing, x=x, y=y, scale=scale))
    return scene.with_things(moved)


def visible_share(thing: Thing, cut: float) -> float:
    """How much of a thing's height lies above the row `cut`, a share of the picture's height."""
    _, top, _, bottom = box(thing)
    return min(1.0, max(0.0, (cut - top) / (bottom - top)))


def targets(scenes: list[Scene], hidden_from: list[float], grid: int) -> dict[str, Tensor]:
    """What the network should say: where (M, 4) picture, map, row, column; place (M, 3); sigma (M,) of the centre's
    bump in cells; words (M, 5) in the order of `WORDS`, `IGNORE` where the picture does not tell; picture (B, 2).

    A thing counts if more than 60% of its height lie above the row `hidden_from` of its picture; its state, action and
    texture are asked for if 95% do.
    """
    where, place, sigma, words, picture = [], [], [], [], []
    for i, (scene, cut) in enumerate(zip(scenes, hidden_from, strict=True)):
        known = scene.background in BACKGROUNDS
        picture.append([BACKGROUNDS.index(scene.background), STYLES.index(scene.style)] if known else [IGNORE, IGNORE])
        for thing in scene.things:
            shows = visible_share(thing, cut)
            if shows <= 0.6:
                continue
            column, row = (min(grid - 1, max(0, int(at * grid))) for at in (thing.x, thing.y))
            where.append([i, int(thing.scale > BIG), row, column])
            off = (thing.x * grid - column - 0.5, thing.y * grid - row - 0.5)
            place.append([*off, math.log(thing.scale / 0.33)])
            sigma.append(min(1.3, max(0.7, thing.scale * grid / 9)))
            words.append(word_targets(thing, scene.style, shows >= 0.95))
    return {
        "where": torch.tensor(where, dtype=torch.int64).view(-1, 4),
        "place": torch.tensor(place, dtype=torch.float32).view(-1, 3),
        "sigma": torch.tensor(sigma, dtype=torch.float32),
        "words": torch.tensor(words, dtype=torch.int64).view(-1, len(WORDS)),
        "picture": torch.tensor(picture, dtype=torch.int64).view(-1, 2),
    }


def word_targets(thing: Thing, style: str, whole: bool) -> list[int]:
    """Indices of kind, colour, texture, action and state, `IGNORE` where the picture does not tell."""
    colour = COLOUR_NAMES.index(colour_of(thing)) if colour_shows(thing, style) else IGNORE
    if not whole:
        return [KIND_NAMES.index(thing.kind), colour, IGNORE, IGNORE, IGNORE]
    states = KINDS[thing.kind].states
    state = STATE_NAMES.index(thing.state or states[0]) if states else IGNORE
    look = [TEXTURES.index(thing.texture), ACTION_NAMES.index(thing.action), state]
    return [KIND_NAMES.index(thing.kind), colour, *look]


def centre_map(batch: dict[str, Tensor], shape: torch.Size) -> Tensor:
    """(B, 2, g, g): a bump of height 1 at every true centre, the highest where bumps meet."""
    pictures, maps, grid, _ = shape
    image, level, row, column = batch["where"].unbind(1)
    at = torch.arange(grid, device=image.device)
    square = (at[None, :, None] - row[:, None, None]).square() + (at[None, None, :] - column[:, None, None]).square()
    bumps = torch.exp(-square / (2 * batch["sigma"][:, None, None].square()))
    flat = bumps.new_zeros(pictures * maps, grid * grid)
    bumps = bumps.flatten(1)
    flat.scatter_reduce_(0, (image * maps + level)[:, None].expand_as(bumps), bumps, "amax")
    return flat.view(shape)


def focal(logits: Tensor, truth: Tensor, centres: int) -> Tensor:
    """CenterNet's penalty-reduced focal loss, alpha 2 and beta 4, summed and divided by the number of centres."""
    p = logits.sigmoid()
    hit = (1 - p).square() * F.logsigmoid(logits)
    miss = (1 - truth).pow(4) * p.square() * F.logsigmoid(-logits)
    return -torch.where(truth == 1, hit, miss).sum() / centres


def words_loss(logits: Tensor, truth: Tensor) -> Tensor:
    """Mean cross-entropy where the truth is known, 0 where it is nowhere."""
    asked = (truth != IGNORE).sum().clamp(min=1)
    return F.cross_entropy(logits, truth, ignore_index=IGNORE, reduction="sum") / asked
