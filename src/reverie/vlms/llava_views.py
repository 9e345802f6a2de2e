"""How LLaVA-OneVision looks at a picture: one padded square, or tiles at up to nine times the resolution.

After LLaVA-NeXT: `pad` is what the judges of "verify and reinforce" (arXiv 2501.13926) are asked with, `anyres_max_9`
what the model was trained with. Pictures that generators paint are square, so that padding usually does nothing.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

VIEWS = ("pad", "anyres_max_9")
MOST_TILES = 9
GREY = int(0.5 * 255)


def prepare(picture: Image.Image, view: str, side: int, pinpoints: Sequence[tuple[int, int]]) -> Tensor:
    """(views, 3, side, side) float32 in [-1, 1]; with tiles the whole picture goes first, then row by row.

    pinpoints: (width, height) of the canvases that tiles may be cut from, multiples of `side`.
    """
    picture = picture.convert("RGB")
    if view == "pad":
        parts = [_square(picture)]
    else:
        width, height = canvas_for(picture.size, pinpoints)
        whole = _fitted(picture, width, height)
        corners = [(x, y) for y in range(0, height, side) for x in range(0, width, side)]
        parts = [picture, *(whole.crop((x, y, x + side, y + side)) for x, y in corners)]
    return torch.stack([_values(part.resize((side, side), Image.Resampling.BICUBIC)) for part in parts])


def canvas_for(size: tuple[int, int], pinpoints: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The canvas that keeps most pixels of a picture, then wastes the fewest; the first of equals."""

    def worth(canvas: tuple[int, int]) -> tuple[int, int]:
        scale = min(canvas[0] / size[0], canvas[1] / size[1])
        kept = min(int(size[0] * scale) * int(size[1] * scale), size[0] * size[1])
        return kept, kept - canvas[0] * canvas[1]

    return max(pinpoints, key=worth)


def merge(features: Tensor, newline: Tensor, size: tuple[int, int], grid: tuple[int, int] | None) -> Tensor:
    """(views, P, D) projected patches and the (D,) newline vector to (T, D), what stands for the picture.

    size: of the picture, (width, height); grid: tiles of the canvas, (columns, rows), or None for a single view.
    One view ends in one newline; a map of tiles is cut to the picture, shrunk to `MOST_TILES` at most, and has a
    newline after each row.
    """
    if grid is None:
        return torch.cat((features[0], newline[None]))
    columns, rows = grid
    side = math.isqrt(features.shape[1])
    tiles = features[1:].unflatten(0, (rows, columns)).unflatten(2, (side, side))
    whole = tiles.permute(4, 0, 2, 1, 3).flatten(3, 4).flatten(1, 2)  # (D, rows * side, columns * side)
    whole = _uncovered(whole, size)
    height, width = whole.shape[1:]
    excess = math.sqrt(height * width / (MOST_TILES * side**2))
    if excess > 1.1:
        whole = F.interpolate(whole[None], [int(height // excess), int(width // excess)], mode="bilinear")[0]
    whole = torch.cat((whole, newline[:, None, None].expand(-1, whole.shape[1], 1)), 2)
    return torch.cat((features[0], whole.flatten(1).T))


def _uncovered(whole: Tensor, size: tuple[int, int]) -> Tensor:
    """(D, H, W) without the margins that the picture, scaled to fit and centred, leaves free."""
    height, width = whole.shape[1:]
    if size[0] / size[1] > width / height:
        margin = (height - int(size[1] * (width / size[0]))) // 2
        return whole[:, margin : height - margin]
    margin = (width - int(size[0] * (height / size[1]))) // 2
    return whole[:, :, margin : width - margin]


def _square(picture: Image.Image) -> Image.Image:
    side = max(picture.size)
    square = Image.new("RGB", (side, side), (GREY, GREY, GREY))
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    return square


def _fitted(picture: Image.Image, width: int, height: int) -> Image.Image:
    """Scaled to fit, in the middle of a black canvas."""
    across, down = width / picture.width, height / picture.height
    if across < down:
        new = (width, min(math.ceil(picture.height * across), height))
    else:
        new = (min(math.ceil(picture.width * down), width), height)
    canvas = Image.new("RGB", (width, height))
    canvas.paste(picture.resize(new), ((width - new[0]) // 2, (height - new[1]) // 2))
    return canvas


def _values(picture: Image.Image) -> Tensor:
    """(3, H, W) in [-1, 1], rounded as the authors' processor does."""
    scaled = (np.asarray(picture) * (1 / 255)).astype(np.float32)
    return torch.from_numpy(((scaled - np.float32(0.5)) / np.float32(0.5)).transpose(2, 0, 1).copy())
