"""Training the image tokenizer of the Atelier: Janus' VQ network on pixel-unshuffled pictures.

The network is the one that Janus-Pro loads (`models/vq16.py`); each picture is folded by `patch` first, so the
convolutions run at 1/patch of the resolution, which costs a tenth for the same picture. Losses: L1 and L2 on pixels,
weighted towards edges and figures because most of a drawn picture is flat ground; L1 on the differences of neighbours;
commitment and codebook terms on l2-normalised vectors (Yu et al. 2022, arXiv 2110.04627). Codes that nobody uses for a
while are set to latents that occur. Left out on purpose: adversarial and LPIPS terms.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..atelier.scene import Scene
from ..models.cells import vq_latents
from ..models.vq16 import VQ16, VQConfig
from .quick_norm import quicken

PATIENCE = 40
"""Steps after which a code that nobody used is given another place."""


@dataclass
class TokenizerConfig:
    """Sizes of the tokenizer; side / patch / 2^(levels - 1) is the token grid. demands: share of training pictures
    of the kinds that prompts ask for, the rest being anything the Atelier can draw;
    loose: share of those demands laid out freely (see `atelier.layout.Play`); contained: share of those demands remade
    with one thing inside or on another, rare otherwise; exercises: share of those demands that ask for two things with
    textures, actions and colours (`atelier.exercises`), rare otherwise; cells: see `models.janus`."""

    side: int = 96
    patch: int = 4
    cells: bool = True
    codes: int = 1024
    base: int = 128
    multipliers: tuple[int, ...] = (1, 1)
    res_blocks: int = 1
    latent: int = 128
    batch: int = 16
    commit: float = 0.25
    demands: float = 0.75
    loose: float = 0.25
    contained: float = 0.0
    exercises: float = 0.0


def build_vq(config: TokenizerConfig) -> nn.Module:
    """The network, freshly initialised."""
    channels = 3 * config.patch**2
    vq = VQ16(
        VQConfig(
            embed_dim=8,
            num_embeddings=config.codes,
            latent_channels=config.latent,
            in_channels=channels,
            out_channels=channels,
            base_channels=config.base,
            channel_multiplier=list(config.multipliers),
            num_res_blocks=config.res_blocks,
        )
    )
    nn.init.normal_(vq.quantize.embedding.weight)
    return vq.train()


class TokenizerTask:
    """`training.loop.Task` of the tokenizer."""

    def __init__(self, config: TokenizerConfig, seed: int = 0):
        self.config, self.seed = config, seed
        self.model = quicken(build_vq(config)).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.last_used = torch.full((config.codes,), float(PATIENCE))  # so that the first picture fills the codebook
        self.frozen = False
        self.seen: tuple[Tensor, Tensor] | None = None  # codes and latents of the step before

    def batch(self, step: int) -> Tensor:
        """(B, 3, side, side) uint8 drawn scenes."""
        from ..atelier.draw import draw
        from ..atelier.exercises import exercise
        from ..atelier.layout import random_scene
        from ..atelier.sample import compose, random_demand

        rng, config = random.Random(f"{self.seed}/{step}"), self.config

        def scene() -> Scene:
            if rng.random() >= config.demands:
                return random_scene(rng)
            if config.exercises and rng.random() < config.exercises:
                return compose(exercise(rng, 1.0), rng, rng.random() < config.loose)
            theme = "contain" if config.contained and rng.random() < config.contained else None
            return compose(random_demand(rng, theme), rng, rng.random() < config.loose)

        pictures = [np.asarray(draw(scene(), config.side)) for _ in range(config.batch)]
        return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()

    def freeze_codes(self) -> None:
        """Only the decoder learns on: every picture keeps its codes, so models trained on them stay valid."""
        for module in (self.model.encoder, self.model.quant_conv, self.model.quantize):
            module.requires_grad_(False)  # type: ignore[union-attr]
        self.frozen = True

    def reconstruct(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) in [-1, 1] to what is left of it after quantisation."""
        flat, book, ids = self._quantise(pixels)
        return self._decode(book[ids].view_as(flat))

    def _quantise(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Unit latents (B, h, w, 8), the unit codebook (K, 8), and the nearest codes (B * h * w,)."""
        vq: Any = self.model
        folded = F.pixel_unshuffle(pixels, self.config.patch).contiguous(memory_format=torch.channels_last)
        latent = vq_latents(vq, folded, self.config.cells).float()
        flat = F.normalize(latent.permute(0, 2, 3, 1), dim=-1)
        book = F.normalize(vq.quantize.embedding.weight.float(), dim=-1)
        with torch.no_grad():
            ids = (flat.reshape(-1, 8) @ book.T).argmax(-1)
        return flat, book, ids

    def _decode(self, codes: Tensor) -> Tensor:
        vq: Any = self.model
        latent = codes.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
        return F.pixel_shuffle(vq.decoder(vq.post_quant_conv(latent)).float(), self.config.patch)

    def loss(self, batch: Tensor) -> tuple[Tensor, dict[str, Any]]:
        pixels = batch.float() / 127.5 - 1
        if self.seen and not self.frozen:
            self._revive(*self.seen)  # before this step's graph exists, since it writes to the codebook
        flat, book, ids = self._quantise(pixels)
        self.seen = ids, flat.detach().reshape(-1, 8)
        chosen = book[ids].view_as(flat)
        commit = (flat - chosen.detach()).square().sum(-1).mean()
        code = (chosen - flat.detach()).square().sum(-1).mean()
        painted = self._decode(flat + (chosen - flat).detach())
        pixel, edge = picture_losses(painted, pixels)
        used = torch.bincount(ids, minlength=self.config.codes).float()
        perplexity = torch.exp(-(p := used / used.sum()).mul((p + 1e-9).log()).sum())
        loss = pixel + edge + (0.0 if self.frozen else self.config.commit * commit + code)
        mse = (painted.detach() - pixels).square().mean()
        return loss, {"mse": mse, "edge": edge.detach(), "commit": commit.detach(), "perplexity": perplexity}

    @torch.no_grad()
    def _revive(self, ids: Tensor, flat: Tensor) -> None:
        """Set codes unused for PATIENCE steps to latents of the batch before, those farthest from any code first: most
        of a drawn picture is flat ground, which needs few codes."""
        self.last_used += 1
        self.last_used[ids.unique().cpu()] = 0
        dead = (self.last_used > PATIENCE).nonzero().squeeze(1)
        if len(dead):
            weight = self.model.quantize.embedding.weight  # type: ignore[union-attr]
            near = F.normalize(weight.float(), dim=-1)[ids]
            far = (1 - (flat * near).sum(-1)).clamp(min=1e-6)
            taken = flat[torch.multinomial(far, len(dead), replacement=True)]
            weight[dead.to(weight.device)] = taken.to(weight.dtype)
            self.last_used[dead] = 0


def picture_losses(painted: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """(pixel loss, edge loss) of pictures (B, 3, H, W) in [-1, 1], both weighted towards edges of the target."""

    def slopes(x: Tensor) -> tuple[Tensor, Tensor]:
        return x[..., :, 1:] - x[..., :, :-1], x[..., 1:, :] - x[..., :-1, :]

    tx, ty = slopes(target)
    busy = F.pad(tx.abs().amax(1, keepdim=True), (0, 1)) + F.pad(ty.abs().amax(1, keepdim=True), (0, 0, 0, 1))
    weight = 0.5 + 2.5 * F.max_pool2d(busy.clamp(max=1), 5, 1, 2)
    wrong = painted - target
    pixel = (weight * (wrong.abs() + 2 * wrong.square())).mean()
    px, py = slopes(painted)
    edge = ((px - tx).abs() * weight[..., :, 1:]).mean() + ((py - ty).abs() * weight[..., 1:, :]).mean()
    return pixel, edge


def load_tokenizer_weights(state: str | Path, vq: nn.Module) -> nn.Module:
    """Put the EMA weights of a tokenizer run (`state.pt`) into `vq`."""
    saved = torch.load(state, map_location="cpu", weights_only=True)
    vq.load_state_dict(saved["model"])
    means = saved["ema"]["mean"]
    with torch.no_grad():
        # A refining run averages its decoder only: the frozen rest is as it was.
        learned = [
            p
            for n, p in vq.named_parameters()
            if len(means) == len(list(vq.parameters())) or "decoder" in n or "post_quant" in n
        ]
        for parameter, mean in zip(learned, means, strict=True):
            parameter.copy_(mean)
    return vq


def finished_tokenizer(folder: str | Path | None) -> tuple[TokenizerConfig, nn.Module]:
    """Sizes and network of the tokenizer in `folder`, a run of this module or a Janus checkpoint; ValueError if there
    is neither."""
    if folder and (Path(folder) / "config.json").is_file():
        from ..models.janus_checkpoint import load_janus

        model, _ = load_janus(folder)
        vq = model.config.vq
        config = TokenizerConfig(
            side=model.config.grid * model.config.pixels_per_code,
            patch=model.config.patch,
            cells=model.config.cells,
            codes=vq.num_embeddings,
            base=vq.base_channels,
            multipliers=tuple(vq.channel_multiplier),
            res_blocks=vq.num_res_blocks,
            latent=vq.latent_channels,
        )
        return config, model.vqmodel.eval()
    if not folder or not (Path(folder) / "state.pt").is_file():
        raise ValueError(
            f"there is no tokenizer run in {folder}; train one first: reverie train recipes/atelier/tokenizer.yaml"
        )
    recipe = json.loads((Path(folder) / "recipe.json").read_text())["recipe"]
    values: dict[str, Any] = dict(recipe.get("model") or {})
    if "multipliers" in values:
        values["multipliers"] = tuple(values["multipliers"])
    config = TokenizerConfig(**values)
    return config, load_tokenizer_weights(Path(folder) / "state.pt", build_vq(config)).eval()
