"""Training a small Show-o in the Atelier: captions with pictures, of whose codes a random share is hidden and guessed.

The share follows the cosine schedule at a uniform random moment, as when painting (MaskGIT, arXiv 2202.04200; Show-o,
arXiv 2408.12528, section 3.4): cos(pi u / 2), so most of the picture is usually hidden. The loss is the mean negative
log-probability of the hidden codes, from the functions that painting draws from (`Showo.paint`, `code_logits`), hence
over image codes alone; a share of captions is left blank, which is what guidance needs.

The image tokenizer is the one that the Atelier's Janus paints with, frozen, and not a MAGVIT-v2: it is trained already,
it works on folded pixels at a tenth of the cost, and both painters can then be compared on the same codes.
`small_showo_config` takes any section that describes an image tokenizer.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..models.shared_pictures import KEY
from ..models.showo import Showo, ShowoConfig
from ..models.showo_text import END, SPECIAL, ShowoTokenizer
from .cross_entropy import cross_entropy
from .drawn_codes import DrawnCodes
from .drawn_flaws import DrawnFlaws, flaws_loss
from .janus import atelier_texts
from .quick_norm import quicken
from .words import train_words

if TYPE_CHECKING:
    from ..canvas import Generator
    from .tokenizer import TokenizerConfig


@dataclass
class ShowoTraining:
    """paint: pictures a step; correct: corrections of flawed pictures beside them (drawn_flaws.py), by which it learns
    to see one; of both the share `fresh` is drawn anew (drawn_codes.py); blank: share of captions left blank for
    guidance; riddles: share of captions that are the answers of riddles; side: of pictures, in pixels."""

    paint: int = 32
    correct: int = 0
    fresh: float = 1.0
    blank: float = 0.1
    riddles: float = 0.12
    side: int = 96


@dataclass
class ShowoSizes:
    """Sizes of the small Show-o, and the guidance weight, temperature and number of steps that it is to be used with.
    What is not said here follows from the image tokenizer."""

    width: int = 256
    layers: int = 8
    heads: int = 4
    ffn: int = 1024
    vocabulary: int = 2048
    longest: int = 63
    guidance: float = 3.0
    temperature: float = 1.0
    steps: int = 12


def small_showo_config(
    sizes: ShowoSizes, pictures: dict[str, Any], codes: int, grid: int, text_tokens: int | None = None
) -> dict[str, Any]:
    """config.json of a Show-o of these sizes that paints grid x grid of `codes` image codes.

    pictures: section of the image tokenizer, such as `vq_section` or `MagvitConfig.to_dict` gives it.
    text_tokens: entries of the text tokenizer; `sizes.vocabulary` if left out.
    """
    text = sizes.vocabulary if text_tokens is None else text_tokens
    vocabulary = text + len(SPECIAL) + codes + 1
    return {
        "model_type": "showo",
        "vocab_size": vocabulary,
        "llm_vocab_size": text,
        "codebook_size": codes,
        "num_vq_tokens": grid**2,
        "mask_token_id": vocabulary - 1,
        "max_seq_length": sizes.longest,
        "phi": {
            "model_type": "phi", "hidden_size": sizes.width, "intermediate_size": sizes.ffn,
            "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "partial_rotary_factor": 0.5,
        },
        "vq_model": pictures,
        "reverie": {"guidance": sizes.guidance, "temperature": sizes.temperature, "steps": sizes.steps},
    }  # fmt: skip


def vq_section(config: TokenizerConfig) -> dict[str, Any]:
    """The section of config.json that describes a tokenizer of the Atelier."""
    return {
        "type": "vq", "codes": config.codes, "ch": config.base, "ch_mult": list(config.multipliers),
        "num_res_blocks": config.res_blocks, "z_channels": config.latent, "patch": config.patch, "cells": config.cells,
    }  # fmt: skip


def fresh_showo(
    sizes: ShowoSizes, vq_config: TokenizerConfig, vq: nn.Module, shared: str | None = None, words: Any = None
) -> tuple[Showo, ShowoTokenizer]:
    """A fresh Show-o around a trained tokenizer of the Atelier, which is frozen; and its text tokenizer. shared: the
    Janus whose tokenizer that is. words: a `tokenizers.Tokenizer` in place of one that is trained now."""
    words = words or train_words(atelier_texts(), sizes.vocabulary, (END,))
    grid = vq_config.side // vq_config.patch // 2 ** (len(vq_config.multipliers) - 1)
    count = words.get_vocab_size()
    config = ShowoConfig.from_dict(small_showo_config(sizes, vq_section(vq_config), vq_config.codes, grid, count))
    if shared:
        config.own[KEY] = shared
    model = Showo(config)
    model.initialise()
    model.vq_model.load_state_dict({f"vq.{name}": tensor for name, tensor in vq.state_dict().items()})
    return model, ShowoTokenizer(words, count, sizes.longest)


class ShowoTask:
    """`training.loop.Task` of Show-o in the Atelier. The image tokenizer is not trained."""

    def __init__(self, model: Showo, words: ShowoTokenizer, mix: ShowoTraining, seed: int = 0):
        side = model.config.grid * model.pictures.pixels_per_code
        if mix.side != side:
            raise ValueError(f"mix.side is {mix.side}, but the model paints {side} pixels a side; make them agree.")
        if mix.paint < 1:
            raise ValueError("mix.paint is 0, so there is nothing to learn; give it pictures.")
        if mix.correct:
            # What the checkpoint can do, and in which words it was told: see `ShowoPainter.sees` and wordings.yaml.
            model.config.own.update(sees=True, judge="atelier")
        self.model, self.words, self.mix, self.seed = model.train(), words, mix, seed
        self.drawn = DrawnCodes(seed, mix.paint, mix.fresh, mix.riddles, mix.side)
        self.flaws = DrawnFlaws(-1 - seed, mix.correct, mix.fresh, 0.0, mix.side) if mix.correct else None
        quicken(model.vq_model.eval()).requires_grad_(False)

    def painter(self) -> Generator:
        """The model as it paints by now, in the way that its configuration names."""
        from ..generators.showo import ShowoPainter

        own = self.model.config.own
        settings = {name: own[name] for name in ("guidance", "temperature", "steps", "sees") if name in own}
        return ShowoPainter(self.model, self.words, **settings)

    def batch(self, step: int) -> dict[str, Any]:
        """ids (B, T) of prompts, pads on the left; masked (B, L); and what `DrawnCodes` needs to know the codes."""
        rng = random.Random(f"{self.seed}/{step}")
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        batch = self._rows(self.drawn, step, rng, generator)
        if self.flaws is not None:
            batch["fix"] = self._rows(self.flaws, step, rng, generator)
        return batch

    def _rows(self, drawn: DrawnCodes, step: int, rng: random.Random, generator: torch.Generator) -> dict[str, Any]:
        captions, rows = drawn.batch(step, rng)
        asked = [self.words.painting_ids("" if rng.random() < self.mix.blank else caption) for caption in captions]
        ids = torch.tensor(self.words.padded(asked, max(map(len, asked))))
        return {"ids": ids, "masked": random_masks(generator, len(ids), self.model.config.image_length)} | rows

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        model, ids, masked = self.model, batch["ids"], batch["masked"]
        codes = self.drawn.codes(batch, model.pictures.encode)
        text = model.read(ids, ids != self.words.pad)
        # The head runs over hidden slots only.
        logits = model.code_logits(model.paint(codes, masked, text)[:, 1:-1][masked])
        loss = cross_entropy(logits, codes[masked])
        right = (logits.detach().argmax(-1) == codes[masked]).float().mean()
        log = {"right": right, "hidden": masked.float().mean()}
        if self.flaws is not None:
            fix = batch["fix"]
            pairs = self.flaws.codes(fix, model.pictures.encode)
            corrected = flaws_loss(model, fix["ids"], fix["ids"] != self.words.pad, pairs, fix["masked"])
            loss = (len(ids) * loss + len(pairs) * corrected) / (len(ids) + len(pairs))
            log["corrected"] = corrected.detach()
        return loss, log


def random_masks(generator: torch.Generator, count: int, length: int) -> Tensor:
    """(count, length) True where a code is hidden: cos(pi u / 2) of the slots, at least one, chosen evenly."""
    moments = torch.rand(count, 1, generator=generator)
    hidden = (length * torch.cos(moments * (math.pi / 2))).round().clamp(min=1)
    places = torch.rand(count, length, generator=generator).argsort(-1).argsort(-1)
    return places < hidden
