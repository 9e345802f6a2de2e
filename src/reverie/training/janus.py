"""Training Janus on everything at once: painting, thinking in words, looking.

Each step is three batches whose losses are added: captions with pictures (codes are predicted; a share of captions is
blanked, which is what guidance needs), thoughts and rewritten prompts (text only), and pictures with questions. Only
answers and codes carry loss. The VQ tokenizer is frozen and encodes pictures on the fly. Rows are padded on the
right, where a causal model never looks, so no mask is needed.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..models.janus import Janus, JanusConfig
from ..models.janus_text import EOS, PLACEHOLDER, SYSTEM, JanusTokenizer
from .cross_entropy import cross_entropy

if TYPE_CHECKING:
    from ..atelier.language import Demand
    from ..canvas import Generator

Rows = dict[str, Tensor]


@dataclass
class JanusTraining:
    """What a step is made of. blank: share of captions blanked for guidance; riddles: share of painting captions that
    are the answers of riddles; the weights multiply the mean losses per token. A part of 0 rows is left out."""

    paint: int = 32
    think: int = 16
    look: int = 10
    blank: float = 0.1
    riddles: float = 0.12
    paint_weight: float = 1.0
    think_weight: float = 0.5
    look_weight: float = 0.3
    side: int = 96


@dataclass
class JanusSizes:
    """Sizes of the small Janus, and the guidance weight and temperature that it is to be used with. What is not said
    here follows from the tokenizer."""

    width: int = 256
    layers: int = 10
    heads: int = 4
    ffn: int = 768
    vision_width: int = 192
    vision_layers: int = 4
    vision_heads: int = 4
    vision_patch: int = 12
    vocabulary: int = 2048
    guidance: float = 3.0
    temperature: float = 1.0


def small_config(sizes: JanusSizes, vq: Any) -> dict[str, Any]:
    """config.json, in the authors' layout, of a Janus of these sizes around a `TokenizerConfig`."""

    def projector(kind: str, width: int) -> dict[str, Any]:
        params = {"depth": 2, "input_dim": width, "n_embed": sizes.width, "projector_type": "mlp_gelu"}
        return {"cls": "MlpProjector", "model_type": kind, "params": params}

    tower = {
        "image_size": vq.side, "model_name": "siglip_small", "select_feature": "same", "select_layer": -1,
        "width": sizes.vision_width, "layers": sizes.vision_layers, "heads": sizes.vision_heads,
        "patch_size": sizes.vision_patch, "mlp_ratio": 3.0,
    }  # fmt: skip
    codes = {
        "image_token_size": vq.codes, "n_embed": 8, "ch": vq.base, "ch_mult": list(vq.multipliers),
        "z_channels": vq.latent, "num_res_blocks": vq.res_blocks, "patch": vq.patch, "cells": vq.cells,
    }  # fmt: skip
    head = {"image_token_embed": sizes.width, "image_token_size": vq.codes, "n_embed": sizes.width}
    return {
        "model_type": "multi_modality",
        "architectures": ["MultiModalityCausalLM"],
        "aligner_config": projector("aligner", sizes.vision_width),
        "gen_aligner_config": projector("gen_aligner", 8),
        "gen_head_config": {"cls": "vision_head", "model_type": "gen_head", "params": head},
        "gen_vision_config": {"cls": "VQ-16", "model_type": "gen_vision", "params": codes},
        "language_config": {
            "model_type": "llama", "vocab_size": sizes.vocabulary, "hidden_size": sizes.width,
            "intermediate_size": sizes.ffn, "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads,
            "num_key_value_heads": sizes.heads, "max_position_embeddings": 320,
        },
        "vision_config": {"cls": "CLIPVisionTower", "model_type": "vision", "params": tower},
        "reverie": {"thinker": "atelier", "guidance": sizes.guidance, "temperature": sizes.temperature},
    }  # fmt: skip


def build_janus(sizes: JanusSizes, vq_config: Any, vq: torch.nn.Module) -> Janus:
    """A fresh Janus around a trained tokenizer, which is frozen; generation embeddings start as its codebook."""
    model = Janus(JanusConfig.from_dict(small_config(sizes, vq_config)))
    model.initialise()
    model.vqmodel.load_state_dict(vq.state_dict())
    model.vqmodel.requires_grad_(False)
    with torch.no_grad():
        book = F.normalize(model.vqmodel.quantize.embedding.weight, dim=-1)
        model.generation_embeddings.weight.copy_(book)
    return model


def move_in(old: Janus, new: Janus) -> Janus:
    """Put what `old` knows into `new`, which may paint with another tokenizer: all but the tokenizer, and of the code
    tables only those whose shape and codes are the same."""
    known = {name: value for name, value in old.state_dict().items() if not name.startswith(("vqmodel", "generation_"))}
    missing, unexpected = new.load_state_dict(known, strict=False)
    if unexpected or any(not name.startswith(("vqmodel", "generation_")) for name in missing):
        raise ValueError("the checkpoint to go on from has other sizes than the recipe's model; make them agree.")
    return new


