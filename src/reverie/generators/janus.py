"""Janus as a painter: image codes drawn one after the other, row by row, with classifier-free guidance.

The procedure is the authors' (deepseek-ai/Janus, generation_inference.py): beside each prompt stands its blank twin of
equal length, and codes are drawn from the whole softmax. All else is what next-token models share (`next_token.py`).
"""

import numpy as np
import torch
from torch import Tensor

from reverie.canvas import pick
from reverie.generators.next_token import NextTokenCache, NextTokenPainter, Picker
from reverie.models.janus import Janus
from reverie.models.janus_text import JanusTokenizer

JanusCache = NextTokenCache


class JanusPainter(NextTokenPainter):
    """A `Generator` (see canvas.py) over a loaded Janus."""

    def __init__(
        self,
        model: Janus,
        tokenizer: JanusTokenizer,
        *,
        guidance: float = 5.0,
        temperature: float = 1.0,
        fill: int = 0,
        rows: int = 32,
        chunk: int = 64,
        picker: Picker = pick,
    ):
        """guidance: weight w where the conditions name none; at 1 there are no unconditional rows at all.
        fill: the code that stands for unpainted places in previews.
        rows: every matrix product has exactly so many rows; on a large GPU more rows serve more images at once.
        chunk: prompts enter so many tokens at a time. Other `rows` or `chunk` may round differently.
        picker: (logits (N, V), uniforms (N,), temperature) to codes (N,); for replaying draws made elsewhere.
        """
        self.model, self.tokenizer = model, tokenizer
        self.guidance, self.temperature, self.fill = guidance, temperature, fill
        self.rows, self.chunk, self.picker = rows, chunk, picker

    def _ids(self, prompt: str) -> list[int]:
        return self.tokenizer.painting_ids(prompt)

    def _embed_prompt(self, ids: list[int], ways: int) -> Tensor:
        rows = [ids, self.tokenizer.blank_ids(ids)][:ways]
        return self.model.embed_text(torch.tensor(rows, device=self.model.device))

    def _bytes(self, pixels: Tensor) -> np.ndarray:
        return to_uint8(pixels)


def to_uint8(pixels: Tensor) -> np.ndarray:
    """(B, 3, H, W) in about [-1, 1] to (B, H, W, 3) bytes, cut off below as in the official script."""
    scaled = (pixels.float() + 1) / 2 * 255
    return scaled.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
