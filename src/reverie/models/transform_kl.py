"""A folded AutoencoderKL whose encoder is a Karhunen-Loeve transform, written into the layers of diffusers' class.

8 x 8 pixels are one place with 192 channels, and a latent is the first principal coordinates of its own place: nothing
is learnt, so a diffusion model may begin at once, and what a painter must know of strokes is spread over coordinates
that do not correlate. The decoder begins near the inverse transform and learns the rest: it sees all latents.

Exactly linear layers are made of the class's own parts: residual blocks whose last convolution is zero leave what comes
in; a group norm over (z, -z, K, -K) with a large K divides by a constant; and silu(z) - silu(-z) = z.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from .folded_kl import CERTAIN, fold

GROUPS = 32
FLAT = 0.1
"""Difference of a cell's lightest and darkest value, of 2, below which it tells nothing of strokes."""
LARGE = 128.0
"""K, a hundred times a coordinate's deviation: at four deviations the norm is off by a tenth of a percent."""


def principal_axes(cells: Tensor, count: int) -> Tensor:
    """(count, D), the axes of unit length along which cells (N, D) differ most; largest entries are positive."""
    axes = torch.linalg.eigh(torch.cov(cells.T.double())).eigenvectors.flip(1)[:, :count].T
    sign = axes.gather(1, axes.abs().argmax(1, keepdim=True)).sign()
    return (axes * sign).to(cells.dtype)


@torch.no_grad()
def from_cells(cells: Tensor, channels: int = 16, width: int = 160, blocks: int = 1) -> Any:
    """The `FoldedKL` of cells (N, D), folded pixels in [-1, 1] of whole pictures. The axes are those of cells that are
    not flat. Coordinates are scaled by the root of their deviation, half way to equal ones, so that strokes count for
    more than in pixels and less than flat colour; mean 0, mean variance 1. ValueError where the width cannot hold the
    channels."""
    if channels > GROUPS or width % GROUPS or width < 4 * GROUPS:
        raise ValueError(
            f"channels={channels}, width={width}: a width is a multiple of {GROUPS}, {4 * GROUPS} or more, for at most "
            f"{GROUPS} channels."
        )
    mean, spread = cells.mean(0), cells.amax(1) - cells.amin(1)
    axes = principal_axes(cells[spread > FLAT], channels)
    deviations = ((cells - mean) @ axes.T).std(0)
    scale = (channels / deviations.sum()).sqrt() / deviations.sqrt()
    vae: Any = AutoencoderKL(
        in_channels=cells.shape[1], out_channels=cells.shape[1], block_out_channels=(width,),
        down_block_types=("DownEncoderBlock2D",), up_block_types=("UpDecoderBlock2D",), layers_per_block=blocks,
        latent_channels=channels, norm_num_groups=GROUPS, use_quant_conv=False, use_post_quant_conv=False,
        mid_block_add_attention=False, scaling_factor=1.0, shift_factor=0.0, force_upcast=False,
    )  # fmt: skip
    for name, weight in vae.named_parameters():
        if ".conv2." in name:
            weight.zero_()
    _write_encoder(vae.encoder, scale[:, None] * axes, mean)
    _write_decoder(vae.decoder, axes / scale[:, None], mean, scale * deviations)
    return fold(vae)


def _write_encoder(encoder: Any, forward: Tensor, mean: Tensor) -> None:
    """forward (C, D): z = forward (x - mean), in channels (z, -z, K, -K, 0, ...) of one group each."""
    channels, group = len(forward), encoder.conv_in.out_channels // GROUPS
    plus = torch.arange(channels) * group
    for name, weight in encoder.named_parameters():
        if "norm" not in name:
            weight.zero_()
    for places, sign in ((plus, 1), (plus + 1, -1)):
        encoder.conv_in.weight[places, :, 1, 1] = sign * forward
        encoder.conv_in.bias[places] = -sign * (forward @ mean)
    encoder.conv_in.bias[plus + 2], encoder.conv_in.bias[plus + 3] = LARGE, -LARGE
    encoder.conv_norm_out.weight.fill_(LARGE * (2 / group) ** 0.5)
    encoder.conv_norm_out.bias.zero_()
    encoder.conv_out.weight[torch.arange(channels), plus, 1, 1] = 1
    encoder.conv_out.weight[torch.arange(channels), plus + 1, 1, 1] = -1
    encoder.conv_out.bias[channels:] = CERTAIN


def _write_decoder(decoder: Any, inverse: Tensor, mean: Tensor, deviations: Tensor) -> None:
    """inverse (C, D): x = mean + z inverse, where the norm divides by the deviation of z over a picture."""
    channels, group = len(inverse), decoder.conv_in.out_channels // GROUPS
    plus = torch.arange(channels) * group
    decoder.conv_out.weight.zero_()
    decoder.conv_out.bias.copy_(mean)
    for places, sign in ((plus, 1.0), (plus + 1, -1.0)):
        decoder.conv_in.weight[places] = 0
        decoder.conv_in.weight[places, torch.arange(channels), 1, 1] = sign
        decoder.conv_in.bias[places] = 0
        # The other channels of a group are of about unit deviation, as z is.
        decoder.conv_out.weight[:, places, 1, 1] = sign * deviations * inverse.T
