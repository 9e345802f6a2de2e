"""Janus as a painter: image codes drawn one after the other, row by row, with classifier-free guidance.

The procedure is the authors' (deepseek-ai/Janus, generation_inference.py): beside each prompt stands its blank twin of
equal length, and codes are drawn from the whole softmax. All else is what next-token models share (`next_token.py`).
"""

import hashlib
from collections.abc import Hashable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reverie.canvas import Canvas, Conditions, pick
from reverie.generators.next_token import NextTokenPainter, Picker
from reverie.generators.next_token_cache import NextTokenCache
from reverie.models.janus import Janus
from reverie.models.janus_text import IMAGE_START, PLACEHOLDER, JanusTokenizer
from reverie.models.rows import usual_rows
from reverie.vlms.janus import prepare

JanusCache = NextTokenCache


class JanusPainter(NextTokenPainter):
    """A `Generator` (see canvas.py) over a loaded Janus."""

    sees = True
    """Its vision tower looks at a picture that stands in the prompt; the blank twin has neither."""

    def __init__(
        self,
        model: Janus,
        tokenizer: JanusTokenizer,
        *,
        guidance: float = 5.0,
        temperature: float = 1.0,
        fill: int = 0,
        rows: int | None = None,
        chunk: int = 64,
        picker: Picker = pick,
    ):
        """guidance: weight w where the conditions name none; at 1 there are no unconditional rows at all.
        fill: the code that stands for unpainted places in previews.
        rows: every matrix product has exactly so many rows: 32, or more for small models on accelerators.
        chunk: prompts enter so many tokens at a time. Other `rows` or `chunk` may round differently.
        picker: (logits (N, V), uniforms (N,), temperature) to codes (N,); for replaying draws made elsewhere.
        """
        self.model, self.tokenizer = model, tokenizer
        self.guidance, self.temperature, self.fill = guidance, temperature, fill
        self.chunk, self.picker = chunk, picker
        self.rows = rows or usual_rows(model.language_model.lm_head.weight, 32, 32)

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.painting_ids(prompt)

    def _embed_prompt(self, ids: list[int], ways: int) -> Tensor:
        rows = torch.tensor(self._rows(ids, ways), device=self.model.device)
        return self.model.embed_text(rows.clamp(min=0))

    def _rows(self, ids: list[int], ways: int) -> list[list[int]]:
        return [ids, self.tokenizer.blank_ids(ids)][:ways]

    def _names(self, ids: list[int], ways: int) -> list[list[Hashable]]:
        return [list(row) for row in self._rows(ids, ways)]

    def _prompt_ids(self, conditions: Conditions, image: int) -> list[int]:
        return self._ids_with(conditions.prompts[image], conditions.picture(image))

    def _ids_with(self, prompt: str, picture: Image.Image | None) -> list[int]:
        """A picture in front of the prompt is its start, its vectors, its end. The vectors have negative ids that
        belong to this picture alone, so that prompts with other pictures are other prompts."""
        if picture is None:
            return self._ids(prompt)
        tokenizer = self.tokenizer
        text = f"{PLACEHOLDER}\n{tokenizer.neutralise(prompt)}"
        ids = tokenizer.encode(tokenizer.chat([(tokenizer.user, text), (tokenizer.assistant, "")]) + IMAGE_START)
        digest = int.from_bytes(hashlib.sha256(picture.tobytes()).digest()[:5], "big") << 16
        vectors = [-1 - digest - i for i in range(self.model.config.vision.num_image_tokens)]
        place = ids.index(tokenizer.placeholder)
        return [*ids[:place], tokenizer.image_start, *vectors, tokenizer.image_end, *ids[place + 1 :]]

    def _embed_condition(self, ids: list[int], ways: int, canvas: Canvas, image: int) -> Tensor:
        picture = canvas.conditions.picture(image)
        canvas.work.vision_encodes += picture is not None
        return self._embed_seen(ids, ways, picture)

    def _embed_seen(self, ids: list[int], ways: int, picture: Image.Image | None) -> Tensor:
        embeds = self._embed_prompt(ids, ways)
        if picture is not None:
            pixels = prepare(picture, self.tokenizer.rules).to(self.model.device)
            vectors = torch.tensor(ids, device=self.model.device) < 0
            embeds[0, vectors] = self.model.image_features(pixels[None])[0].to(embeds)
        return embeds

    def embed_with(self, prompt: str, picture: Image.Image | None, blank: bool = False) -> Tensor:
        """(T, D) of a prompt and the picture beside it, or of their blank twin, as they stand before the codes."""
        ids = self._ids_with(prompt, picture)
        return self._embed_prompt(ids, 2)[1] if blank else self._embed_seen(ids, 1, picture)[0]

    def _bytes(self, pixels: Tensor) -> np.ndarray:
        return to_uint8(pixels)


def bytes_of(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in about [-1, 1] to uint8, cut off below as in the official script."""
    return ((pixels.float() + 1) / 2 * 255).clamp(0, 255).to(torch.uint8)


def to_uint8(pixels: Tensor) -> np.ndarray:
    """The same as pictures (B, H, W, 3)."""
    return bytes_of(pixels).permute(0, 2, 3, 1).cpu().numpy()
