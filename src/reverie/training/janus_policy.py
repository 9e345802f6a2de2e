"""Janus as a policy: writes thoughts (text tokens), paints regions (image codes), and scores both by whole sequences.

It writes with the painter and the reader that everybody uses, from their caches, and scores without a cache; the two
round differently. What it writes is scored at once by the function that scores it again, so ratios begin at 1 up to the
rounding of another batch; `PolicyLearner(rescore=True)` makes that exact. As published (T2I-R1, 2505.00703) a code is
drawn from guided logits but scored by the conditional branch alone; `guided=True` scores what was drawn.

The prompt of a region stands in front of everything painted so far, so a region after a new thought is scored behind
that thought, with the earlier regions as given codes (TWIG, 2511.16671).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..canvas import Conditions, copy_seed
from ..generators.janus import JanusPainter
from ..models.janus import Janus
from ..vlms import Message, Messages
from ..vlms.janus import JanusEyes
from .janus import in_working_type
from .learner import pad
from .rollout import Path, Scored
from .tree import Segment


@dataclass(frozen=True)
class Asked:
    """Before a thought: the conversation, its ids, and the features of its pictures, which nothing here teaches."""

    messages: Messages
    ids: tuple[int, ...]
    seen: Tensor | None


@dataclass(frozen=True)
class Shown:
    """Before a region: the prompt's ids, and the codes (n,) painted so far."""

    ids: tuple[int, ...]
    painted: Tensor


def raw_prompt(path: Path) -> str:
    return path.prompt


