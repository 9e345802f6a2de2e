"""What the inspector's training does to drawn pictures: noise, blur, codec, light, unfinished rows, a trip through the
tokenizer, and pictures of nothing at all."""

from __future__ import annotations

import io
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance, ImageFilter
from torch import Tensor

from ..atelier.draw import draw
from ..atelier.scene import BACKGROUNDS, STYLES, Scene
from ..models.cells import vq_latents

NOWHERE = "nowhere"
"""The background of pictures that show no place; not one of `BACKGROUNDS`, so nobody is asked for it."""


def damage(image: Image.Image, rng: random.Random) -> tuple[Image.Image, float]:
    """The picture with one to three kinds of damage, and the row (a share of the height) from which it is hidden."""
    cut = 1.0
    if rng.random() < 0.25:
        image, cut = unfinished(image, rng)
    for harm in rng.sample((_noise, _blur, _codec, _light), rng.choice((1, 1, 2))):
        image = harm(image, rng)
    return image, cut


def _generator(rng: random.Random) -> np.random.Generator:
    return np.random.default_rng(rng.getrandbits(64))


def _noise(image: Image.Image, rng: random.Random) -> Image.Image:
    noise = _generator(rng).standard_normal((image.height, image.width, 3), dtype=np.float32)
    noisy = np.asarray(image, dtype=np.float32) + noise * rng.uniform(2, 22)
    return Image.fromarray(noisy.clip(0, 255).astype(np.uint8))


def _blur(image: Image.Image, rng: random.Random) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.3, 1.1)))


def _codec(image: Image.Image, rng: random.Random) -> Image.Image:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=rng.randint(35, 90))
    return Image.open(file).convert("RGB")


def _light(image: Image.Image, rng: random.Random) -> Image.Image:
    image = ImageEnhance.Brightness(image).enhance(rng.uniform(0.85, 1.12))
    return ImageEnhance.Contrast(image).enhance(rng.uniform(0.85, 1.12))


def unfinished(image: Image.Image, rng: random.Random) -> tuple[Image.Image, float]:
    """The picture with everything below some row replaced by one colour or by noise, and that row's share."""
    row = rng.randrange(image.height // 8, image.height)
    rest = (image.width, image.height - row)
    image = image.copy()
    image.paste(_ground(rest, rng), (0, row))
    return image, row / image.height


def _ground(size: tuple[int, int], rng: random.Random) -> Image.Image:
    """One colour (often a grey), or noise, fine or in patches."""
    grey = rng.choice((0, 127, 128, 255, rng.randrange(256)))
    if rng.random() < 0.6:
        return Image.new("RGB", size, (grey,) * 3 if rng.random() < 0.6 else tuple(rng.randbytes(3)))  # type: ignore[arg-type]
    coarse = rng.choice((1, 1, 1, 2, 4, 8))
    cells = (max(1, size[1] // coarse), max(1, size[0] // coarse), 3)
    if rng.random() < 0.5:
        noise = _generator(rng).integers(0, 256, cells, dtype=np.uint8)
    else:
        wave = _generator(rng).standard_normal(cells, dtype=np.float32) * rng.uniform(10, 90) + rng.uniform(60, 200)
        noise = wave.clip(0, 255).astype(np.uint8)
    return Image.fromarray(noise).resize(size, rng.choice((Image.Resampling.NEAREST, Image.Resampling.BILINEAR)))


def empty_picture(rng: random.Random, side: int) -> tuple[Scene, Image.Image]:
    """A picture without any thing: a bare background in any style, one colour, or noise."""
    if rng.random() < 0.45:
        scene = Scene((), rng.choice(BACKGROUNDS), "plain" if rng.random() < 0.6 else rng.choice(STYLES))
        return scene, draw(scene, side)
    return Scene((), NOWHERE), _ground((side, side), rng)


class Rebuilder:
    """Sends pictures through a tokenizer: to codes and back, some with a few wrong codes."""

    def __init__(self, folder: str | Path):
        """`folder`: a finished run of `training/tokenizer.py`, or a Janus checkpoint."""
        from .quick_norm import quicken
        from .tokenizer import finished_tokenizer

        config, vq = finished_tokenizer(folder)
        self.patch, self.cells = config.patch, config.cells
        self.grid = config.side // config.patch // 2 ** (len(config.multipliers) - 1)
        self.vq: Any = quicken(vq).to(memory_format=torch.channels_last).requires_grad_(False)  # type: ignore[call-overload]

    def __call__(self, images: list[Image.Image], rng: random.Random | None = None) -> list[Image.Image]:
        """The pictures as the tokenizer gives them back; with `rng`, one in five has up to one code in thirty wrong."""
        if not images:
            return []
        codes = self.encode(torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2))
        if rng:
            noise = torch.from_numpy(_generator(rng).random(codes.shape, dtype=np.float32))
            share = torch.tensor([rng.uniform(0, 1 / 30) if rng.random() < 0.2 else 0.0 for _ in images])
            codes = torch.where(noise < share[:, None, None], self._any_codes(codes.shape, rng), codes)
        return _as_images(self.decode(codes))

    def dreams(self, n: int, rng: random.Random) -> list[Image.Image]:
        """`n` pictures of random codes, which show nothing."""
        return _as_images(self.decode(self._any_codes((n, self.grid, self.grid), rng)))

    def _any_codes(self, shape: Sequence[int], rng: random.Random) -> Tensor:
        return torch.from_numpy(_generator(rng).integers(0, len(self.book()), tuple(shape)))

    def book(self) -> Tensor:
        return F.normalize(self.vq.quantize.embedding.weight.float(), dim=-1)

    @torch.no_grad()
    @torch.autocast("cpu", torch.bfloat16)
    def encode(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) uint8 -> codes (B, h, w)."""
        folded = F.pixel_unshuffle(pixels.float() / 127.5 - 1, self.patch)
        latent = vq_latents(self.vq, folded.contiguous(memory_format=torch.channels_last), self.cells)
        flat = F.normalize(latent.float().permute(0, 2, 3, 1), dim=-1)
        return (flat @ self.book().T).argmax(-1)

    @torch.no_grad()
    @torch.autocast("cpu", torch.bfloat16)
    def decode(self, codes: Tensor) -> Tensor:
        """Codes (B, h, w) -> (B, 3, H, W) uint8."""
        chosen = self.book()[codes].permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        drawn = self.vq.decoder(self.vq.post_quant_conv(chosen)).float()
        return ((F.pixel_shuffle(drawn, self.patch).clamp(-1, 1) + 1) * 127.5).round().byte()


def _as_images(pixels: Tensor) -> list[Image.Image]:
    return [Image.fromarray(picture) for picture in pixels.permute(0, 2, 3, 1).contiguous().numpy()]
