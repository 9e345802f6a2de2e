"""A small CLIP of the Atelier: pictures and captions find each other (Radford et al. 2021, arXiv 2103.00020).

Its vision tower is what ThinkDiff-CLIP looks with; the text tower only teaches it. A batch of pictures, one caption of
each; every picture must pick its caption among all of the batch, and every caption its picture. Captions that mean the
same as another's of the batch are right answers too: in a small world they meet often.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atelier.draw import draw
from ..atelier.episode_pictures import EpisodePictures
from ..atelier.language import demand_of
from ..atelier.sample import compose, random_demand
from ..models.janus_text import EOS, PAD
from ..models.vision_tokens import CLIP_MEAN, CLIP_STD
from .janus import pad, stack
from .vlm import caption
from .words import train_words

LONGEST = 64
"""Tokens of a caption."""


@dataclass
class ClipSizes:
    """Sizes of the two towers."""

    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    text_width: int = 128
    text_layers: int = 2
    text_heads: int = 4
    shared: int = 128
    side: int = 96
    patch: int = 12
    vocabulary: int = 768
    texts: int = 20000


@dataclass
class ClipTraining:
    """batch: pairs. single: share of pictures that show one thing as episodes do. variants: see `EpisodePictures`."""

    batch: int = 64
    single: float = 0.85
    variants: int = 24

    def __post_init__(self) -> None:
        if self.batch < 2:
            raise ValueError(f"batch={self.batch}: a caption needs another to be told from; give at least 2.")


def build_clip(sizes: ClipSizes) -> tuple[Any, Any]:
    """A fresh transformers CLIPModel, and a tokenizer that knows the words of captions."""
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    rng = random.Random("clip/words")
    words = train_words((caption(compose(random_demand(rng), rng), rng) for _ in range(sizes.texts)), sizes.vocabulary)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token=EOS, pad_token=PAD)
    common = {"projection_dim": sizes.shared, "attention_dropout": 0.0}
    config = CLIPConfig(
        vision_config=common | {
            "hidden_size": sizes.vision_width, "intermediate_size": 3 * sizes.vision_width, "image_size": sizes.side,
            "num_hidden_layers": sizes.vision_layers, "num_attention_heads": sizes.vision_heads,
            "patch_size": sizes.patch,
        },
        text_config=common | {
            "hidden_size": sizes.text_width, "intermediate_size": 3 * sizes.text_width, "vocab_size": len(tokenizer),
            "num_hidden_layers": sizes.text_layers, "num_attention_heads": sizes.text_heads,
            "max_position_embeddings": LONGEST, "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None,
        },
        projection_dim=sizes.shared,
    )  # fmt: skip
    # Fused attention takes longer than its three products at these lengths (see vlm_forward.py).
    config._attn_implementation = "eager"
    return CLIPModel(config), tokenizer


class ClipTask:
    """`training.loop.Task` of the small CLIP."""

    def __init__(self, model: Any, tokenizer: Any, mix: ClipTraining, seed: int = 0):
        self.model, self.words, self.mix, self.seed = model.train(), tokenizer, mix, seed
        self.side = model.config.vision_config.image_size
        self.pictures = EpisodePictures(mix.variants)

    def batch(self, step: int) -> dict[str, Tensor]:
        rng = random.Random(f"clip/{self.seed}/{step}")
        pixels, texts, meanings = [], [], []
        known: dict[Any, int] = {}
        for _ in range(self.mix.batch):
            if rng.random() < self.mix.single:
                number = rng.randrange(len(self.pictures))
                scene, drawn = self.pictures.scene(number), self.pictures.pixels(number, self.side)
            else:
                scene = compose(random_demand(rng), rng, loose=True)
                drawn = draw(scene, self.side)
            pixels.append(drawn)
            texts.append(caption(scene, rng))
            meanings.append(known.setdefault(demand_of(scene), len(known)))
        ids = [[*self.words.encode(text)[: LONGEST - 1], self.words.eos_token_id] for text in texts]
        meant = torch.tensor(meanings)
        same = (meant[:, None] == meant).float()
        return {"pixels": stack(pixels), "ids": pad(ids, self.words.pad_token_id), "same": same}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Any]]:
        mean, std = (torch.tensor(t, device=batch["pixels"].device).view(3, 1, 1) for t in (CLIP_MEAN, CLIP_STD))
        ids = batch["ids"]
        found = self.model(
            pixel_values=(batch["pixels"].float() / 255 - mean) / std,
            input_ids=ids,
            attention_mask=(ids != self.words.pad_token_id).long(),
        )
        return contrast(found.logits_per_image.float(), batch["same"])


def contrast(logits: Tensor, same: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """(pictures, captions) logits and which pairs are right (symmetric 0/1, the diagonal 1) to the mean of both ways'
    cross-entropies, and the share of pictures whose likeliest caption is right. Right answers share equally."""
    wanted = same / same.sum(1, keepdim=True)
    loss = -(wanted * logits.log_softmax(1)).sum(1).mean() / 2 - (wanted * logits.T.log_softmax(1)).sum(1).mean() / 2
    right = same.gather(1, logits.detach().argmax(1, keepdim=True)).mean()
    return loss, {"right": right}


def save_clip(model: Any, tokenizer: Any, folder: str | Path) -> None:
    """The transformers layout, in bfloat16: both towers and the tokenizer of captions."""
    import copy

    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
