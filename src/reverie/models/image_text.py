"""Two towers, pictures and texts, in one space: CLIP and SigLIP of transformers (arXiv:2103.00020, 2303.15343).

The cosine of two features is what CLIPScore, PickScore and zero-shot classification are made of. A picture is prepared
and looked at once for any number of texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from reverie.models.pretrained import eyes, fetch, find, load, part

KINDS = ("clip", "siglip", "siglip2")


class ImageText:
    """A loaded pair of towers with its tokenizer and image processor."""

    def __init__(self, model: Any, tokenizer: Any, processor: Any, *, name: str = "", batch: int = 16):
        self.model, self.tokenizer, self.processor, self.name, self.batch = model, tokenizer, processor, name, batch
        text = model.config.text_config
        self.length = text.max_position_embeddings
        # SigLIP was trained on texts padded to their full length, CLIP ends a text where it ends.
        self.padding = "longest" if model.config.model_type == "clip" else "max_length"

    @classmethod
    def load(
        cls,
        source: str | Path,
        device: str | torch.device = "cpu",
        dtype: torch.dtype | None = None,
        role: str = "clip",
    ) -> ImageText:
        """From a folder or hub id; ValueError for what is no such model."""
        found = fetch(find(source, KINDS, role), KINDS, role)
        parts = part(found, "AutoTokenizer"), eyes(found)
        return cls(load(found, "AutoModel", device, dtype), *parts, name=str(source))

    @property
    def scale(self) -> float:
        """What cosines are multiplied by for logits: 100 in OpenAI's CLIP."""
        return float(self.model.logit_scale.exp())

    @torch.no_grad()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 of length 1; text beyond what the model reads is cut off."""
        rows = []
        for start in range(0, len(texts), 4 * self.batch):
            some = list(texts[start : start + 4 * self.batch])
            inputs = self.tokenizer(
                some, padding=self.padding, truncation=True, max_length=self.length, return_tensors="pt"
            )
            taken = {name: inputs[name].to(self.model.device) for name in self._taken(inputs)}
            rows.append(self.model.get_text_features(**taken).pooler_output)
        return F.normalize(torch.cat(rows).float(), dim=-1)

    def _taken(self, inputs: Any) -> list[str]:
        names = ("input_ids", "attention_mask") if self.padding == "longest" else ("input_ids",)
        return [name for name in names if name in inputs]

    @torch.no_grad()
    def pictures(self, pictures: Sequence[Image]) -> Tensor:
        """(N, D) float32 of length 1."""
        rows = []
        for start in range(0, len(pictures), self.batch):
            some = [picture.convert("RGB") for picture in pictures[start : start + self.batch]]
            pixels = self.processor(some, return_tensors="pt")["pixel_values"]
            pixels = pixels.to(self.model.device, self.model.dtype)
            rows.append(self.model.get_image_features(pixel_values=pixels).pooler_output)
        return F.normalize(torch.cat(rows).float(), dim=-1)

    def cosines(self, texts: Sequence[str], pictures: Sequence[Image]) -> list[float]:
        """Of each text with its picture; texts that come again, and pictures that are one object, are read once."""
        if len(texts) != len(pictures):
            raise ValueError(f"Got {len(texts)} texts for {len(pictures)} pictures; give one for each.")
        if not texts:
            return []
        words = list(dict.fromkeys(texts))
        shown = {id(picture): picture for picture in pictures}
        said, seen = self.texts(words), self.pictures(list(shown.values()))
        row = {word: place for place, word in enumerate(words)}
        column = {key: place for place, key in enumerate(shown)}
        rows = torch.tensor([row[text] for text in texts])
        columns = torch.tensor([column[id(picture)] for picture in pictures])
        return (said.cpu()[rows] * seen.cpu()[columns]).sum(-1).tolist()
