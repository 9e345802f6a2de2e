"""LlamaGen as a painter: image codes drawn one after the other, row by row, with classifier-free guidance.

The procedure is the authors' (FoundationVision/LlamaGen, autoregressive/models/generate.py): logits are
uncond + w (cond - uncond) where w is above 1, then divided by the temperature, cut to the `top_k` best and to the
nucleus of mass `top_p`, and a code is drawn from what is left. All else is what next-token models share
(`next_token.py`): one stream of random numbers for each image, branching, new prompts, previews, resuming.

A new prompt changes every vector of a caption, since its encoder looks both ways; so nothing in front of the codes is
kept when a canvas is reconditioned.
"""

from collections.abc import Hashable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reverie.canvas import Conditions, pick
from reverie.generators.next_token import NextTokenPainter, Picker, guide
from reverie.models.llama import KVCache
from reverie.models.llamagen import Llamagen
from reverie.models.rows import usual_rows


class Captions(Protocol):
    """What reads prompts (`models.llamagen_text.CaptionEncoder`)."""

    def ids(self, caption: str) -> list[int]:
        """1 to 120 token ids."""

    def states(self, ids: list[int]) -> Tensor:
        """(n, caption_dim) features of these ids."""


class LlamagenPainter(NextTokenPainter):
    """A `Generator` (see canvas.py) over a loaded LlamaGen."""

    def __init__(
        self,
        model: Llamagen,
        captions: Captions,
        *,
        guidance: float = 7.5,
        temperature: float = 1.0,
        top_k: int = 1000,
        top_p: float = 1.0,
        guided_until: int | None = None,
        fill: int = 0,
        rows: int | None = None,
        chunk: int = 64,
        picker: Picker = pick,
    ):
        """guidance: weight w where the conditions name none; up to 1 there are no unconditional rows at all.
        top_k, top_p: 0 and 1 switch them off.
        guided_until: the last code that is guided, all of them if None (the authors' cfg_interval n is n + 1 here).
        fill: the code that stands for unpainted places in previews.
        rows, chunk: see `NextTokenPainter`.
        picker: (narrowed logits (N, V), uniforms (N,), temperature 1 or 0) to codes (N,); for replaying other draws.
        """
        if top_k < 0 or not 0 < top_p <= 1:
            raise ValueError(f"top_k={top_k} must be 0 or more and top_p={top_p} above 0 and at most 1; correct them.")
        self.model, self.captions = model, captions
        self.guidance, self.temperature, self.top_k, self.top_p = guidance, temperature, top_k, top_p
        self.guided_until, self.fill = guided_until, fill
        self.chunk, self.picker = chunk, picker
        self.rows = rows or usual_rows(model.language_model.lm_head.weight, 32, 32)

    def log_prob(self, conditions: Conditions, codes: Tensor) -> Tensor:
        """(N, L) float32: the logarithm of the probability with which each of the codes (N, L) would be drawn after
        those before it, -inf where `top_k` or `top_p` rules it out. See `log_distribution`."""
        codes = codes.to(self.model.device)
        return self.log_distribution(conditions, codes).gather(-1, codes[..., None]).squeeze(-1)

    def log_distribution(self, conditions: Conditions, codes: Tensor) -> Tensor:
        """(N, L, number of codes) float32: log-probabilities of every code after each beginning of the codes (N, L).
        One uncached pass, differentiable in the model.

        The distribution is the one that `advance` draws from, guidance, temperature and narrowing included; as a policy
        that learns with guidance 1, top_k 0 and top_p 1 it is the plain conditional model.
        """
        if len(conditions) != len(codes):
            raise ValueError(f"Got {len(conditions)} prompts for {len(codes)} rows of codes; give one for each.")
        codes, weight, ways = codes.to(self.model.device), self._weight(conditions), self._ways(conditions)
        unique = {prompt: self._states(self._ids(prompt)) for prompt in dict.fromkeys(conditions.prompts)}
        states = [unique[prompt] for prompt in conditions.prompts]
        if ways == 2:
            states += [self.model.unconditional_states(len(rows)) for rows in states]
        lengths = torch.tensor([len(rows) for rows in states], device=codes.device)
        padded = pad_sequence(states, batch_first=True)
        logits = self.model(padded, lengths, codes[:, :-1].repeat(ways, 1)).float()
        if ways == 2:
            conditional, blank = logits.chunk(2)
            first = self.guided_codes
            logits = torch.cat((guide(conditional, blank, weight)[:, :first], conditional[:, first:]), 1)
        return narrowed(logits, self.temperature, self.top_k, self.top_p).log_softmax(-1)

    @property
    def guided_codes(self) -> int:
        return self.steps if self.guided_until is None else self.guided_until + 1

    def _guided(self, hidden: Tensor, weight: float, ways: int, step: int | Tensor) -> Tensor:
        if isinstance(step, Tensor):
            guided = super()._guided(hidden, weight, ways, step)
            plain = super()._guided(hidden[::ways], weight, 1, step)
            return torch.where(step[:, None] < self.guided_codes, guided, plain)
        if step < self.guided_codes:
            return super()._guided(hidden, weight, ways, step)
        return super()._guided(hidden[::ways], weight, 1, step)

    def _ids(self, prompt: str) -> list[int]:
        return self.captions.ids(prompt)

    def _states(self, ids: list[int]) -> Tensor:
        return self.captions.states(ids).to(self.model.unconditional)

    def _embed_prompt(self, ids: list[int], ways: int) -> Tensor:
        rows = [self._states(ids), self.model.unconditional_states(len(ids))][:ways]
        return self.model.embed_captions(torch.stack(rows))

    def _names(self, ids: list[int], ways: int) -> list[list[Hashable]]:
        """Every vector of a caption hangs on the whole of it, and every position on its length."""
        rows = [tuple(ids), len(ids)][:ways]
        return [[(row, place) for place in range(len(ids))] for row in rows]

    def _hidden(self, embeds: Tensor, kv: KVCache, lengths: Tensor | int, positions: Tensor, **keywords) -> Tensor:
        return self.model.hidden(embeds, positions - lengths, kv, positions=positions, **keywords)

    def _kept(self, old: list[int], new: list[int]) -> int:
        return len(new) if old == new else 0

    def _ways(self, conditions: Conditions) -> int:
        return 2 if self._weight(conditions) > 1 else 1

    def _draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        if self.temperature == 0:
            return self.picker(logits, uniforms, 0.0)
        return self.picker(narrowed(logits, self.temperature, self.top_k, self.top_p), uniforms, 1.0)

    def _bytes(self, pixels: Tensor) -> np.ndarray:
        return to_uint8(pixels)


def narrowed(logits: Tensor, temperature: float = 1.0, top_k: int = 0, top_p: float = 1.0) -> Tensor:
    """(..., V) logits divided by the temperature, -inf for all but the `top_k` best (0: all) and the smallest set of
    them whose probability passes `top_p`."""
    logits = logits / max(temperature, 1e-5)
    if 0 < top_k < logits.shape[-1]:
        logits = logits.masked_fill(logits < logits.topk(top_k).values[..., -1:], -torch.inf)
    if top_p < 1:
        ordered, order = logits.sort(descending=True, stable=True)
        mass = ordered.softmax(-1).cumsum(-1)
        # Shifted by one: the code that passes the threshold stays.
        late = torch.cat((torch.zeros_like(mass[..., :1]), mass[..., :-1]), -1) > top_p
        logits = logits.masked_fill(torch.zeros_like(late).scatter(-1, order, late), -torch.inf)
    return logits


def to_uint8(pixels: Tensor) -> np.ndarray:
    """(B, 3, H, W) in about [-1, 1] to (B, H, W, 3) bytes, rounded to the nearest as in the official script."""
    scaled = (pixels.float().clamp(-1, 1) + 1) / 2 * 255 + 0.5
    return scaled.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()
