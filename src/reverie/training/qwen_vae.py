"""Training the small autoencoder of atelier-qwen: diffusers' AutoencoderKLQwenImage on drawn scenes.

The losses are those of the image tokenizer, with a weak pull of the latents towards the standard normal distribution.
Kernels are learnt as matrices, by Muon (see `kernels.py`). Beside the noise that comes with a distribution, the decoder
meets latents that are disturbed further: a diffusion model paints near latents, not on them. At the end the mean and
deviation of every channel are measured and written into its config, where the pipelines look for them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.stills import quicken_stills
from .captions import pictured
from .janus import stack
from .kernels import as_kernels, as_matrices
from .tokenizer import picture_losses


@dataclass
class QwenVaeSizes:
    """base: channels at full resolution; multipliers: of the four resolutions, each half of the one before."""

    base: int = 16
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    res_blocks: int = 1
    latent: int = 16


@dataclass
class QwenVaeTraining:
    """batch: pictures a step; fresh: of them, drawn anew until there are `pool` of them; side: in pixels; pull: weight
    of the divergence from the normal distribution, a mean over the numbers of a latent; noise: largest deviation that
    is added to latents; anything: share of pictures of whatever the Atelier can draw; encoder: whether it learns, too,
    which a painter that was trained on its latents does not bear."""

    batch: int = 16
    fresh: int = 16
    pool: int = 20000
    side: int = 96
    pull: float = 2e-3
    noise: float = 0.3
    anything: float = 0.3
    encoder: bool = True


def fresh_vae(sizes: QwenVaeSizes) -> Any:
    """An AutoencoderKLQwenImage without a sense of time, which makes no latents for it either."""
    import diffusers

    if len(sizes.multipliers) != 4:
        raise ValueError(f"model.multipliers={list(sizes.multipliers)}: give four, the pipelines count on it.")
    found: Any = diffusers.AutoencoderKLQwenImage(
        base_dim=sizes.base, z_dim=sizes.latent, dim_mult=list(sizes.multipliers), num_res_blocks=sizes.res_blocks,
        temperal_downsample=[False] * 3, latents_mean=[0.0] * sizes.latent, latents_std=[1.0] * sizes.latent,
    )  # fmt: skip
    with torch.no_grad():
        for weight in found.parameters():
            if weight.ndim == 5:
                weight[:, :, :-1] = 0  # no still ever meets them; zeros need no room in an archive
    return quicken_stills(found)


class QwenVaeTask:
    """`training.loop.Task` of the autoencoder."""

    def __init__(self, model: Any, config: QwenVaeTraining, seed: int = 0):
        if not 1 <= config.fresh <= config.batch:
            raise ValueError(f"fresh={config.fresh}: must be at least 1 and at most batch={config.batch}.")
        self.model, self.config, self.seed = as_matrices(model.train()), config, seed
        if not config.encoder:
            self.model.encoder.requires_grad_(False)
            self.model.quant_conv.requires_grad_(False)
        self.pool: Tensor | None = None

    def scene(self, number: int) -> Any:
        """Picture `number` of the pool."""
        from ..atelier.draw import draw
        from ..atelier.layout import random_scene
        from ..atelier.sample import compose

        rng = random.Random(f"{self.seed}/scene {number}")
        if rng.random() < self.config.anything:
            return draw(random_scene(rng), self.config.side)
        demand, known = pictured(rng)
        return draw(known or compose(demand, rng), self.config.side)

    def batch(self, step: int) -> dict[str, Any]:
        """New pictures (F, 3, side, side) uint8, and which numbers of the pool are learnt from."""
        config, rng = self.config, random.Random(f"{self.seed}/{step}")
        first, last = (min(config.fresh * n, config.pool) for n in (step, step + 1))
        numbers = [*range(first, last), *(rng.randrange(last) for _ in range(config.batch - (last - first)))]
        drawn = [self.scene(number) for number in range(first, last)]
        return {
            "first": first, "new": stack(drawn) if drawn else torch.empty(0), "numbers": torch.tensor(numbers),
            "seed": rng.getrandbits(63),
        }  # fmt: skip

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        pixels = self._pictures(batch).float() / 127.5 - 1
        found = self.model.encode(pixels[:, :, None]).latent_dist
        mean, logvar = found.mean.float(), found.logvar.float()
        divergence = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        chance = torch.Generator(mean.device).manual_seed(batch["seed"])
        loud = self.config.noise * torch.rand((len(mean), 1, 1, 1, 1), generator=chance, device=mean.device)
        spread = torch.maximum((0.5 * logvar).exp(), loud * mean.std((0, 2, 3, 4), keepdim=True).detach())
        latents = mean + spread * torch.randn(mean.shape, generator=chance, device=mean.device)
        painted = self.model.decode(latents, return_dict=False)[0][:, :, 0].float()
        pixel, edge = picture_losses(painted, pixels)
        loss = pixel + edge + self.config.pull * divergence
        mse = F.mse_loss(painted.detach(), pixels)
        return loss, {"mse": mse, "edge": edge.detach(), "kl": divergence.detach()}

    def _pictures(self, batch: dict[str, Any]) -> Tensor:
        """(B, 3, side, side) uint8; new ones are kept where the model is. After a stop, those from before are drawn
        again."""
        new, numbers, config = batch["new"], batch["numbers"], self.config
        if self.pool is None:
            shape = (config.pool, 3, config.side, config.side)
            self.pool = torch.empty(shape, dtype=torch.uint8, device=numbers.device)
            for number in range(batch["first"]):
                self.pool[number] = stack([self.scene(number)])[0].to(numbers.device)
        if len(new):
            self.pool[batch["first"] : batch["first"] + len(new)] = new
        return self.pool[numbers]

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to what is left of it in the latents."""
        return self.model.decode(raw_latents(self.model, pixels), return_dict=False)[0][:, :, 0].float()


def raw_latents(vae: Any, pixels: Tensor) -> Tensor:
    """(B, C, 1, H / 8, W / 8) of pictures (B, 3, H, W) in [-1, 1], as the encoder writes them."""
    return vae.encode(pixels[:, :, None]).latent_dist.mode()


@torch.no_grad()
def measure(vae: Any, pixels: Tensor) -> None:
    """Writes mean and deviation of every latent channel over pictures (B, 3, H, W) in [-1, 1] into the config."""
    found = torch.cat([raw_latents(vae, part).float() for part in pixels.split(64)])
    means, deviations = found.mean((0, 2, 3, 4)), found.std((0, 2, 3, 4)).clamp(min=1e-3)
    vae.register_to_config(
        latents_mean=[round(x, 5) for x in means.tolist()], latents_std=[round(x, 5) for x in deviations.tolist()]
    )


def save_vae(model: Any, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16."""
    import diffusers

    from ..models.diffusion_checkpoint import settings_of

    plain: Any = diffusers.AutoencoderKLQwenImage.from_config(settings_of(model))
    plain.load_state_dict(as_kernels(model, plain))
    plain.to(torch.bfloat16).save_pretrained(folder)


def load_vae(folder: str | Path) -> Any:
    """The autoencoder in a folder, frozen, in float32. ValueError if there is none."""
    import diffusers

    if not (Path(folder) / "config.json").is_file():
        raise ValueError(f"there is no autoencoder in {folder}; train one first: recipes/atelier/qwen-vae.yaml")
    loader: Any = diffusers.AutoencoderKLQwenImage
    found = loader.from_pretrained(folder, torch_dtype=torch.float32)
    return quicken_stills(found).eval().requires_grad_(False)
