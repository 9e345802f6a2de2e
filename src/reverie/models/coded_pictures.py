"""Pictures as codes: the VQ-16 tokenizer that Janus and LlamaGen share (LlamaGen, arXiv 2406.06525, section 3.1).

The network is `models/vq16.py`; what stands here is the way in and out of it, with the two places repaired where the
class of transformers leaves the official code (see `encode_image` and `decode_codes`). Loading lives with each family's
checkpoint.
"""

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.cells import vq_latents
from reverie.models.vq16 import VQ16, VQConfig

VQ_16 = {"ch": 128, "ch_mult": [1, 1, 2, 2, 4], "z_channels": 256}


def vq_config(params: dict[str, Any], **heads: Any) -> VQConfig:
    """Sizes of the network from the authors' names: image_token_size codes of n_embed numbers, base channels `ch`,
    multipliers `ch_mult`, latent channels `z_channels`, residual blocks a level, and `patch` (pixels folded before the
    first convolution). Whatever is missing is VQ-16. heads: fields that only Janus' projections read."""
    channels = params.get("in_channels", 3 * params.get("patch", 1) ** 2)
    return VQConfig(
        embed_dim=params.get("n_embed", 8),
        num_embeddings=params["image_token_size"],
        latent_channels=params.get("z_channels", VQ_16["z_channels"]),
        base_channels=params.get("ch", VQ_16["ch"]),
        channel_multiplier=list(params.get("ch_mult", VQ_16["ch_mult"])),
        num_res_blocks=params.get("num_res_blocks", 2),
        in_channels=channels,
        out_channels=channels,
        **heads,
    )


class CodedPictures(nn.Module):
    """A network that has a `vqmodel` and, in its config, `patch` (pixel-unshuffle factor in front of it) and `cells`
    (see `models/cells.py`). Pixels are (B, 3, H, W) in [-1, 1]; codes are (B, L) in row-major order."""

    vqmodel: VQ16
    config: Any

    def image_latents(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to unit-length latents (B, code size, h, w), before any quantisation."""
        folded = F.pixel_unshuffle(pixels, self.config.patch)
        return F.normalize(vq_latents(self.vqmodel, folded, self.config.cells), dim=1)

    def quantise(self, latents: Tensor) -> Tensor:
        """Nearest codebook row by cosine: (B, d, h, w) to (B, h * w). Stored rows need not be of unit length."""
        rows = F.normalize(self.vqmodel.quantize.embedding.weight.float(), dim=-1)
        return (latents.float().flatten(2).transpose(1, 2) @ rows.T).argmax(-1)

    def encode_image(self, pixels: Tensor) -> Tensor:
        """(B, 3, H, W) to codes (B, h * w). The transformers class forgets to normalise here (28% other codes)."""
        return self.quantise(self.image_latents(pixels.to(self.vqmodel.quant_conv.weight)))

    def code_latents(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """(B, h * w) codes to their unit-length codebook rows (B, d, h, w); a square grid if `size` is left out."""
        height, width = size or (math.isqrt(codes.shape[1]),) * 2
        if height * width != codes.shape[1]:
            raise ValueError(
                f"{codes.shape[1]} codes do not fill a grid of {height} x {width}; give the grid's (height, width)."
            )
        rows = F.normalize(self.vqmodel.quantize.embedding(codes), dim=-1)
        return rows.transpose(1, 2).unflatten(2, (height, width)).contiguous()

    def decode_latents(self, latents: Tensor) -> Tensor:
        """(B, d, h, w) to pixels (B, 3, H, W), about [-1, 1] and not clipped."""
        return F.pixel_shuffle(self.vqmodel.decoder(self.vqmodel.post_quant_conv(latents)), self.config.patch)

    def decode_codes(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Any grid of codes to pixels; the transformers class accepts one grid only."""
        return self.decode_latents(self.code_latents(codes.to(self.vqmodel.quant_conv.weight.device), size))
