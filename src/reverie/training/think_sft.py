"""Supervised fine-tuning of a text encoder that thinks and rewrites (Think-then-Generate, arXiv 2601.10332).

A row is a conversation as at inference and the answer of a rewrite (data/rewrites.py): reasoning, marker, refined
prompt. Only the answer and the token that ends it carry loss. Transformer and autoencoder are not touched.

The frozen transformer goes on reading what the encoder makes of refined prompts, so the states must stay where they
are. The paper looks at a t-SNE of them; here the distance is measured (`encoder_drift`), logged with every step, and
may be part of the loss (`keep`): the squared distance of the states of refined prompts from those of the encoder as it
was, which costs one pass more with adapters on and one with adapters off.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .. import thinkers
from ..data.rewrites import Rewrite
from ..generators.diffusion import DiffusionPainter
from ..models.prompt_states import read_prompts, states_gap
from ..vlms import Message
from ..vlms.text_encoder import TextEncoderWriter
from .adapted import Adapted, Learning
from .encoder_policy import Row, answer_logits, answer_targets


@dataclass
class ThinkTraining:
    """batch: rows of a step. keep: weight of the distance of prompt states; 0 is the published loss. kept: prompts of a
    step whose distance is measured. tags: the reasoning stands in think tags. longest: tokens of a row at most; longer
    rewrites are left out, and counted. temperature: what logits are divided by in the loss; below 1 for a small model
    whose head cannot be sure, so that its loss falls by what is wrong and not by being surer of what is right. Thoughts
    are then sampled at that temperature as well (`tree.temperature`); greedy ones do not change."""

    batch: int = 32
    keep: float = 0.0
    kept: int = 16
    tags: bool = False
    longest: int = 2048
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.kept < 0 or self.longest < 2:
            raise ValueError(f"batch={self.batch}, longest={self.longest}: at least 1 and 2; kept={self.kept}: 0 up.")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: above 0; 1 leaves the loss as published.")
        if self.keep < 0 or (self.keep and not self.kept):
            raise ValueError(f"keep={self.keep}: 0 or more, and above 0 only with kept above 0.")


Answered = tuple[Row, list[int]]


class ThinkTask:
    """`training.loop.Task`. ValueError where no rewrite fits."""

    def __init__(
        self,
        painter: DiffusionPainter,
        adapted: Adapted,
        wording: str,
        rewrites: Sequence[Rewrite],
        mix: ThinkTraining,
        seed: int = 0,
    ):
        self.painter, self.adapted, self.wording, self.mix, self.seed = painter, adapted, wording, mix, seed
        self.writer = TextEncoderWriter(painter.pipeline)
        self.rewrites = [one for one in rewrites if len(self._ids(one)) <= mix.longest]
        self.too_long = len(rewrites) - len(self.rewrites)
        if not self.rewrites:
            raise ValueError(f"all {len(rewrites)} rewrites are longer than longest={mix.longest} tokens; raise it.")
        for part in (painter.pipeline.transformer, painter.pipeline.vae):
            part.requires_grad_(False)
        self.model: nn.Module = Learning(thinker=adapted.network)
        self._rows: dict[int, Answered] = {}

    def _ids(self, one: Rewrite) -> list[int]:
        """Of the answer."""
        return [*self.writer._plain(one.answer(self.wording, self.mix.tags)), self.writer.stop[0]]

    def batch(self, step: int) -> dict[str, Any]:
        """From (seed, step) alone: `rows` (conversations and answers) and the `prompts` whose states are measured."""
        rng = random.Random(f"think/{self.seed}/{step}")
        chosen = [rng.randrange(len(self.rewrites)) for _ in range(self.mix.batch)]
        asked = [self._row(place) for place in chosen]
        drawn = [self.rewrites[place] for place in chosen]
        texts = [one.refined_prompt for one in drawn if one.image is None][: self.mix.kept]
        return {"rows": asked, "prompts": texts}

    def _row(self, place: int) -> Answered:
        """Words are not cut into tokens twice; pictures are too large to be kept."""
        if place not in self._rows:
            row = self._made(self.rewrites[place])
            if row[0][1]:
                return row
            self._rows[place] = row
        return self._rows[place]

    def _made(self, one: Rewrite) -> Answered:
        pictures = (opened(one),) if one.image else ()
        request = thinkers.request(self.wording, one.prompt, edit=bool(pictures))
        return self.writer.conversation([Message("user", request, pictures)]), self._ids(one)

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        logits = answer_logits(self.writer, batch["rows"])
        targets = answer_targets([answer for _, answer in batch["rows"]], logits.device)
        loss = F.cross_entropy(
            (logits.float() / self.mix.temperature).flatten(0, 1), targets.flatten(), ignore_index=-100
        )
        known = targets != -100
        right = ((logits.argmax(-1) == targets) & known).sum() / known.sum()
        log: dict[str, Any] = {"cross_entropy": loss.detach(), "tokens_right": right}
        if batch["prompts"] and self.painter.paints:
            with torch.set_grad_enabled(torch.is_grad_enabled() and self.mix.keep > 0):
                gap = encoder_gap(self.painter, self.adapted, batch["prompts"])
            log["encoder_drift"] = gap.detach()
            if self.mix.keep:
                loss = loss + self.mix.keep * gap
        return loss, log


def opened(one: Rewrite) -> Any:
    from PIL import Image, UnidentifiedImageError

    assert one.image is not None
    try:
        with Image.open(one.image) as image:
            return image.convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        raise ValueError(f"{one.image} is no picture that can be opened.") from error


def encoder_gap(painter: DiffusionPainter, adapted: Adapted, prompts: Sequence[str]) -> Tensor:
    """How far the states of prompts are from those of the encoder as it was: mean squared distance in units of their
    mean square."""
    asked = [(prompt, ()) for prompt in prompts]
    now = read_prompts(painter, asked)
    with torch.no_grad(), adapted.reference():
        then = read_prompts(painter, asked)
    return states_gap(now, then)


@torch.no_grad()
def states_similarity(painter: DiffusionPainter, adapted: Adapted, prompts: Sequence[str]) -> dict[str, float]:
    """Of the states of prompts now and as they were: mean and least cosine over positions, relative drift."""
    asked = [(prompt, ()) for prompt in prompts]
    now = read_prompts(painter, asked)
    with adapted.reference():
        then = read_prompts(painter, asked)
    cosines = torch.cat(
        [F.cosine_similarity(a.states[0].float(), b.states[0].float(), dim=-1) for a, b in zip(now, then, strict=True)]
    )
    return {"cosine": float(cosines.mean()), "least": float(cosines.min()), "drift": float(states_gap(now, then))}
