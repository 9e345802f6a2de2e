"""VQ-16, the image tokenizer of Janus: the convolutional network of VQGAN (arXiv 2012.09841) as LlamaGen trained it
(arXiv 2406.06525), with a codebook of unit-length rows.

The network, its parameter names and their order are those of transformers' JanusVQVAE, which a test compares; written
here because importing the modelling code of that library takes as long as painting a picture. Finding the nearest row
of the codebook, and looking rows up, is the business of `models/janus.py`. Left out on purpose: dropout and the loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.siglip import normal_weights


@dataclass(frozen=True)
class VQConfig:
    """Defaults are those of transformers' JanusVQVAEConfig, for configurations that leave them out."""

    embed_dim: int = 8
    num_embeddings: int = 16384
    latent_channels: int = 256
    in_channels: int = 3
    out_channels: int = 3
    base_channels: int = 128
    channel_multiplier: Sequence[int] = (1, 1, 2, 2, 4)
    num_res_blocks: int = 2
    projection_dim: int = 2048
    """Width inside the aligner that leads codes into the language model, and inside the head that predicts them."""
    num_hidden_layers: int = 2
    """Linear layers of that aligner."""
    image_token_embed_dim: int = 2048
    """Width of the language model."""


def norm(channels: int) -> nn.GroupNorm:
    return nn.GroupNorm(32, channels, eps=1e-6)


class ResnetBlock(nn.Module):
    def __init__(self, channels: int, out: int):
        super().__init__()
        self.norm1 = norm(channels)
        self.conv1 = nn.Conv2d(channels, out, 3, padding=1)
        self.norm2 = norm(out)
        self.conv2 = nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv1(F.silu(self.norm1(x)))
        inner = self.conv2(F.silu(self.norm2(inner)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + inner


class AttentionBlock(nn.Module):
    """One head over all places of the picture."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = norm(channels)
        self.q = nn.Conv2d(channels, channels, 1)
        self.k = nn.Conv2d(channels, channels, 1)
        self.v = nn.Conv2d(channels, channels, 1)
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        normed = self.norm(x)
        query, key, value = (conv(normed).flatten(2) for conv in (self.q, self.k, self.v))  # (B, C, H * W)
        weights = (torch.bmm(query.transpose(1, 2), key) * x.shape[1] ** -0.5).softmax(2)
        return x + self.proj_out(torch.bmm(value, weights.transpose(1, 2)).view_as(x))


class Middle(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.block_1 = ResnetBlock(channels, channels)
        self.attn_1 = AttentionBlock(channels)
        self.block_2 = ResnetBlock(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.block_2(self.attn_1(self.block_1(x)))


class Downsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pad(x, (0, 1, 0, 1)))


class Upsample(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Level(nn.Module):
    """The blocks of one resolution, each followed by attention at the lowest one, and the way to the next."""

    def __init__(self, channels: int, out: int, blocks: int, attention: bool):
        super().__init__()
        self.block = nn.ModuleList(ResnetBlock(out if i else channels, out) for i in range(blocks))
        self.attn = nn.ModuleList(AttentionBlock(out) for _ in range(blocks if attention else 0))

    def forward(self, x: Tensor) -> Tensor:
        for index, block in enumerate(self.block):
            x = block(x)
            if len(self.attn):
                x = self.attn[index](x)
        for name in ("downsample", "upsample"):
            if hasattr(self, name):
                x = getattr(self, name)(x)
        return x


class Encoder(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        widths = [config.base_channels * factor for factor in config.channel_multiplier]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.in_channels, config.base_channels, 3, padding=1)
        self.down = nn.ModuleList()
        for index, (channels, out) in enumerate(zip([config.base_channels, *widths], widths, strict=False)):
            level = Level(channels, out, config.num_res_blocks, index == last)
            if index != last:
                level.downsample = Downsample(out)
            self.down.append(level)
        self.mid = Middle(widths[-1])
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for level in self.down:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(self.mid(x))))


class Decoder(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        widths = [config.base_channels * factor for factor in reversed(config.channel_multiplier)]
        last = len(widths) - 1
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid = Middle(widths[0])
        self.up = nn.ModuleList()
        for index, (channels, out) in enumerate(zip([widths[0], *widths], widths, strict=False)):
            level = Level(channels, out, config.num_res_blocks + 1, index == 0)
            if index != last:
                level.upsample = Upsample(out)
            self.up.append(level)
        self.norm_out = norm(widths[-1])
        self.conv_out = nn.Conv2d(widths[-1], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mid(self.conv_in(x))
        for level in self.up:
            x = level(x)
        return self.conv_out(F.silu(self.norm_out(x)))


class Codebook(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.num_embeddings, config.embed_dim)


class VQ16(nn.Module):
    """encoder, then quant_conv: (B, in channels, H, W) to latents (B, embed_dim, h, w); post_quant_conv, then decoder:
    back again."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.quantize = Codebook(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)
        self.decoder = Decoder(config)
        normal_weights(self)
