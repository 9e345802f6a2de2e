"""Show-o: one transformer that reads text causally and paints image codes all at once, by unmasking.

Paper: arXiv 2408.12528; masked image modelling after MaskGIT (arXiv 2202.04200) and Muse (arXiv 2301.00704). The
language model is `models/phi.py`; the image tokenizer is MAGVIT-v2 (`models/magvit.py`) in the published checkpoints,
and any `PictureCodes` elsewhere: pixels to codes and codes to pixels are all that Show-o needs. Sizes come from the
configuration alone. Loading and saving live in `models/showo_checkpoint.py`.

A painting sequence is a block of `longest + 1` text positions, filled from the right, and an image block: start, one
slot for each code, end. The logits at a masked slot say what stands in that slot; nothing is shifted.

A sequence that corrects (PARM++, arXiv 2501.13926, which gives no layout; this one is ours) has the flawed image as a
block of its own between text and new image. It sees the text and itself, the new image sees both. Both stand at the
same positions: so the new image is as far from its text as ever, and what is to stay as it was is found where it was.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models import phi_painting
from reverie.models.magvit import Magvit, MagvitConfig, PictureCodes
from reverie.models.phi import Phi, PhiConfig, TextStates, each_row
from reverie.models.rows import Blocks, Packed, in_blocks, packed
from reverie.models.showo_text import SPECIAL, ShowoTokenizer

TEXT_ROWS = 64
"""Rows, at most, of the products that a prompt enters with: it enters alone, and rarely has more tokens."""
TEXTS_AT_ONCE = 64
"""On accelerators, where a prompt alone is bound by launches, exactly so many enter together."""


@dataclass(frozen=True)
class ShowoConfig:
    """Names on the right are those of the authors' config.json."""

    phi: PhiConfig
    pictures: dict[str, Any] = field(hash=False)
    """Section of the image tokenizer; its `type` is `magvitv2` or `vq`."""
    text_tokens: int
    """llm_vocab_size"""
    num_codes: int
    """codebook_size"""
    image_length: int
    """num_vq_tokens"""
    longest: int = 128
    """max_seq_length, of a prompt with its start and end."""
    own: dict[str, Any] = field(default_factory=dict, hash=False)
    """What Reverie itself wrote beside: guidance, temperature, steps, thinker."""

    @property
    def code_offset(self) -> int:
        return self.text_tokens + len(SPECIAL)

    @property
    def mask(self) -> int:
        """The token that stands in unpainted slots."""
        return self.code_offset + self.num_codes

    @property
    def vocabulary(self) -> int:
        return self.mask + 1

    @property
    def image_start(self) -> int:
        return self.text_tokens + SPECIAL.index("<|soi|>")

    @property
    def image_end(self) -> int:
        return self.text_tokens + SPECIAL.index("<|eoi|>")

    @property
    def block(self) -> int:
        """Positions of the text, and so the position at which the image block begins."""
        return self.longest + 1

    @property
    def grid(self) -> int:
        return math.isqrt(self.image_length)

    @property
    def raw(self) -> dict[str, Any]:
        return self.to_dict()

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "ShowoConfig":
        """From our config.json, or from the authors' with the sections `phi` and `vq_model` put into it."""
        for name in ("llm_vocab_size", "codebook_size", "num_vq_tokens", "phi", "vq_model"):
            if name not in data:
                raise ValueError(f"config.json lacks the field {name!r} of a Show-o model; complete it.")
        config = cls(
            PhiConfig.from_dict(data["phi"]),
            dict(data["vq_model"]),
            data["llm_vocab_size"],
            data["codebook_size"],
            data["num_vq_tokens"],
            data.get("max_seq_length", 128),
            dict(data.get("reverie") or {}),
        )
        for name, value in (("vocab_size", config.vocabulary), ("mask_token_id", config.mask)):
            if data.get(name, value) != value:
                raise ValueError(
                    f"config.json says {name} {data[name]}, but {config.text_tokens} text tokens, {len(SPECIAL)} "
                    f"special ones, {config.num_codes} codes and the mask make it {value}; correct it."
                )
        if config.grid**2 != config.image_length:
            raise ValueError(f"config.json gives {config.image_length} image codes, which form no square; correct it.")
        return config

    def to_dict(self) -> dict[str, Any]:
        return {
            "model_type": "showo",
            "vocab_size": self.vocabulary,
            "llm_vocab_size": self.text_tokens,
            "codebook_size": self.num_codes,
            "num_vq_tokens": self.image_length,
            "mask_token_id": self.mask,
            "max_seq_length": self.longest,
            "w_clip_vit": False,
            "phi": self.phi.to_dict(),
            "vq_model": self.pictures,
            "reverie": self.own,
        }


