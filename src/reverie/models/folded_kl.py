"""AutoencoderKL of diffusers on folded pixels: what makes a small FLUX of the Atelier cheap.

At full size, convolutions over every pixel cost ten times as much as all else. So the network sees 4 x 4 pixels as one
place with 48 channels, and its two levels bring 96 x 96 pixels to 12 x 12 latents. Encoding looks at the pixels of one
latent at a time (see cells.py): the same stroke has the same latent wherever it stands, which a small painter can
learn; the decoder sees all latents. On disk it is a plain AutoencoderKL whose `in_channels` tell how it is folded.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from torch import Tensor, nn

from .cells import cell_by_cell, small_convolutions


class FoldedKL(AutoencoderKL):
    """Pictures in, pictures out, as in the parent; see `fold` for where these come from."""

    config: Any
    encoder: Any
    quant_conv: Any

    @property
    def patch(self) -> int:
        """Side of the square of pixels that is one place."""
        return isqrt(self.config.in_channels // 3)

    def _encode(self, x: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(x, self.patch)
        factor = 2 ** (len(self.config.block_out_channels) - 1)
        last = self.quant_conv or nn.Identity()
        return cell_by_cell(lambda tiles: last(self.encoder(tiles)), folded, factor)

    def moments(self, x: Tensor) -> DiagonalGaussianDistribution:
        """Of the latents (B, C, H, W) of pictures (B, 3, H, W) in [-1, 1]."""
        return DiagonalGaussianDistribution(self._encode(x).float())

    def _decode(self, z: Tensor, return_dict: bool = True) -> Any:
        plain: Any = super()
        painted = F.pixel_shuffle(plain._decode(z, return_dict=False)[0], self.patch)
        return DecoderOutput(sample=painted) if return_dict else (painted,)


def fold(vae: Any) -> Any:
    """An autoencoder of folded pixels becomes a FoldedKL, in place; any other is left as it is."""
    found: Any = vae if isinstance(vae, AutoencoderKL) else None
    if found is not None and found.config.in_channels > 4:
        found.__class__ = FoldedKL
        small_convolutions(found.encoder)
    return vae


def fold_pipeline(pipeline: Any) -> None:
    """Teaches a loaded pipeline what its folded autoencoder does, so that its sizes are pixels again; changes nothing
    in others."""
    from diffusers.image_processor import VaeImageProcessor

    if isinstance(fold(pipeline.vae), FoldedKL):
        pipeline.vae_scale_factor = 2 ** (len(pipeline.vae.config.block_out_channels) - 1) * pipeline.vae.patch
        pipeline.image_processor = VaeImageProcessor(vae_scale_factor=2 * pipeline.vae_scale_factor)
