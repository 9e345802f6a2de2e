"""AutoencoderKL of diffusers on folded pixels: the Atelier's image tokenizer without its codes, for diffusion models.

At full size, convolutions over every pixel cost ten times as much as all else, so the network sees 4 x 4 pixels as one
place with 48 channels, and its two levels bring 96 x 96 pixels to 12 x 12 latents. As in the tokenizer, a latent is
written from its own pixels alone (cells.py says why) and has unit length; the decoder sees all latents. On disk it is a
plain AutoencoderKL whose `in_channels` tell how it is folded.
"""

from __future__ import annotations

from math import isqrt
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from diffusers.models.autoencoders.vae import DecoderOutput
from torch import Tensor

from .cells import cell_by_cell, small_convolutions
from .vq16 import VQ16

CERTAIN = -30.0
"""Logarithm of the variance of a latent that is not drawn."""


class FoldedKL(AutoencoderKL):
    """Pictures in, pictures out, as in the parent; `fold` and `from_vq` make one."""

    config: Any
    encoder: Any

    @property
    def patch(self) -> int:
        """Side of the square of pixels that is one place."""
        return isqrt(self.config.in_channels // 3)

    def _length(self, latents: Tensor) -> Tensor:
        """Unit length where the scale, which brings such latents to deviation 1, says so."""
        return F.normalize(latents, dim=1) if self.config.scaling_factor > 1 else latents

    def _encode(self, x: Tensor) -> Tensor:
        factor = 2 ** (len(self.config.block_out_channels) - 1)
        mean, logvar = cell_by_cell(self.encoder, F.pixel_unshuffle(x, self.patch), factor).chunk(2, 1)
        return torch.cat((self._length(mean.float()), logvar.float()), 1)

    def _decode(self, z: Tensor, return_dict: bool = True) -> Any:
        plain: Any = super()
        painted = plain._decode(self._length(z), return_dict=False)[0]
        painted = F.pixel_shuffle(painted, self.patch)
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


@torch.no_grad()
def from_vq(vq: VQ16) -> Any:
    """The `FoldedKL` that computes what the tokenizer computes, without rounding to codes.

    The two 1x1 convolutions around the codes are multiplied into their 3x3 neighbours, so the bias of the second one is
    also seen beyond the border, where the tokenizer sees zeros: latents at the rim decode a little differently.
    """
    config = vq.config
    widths = tuple(config.base_channels * factor for factor in config.channel_multiplier)
    plain, last = len(widths) - 1, "AttnDownEncoderBlock2D"
    vae: Any = AutoencoderKL(
        in_channels=config.in_channels, out_channels=config.out_channels, block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * plain + (last,),
        up_block_types=("AttnUpDecoderBlock2D",) + ("UpDecoderBlock2D",) * plain,
        layers_per_block=config.num_res_blocks, latent_channels=config.embed_dim, norm_num_groups=32,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=config.embed_dim**0.5, shift_factor=0.0,
        force_upcast=False,
    )  # fmt: skip
    weights = {_renamed(name): tensor.detach().clone() for name, tensor in vq.state_dict().items()}
    quant, post = weights.pop("quant_conv.weight")[..., 0, 0], weights.pop("post_quant_conv.weight")[..., 0, 0]
    after, before = weights.pop("quant_conv.bias"), weights.pop("post_quant_conv.bias")
    weights.pop("quantize.embedding.weight")
    mean = torch.einsum("ec,cikl->eikl", quant, weights["encoder.conv_out.weight"])
    bias = quant @ weights["encoder.conv_out.bias"] + after
    weights["encoder.conv_out.weight"] = torch.cat((mean, torch.zeros_like(mean)))
    weights["encoder.conv_out.bias"] = torch.cat((bias, torch.full_like(bias, CERTAIN)))
    wide = weights["decoder.conv_in.weight"]
    weights["decoder.conv_in.weight"] = torch.einsum("ockl,ce->oekl", wide, post)
    weights["decoder.conv_in.bias"] = weights["decoder.conv_in.bias"] + torch.einsum("ockl,c->o", wide, before)
    shapes = {name: tensor.shape for name, tensor in vae.state_dict().items()}
    vae.load_state_dict({name: tensor.reshape(shapes[name]) for name, tensor in weights.items()})
    return fold(vae)


def _renamed(name: str) -> str:
    """A parameter of the tokenizer as diffusers calls it; both descend from the same network."""
    for old, new in (
        ("mid.block_1", "mid_block.resnets.0"), ("mid.block_2", "mid_block.resnets.1"),
        ("mid.attn_1", "mid_block.attentions.0"), (".down.", ".down_blocks."), (".up.", ".up_blocks."),
        (".block.", ".resnets."), (".attn.", ".attentions."), (".downsample.", ".downsamplers.0."),
        (".upsample.", ".upsamplers.0."), ("nin_shortcut", "conv_shortcut"), (".norm_out.", ".conv_norm_out."),
    ):  # fmt: skip
        name = name.replace(old, new)
    if ".attentions." in name:
        for old, new in (
            (".norm.", ".group_norm."), (".q.", ".to_q."), (".k.", ".to_k."), (".v.", ".to_v."),
            (".proj_out.", ".to_out.0."),
        ):  # fmt: skip
            name = name.replace(old, new)
    return name
