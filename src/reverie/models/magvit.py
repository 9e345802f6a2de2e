"""MAGVIT-v2, the image tokenizer of Show-o: a convolutional autoencoder whose codes are the signs of its latents.

Paper: Language Model Beats Diffusion (arXiv 2310.05737), section 3.1, lookup-free quantisation: with b latent channels
there are 2**b codes; a code is the number whose bits say which channels are positive, the first channel being the most
significant bit, and it is decoded from -1 and +1. Nothing is looked up, so there is no codebook to load.

Parameter names are those of the published checkpoint. That checkpoint's config.json is empty: the sizes below are its
own; other sizes are written into config.json under the same names.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class PictureCodes(Protocol):
    """Any image tokenizer: all that a painter of codes needs to know of it. Pixels are (B, 3, H, W) in [-1, 1], codes
    (B, h * w) in row-major order."""

    @property
    def num_codes(self) -> int: ...

    @property
    def pixels_per_code(self) -> int:
        """Side of the square of pixels that one code stands for."""

    def encode(self, pixels: Tensor) -> Tensor: ...

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """A square grid if `size` is left out; pixels are about [-1, 1] and not clipped."""


@dataclass(frozen=True)
class MagvitConfig:
    """One multiplier and one number of blocks for each level of resolution, the highest first."""

    ch: int = 128
    encoder_ch_mult: tuple[int, ...] = (1, 2, 2, 4, 4)
    decoder_ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)
    encoder_num_res_blocks: tuple[int, ...] = (4, 3, 4, 3, 4)
    decoder_num_res_blocks: tuple[int, ...] = (4, 4, 3, 4, 3)
    z_channels: int = 13

    def __post_init__(self):
        lists = [name for name, value in vars(self).items() if isinstance(value, list | tuple)]
        for name in lists:
            object.__setattr__(self, name, tuple(getattr(self, name)))
        if len({len(getattr(self, name)) for name in lists}) != 1:
            raise ValueError(
                f"config.json of the image tokenizer gives {', '.join(lists)} for different numbers of levels; "
                f"give one entry of each for every level."
            )

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "MagvitConfig":
        """From the contents of a config.json; what it leaves out is as published."""
        return cls(**{name: data[name] for name in cls.__dataclass_fields__ if name in data})

    def to_dict(self) -> dict[str, Any]:
        return {"type": "magvitv2", **{k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}}


class Block(nn.Module):
    """Two convolutions, each behind normalisation and swish, beside the identity."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.norm1, self.norm2 = norm(inputs), norm(outputs)
        self.conv1, self.conv2 = nn.Conv2d(inputs, outputs, 3, 1, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.nin_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        return self.nin_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class PixelAttention(nn.Module):
    """Every place looks at every place, with one head."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        query, key, value = (layer(h).flatten(2).transpose(1, 2)[:, None] for layer in (self.q, self.k, self.v))
        seen = F.scaled_dot_product_attention(query, key, value)[:, 0]
        return x + self.proj_out(seen.transpose(1, 2).reshape(x.shape))


class Downsample(nn.Module):
    """Half the side; padded on the right and below only."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, and the step to the next one unless it is the last."""

    def __init__(self, inputs: int, outputs: int, blocks: int, step: tuple[str, type[nn.Module]] | None):
        super().__init__()
        self.block = nn.ModuleList(Block(inputs if i == 0 else outputs, outputs) for i in range(blocks))
        self.step = step[0] if step else None
        if step:
            self.add_module(step[0], step[1](outputs))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.block:
            x = block(x)
        return x if self.step is None else self.get_submodule(self.step)(x)


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block_1, self.attn_1, self.block_2 = (
            Block(channels, channels),
            PixelAttention(channels),
            Block(channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Encoder(nn.Module):
    def __init__(self, config: MagvitConfig):
        super().__init__()
        widths = [config.ch * multiplier for multiplier in config.encoder_ch_mult]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(3, config.ch, 3, 1, 1)
        self.down = nn.ModuleList(
            Level(before, width, blocks, ("downsample", Downsample) if i < last else None)
            for i, (before, width, blocks) in enumerate(
                zip([config.ch, *widths], widths, config.encoder_num_res_blocks, strict=False)
            )
        )
        self.mid = Middle(widths[-1])
        self.norm_out, self.conv_out = norm(widths[-1]), nn.Conv2d(widths[-1], config.z_channels, 3, 1, 1)
        self.quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.quant_conv(self.conv_out(F.silu(self.norm_out(self.mid(x)))))


class Decoder(nn.Module):
    """Level 0 has the highest resolution and comes last."""

    def __init__(self, config: MagvitConfig):
        super().__init__()
        widths = [config.ch * multiplier for multiplier in config.decoder_ch_mult]
        self.post_quant_conv = nn.Conv2d(config.z_channels, config.z_channels, 1)
        self.conv_in = nn.Conv2d(config.z_channels, widths[-1], 3, 1, 1)
        self.mid = Middle(widths[-1])
        self.up = nn.ModuleList(
            Level(before, width, blocks, ("upsample", Upsample) if i else None)
            for i, (before, width, blocks) in enumerate(
                zip([*widths[1:], widths[-1]], widths, config.decoder_num_res_blocks, strict=True)
            )
        )
        self.norm_out, self.conv_out = norm(widths[0]), nn.Conv2d(widths[0], 3, 3, 1, 1)

    def forward(self, latents: Tensor) -> Tensor:
        x = self.mid(self.conv_in(self.post_quant_conv(latents)))
        for level in reversed(self.up):
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Magvit(nn.Module):
    """A `PictureCodes`."""

    def __init__(self, config: MagvitConfig):
        super().__init__()
        self.config = config
        self.encoder, self.decoder = Encoder(config), Decoder(config)

    @property
    def num_codes(self) -> int:
        return 2**self.config.z_channels

    @property
    def pixels_per_code(self) -> int:
        return 2 ** (len(self.config.encoder_ch_mult) - 1)

    def latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to (B, b, h, w), before any quantisation."""
        return self.encoder(pixels.to(self.encoder.conv_in.weight))

    def encode(self, pixels: Tensor) -> Tensor:
        bits = self.latents(pixels).flatten(2) > 0  # (B, b, h * w)
        return (bits * self._powers(bits.device)[:, None]).sum(1)

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        weight = self.decoder.conv_in.weight
        bits = (codes.to(weight.device)[:, None] & self._powers(weight.device)[:, None]) != 0
        return self.decoder((bits.to(weight.dtype) * 2 - 1).unflatten(2, grid_of(codes, size)))

    def _powers(self, device: torch.device) -> Tensor:
        return 2 ** torch.arange(self.config.z_channels - 1, -1, -1, device=device)


def grid_of(codes: Tensor, size: tuple[int, int] | None) -> tuple[int, int]:
    """(height, width) of (B, L) codes: `size`, or the square; ValueError where they do not fill it."""
    height, width = size or (math.isqrt(codes.shape[1]),) * 2
    if height * width != codes.shape[1]:
        raise ValueError(
            f"{codes.shape[1]} codes do not fill a grid of {height} x {width}; give the grid's (height, width)."
        )
    return height, width


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)
