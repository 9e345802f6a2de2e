"""The understanding side of Show-o: it reads a picture as its own image codes and answers in words.

The procedure is the authors' (showlab/Show-o, inference_mmu.py, the variant on image codes): one picture, one question,
the likeliest token each time. Everything up to the end of the picture is seen from everywhere, the rest is causal.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from reverie.models.showo import Showo, question_mask
from reverie.models.showo_text import ShowoTokenizer


class ShowoEyes:
    def __init__(self, model: Showo, tokenizer: ShowoTokenizer):
        self.model, self.tokenizer = model, tokenizer

    @property
    def side(self) -> int:
        """Pixels a side of the pictures that it reads."""
        return self.model.config.grid * self.model.pictures.pixels_per_code

    @torch.no_grad()
    def ids(self, picture: Image.Image, question: str) -> list[int]:
        codes = self.model.pictures.encode(prepare(picture, self.side)[None].to(self.model.device))
        return self.tokenizer.question_ids(question, (codes[0] + self.model.config.code_offset).tolist())

    @torch.no_grad()
    def answer_ids(self, ids: Sequence[int], most: int) -> list[int]:
        """The likeliest continuation of `ids`, `most` tokens at most, without the token that ends it."""
        written: list[int] = []
        while len(written) < most:
            row = torch.tensor([[*ids, *written]], device=self.model.device)
            token = int(self.model.logits(row, question_mask(row, self.tokenizer))[0, -1].argmax())
            if token == self.tokenizer.end:
                break
            written.append(token)
        return written

    def answer(self, picture: Image.Image, question: str, most: int = 100) -> str:
        """What it says about a picture."""
        return self.tokenizer.decode(self.answer_ids(self.ids(picture, question), most)).strip()


def prepare(picture: Image.Image, side: int) -> Tensor:
    """(3, side, side) in [-1, 1]: the shorter side made `side` long (the longer one cut to whole pixels), the middle
    cut out."""
    width, height = picture.size
    short = min(width, height)
    size = (int(side * width / short), int(side * height / short))
    resized = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    left, top = round((size[0] - side) / 2), round((size[1] - side) / 2)
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)), dtype=np.float32) / 255
    return (torch.from_numpy(pixels).permute(2, 0, 1) - 0.5) / 0.5