class JanusTask:
    """`training.loop.Task` of Janus in the Atelier."""

    def __init__(self, model: Janus, words: JanusTokenizer, mix: JanusTraining, seed: int = 0):
        if not (mix.paint or mix.think or mix.look):
            raise ValueError("paint, think and look are all 0, so there is nothing to learn; give one of them rows.")
        self.model, self.words, self.mix, self.seed = model, words, mix, seed
        self.pictures = model.config.vision.num_image_tokens

    def painter(self) -> Generator:
        """The model as it paints by now."""
        from ..generators.janus import JanusPainter

        return JanusPainter(self.model, self.words, guidance=3.0)

    # Data: made in a worker, from (seed, step) alone.

    def batch(self, step: int) -> dict[str, Rows]:
        from ..atelier.lessons import lesson

        rng = random.Random(f"{self.seed}/{step}")
        seen = (found for found in iter(lambda: lesson(rng), None) if found.scene is not None)
        looks = list(itertools.islice(seen, self.mix.look))
        thinks = [lesson(rng, "think") for _ in range(self.mix.think)]
        rows = {"paint": self._paint_rows(rng)} if self.mix.paint else {}
        return rows | {kind: self._answer_rows(found) for kind, found in (("think", thinks), ("look", looks)) if found}

    def _paint_rows(self, rng: random.Random) -> Rows:
        from ..atelier.draw import draw
        from ..atelier.sample import compose

        ids, pictures = [], []
        for _ in range(self.mix.paint):
            demand, caption = captioned(rng, self.mix.riddles)
            row = self.words.painting_ids(caption)
            ids.append(self.words.blank_ids(row) if rng.random() < self.mix.blank else row)
            pictures.append(draw(compose(demand, rng), self.mix.side))
        return {"ids": pad(ids, self.words.pad), "length": lengths(ids), "pixels": stack(pictures)}

    def _answer_rows(self, lessons: Sequence[Any]) -> Rows:
        """Rows of [question, answer, end]; `answer` marks the positions whose next token carries loss."""
        from ..atelier.draw import draw

        rows, starts, pictures, visible = [], [], [], []
        for found in lessons:
            looks = found.scene is not None
            content = f"{PLACEHOLDER}\n{found.question}" if looks else found.question
            asked = self.words.chat([(self.words.user, content), (self.words.assistant, "")], SYSTEM if looks else "")
            question = self._expand(self.words.encode(asked))
            answer = self.words.tokenizer.encode(f" {found.answer}{EOS}", add_special_tokens=False).ids
            rows.append(question + answer)
            starts.append(len(question) - 1)
            if looks:
                pictures.append(draw(found.scene, self.mix.side))
                visible.append(found.visible)
        batch = {"ids": pad(rows, self.words.pad), "length": lengths(rows), "start": torch.tensor(starts)}
        if pictures:
            batch |= {"pixels": stack(pictures), "visible": torch.tensor(visible)}
        return batch

    def _expand(self, ids: list[int]) -> list[int]:
        """A picture's placeholder becomes image-start, one placeholder for each of its tokens, image-end."""
        span = [self.words.image_start, *[self.words.placeholder] * self.pictures, self.words.image_end]
        return [new for old in ids for new in (span if old == self.words.placeholder else (old,))]

    # Losses.

    def loss(self, batch: dict[str, Rows]) -> tuple[Tensor, dict[str, Any]]:
        mix = self.mix
        weights = {"paint": mix.paint_weight, "think": mix.think_weight, "look": mix.look_weight}
        losses = {
            kind: self._paint_loss(rows) if kind == "paint" else self._answer_loss(rows) for kind, rows in batch.items()
        }
        total = torch.stack([weights[kind] * loss for kind, loss in losses.items()]).sum()
        return total, {kind: loss.detach() for kind, loss in losses.items()}

    def _paint_loss(self, rows: Rows) -> Tensor:
        with torch.no_grad():
            codes = self.model.encode_image(rows["pixels"].float() / 127.5 - 1)  # (B, L)
        return code_loss(self.model, rows, codes)

    def _answer_loss(self, rows: Rows) -> Tensor:
        features = None
        if "pixels" in rows:
            pixels = self._partial(rows["pixels"].float() / 127.5 - 1, rows["visible"])
            features = self.model.image_features(pixels)  # (B, patches, D)
        return answer_loss(self.model, rows, features, self.words.placeholder)

    @torch.no_grad()
    def _partial(self, pixels: Tensor, visible: Tensor) -> Tensor:
        """Pictures as a preview shows them: some through the tokenizer, the unpainted rest as fill code 0."""
        model, grid = self.model, self.model.config.grid
        chosen = (visible < 1).nonzero().squeeze(1)
        chosen = torch.unique(torch.cat((chosen, torch.arange(0, len(pixels), 3, device=pixels.device))))
        codes = model.encode_image(pixels[chosen])
        rows = (visible[chosen, None] * grid).round() * grid
        codes = codes.masked_fill(torch.arange(codes.shape[1], device=codes.device) >= rows, 0)
        return pixels.index_copy(0, chosen, model.decode_codes(codes).float().clamp(-1, 1))