def picture_codes(section: dict[str, Any]) -> nn.Module:
    """The image tokenizer that a section of config.json describes; a `PictureCodes`."""
    kind = section.get("type", "magvitv2")
    if kind == "magvitv2":
        return Magvit(MagvitConfig.from_dict(section))
    if kind == "vq":
        from reverie.models.folded_vq import FoldedVQ

        return FoldedVQ.from_section(section)
    raise ValueError(f"config.json names the image tokenizer {kind!r}; known are magvitv2 and vq.")


class Showo(nn.Module):
    """Everything with weights. Codes are (B, L) in row-major order; `rows` is explained in models/rows.py."""

    def __init__(self, config: ShowoConfig):
        super().__init__()
        self.config = config
        self.showo = Phi(config.phi, config.vocabulary)
        self.vq_model = picture_codes(config.pictures)
        if self.pictures.num_codes != config.num_codes:
            raise ValueError(
                f"config.json gives {config.num_codes} image codes, but its image tokenizer has "
                f"{self.pictures.num_codes}; check that both belong together."
            )

    @property
    def pictures(self) -> PictureCodes:
        """The image tokenizer, as what it does."""
        return self.vq_model  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        return self.showo.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.showo.lm_head.weight.dtype

    def initialise(self, std: float = 0.02) -> None:
        """Fresh weights of the language model: N(0, std), residual outputs smaller with depth (as in GPT-2)."""
        for name, module in self.showo.named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                depth = 2 * self.config.phi.num_hidden_layers if name.endswith(("dense", "fc2")) else 1
                nn.init.normal_(module.weight, std=std / depth**0.5)
                if isinstance(module, nn.Linear):
                    nn.init.zeros_(module.bias)

    # Painting.

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) ids of the one vocabulary to (B, T, D)."""
        return self.showo.model.embed_tokens(ids)

    @torch.no_grad()
    def encode(self, pixels: Tensor) -> Tensor:
        """Pictures as bytes (B, 3, H, W) to codes (B, L)."""
        return self.pictures.encode(pixels.to(self.device).float() / 127.5 - 1)

    def read(self, ids: Tensor, seen: Tensor | None = None, rows: int | None = None) -> TextStates:
        """Text blocks (B, T) that end where the image begins; `seen` is False at the pads on their left."""
        return self.showo.read(self.embed(ids), seen, self.config.block - ids.shape[1], rows)

    def paint(
        self, codes: Tensor, masked: Tensor, text: TextStates, rows: int | None = None, asked: Tensor | None = None
    ) -> Tensor:
        """Hidden states of the image block, (B, L + 2, D): start, slots, end. Masked slots (B, L) hide their code.

        asked: (B, L) the slots that are asked about; then (M, D) of these alone."""
        ids = self._image_ids(torch.where(masked, self.config.mask, codes + self.config.code_offset))
        start, wanted = self.config.block, None if asked is None else F.pad(asked, (1, 1))
        if rows is not None and not torch.is_grad_enabled():
            return phi_painting.paint(self.showo, ids, text, start, rows, wanted)
        hidden = self.showo.paint(self.embed(ids), text, start, rows)
        return hidden if wanted is None else hidden[wanted]

    def look(self, codes: Tensor, text: TextStates, rows: int | None = None) -> TextStates:
        """The states of texts with a finished image (B, L) behind each, for an image that is painted after it."""
        block = self.embed(self._image_ids(codes + self.config.code_offset))
        return self.showo.look(block, text, self.config.block, rows)

    def _image_ids(self, inside: Tensor) -> Tensor:
        """(B, L) tokens of the one vocabulary, framed by start and end."""
        return F.pad(F.pad(inside, (1, 0), value=self.config.image_start), (0, 1), value=self.config.image_end)

    def code_logits(self, hidden: Tensor, rows: int | None = None) -> Tensor:
        """(..., D) to (..., number of codes): the head over image codes only. Text and mask are never drawn."""
        head, codes = self.showo.lm_head, slice(self.config.code_offset, self.config.mask)
        flat = hidden.flatten(0, -2)
        if rows is None or torch.is_grad_enabled():
            found = each_row(lambda x: F.linear(x, head.weight[codes], head.bias[codes]), rows, flat)
        else:
            ready = packed(head, rows, lambda part, block: Packed([part.weight[codes]], block, part.bias[codes]))
            product = ready or (lambda x: F.linear(x, head.weight[codes], head.bias[codes]))
            found = in_blocks(product, Blocks.fixed(rows), flat)
        return found.unflatten(0, hidden.shape[:-1])

    def slot_logits(self, codes: Tensor, masked: Tensor, text: TextStates, rows: int | None = None) -> Tensor:
        """(B, L, number of codes): what stands in each slot; made of the two calls that `log_prob` is made of."""
        return self.code_logits(self.paint(codes, masked, text, rows)[:, 1:-1], rows)

    def log_prob(
        self,
        prompts: Sequence[Sequence[int]],
        codes: Tensor,
        masked: Tensor,
        *,
        vocabulary: Literal["codes", "all"] = "codes",
        frame: bool = False,
        rows: int | None = None,
        flawed: Tensor | None = None,
    ) -> Tensor:
        """Log-probabilities of the masked codes given the prompt and the codes that are not masked; differentiable.

        prompts: ids without pads, as `ShowoTokenizer.painting_ids` gives them, one for each row of `codes` (B, L).
        vocabulary: what the softmax runs over. Codes are never drawn from anything but `codes`; the authors of the DPO
            training (arXiv 2501.13926) take it over all tokens.
        frame: the tokens around the image count as well, as there; only over all tokens.
        rows: the block size of the painter, where the numbers must be those of sampling bit by bit.
        flawed: (B, L) codes of the image that each corrects.
        Returns (B, L) in float32, 0 where nothing is masked; with `frame` (B, L + 2).
        """
        if frame and vocabulary != "all":
            raise ValueError("The tokens around the image are no image codes; take vocabulary='all' with frame=True.")
        codes, masked = codes.to(self.device), masked.to(self.device)
        widths = [text_width(prompt) for prompt in prompts]
        if rows is not None and len(set(widths)) > 1:
            found = codes.new_zeros(codes.shape[0], codes.shape[1] + 2 * frame, dtype=torch.float32)
            for width in set(widths):
                mine = [i for i, other in enumerate(widths) if other == width]
                part = None if flawed is None else flawed[mine]
                found[mine] = self.log_prob(
                    [prompts[i] for i in mine], codes[mine], masked[mine],
                    vocabulary=vocabulary, frame=frame, rows=rows, flawed=part,
                )  # fmt: skip
            return found
        text = self.read_prompts(prompts, rows, widths[0] if rows is not None else None)
        if flawed is not None:
            text = self.look(flawed.to(self.device), text, rows)
        hidden = self.paint(codes, masked, text, rows)
        if vocabulary == "codes":
            hidden, targets, counts = hidden[:, 1:-1], codes, masked
        else:
            targets = F.pad(codes + self.config.code_offset, (1, 1))
            targets[:, 0], targets[:, -1] = self.config.image_start, self.config.image_end
            counts = F.pad(masked, (1, 1), value=frame)
        # The head is wide: it runs where something counts and nowhere else.
        told = hidden[counts]
        logits = self.code_logits(told, rows) if vocabulary == "codes" else each_row(self.showo.lm_head, rows, told)
        chosen = logits.float().log_softmax(-1).gather(-1, targets[counts][:, None])[:, 0]
        found = chosen.new_zeros(counts.shape).masked_scatter(counts, chosen)
        return found if frame or vocabulary == "codes" else found[:, 1:-1]

    def read_prompts(
        self, prompts: Sequence[Sequence[int]], rows: int | None = None, width: int | None = None
    ) -> TextStates:
        """States of prompts of any lengths. With `rows`, each enters alone, or among always equally many, so that it
        notices no neighbour, and all become `width` wide (as a block if it is left out)."""
        if rows is None:
            return self._read_together(prompts, max(map(len, prompts)))
        width, rows = self.config.block if width is None else width, min(rows, TEXT_ROWS)
        if self.device.type != "cpu":
            return self._read_in_parts(prompts, width)
        alone = [self.read(torch.tensor([list(p)], device=self.device), rows=rows) for p in prompts]
        # One width, so that attention has one shape whatever the prompts.
        keys, values = (
            [
                torch.cat([F.pad(t, (0, 0, width - t.shape[2], 0)) for t in layer])
                for layer in zip(*(getattr(one, name) for one in alone), strict=True)
            ]
            for name in ("keys", "values")
        )
        place = torch.arange(width, device=self.device)
        return TextStates(keys, values, torch.stack([place >= width - len(p) for p in prompts]))

    def _read_together(self, prompts: Sequence[Sequence[int]], width: int) -> TextStates:
        """One batch, filled up to `width` on the left."""
        ids = torch.tensor([[0] * (width - len(p)) + list(p) for p in prompts], device=self.device)
        first = width - torch.tensor([[len(p)] for p in prompts], device=self.device)
        return self.read(ids, torch.arange(width, device=self.device) >= first)

    def _read_in_parts(self, prompts: Sequence[Sequence[int]], width: int, size: int = TEXTS_AT_ONCE) -> TextStates:
        """The same in batches of exactly `size`, the last filled up with its last prompt."""
        parts = []
        for begin in range(0, len(prompts), size):
            part = list(prompts[begin : begin + size])
            parts.append(self._read_together(part + part[-1:] * (size - len(part)), width))
        keys, values = (
            [torch.cat(layer)[: len(prompts)] for layer in zip(*kind, strict=True)]
            for kind in ([one.keys for one in parts], [one.values for one in parts])
        )
        return TextStates(keys, values, torch.cat([one.seen for one in parts])[: len(prompts)])

    # Any sequence.

    def logits(self, ids: Tensor, seen: Tensor, positions: Tensor | None = None) -> Tensor:
        """(B, T) ids to logits over everything, (B, T, vocabulary); `seen` (B, T, T) as `omni_mask` gives it; positions
        (T,) where they do not simply count up."""
        return self.showo.lm_head(self.showo.whole(self.embed(ids), seen, positions=positions))


def text_width(prompt: Sequence[int]) -> int:
    """Places of a prompt before the image, a multiple of 16: attention runs over so many, whoever else is in a batch,
    and not over a whole block of mostly pads."""
    return -(-len(prompt) // 16) * 16


def omni_mask(ids: Tensor, tokenizer: ShowoTokenizer) -> Tensor:
    """(B, T, T), True where a row may look, for painting sequences (B, T): text is causal, the image block sees
    everything, and pads are seen by pads alone."""
    pad, length = ids == tokenizer.pad, ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    image = (ids == tokenizer.image_start).cumsum(1) > 0
    return (causal | image[:, :, None]) & ~(pad[:, None, :] & ~pad[:, :, None])


def question_mask(ids: Tensor, tokenizer: ShowoTokenizer) -> Tensor:
    """The same for a picture with a question behind it: everybody sees up to the end of the picture, then causal."""
    length = ids.shape[1]
    causal = torch.ones(length, length, dtype=torch.bool, device=ids.device).tril()
    ended = (ids == tokenizer.image_end).cumsum(1)
    upto = (ended == 0) | (ids == tokenizer.image_end) & (ended == 1)
    return causal | upto[:, None, :]
