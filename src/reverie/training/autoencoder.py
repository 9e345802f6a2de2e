"""The autoencoder of a small FLUX in the Atelier: the image tokenizer without its codes, trained further.

A tokenizer's decoder has seen codes alone, 2,048 points of the sphere; a diffusion model paints near its latents, not
on them. So the decoder learns on from disturbed latents, with the loss of the tokenizer. Where only it learns, what
encodes stays as it is, and a diffusion model may be trained before, after or meanwhile. But eight channels that were
made for codes lose the textures and half of the actions; with `channels: 16` and `encoder: true` the whole learns, and
the diffusion model afterwards.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.folded_kl import widened
from .captions import pictured
from .janus import stack
from .quick_norm import quicken
from .tokenizer import picture_losses

if TYPE_CHECKING:
    from ..atelier.scene import Scene


@dataclass
class AutoencoderTraining:
    """batch: pictures a step; side: of them, in pixels; noise: largest deviation that is added to latents, which have
    deviation 1; anything: share of pictures of whatever the Atelier can draw, the rest being such as captions ask for;
    channels: of the latents, None for those of the tokenizer; encoder: whether it learns too, as it must for more
    channels; textures: share of pictures of one thing with a texture, the finest strokes that there are; episodes:
    share, of the rest, of answers of in-context episodes.
    """

    batch: int = 16
    side: int = 96
    noise: float = 0.6
    anything: float = 0.3
    channels: int | None = None
    encoder: bool = False
    textures: float = 0.0
    episodes: float = 0.35

    def __post_init__(self) -> None:
        if self.channels is not None and not self.encoder:
            raise ValueError(f"channels={self.channels}: new ones must be learnt; say encoder: true.")


class AutoencoderTask:
    """`training.loop.Task` of a `FoldedKL`'s decoder, or of all of it."""

    def __init__(self, model: Any, config: AutoencoderTraining, seed: int = 0):
        wide = model if config.channels is None else widened(model, config.channels)
        self.model = quicken(wide.train()).to(memory_format=torch.channels_last)
        self.model.decoder.requires_grad_(True)
        self.model.encoder.requires_grad_(config.encoder)
        self.config, self.seed = config, seed

    def batch(self, step: int) -> dict[str, Tensor]:
        """pixels (B, 3, side, side) uint8; noise, of the size of the latents."""
        from ..atelier.draw import draw

        rng = random.Random(f"{self.seed}/{step}")
        pictures = [draw(self._scene(rng), self.config.side) for _ in range(self.config.batch)]
        config, generator = self.model.config, torch.Generator().manual_seed(rng.getrandbits(63))
        side = self.config.side // self.model.patch // 2 ** (len(config.block_out_channels) - 1)
        noise = torch.randn(len(pictures), config.latent_channels, side, side, generator=generator)
        loud = self.config.noise * torch.rand(len(pictures), 1, 1, 1, generator=generator)
        return {"pixels": stack(pictures), "noise": loud * noise / config.scaling_factor}

    def _scene(self, rng: random.Random) -> Scene:
        from ..atelier.episodes import THEMES, episode
        from ..atelier.layout import random_scene
        from ..atelier.sample import compose

        if rng.random() < self.config.textures:
            return episode(rng, 2 * THEMES.index("texture") + 1, 1).answer
        if rng.random() < self.config.anything:
            return random_scene(rng)
        demand, known = pictured(rng, self.config.episodes)
        return known or compose(demand, rng)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        pixels = batch["pixels"].float() / 127.5 - 1
        with torch.set_grad_enabled(self.config.encoder):
            latents = (latents_of(self.model, pixels) + batch["noise"]).contiguous(memory_format=torch.channels_last)
        painted = self.model.decode(latents, return_dict=False)[0].float()
        pixel, edge = picture_losses(painted, pixels)
        return pixel + edge, {"mse": F.mse_loss(painted.detach(), pixels), "edge": edge.detach()}

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to what is left of it in the latents."""
        return self.model.decode(latents_of(self.model, pixels), return_dict=False)[0].float()


def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """(B, C, H, W) of unit length, of pictures (B, 3, H, W) in [-1, 1]."""
    return vae.encode(pixels).latent_dist.mode()


def save_autoencoder(model: Any, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16; it says that it is an AutoencoderKL, and any diffusers can load it."""
    from diffusers import AutoencoderKL

    plain: Any = AutoencoderKL.from_config(model.config)
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
