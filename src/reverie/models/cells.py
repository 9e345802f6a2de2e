"""Encoding the cells of a picture one by one: local image codes from the published VQ-16 encoder.

As published, the encoder normalises over the whole picture, so the same stroke gets other codes beside another
neighbour, and a small painter learns noise: an empty picture of the Atelier used 40 different codes. Fed one cell (the
pixels of one code) at a time, the same network writes the same stroke as the same code everywhere; what a cell cannot
know the decoder, which sees all codes, puts right.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def vq_latents(vq: Any, folded: Tensor, cells: bool) -> Tensor:
    """Folded pixels (B, C, H, W) to latents (B, d, h, w), before normalisation; with `cells`, each latent from its own
    H/h x W/w pixels and nothing else."""
    if not cells:
        return vq.quant_conv(vq.encoder(folded))
    encoder = small_convolutions(vq.encoder)
    factor = 2 ** (len(vq.config.channel_multiplier) - 1)
    return cell_by_cell(lambda tiles: vq.quant_conv(encoder(tiles)), folded, factor)


def cell_by_cell(encoder: Callable[[Tensor], Tensor], folded: Tensor, factor: int) -> Tensor:
    """What an encoder, which brings factor x factor places to one, makes of each such cell of (B, C, H, W) by itself:
    (B, D, H / factor, W / factor)."""
    batch, channels, height, width = folded.shape
    tiles = folded.unflatten(3, (-1, factor)).unflatten(2, (-1, factor))  # (B, C, h, f, w, f)
    tiles = tiles.permute(0, 2, 4, 1, 3, 5).reshape(-1, channels, factor, factor)
    found = encoder(tiles.contiguous(memory_format=torch.channels_last)).flatten(1)
    return found.view(batch, height // factor, width // factor, -1).permute(0, 3, 1, 2)


def small_convolutions(encoder: nn.Module) -> nn.Module:
    """Turn the 3x3 convolutions of the encoder into `SmallConv`, in place; weights stay."""
    for module in encoder.modules():
        if type(module) is nn.Conv2d and module.kernel_size == (3, 3):
            module.__class__ = SmallConv
    return encoder


class SmallConv(nn.Conv2d):
    """A 3x3 convolution that is one matrix product on pictures of at most 2x2 (3x3 where it pads nothing).

    On a picture that small every output sees every input, so nothing is left to slide; a tokenizer's training step
    takes half as long (24 pictures of 144 cells, 128 channels, bf16, one core).
    """

    def forward(self, input: Tensor) -> Tensor:
        side, width = input.shape[2:]
        padding = int(self.padding[0])
        if side != width or side > 3 - padding:
            return super().forward(input)
        out = (side + 2 * padding - 3) // self.stride[0] + 1
        place = torch.arange(side, device=input.device) + padding
        taps = place[None] - self.stride[0] * torch.arange(out, device=input.device)[:, None]  # (out, side)
        matrix = self.weight[:, :, taps[:, None, :, None], taps[None, :, None, :]]  # (O, C, out, out, side, side)
        matrix = matrix.permute(2, 3, 0, 4, 5, 1).reshape(out * out * self.out_channels, -1)
        flat = input.permute(0, 2, 3, 1).reshape(len(input), -1)
        bias = None if self.bias is None else self.bias.repeat(out * out)
        painted = F.linear(flat, matrix, bias)
        return painted.view(-1, out, out, self.out_channels).permute(0, 3, 1, 2)