def captioned(rng: random.Random, riddles: float) -> tuple[Demand, str]:
    """What is to be painted and how it is said; a share of `riddles` are answers of riddles, in rewritten words."""
    demand, said = demanded(rng, riddles)
    return demand, worded(demand, said, rng)


def demanded(rng: random.Random, riddles: float) -> tuple[Demand, str | None]:
    """What is to be painted and, of the share that answers `riddles`, the only words in which it is said."""
    from ..atelier.knowledge import riddle
    from ..atelier.language import Demand
    from ..atelier.sample import random_demand

    if rng.random() < riddles:
        puzzle = riddle(rng, "train")
        return Demand.from_record(puzzle.demand), puzzle.rewritten
    return random_demand(rng), None


def worded(demand: Demand, said: str | None, rng: random.Random) -> str:
    """One of many wordings of what is to be painted; `said` where there is only one."""
    from ..atelier.language import canonical, say

    if said is not None:
        return said
    return canonical(demand) if rng.random() < 0.35 else say(demand, rng, split="train")


def code_loss(model: Janus, rows: Rows, codes: Tensor, learned: Tensor | None = None) -> Tensor:
    """Mean cross entropy of codes (B, L) behind captions: `ids` (B, T) padded on the right, `length` (B,). Only codes
    where `learned` (B, L) is True count, all if it is left out; the others stand there as given."""
    ids, length = rows["ids"], rows["length"]
    text, painted = model.embed_text(ids), model.embed_codes(codes[:, :-1])
    both = torch.cat((text, painted.to(text.dtype)), 1)
    # Row by row: its own text, then its codes, then whatever; text rows end at `length`.
    width = ids.shape[1] + codes.shape[1] - 1
    place = torch.arange(width, device=ids.device).expand(len(ids), -1)
    source = torch.where(place < length[:, None], place, place - length[:, None] + ids.shape[1])
    embeds = both.gather(1, source.clamp(max=width - 1)[..., None].expand(-1, -1, both.shape[-1]))
    hidden = model.hidden(in_working_type(embeds))
    at = length[:, None] - 1 + torch.arange(codes.shape[1], device=ids.device)
    told = hidden.gather(1, at[..., None].expand(-1, -1, hidden.shape[-1]))
    if learned is None:
        return cross_entropy(model.code_logits(told).flatten(0, 1), codes.flatten())
    return cross_entropy(model.code_logits(told[learned]), codes[learned])


def answer_loss(model: Janus, rows: Rows, features: Tensor | None, placeholder: int) -> Tensor:
    """Mean cross entropy of answers behind their questions: `ids` (B, T) padded on the right, `length` (B,), and
    `start` (B,), the place before an answer's first token. features (B, patches, D) go where the placeholders are."""
    ids = rows["ids"]
    embeds = model.embed_text(ids)
    if features is not None:
        embeds = embeds.masked_scatter((ids == placeholder)[..., None], features.to(embeds.dtype))
    hidden = model.hidden(in_working_type(embeds))
    place = torch.arange(ids.shape[1] - 1, device=ids.device)
    carries = (place >= rows["start"][:, None]) & (place < rows["length"][:, None] - 1)
    return cross_entropy(model.text_logits(hidden[:, :-1][carries]), ids[:, 1:][carries])


def in_working_type(embeds: Tensor) -> Tensor:
    """Embeddings in autocast's type, so that the residual stream is not twice as wide as the matrix products."""
    kind = embeds.device.type
    return embeds.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else embeds


def lengths(rows: Sequence[Sequence[int]]) -> Tensor:
    return torch.tensor([len(row) for row in rows])


def pad(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of ids as one (B, T) tensor, filled up on the right."""
    widest = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (widest - len(row))] for row in rows])


def stack(pictures: Sequence[Any]) -> Tensor:
    """Pictures to (B, 3, H, W) uint8."""
    return torch.from_numpy(np.stack([np.asarray(picture) for picture in pictures])).permute(0, 3, 1, 2).contiguous()


def atelier_texts(count: int = 30000, seed: int = 0) -> list[str]:
    """What the text tokenizer learns from: questions, answers and captions of the Atelier, and the system sentence."""
    from ..atelier.language import say
    from ..atelier.lessons import lesson
    from ..atelier.sample import random_demand

    rng = random.Random(f"words/{seed}")
    texts = [SYSTEM] * 50
    for _ in range(count):
        found = lesson(rng)
        texts += [found.question, f" {found.answer}", f" {say(random_demand(rng), rng, split='train')}"]
    return texts
