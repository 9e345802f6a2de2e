"""BLIP-VQA: how sure BLIP is that a picture shows a phrase (Li et al. 2022, arXiv:2201.12086; T2I-CompBench).

P(yes) / (P(yes) + P(no)) of the first token of the answer, as the official code computes it: pictures squashed to 480
pixels, questions of at most 35 tokens that begin with [ENC], which transformers' own processor leaves out. A picture is
looked at once for all its questions. Only questions of one length share a batch: BLIP's decoder in transformers (5.23)
loses the mask of what it reads, so a padded question would be answered otherwise than alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image
from torch import Tensor

from reverie.models.pretrained import eyes, fetch, find, load, part

KINDS = ("blip",)
SIDE, LONGEST = 480, 35
"""Pixels of a picture's sides, and the most tokens of a question."""


class BlipVQA:
    """A loaded BlipForQuestionAnswering with its tokenizer and image processor."""

    def __init__(
        self, model: Any, tokenizer: Any, processor: Any, *, name: str = "", side: int = SIDE, batch: int = 16
    ):
        self.model, self.tokenizer, self.processor = model, tokenizer, processor
        self.name, self.side, self.batch = name, side, batch
        self.start = model.config.text_config.bos_token_id  # [DEC]; [ENC] is the one after it
        self.yes, self.no = (tokenizer.encode(word, add_special_tokens=False)[0] for word in ("yes", "no"))

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> BlipVQA:
        """From a folder or hub id. A config.json may name another side, as `"reverie": {"side": 384}`."""
        found = fetch(find(source, KINDS, "vqa"), KINDS, "vqa")
        side = (found.config.get("reverie") or {}).get("side", SIDE)
        parts = part(found, "AutoTokenizer"), eyes(found)
        return cls(load(found, "BlipForQuestionAnswering", device), *parts, name=str(source), side=side)

    @torch.no_grad()
    def answers(self, pictures: Sequence[Image], questions: Sequence[Sequence[str]]) -> list[list[float]]:
        """The probability of yes for each of the questions about each picture."""
        flat = [
            (place, column, self._ids(text)) for place, row in enumerate(questions) for column, text in enumerate(row)
        ]
        flat.sort(key=lambda one: (one[0] // self.batch, len(one[2])))  # of so many pictures at a time, by length
        found = [[0.0] * len(row) for row in questions]
        seen: dict[int, Tensor] = {}
        for group in _alike(flat, self.batch):
            places = {place for place, _, _ in group}
            new = sorted(places - set(seen))
            seen = {place: states for place, states in seen.items() if place // self.batch == group[0][0] // self.batch}
            seen |= dict(zip(new, self.look([pictures[place] for place in new]), strict=True))
            states = torch.stack([seen[place] for place, _, _ in group])
            chances = self._yes(states, torch.tensor([ids for _, _, ids in group], device=states.device))
            for (place, column, _), chance in zip(group, chances, strict=True):
                found[place][column] = chance
        return found

    def _ids(self, question: str) -> list[int]:
        ids = self.tokenizer.encode(question, truncation=True, max_length=LONGEST)
        return [self.start + 1, *ids[1:]]

    @torch.no_grad()
    def look(self, pictures: Sequence[Image]) -> list[Tensor]:
        """(T, D) for each picture."""
        if not pictures:
            return []
        size = {"height": self.side, "width": self.side}
        shown = [picture.convert("RGB") for picture in pictures]
        pixels = self.processor(shown, size=size, return_tensors="pt")["pixel_values"]
        # transformers' copy of the weights has the positions of a smaller picture.
        stretch = self.side != self.model.config.vision_config.image_size
        return list(self.model.vision_model(pixels.to(self.model.device), interpolate_pos_encoding=stretch)[0])

    def _yes(self, states: Tensor, ids: Tensor) -> list[float]:
        """states: (N, T, D), those of each question's picture; ids: (N, L)."""
        read = self.model.text_encoder(input_ids=ids, encoder_hidden_states=states)[0]
        start = torch.full((len(ids), 1), self.start, device=states.device)
        said = self.model.text_decoder(input_ids=start, encoder_hidden_states=read)
        return said.logits[:, 0, [self.yes, self.no]].float().softmax(-1)[:, 0].tolist()


def _alike(flat: Sequence[tuple[int, int, list[int]]], batch: int) -> Iterator[list[tuple[int, int, list[int]]]]:
    """Neighbours of one length, about pictures of one batch, at most `batch` together."""
    for _, group in groupby(flat, key=lambda one: (one[0] // batch, len(one[2]))):
        rows = list(group)
        yield from (rows[start : start + batch] for start in range(0, len(rows), batch))
