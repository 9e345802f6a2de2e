"""Training the autoencoder of a small FLUX in the Atelier: 96 x 96 pixels to 12 x 12 latents and back.

The loss is that of the image tokenizer (pixels and edges, more where something happens) and, with a small weight, the
divergence of each latent's Gaussian from the unit one, as in latent diffusion (arXiv 2112.10752, section 3.1). Decoding
draws from these Gaussians, so neighbouring latents look alike and a painter may miss a little.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .captions import pictured
from .janus import stack
from .quick_norm import quicken
from .tokenizer import picture_losses


@dataclass
class AutoencoderSizes:
    """patch: pixels are folded by it; channels: of the networks, from fine to coarse, each level half the side of the
    one before; latent: channels of the latents."""

    patch: int = 4
    channels: tuple[int, ...] = (64, 64)
    res_blocks: int = 1
    groups: int = 16
    latent: int = 16


@dataclass
class AutoencoderTraining:
    """batch: pictures a step; side: of them, in pixels; kl: weight of the divergence, a mean over latents;
    anything: share of pictures of whatever the Atelier can draw, the rest being such as captions ask for."""

    batch: int = 16
    side: int = 96
    kl: float = 0.002
    anything: float = 0.3


def fresh_autoencoder(sizes: AutoencoderSizes) -> Any:
    """A `FoldedKL` with random weights."""
    from diffusers import AutoencoderKL

    from ..models.folded_kl import fold

    folded, levels = 3 * sizes.patch**2, len(sizes.channels)
    plain = AutoencoderKL(
        in_channels=folded, out_channels=folded, block_out_channels=sizes.channels,
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        layers_per_block=sizes.res_blocks, latent_channels=sizes.latent, norm_num_groups=sizes.groups,
        mid_block_add_attention=False, scaling_factor=1.0, shift_factor=0.0, force_upcast=False,
    )  # fmt: skip
    return fold(plain)


class AutoencoderTask:
    """`training.loop.Task` of the autoencoder."""

    def __init__(self, model: Any, config: AutoencoderTraining, seed: int = 0):
        self.model = quicken(model.train()).to(memory_format=torch.channels_last)
        self.config, self.seed = config, seed

    def batch(self, step: int) -> dict[str, Tensor]:
        """pixels (B, 3, side, side) uint8; noise, the draws from the latents' Gaussians."""
        from ..atelier.draw import draw
        from ..atelier.layout import random_scene
        from ..atelier.sample import compose

        rng = random.Random(f"{self.seed}/{step}")
        pictures = []
        for _ in range(self.config.batch):
            if rng.random() < self.config.anything:
                scene = random_scene(rng)
            else:
                demand, known = pictured(rng)
                scene = known or compose(demand, rng)
            pictures.append(draw(scene, self.config.side))
        pixels = stack(pictures)
        side = self.config.side // self.pixels
        shape = (len(pixels), self.model.config.latent_channels, side, side)
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(rng.getrandbits(63)))
        return {"pixels": pixels, "noise": noise}

    @property
    def pixels(self) -> int:
        """A side of what one latent stands for."""
        return self.model.patch * 2 ** (len(self.model.config.block_out_channels) - 1)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        pixels = batch["pixels"].float() / 127.5 - 1
        found = self.model.moments(pixels)
        latents = (found.mean + found.std * batch["noise"]).contiguous(memory_format=torch.channels_last)
        painted = self.model.decode(latents, return_dict=False)[0].float()
        pixel, edge = picture_losses(painted, pixels)
        divergence = 0.5 * (found.mean.square() + found.var - 1 - found.logvar).mean()
        error = (painted.detach() - pixels).square().mean()
        row = {"mse": error, "edge": edge.detach(), "kl": divergence.detach(), "size": found.mean.detach().std()}
        return pixel + edge + self.config.kl * divergence, row

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to what is left of it in the latents' means."""
        return self.model.decode(self.model.moments(pixels).mean, return_dict=False)[0].float()


@torch.no_grad()
def settle(task: AutoencoderTask, batches: int = 8) -> None:
    """Sets scaling and shift, so that latents of drawn scenes have mean 0 and deviation 1, as flow matching wants."""
    found = torch.cat(
        [task.model.moments(task.batch(-1 - i)["pixels"].float() / 127.5 - 1).mean for i in range(batches)]
    )
    task.model.register_to_config(shift_factor=found.mean().item(), scaling_factor=1 / found.std().item())


def save_autoencoder(model: Any, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16; it says that it is an AutoencoderKL, and any diffusers can load it."""
    from diffusers import AutoencoderKL

    plain = AutoencoderKL.from_config(model.config)
    plain.load_state_dict(model.state_dict())
    plain.to(torch.bfloat16).save_pretrained(folder)


def load_autoencoder(folder: str | Path) -> Any:
    """The `FoldedKL` of a finished run or of a pipeline; frozen, in float32. ValueError if there is none."""
    from diffusers import AutoencoderKL

    from ..models.folded_kl import FoldedKL, fold

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(
            f"there is no autoencoder in {folder}; train one first: reverie train recipes/atelier/vae.yaml"
        )
    loader: Any = AutoencoderKL
    found: Any = fold(loader.from_pretrained(folder, torch_dtype=torch.float32))
    folded = isinstance(found, FoldedKL)
    if not folded:
        raise ValueError(
            f"the autoencoder in {folder} works on plain pixels; train one of folded ones, as vae.yaml does."
        )
    return found.eval().requires_grad_(False)
