"""How a painter scores images as codes, for DPO: one function of one signature for every family with codes.

Masked-token models score hidden slots given the others; next-token models score every code given those before it,
by the conditional branch at temperature 1, as DPO's derivation has it.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..canvas import Conditions
from .dpo import Scorer, code_log_prob

if TYPE_CHECKING:
    from ..painter import Painter


@dataclass
class CodePainter:
    """A painter's network as one that learns from codes."""

    model: nn.Module
    words: Any
    family: str

    def __post_init__(self) -> None:
        frozen = {"showo": ("vq_model",), "janus": ("vision_model", "aligner", "vqmodel"), "llamagen": ("vqmodel",)}
        for name in frozen[self.family]:
            getattr(self.model, name).requires_grad_(False)

    @property
    def masked(self) -> bool:
        return self.family == "showo"

    def scorer(self, model: nn.Module | None = None) -> Scorer:
        """Scores with these weights, or with those of a model of the same shape."""
        make = {"showo": showo_scorer, "janus": janus_scorer, "llamagen": llamagen_scorer}[self.family]
        return make(self.model if model is None else model, self.words)

    def frozen(self) -> Scorer:
        """Scores with a copy of the weights as they are now."""
        return self.scorer(copy.deepcopy(self.model).requires_grad_(False))


def code_painter(painter: Painter) -> CodePainter:
    """ValueError for painters without codes."""
    family = painter.source.family or ""
    if family not in ("showo", "janus", "llamagen"):
        raise ValueError(f"{painter.name} paints no codes; DPO on codes is for Show-o, LlamaGen and Janus.")
    return CodePainter(painter.model, painter.tokenizer, family)


def showo_scorer(model: Any, words: Any) -> Scorer:
    def score(prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        return model.log_prob([words.painting_ids(prompt) for prompt in prompts], codes, hidden)

    return score


def janus_scorer(model: Any, words: Any) -> Scorer:
    from .janus_policy import predictors

    def score(prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        shown = [model.embed_text(torch.tensor(words.painting_ids(p), device=model.device)) for p in prompts]
        painted = [model.embed_codes(row[:-1]).to(text.dtype) for row, text in zip(codes, shown, strict=True)]
        return code_log_prob(model.code_logits(predictors(model, shown, painted)), codes)

    return score


def llamagen_scorer(model: Any, words: Any) -> Scorer:
    from ..generators.llamagen import LlamagenPainter

    plain = LlamagenPainter(model, words, guidance=1.0, temperature=1.0, top_k=0, top_p=1.0)

    def score(prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        return plain.log_prob(Conditions(tuple(prompts), 1.0), codes)

    return score
