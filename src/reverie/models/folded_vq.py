"""The Atelier's image tokenizer by itself: the VQ network of Janus on folded pixels, as a `PictureCodes`.

The same network, with the same weights, as inside a Janus of the Atelier (`models/janus.py`), so that several kinds of
painter can share one trained tokenizer and be compared on the same codes.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import JanusVQVAE, JanusVQVAEConfig

from reverie.models.cells import vq_latents
from reverie.models.magvit import grid_of

CODE_SIZE = 8


class FoldedVQ(nn.Module):
    """patch: factor by which pixels are folded (pixel unshuffle) first; cells: see `models/cells.py`."""

    def __init__(self, vq: nn.Module, patch: int, cells: bool):
        super().__init__()
        self.vq: Any = vq
        self.patch, self.cells = patch, cells

    @classmethod
    def from_section(cls, section: dict[str, Any]) -> "FoldedVQ":
        """Fresh, from a section of config.json: codes, ch, ch_mult, num_res_blocks, z_channels, patch, cells."""
        try:
            channels = 3 * section["patch"] ** 2
            config = JanusVQVAEConfig(
                embed_dim=CODE_SIZE,
                num_embeddings=section["codes"],
                latent_channels=section["z_channels"],
                base_channels=section["ch"],
                channel_multiplier=list(section["ch_mult"]),
                num_res_blocks=section["num_res_blocks"],
                in_channels=channels,
                out_channels=channels,
            )
        except KeyError as error:
            missing = error.args[0]
            raise ValueError(f"config.json lacks the field {missing!r} of a VQ tokenizer; complete it.") from error
        return cls(JanusVQVAE._from_config(config), section["patch"], bool(section.get("cells")))

    @property
    def num_codes(self) -> int:
        return self.vq.quantize.embedding.weight.shape[0]

    @property
    def pixels_per_code(self) -> int:
        return 2 ** (len(self.vq.config.channel_multiplier) - 1) * self.patch

    def encode(self, pixels: Tensor) -> Tensor:
        """The nearest codebook row by cosine; neither side need be of unit length."""
        vq = self.vq
        folded = F.pixel_unshuffle(pixels.to(vq.quant_conv.weight), self.patch)
        latents = F.normalize(vq_latents(vq, folded, self.cells).float(), dim=1)
        rows = F.normalize(vq.quantize.embedding.weight.float(), dim=-1)
        return (latents.flatten(2).transpose(1, 2) @ rows.T).argmax(-1)

    def decode(self, codes: Tensor, size: tuple[int, int] | None = None) -> Tensor:
        vq = self.vq
        rows = F.normalize(vq.quantize.embedding(codes.to(vq.quant_conv.weight.device)), dim=-1)
        latents = rows.transpose(1, 2).unflatten(2, grid_of(codes, size)).contiguous()
        return F.pixel_shuffle(vq.decoder(vq.post_quant_conv(latents)), self.patch)
