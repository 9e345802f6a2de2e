"""The autoencoder of a small FLUX in the Atelier: its decoder learns to paint from disturbed latents.

A diffusion model paints near latents, not on them, so a decoder learns from such as are disturbed, with the loss of the
tokenizer. What encodes stays as it is, and a diffusion model may be trained before, after or meanwhile. It is a fixed
transform (`models/transform_kl.py`) or, from a tokenizer, the network that wrote codes; a decoder that has seen codes
alone paints badly from what lies between them. Eight channels that were made for codes lose the textures and half of
the actions, and so do sixteen that were learnt beside them; sixteen coordinates of the transform keep both.

Every step draws a few scenes; the others are those of earlier steps.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .captions import pictured
from .janus import stack
from .pool import Pool
from .quick_norm import quicken
from .tokenizer import picture_losses

if TYPE_CHECKING:
    from ..atelier.scene import Scene

CELL = 8
"""Pixels a side of what one latent is made of."""


@dataclass
class AutoencoderTraining:
    """batch: pictures a step; fresh: of them, pictures that are new; pool: pictures after which none is new; side: of
    pictures, in pixels; noise: largest deviation that is added to latents, which have deviation 1; anything: share of
    pictures of whatever the Atelier can draw, the rest being such as captions ask for; textures: share of pictures of
    one thing with a texture, the finest strokes that there are; episodes: share, of the rest, of answers of in-context
    episodes.

    What a transform is made of: channels of the latents; width of the network; measured: pictures whose cells it fits.
    """

    batch: int = 16
    fresh: int = 4
    pool: int = 12000
    side: int = 96
    noise: float = 0.6
    anything: float = 0.3
    textures: float = 0.0
    episodes: float = 0.35
    channels: int = 16
    width: int = 160
    measured: int = 1000

    def __post_init__(self) -> None:
        if not 1 <= self.fresh <= self.batch or self.pool < self.fresh:
            raise ValueError(
                f"batch={self.batch}, fresh={self.fresh}, pool={self.pool}: new pictures are at least 1, at most all."
            )


class AutoencoderTask:
    """`training.loop.Task` of a `FoldedKL`'s decoder."""

    def __init__(self, model: Any, config: AutoencoderTraining, seed: int = 0):
        self.model = quicken(model.train()).to(memory_format=torch.channels_last)
        self.model.requires_grad_(False)
        self.model.decoder.requires_grad_(True)
        self.config, self.seed, self.pool = config, seed, Pool(config.pool)

    def batch(self, step: int) -> dict[str, Any]:
        """first: the number of the first picture that is new; pixels (n, 3, side, side) uint8 of those; seed: of which
        others, and of the noise."""
        first, end = (min(self.config.pool, at * self.config.fresh) for at in (step, step + 1))
        seed = random.Random(f"{self.seed}/{step}").getrandbits(63)
        return {"first": first, "seed": seed, **self._drawn(first, end)}

    def _drawn(self, first: int, end: int) -> dict[str, Tensor]:
        return {"pixels": drawn(self.config, self.seed, first, end)} if first < end else {}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        pixels = self._chosen(batch).float() / 127.5 - 1
        generator = torch.Generator(pixels.device).manual_seed(batch["seed"])
        with torch.no_grad():
            latents = latents_of(self.model, pixels)
            noise = torch.randn(latents.shape, generator=generator, device=pixels.device)
            loud = self.config.noise * torch.rand(len(latents), 1, 1, 1, generator=generator, device=pixels.device)
            latents = latents + loud * noise / self.model.config.scaling_factor
        painted = self.model.decode(latents.contiguous(memory_format=torch.channels_last), return_dict=False)[0].float()
        pixel, edge = picture_losses(painted, pixels)
        return pixel + edge, {"mse": F.mse_loss(painted.detach(), pixels), "edge": edge.detach()}

    def _chosen(self, batch: dict[str, Any]) -> Tensor:
        """(B, 3, side, side): what is new and some of what was met. A run that goes on draws what it met again."""
        device = next(self.model.parameters()).device
        new = {"pixels": batch["pixels"]} if "pixels" in batch else {}
        self.pool.meet(batch["first"], new, self._drawn, lambda drawn: [drawn["pixels"].to(device)])
        draws, lacking = torch.Generator().manual_seed(batch["seed"]), self.config.batch - len(new.get("pixels", ()))
        old = torch.randint(self.pool.count, (lacking,), generator=draws)
        return torch.cat((*new.values(), self.pool.kept[0][old.to(device)]))

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to what is left of it in the latents."""
        return self.model.decode(latents_of(self.model, pixels), return_dict=False)[0].float()


def drawn(config: AutoencoderTraining, seed: int, first: int, end: int) -> Tensor:
    """Pictures (end - first, 3, side, side) uint8, each from its number and the seed alone."""
    from ..atelier.draw import draw

    rngs = [random.Random(f"{seed}/picture {number}") for number in range(first, end)]
    return stack([draw(_scene(config, rng), config.side) for rng in rngs])


def _scene(config: AutoencoderTraining, rng: random.Random) -> Scene:
    from ..atelier.episodes import THEMES, episode
    from ..atelier.layout import random_scene
    from ..atelier.sample import compose

    if rng.random() < config.textures:
        return episode(rng, 2 * THEMES.index("texture") + 1, 1).answer
    if rng.random() < config.anything:
        return random_scene(rng)
    demand, known = pictured(rng, config.episodes)
    return known or compose(demand, rng)


def fresh_autoencoder(config: AutoencoderTraining, seed: int = 0) -> Any:
    """The transform of cells of drawn pictures, with a decoder that is yet to learn."""
    from ..models.transform_kl import from_cells

    pixels = drawn(config, seed, 0, config.measured).float() / 127.5 - 1
    cells = F.pixel_unshuffle(pixels, CELL).permute(0, 2, 3, 1).flatten(0, 2)
    torch.manual_seed(seed)
    return from_cells(cells, config.channels, config.width)


def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """(B, C, H, W) of pictures (B, 3, H, W) in [-1, 1]."""
    return vae.encode(pixels).latent_dist.mode()


def save_autoencoder(model: Any, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16; it says that it is an AutoencoderKL, and any diffusers can load it."""
    from diffusers import AutoencoderKL

    from ..models.diffusion_checkpoint import settings_of

    plain: Any = AutoencoderKL.from_config(settings_of(model))
    plain.load_state_dict(model.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)


def load_autoencoder(folder: str | Path) -> Any:
    """The `FoldedKL` in a folder: of a finished run, of a pipeline, or made from a tokenizer (a run, or a Janus that
    holds one). Frozen, in float32. ValueError if there is none."""
    from diffusers import AutoencoderKL

    from ..models.folded_kl import FoldedKL, fold, from_vq
    from .tokenizer import finished_tokenizer

    path = Path(folder) / "config.json"
    if not path.is_file() or "AutoencoderKL" not in path.read_text("utf-8"):
        _, vq = finished_tokenizer(folder)
        return from_vq(vq).eval().requires_grad_(False)  # type: ignore[arg-type]
    loader: Any = AutoencoderKL
    found: Any = fold(loader.from_pretrained(folder, torch_dtype=torch.float32))
    folded = isinstance(found, FoldedKL)
    if not folded:
        raise ValueError(f"the autoencoder in {folder} works on plain pixels; train one of folded ones (vae.yaml).")
    return found.eval().requires_grad_(False)
