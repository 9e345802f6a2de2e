"""Qwen-Image's autoencoder on stills: its convolutions over time, height and width as convolutions over a picture.

The autoencoder is one for videos. A still is a video of one frame behind zeros, of which only the last slice of each
kernel sees anything: the other two thirds of the work multiply zeros. Here they are left out. Weights and names stay.
"""

from __future__ import annotations

from typing import Any, TypeVar

import torch.nn.functional as F
from torch import Tensor, nn

M = TypeVar("M", bound=nn.Module)


def quicken_stills(vae: M) -> M:
    """Every causal convolution does a single frame without history as a 2-D one, in place; videos go on as before."""
    from diffusers.models.autoencoders.autoencoder_kl_qwenimage import QwenImageCausalConv3d

    class StillConv(QwenImageCausalConv3d):
        def forward(self, x: Tensor, cache_x: Any = None) -> Tensor:
            if x.shape[2] != 1 or cache_x is not None or self.stride[0] != 1:
                return super().forward(x, cache_x)
            sides: Any = self._padding
            left, right, top, bottom, *_ = sides
            frame, around = x[:, :, 0], (top, left)
            if (left, top) != (right, bottom):
                frame, around = F.pad(frame, (left, right, top, bottom)), (0, 0)
            return F.conv2d(frame, self.weight[:, :, -1], self.bias, self.stride[1:], around)[:, :, None]

    for module in vae.modules():
        if type(module) is QwenImageCausalConv3d:
            module.__class__ = StillConv
    return vae
