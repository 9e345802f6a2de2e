"""Training a small LlamaGen on the Atelier: captions in, codes out (arXiv 2406.06525, section 3.3).

The captions are read by a T5 encoder of the class that the public model has, but small and trained from scratch along
with the painter: the public one is a hundred times as large as all the rest, and frozen tables of another model's
words would say which words a caption holds but not what belongs to what. A share of captions is replaced by the
unconditional vectors, which guidance needs; these are random and stay so, as the authors' do. The VQ tokenizer is
frozen and encodes pictures on the fly.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.janus_text import EOS, PAD
from ..models.llamagen import CAPTION_SLOTS, Llamagen, LlamagenConfig
from ..models.llamagen_text import CaptionEncoder, clean_caption
from ..models.shared_pictures import KEY
from .cross_entropy import cross_entropy
from .drawn_codes import DrawnCodes
from .janus import captioned, lengths, pad
from .quick_norm import quicken
from .words import train_words

if TYPE_CHECKING:
    from ..generators.llamagen import LlamagenPainter


@dataclass
class LlamagenTraining:
    """paint: pictures a step, of which the share `fresh` is drawn anew (see drawn_codes.py); blank: share of captions
    replaced by the unconditional one; riddles: share of captions that are the answers of riddles."""

    paint: int = 24
    fresh: float = 1.0
    blank: float = 0.1
    riddles: float = 0.12
    side: int = 96


@dataclass
class LlamagenSizes:
    """Sizes of the small LlamaGen and of its text encoder, and how it is to paint. What is not said here follows from
    the tokenizer."""

    width: int = 256
    layers: int = 8
    heads: int = 4
    ffn: int = 768
    text_width: int = 192
    text_layers: int = 4
    text_heads: int = 3
    vocabulary: int = 1024
    guidance: float = 3.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def small_config(sizes: LlamagenSizes, vq: Any, shared: str | None = None) -> dict[str, Any]:
    """config.json of a LlamaGen of these sizes around a `TokenizerConfig`: that of the Janus `shared`, if named."""
    side = vq.side // vq.patch // 2 ** (len(vq.multipliers) - 1)
    return {
        "model_type": "llamagen",
        "gpt": {
            "dim": sizes.width, "n_layer": sizes.layers, "n_head": sizes.heads, "n_kv_head": sizes.heads,
            "ffn_dim": sizes.ffn, "caption_dim": sizes.text_width, "block_size": side**2,
        },
        "vq": {
            "image_token_size": vq.codes, "n_embed": 8, "ch": vq.base, "ch_mult": list(vq.multipliers),
            "z_channels": vq.latent, "num_res_blocks": vq.res_blocks, "patch": vq.patch, "cells": vq.cells,
        },
        "reverie": {
            "guidance": sizes.guidance, "temperature": sizes.temperature, "top_k": sizes.top_k, "top_p": sizes.top_p,
        } | ({KEY: shared} if shared else {}),
    }  # fmt: skip


def build_captions(sizes: LlamagenSizes, count: int = 20000, words: Any = None) -> CaptionEncoder:
    """A fresh T5 encoder and a tokenizer of the words that the Atelier's captions use, or the one that is given."""
    from transformers import T5Config, T5EncoderModel

    rng = random.Random("captions")
    words = words or train_words((clean_caption(captioned(rng, 0.12)[1]) for _ in range(count)), sizes.vocabulary)
    end = words.token_to_id(EOS)
    if end is None or words.token_to_id(PAD) is None:
        raise ValueError(f"the tokenizer of text lacks {EOS} or {PAD}; give one that a LlamaGen of the Atelier has.")
    config = T5Config(
        vocab_size=words.get_vocab_size(),
        d_model=sizes.text_width,
        d_kv=sizes.text_width // sizes.text_heads,
        d_ff=2 * sizes.text_width,
        num_layers=sizes.text_layers,
        num_heads=sizes.text_heads,
        feed_forward_proj="gated-gelu",
        dropout_rate=0.0,  # there is no end of new captions
        is_encoder_decoder=False,
        pad_token_id=words.token_to_id(PAD),
        eos_token_id=end,
    )
    return CaptionEncoder(words, T5EncoderModel(config), end)


def build_llamagen(
    sizes: LlamagenSizes, vq_config: Any, vq: nn.Module, shared: str | None = None, words: Any = None
) -> tuple[Llamagen, CaptionEncoder]:
    """A fresh LlamaGen around a trained tokenizer, and its text encoder. shared: the Janus whose tokenizer that is.
    words: as of `build_captions`."""
    model = Llamagen(LlamagenConfig.from_dict(small_config(sizes, vq_config, shared)))
    model.initialise()
    model.vqmodel.load_state_dict(vq.state_dict())
    return model, build_captions(sizes, words=words)


class LlamagenTask:
    """`training.loop.Task` of LlamaGen and its text encoder in the Atelier."""

    def __init__(self, painter: Llamagen, captions: CaptionEncoder, mix: LlamagenTraining, seed: int = 0):
        self.network, self.captions, self.mix, self.seed = quicken(painter), captions, mix, seed
        self.drawn = DrawnCodes(seed, mix.paint, mix.fresh, mix.riddles, mix.side)
        painter.vqmodel.requires_grad_(False)
        self.model = nn.ModuleDict({"painter": painter, "text": captions.network}).train()

    def painter(self) -> LlamagenPainter:
        """The model as it is now, as one that paints."""
        from ..generators.family import OWN_SETTINGS
        from ..generators.llamagen import LlamagenPainter

        own = self.network.config.own
        settings = {name: own[name] for name in OWN_SETTINGS["llamagen"] if name in own}
        return LlamagenPainter(self.network, self.captions, **settings)

    def batch(self, step: int) -> dict[str, Any]:
        """Captions of one step, and what `DrawnCodes` needs to know the codes, from (seed, step) alone."""
        rng = random.Random(f"{self.seed}/{step}")
        captions, rows = self.drawn.batch(step, rng)
        ids = [self.captions.ids(caption) for caption in captions]
        blank = torch.tensor([rng.random() < self.mix.blank for _ in ids])
        return {"ids": pad(ids, self.captions.end), "length": lengths(ids), "blank": blank} | rows

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        codes = self.drawn.codes(batch, self.network.encode_image)  # (B, L)
        logits = self.network(self._states(batch), batch["length"], codes[:, :-1])
        loss = cross_entropy(logits.flatten(0, 1), codes.flatten())
        return loss, {"perplexity": loss.detach().exp()}

    def _states(self, batch: dict[str, Tensor]) -> Tensor:
        """(B, T, caption_dim): what the captions say, and the unconditional vectors in place of blanked ones."""
        ids, length = batch["ids"], batch["length"][:, None]
        place = torch.arange(ids.shape[1], device=ids.device)
        read = self.captions.network(input_ids=ids, attention_mask=(place < length).long()).last_hidden_state
        # A caption of n vectors has the last n unconditional ones for a twin; behind n nobody looks.
        twin = self.network.unconditional[(CAPTION_SLOTS - length + place).clamp(max=CAPTION_SLOTS - 1)]
        return torch.where(batch["blank"][:, None, None], twin.to(read.dtype), read)
