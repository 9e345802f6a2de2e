"""A finished picture looked at from several places: as it is and moved by two pixels, and the mean of what is said.

Whoever looks at a picture patch by patch says something else when it is moved, and of many candidates the best is often
one that a judge is wrong about. The mean over a few places errs less (test-time augmentation). A judge asks for it in
its config.json: `"reverie": {"moves": 2}` for two more places.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from . import Answer, View

MOVES = ((2, 2), (-2, -2), (2, -2), (-2, 2))
"""By how many pixels, right and down."""
FINISHED = ("orm", "reflection")
"""Questions about finished pictures; others are asked often, and of pictures that will change."""
LEAST = 1e-30


def moved(pixels: Tensor, right: int, down: int) -> Tensor:
    """(N, 3, H, W) uint8 likewise, with the outermost pixels where nothing came in."""
    high, wide = pixels.shape[-2:]
    reach = max(abs(right), abs(down))
    around = F.pad(pixels.float(), (reach,) * 4, mode="replicate").to(pixels.dtype)
    return around[..., reach - down : reach - down + high, reach - right : reach - right + wide].contiguous()


def views_of(view: View, moves: int) -> list[View]:
    """The view, and so many of the same picture from elsewhere."""
    import numpy as np
    from PIL import Image

    pixels = torch.from_numpy(np.array(view.picture.convert("RGB"))).permute(2, 0, 1)[None]
    shown = (moved(pixels, *move)[0].permute(1, 2, 0).numpy() for move in MOVES[:moves])
    return [view, *(replace(view, picture=Image.fromarray(picture), memory={}) for picture in shown)]


def together(told: Tensor) -> Tensor:
    """Probabilities of yes and no from K places (K, B, 2) -> (B, 2): the mean of the log odds, and of the sums."""
    odds = told.clamp(min=LEAST).log().diff(dim=-1).mean(0)
    share = torch.cat((odds.neg().sigmoid(), odds.sigmoid()), -1)
    return share * told.sum(-1, keepdim=True).mean(0)


def answered(answers: Sequence[Answer]) -> Answer:
    """What several looks say together; the words are those of the first look."""
    told = torch.tensor([[[one.yes, one.no]] for one in answers], dtype=torch.float64)
    yes, no = together(told)[0].tolist()
    return replace(answers[0], yes=yes, no=no)
