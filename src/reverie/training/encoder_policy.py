"""The text encoder of a diffusion pipeline as a policy: it thinks and rewrites, and scores what it wrote.

Thoughts are drawn from the plain softmax at `temperature`, each from a stream of its own, and scored by one pass over
question and answer without a cache; what is predicted are the answer's tokens alone, and logits are made for them
alone. Caches and whole sequences round differently, so use it with `PolicyLearner(rescore=True)`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ..canvas import copy_seed
from ..vlms import Message, Messages
from ..vlms.text_encoder import TextEncoderWriter
from .adapted import Adapted
from .learner import pad
from .rollout import Path, Scored
from .tree import Segment

Row = tuple[list[int], dict[str, Tensor]]
"""Of a conversation: ids, and what the eyes take (see `TextEncoderWriter.conversation`)."""


@dataclass
class EncoderPolicy:
    """`think` is the writer."""

    writer: TextEncoderWriter
    adapted: Adapted
    question: Callable[[Path], Messages] = lambda path: [Message("user", path.prompt)]
    limit: int = 256
    """Tokens of a thought at most."""
    temperature: float = 1.0
    name: str = "thinker"

    def think(self, paths: Sequence[Path]) -> list[list[Segment]]:
        """One text segment for each path, the end of the answer included. Call it without gradient."""
        asked = [self.question(path) for path in paths]
        # The negative place keeps these seeds apart from those of branches.
        seeds = [copy_seed(path.seed, -1 - len(path.segments), 1) for path in paths]
        answers = self.writer.write_scored(asked, self.limit, self.temperature, seeds)
        rows: dict[str, Row] = {}
        found = []
        for path, messages, (ids, scores) in zip(paths, asked, answers, strict=True):
            if path.prompt not in rows:  # siblings share their question
                rows[path.prompt] = self.writer.conversation(messages)
            actions = torch.tensor(ids)
            cut = ids[-1] not in self.writer.stop
            found.append(
                Segment(
                    self.name, "text", actions, torch.ones(len(ids), dtype=torch.bool), scores,
                    rows[path.prompt], truncated=cut,
                )
            )  # fmt: skip
        return [[segment] for segment in found]

    def text(self, segment: Segment) -> str:
        return self.writer._text(segment.actions.tolist())

    def log_prob(self, segments: Sequence[Segment]) -> Scored:
        actions = pad([segment.actions for segment in segments])
        logits = answer_logits(self.writer, [(s.context, s.actions.tolist()) for s in segments])
        log_probs = (logits.float() / self.temperature).log_softmax(-1)
        entropy = -(log_probs.exp() * log_probs).sum(-1)
        return Scored(log_probs.gather(-1, actions.to(logits.device)[..., None])[..., 0], entropy)

    def reference(self, segments: Sequence[Segment]) -> Scored:
        with torch.no_grad(), self.adapted.reference():
            return self.log_prob(segments)


def answer_logits(writer: TextEncoderWriter, rows: Sequence[tuple[Row, list[int]]]) -> Tensor:
    """(B, N, V) logits of the tokens of answers behind their conversations; N is the longest answer, and what stands
    behind a shorter one means nothing."""
    whole = [([*ids, *answer[:-1]], seen) for (ids, seen), answer in rows]
    encoder: Any = writer.pipeline.text_encoder
    hidden = encoder.base_model(**writer.inputs(whole), use_cache=False).last_hidden_state
    most = max(len(answer) for _, answer in rows)
    first = torch.tensor([len(ids) - 1 for (ids, _), _ in rows], device=hidden.device)
    place = (first[:, None] + torch.arange(most, device=hidden.device)).clamp(max=hidden.shape[1] - 1)
    return encoder.get_output_embeddings()(hidden.gather(1, place[..., None].expand(-1, -1, hidden.shape[-1])))


def answer_targets(answers: Sequence[list[int]], device: torch.device) -> Tensor:
    """(B, N) token ids, -100 behind the end of shorter answers."""
    return pad_sequence([torch.tensor(answer) for answer in answers], True, -100).to(device)
