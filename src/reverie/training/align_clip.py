"""Training of ThinkDiff-CLIP (arXiv 2502.10458): the tokens of a vision tower among the words of a caption.

A caption is cut at random. The image's aligned tokens and the T5 encoder's own vectors of the first words stand side by
side, and the frozen T5 decoder says the rest: image vectors learn to live among text vectors, which is how a diffusion
model will meet them. The tower is BLIP-2's, without its Q-Former.

Data: `captions.jsonl`, one {"image": path relative to the file, "caption": text} a line.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from ..data.features import Order
from ..models.aligner import Aligner
from ..models.t5 import encode_text, reading_loss
from ..models.vision_tokens import clip_pixels, image_tokens
from .align import AlignConfig, Words, attached, relative_scale, shaken, uneven_noise
from .pull import pull_of_sets

if TYPE_CHECKING:
    from transformers import Blip2VisionModel, PreTrainedTokenizerBase, T5ForConditionalGeneration

MARKS = re.compile(r'[.!"()*#:;~]')


def clean_caption(caption: str, words: int = 50) -> str:
    """Lower case, some punctuation to spaces, single spaces, at most so many words; as the authors clean captions."""
    return " ".join(MARKS.sub(" ", caption.lower()).split()[:words])


def split_caption(caption: str, rng: random.Random) -> tuple[str, str]:
    """(prefix, suffix) of a cleaned caption, cut at a word; a single word is all suffix."""
    words = caption.split()
    at = rng.randint(1, len(words) - 1) if len(words) > 1 else 0
    return " ".join(words[:at]), " ".join(words[at:])


def beside(images: Tensor, text: Tensor, text_mask: Tensor) -> tuple[Tensor, Tensor]:
    """Aligned image tokens (B, I, D), then text vectors (B, S, D): the memory and its 0/1 mask (B, I + S)."""
    ones = text_mask.new_ones(images.shape[:2])
    return torch.cat((images, text.to(images.dtype)), 1), torch.cat((ones, text_mask), 1)


class ClipAlignTask:
    """`training.loop.Task` of ThinkDiff-CLIP over pictures and captions."""

    def __init__(
        self,
        aligner: Aligner,
        tower: Blip2VisionModel,
        t5: T5ForConditionalGeneration,
        words: PreTrainedTokenizerBase,
        captions: Sequence[tuple[Path, str]],
        config: AlignConfig,
        factor: int | None = 2,
        seed: int = 0,
    ):
        """captions: (picture, its cleaned caption). factor: how many times smaller the grid of patches becomes."""
        if tower.config.hidden_size != aligner.config.source:
            raise ValueError(
                f"The tower is {tower.config.hidden_size} wide, and the aligner takes {aligner.config.source}; "
                "make them equal."
            )
        self.tower: Any = tower
        self.model, self.t5 = aligner, attached(aligner, t5)
        self.t5.train(config.dropout)
        self.words, self.captions, self.config = Words(words, config.text), captions, config
        settings: Any = tower.config
        self.side = settings.image_size // settings.patch_size
        self.factor, self.seed, self.order = factor, seed, Order([len(captions)], seed)

    def batch(self, step: int) -> dict[str, Tensor]:
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        pixels, parts = [], []
        for place in places:
            path, caption = self.captions[self.order[place]]
            with Image.open(path) as picture:
                pixels.append(clip_pixels(picture, self.tower.config.image_size))
            parts.append(split_caption(caption, random.Random(f"{self.seed}/{place}")))
        found = self.collate(torch.stack(pixels), parts)
        if self.config.noise:
            tokens = 1 + (self.side // (self.factor or 1)) ** 2
            shape = (len(parts), tokens, self.t5.config.d_model)
            found["noise"] = uneven_noise(shape, self.config.noise, f"{self.seed}/{step}/noise")
        return found

    def collate(self, pixels: Tensor, parts: Sequence[tuple[str, str]]) -> dict[str, Tensor]:
        """Pixels (B, 3, S, S) and pairs (words that are given, words to be said) as a batch."""
        given, given_mask = self.words.ids([prefix for prefix, _ in parts])
        labels, label_mask = self.words.labels([suffix for _, suffix in parts])
        found = {
            "pixels": pixels, "given": given, "given_mask": given_mask, "labels": labels, "label_mask": label_mask,
        }  # fmt: skip
        if self.config.pull:
            found["whole"], found["whole_mask"] = self.words.ids([" ".join(pair).strip() for pair in parts])
        return found

    def memory(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """What the decoder reads, and its mask: image tokens, then the encoded first words."""
        aligned = self.model(image_tokens(self.tower, batch["pixels"], self.factor).float())
        aligned = shaken(aligned, batch.get("noise"), self.t5)
        return beside(aligned, encode_text(self.t5, batch["given"], batch["given_mask"]), batch["given_mask"])

    def place(self, device: torch.device | str) -> None:
        """Moves what is frozen; the loop knows only the aligner."""
        self.t5.to(device)
        self.tower.to(device)

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.place(batch["pixels"].device)
        memory, mask = self.memory(batch)
        images = memory[:, : memory.shape[1] - batch["given"].shape[1]]
        row: dict[str, float | Tensor] = {"scale": relative_scale(images, mask[:, : images.shape[1]], self.t5)}
        loss = row["read"] = reading_loss(self.t5, memory, mask, batch["labels"], batch["label_mask"])
        loss = self.config.read * loss
        if self.config.pull:
            states = encode_text(self.t5, batch["whole"], batch["whole_mask"]).float()
            row["pull"] = pull_of_sets(images, states, batch["whole_mask"])
            loss = loss + self.config.pull * row["pull"]
        return loss, {name: value.detach() if isinstance(value, Tensor) else value for name, value in row.items()}


def read_captions(path: str | Path) -> list[tuple[Path, str]]:
    """(picture, cleaned caption) of each line of a JSONL file; lines whose caption is empty once cleaned are left out.

    ValueError names the first line that cannot be used.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"There is no caption file {path}; give a JSONL file with image and caption in each line.")
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row: Any = json.loads(line)
            picture, caption = path.parent / row["image"], clean_caption(row["caption"])
        except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: needs {{'image': ..., 'caption': ...}}.") from error
        if not picture.is_file():
            raise ValueError(f"{path}, line {number}: there is no picture {picture}.")
        if caption:
            found.append((picture, caption))
    if not found:
        raise ValueError(f"{path} holds no captions.")
    return found