@dataclass
class JanusPolicy:
    """One Janus for both modalities; `think` and `paint` are the writers."""

    painter: JanusPainter
    eyes: JanusEyes
    question: Callable[[Path], Messages] = lambda path: [Message("user", path.prompt)]
    """What is asked of the thinker."""
    prompt: Callable[[Path], str] = raw_prompt
    """What a region is painted from; see `thoughts`."""
    limit: int = 128
    """Tokens of a thought at most."""
    temperature: float = 1.0
    """Of thoughts; the painter has its own."""
    guidance: float | None = None
    guided: bool = False
    """Score codes under guidance too; twice the work, and the gradient goes through the blank rows as well."""
    frozen: Janus | None = None
    """The model that learning began with; needed where a rule has a KL, unless `adapters` can be switched off."""
    name: str = "janus"
    learns: Janus | None = None
    """What is scored and learns, where a copy of it paints and writes (see training/twin.py)."""
    adapters: Any = None
    """The network of peft around it; with its adapters off it is the reference."""

    def think(self, paths: Sequence[Path]) -> list[list[Segment]]:
        """One text segment for each path, the end of the answer included."""
        asked = [self.question(path) for path in paths]
        with self._as_ever():
            answers = self.eyes.write_ids(asked, self.limit, self.temperature, _seeds(paths))
            contexts = [Asked(m, tuple(self.eyes.ids(m)), self.eyes.seen(m)) for m in asked]
        eos = self.eyes.tokenizer.eos
        return self._segments(
            "text", [torch.tensor(ids) for ids in answers], contexts, [ids[-1] != eos for ids in answers]
        )

    def paint(self, paths: Sequence[Path], length: int | None = None) -> list[list[Segment]]:
        """One image segment for each path: the next `length` codes behind those painted so far, or all the rest."""
        painted = [self.codes(path) for path in paths]
        done = len(painted[0])
        if any(len(codes) != done for codes in painted):
            raise ValueError("these paths are painted to different steps; paint paths of one step together")
        prompts = tuple(self.prompt(path) for path in paths)
        canvas = self.painter.start(Conditions(prompts, self.guidance), _seeds(paths))
        canvas.tokens[:, :done] = torch.stack(painted)
        canvas = replace(canvas, step=done, given=(max(done - 1, 0),) * len(paths))
        with self._as_ever():
            canvas = self.painter.advance(canvas, None if length is None else done + length)
        shown = [
            Shown(tuple(self.painter.tokenizer.painting_ids(text)), codes)
            for text, codes in zip(prompts, painted, strict=True)
        ]
        return self._segments("image", list(canvas.tokens[:, done : canvas.step].cpu()), shown, [False] * len(paths))

    def _as_ever(self) -> torch.autocast:
        """Writing keeps the arithmetic of the weights, as at inference, whatever the loop casts while it learns."""
        return torch.autocast(self.painter.model.device.type, enabled=False)

    def codes(self, path: Path) -> Tensor:
        """(n,) what this policy has painted on the path, rejected regions left out."""
        return torch.cat([torch.empty(0, dtype=torch.long), *(s.actions for s in self._kept(path, "image"))])

    def thoughts(self, path: Path) -> list[str]:
        """What this policy has thought on the path, in order."""
        return [self.eyes.tokenizer.decode(s.actions.tolist()).strip() for s in self._kept(path, "text")]

    def _kept(self, path: Path, modality: str) -> list[Segment]:
        own = [s for s in path.segments if s.policy == self.name and s.modality == modality]
        return [s for s in own if not s.rejected]

    def _segments(
        self, modality: str, actions: Sequence[Tensor], contexts: Sequence[object], cut: Sequence[bool]
    ) -> list[list[Segment]]:
        """Scored at once by the function that scores them again."""
        found = [
            Segment(
                self.name, modality, a, torch.ones(len(a), dtype=torch.bool), torch.zeros(len(a)), c, truncated=short
            )
            for a, c, short in zip(actions, contexts, cut, strict=True)
        ]
        with torch.no_grad():
            scores = self.log_prob(found).log_prob.cpu()
        for segment, row in zip(found, scores, strict=True):
            segment.log_prob = row[: len(segment)]
        return [[segment] for segment in found]

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        return self._score(segments, self.learns or self.painter.model)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        if self.frozen is not None:
            with torch.no_grad():
                return self._score(segments, self.frozen)
        if self.adapters is None:
            raise ValueError(f"policy {self.name!r} has no reference; give `frozen`, or a rule with beta=0")
        with torch.no_grad(), self.adapters.disable_adapter():
            return self._score(segments, self.learns or self.painter.model)

    def _score(self, segments: Sequence[Segment], model: Janus) -> Scored:
        actions = pad([segment.actions for segment in segments]).to(model.device)
        text = segments[0].modality == "text"
        logits = (self._text_logits if text else self._code_logits)(segments, model).float()
        log_probs = (logits / (self.temperature if text else self.painter.temperature)).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Scored(log_probs.gather(-1, actions[..., None])[..., 0], entropy)

    def _text_logits(self, segments: Sequence[Segment], model: Janus) -> Tensor:
        """What was seen stands in the places of the pictures; no gradient reaches what looks, which does not learn."""
        ids = [torch.tensor(segment.context.ids) for segment in segments]
        seen = [segment.context.seen for segment in segments if segment.context.seen is not None]

        def embed(padded: Tensor) -> Tensor:
            embeds = model.embed_text(padded)
            if not seen:
                return embeds
            places = (padded == self.eyes.tokenizer.placeholder)[..., None]
            return embeds.masked_scatter(places, torch.cat(seen).to(embeds))

        written = _embedded(model.embed_text, [segment.actions[:-1] for segment in segments], model.device)
        return model.text_logits(predictors(model, _embedded(embed, ids, model.device), written))

    def _code_logits(self, segments: Sequence[Segment], model: Janus) -> Tensor:
        weight = self.painter.guidance if self.guidance is None else self.guidance
        rows = [list(segment.context.ids) for segment in segments]
        both = self.guided and weight != 1
        if both:
            rows += [self.painter.tokenizer.blank_ids(ids) for ids in rows]
        segments = [*segments, *segments] if both else segments
        text = _embedded(model.embed_text, [torch.tensor(ids) for ids in rows], model.device)
        codes = [torch.cat([segment.context.painted, segment.actions[:-1]]) for segment in segments]
        painted = _embedded(model.embed_codes, codes, model.device)
        before = [len(segment.context.painted) for segment in segments]
        shown = [torch.cat([t, c[:n].to(t.dtype)]) for t, c, n in zip(text, painted, before, strict=True)]
        after = [c[n:].to(t.dtype) for t, c, n in zip(text, painted, before, strict=True)]
        logits = model.code_logits(predictors(model, shown, after))
        if not both:
            return logits
        conditional, unconditional = logits.float().chunk(2)
        return unconditional + weight * (conditional - unconditional)


def _embedded(embed: Callable[[Tensor], Tensor], rows: Sequence[Tensor], device: torch.device) -> list[Tensor]:
    """(n_i,) ids to (n_i, D), all in one call: on a GPU the number of calls is what costs."""
    lengths = [len(row) for row in rows]
    padded = pad_sequence(list(rows), batch_first=True).to(device)
    return [row[:length] for row, length in zip(embed(padded), lengths, strict=True)]


def _seeds(paths: Sequence[Path]) -> list[int]:
    """One for each segment of a path; the negative place keeps them apart from the seeds of branches."""
    return [copy_seed(path.seed, -1 - len(path.segments), 1) for path in paths]


def predictors(model: Janus, before: Sequence[Tensor], written: Sequence[Tensor]) -> Tensor:
    """(B, N, D) hidden states from which N actions are predicted: behind `before` (P_i, D) the first, behind all of
    `written` (n_i - 1, D) the last. Rows are padded behind their end, where no earlier position can see it."""
    rows = [torch.cat([head, tail]) for head, tail in zip(before, written, strict=True)]
    hidden = model.hidden(in_working_type(pad_sequence(rows, batch_first=True)))
    count = 1 + max(len(tail) for tail in written)
    first = torch.tensor([len(head) - 1 for head in before], device=hidden.device)
    place = (first[:, None] + torch.arange(count, device=hidden.device)).clamp(max=hidden.shape[1] - 1)
    return hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[-1]))
