"""Answers of a Janus that guess ahead: what followed the same two tokens before is tried beside the latest token.

Prompt lookup (arXiv 2304.04487 copies from a reference in this way), to the last bit: guesses stand in rows of the
matrix products that would stay empty, each is rounded as if it had come alone, and it counts only if it is what is
drawn in its place. A model that thinks and judges while it paints repeats its requests, its form and itself.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reverie.canvas import agreed, pick
from reverie.models.llama import KVCache
from reverie.models.rows import padded_rows, round_up

if TYPE_CHECKING:
    from reverie.vlms.janus import JanusEyes

MOST = 4
"""Tokens of an answer that enter at once: more guesses are seldom right, and each reads the whole conversation."""


class Followers:
    """Which token stood behind each two, the last time they stood side by side."""

    def __init__(self, remember: int = 8192):
        self.remember, self.after = remember, dict[tuple[int, int], int]()

    def read(self, ids: Sequence[int]) -> None:
        for first, second, third in zip(ids, ids[1:], ids[2:], strict=False):
            self.after.pop((first, second), None)  # the latest stand last
            self.after[first, second] = third
        while len(self.after) > self.remember:
            self.after.pop(next(iter(self.after)))

    def guesses(self, ids: Sequence[int], most: int) -> list[int]:
        """What may follow these, at least two, as far as it is known."""
        found: list[int] = []
        first, second = ids[-2:]
        while len(found) < most and (third := self.after.get((first, second))) is not None:
            found.append(third)
            first, second = second, third
        return found


@dataclass
class Answer:
    """One on its way."""

    number: int
    """Among all that are asked for."""
    asked: list[int]
    """The conversation's tokens."""
    written: list[int] = field(default_factory=list)
    over: Callable[[str], bool] | None = None
    """Whether an answer that begins so may end."""

    def __len__(self) -> int:
        return len(self.asked) + len(self.written)

    @property
    def last(self) -> list[int]:
        """The last three tokens, whosever they are."""
        return [*self.asked[-3:], *self.written[-3:]][-3:]


@torch.no_grad()
def write_by_guesses(
    eyes: JanusEyes,
    answers: list[Answer],
    cache: KVCache,
    hidden: Tensor,
    uniforms: Tensor,
    temperature: float,
    on_ids: Callable[[list[int]], None] | None = None,
) -> None:
    """Writes on at answers until all have ended or have as many tokens as `uniforms` (all answers, limit) has numbers.

    hidden: (N, D) the states from which their next tokens are drawn.
    """
    limit = uniforms.shape[1]
    fed = [answer.last[-1:] for answer in answers]
    while True:
        ended = []
        drawn = _drawn(eyes, answers, hidden.view(len(answers), -1, hidden.shape[-1]), uniforms, temperature)
        for answer, said, found in zip(answers, fed, drawn, strict=True):
            right = agreed(said, found)
            ended.append(_grown(eyes, answer, found[:right], limit, on_ids))
        left = [row for row, over in enumerate(ended) if not over]
        if not left:
            return
        if len(left) < len(answers):
            cache, order = cache.closed_up(left, max(map(len, answers)))
            answers = [answers[row] for row in order]
        longest = max(map(len, answers))
        room = min(MOST, eyes.rows // len(answers), cache.capacity + 1 - longest)
        fed = [[one.last[-1], *eyes.followers.guesses(one.last, room - 1)] for one in answers]
        count = max(map(len, fed))
        tokens = torch.tensor([[*said, *said[-1:] * (count - len(said))] for said in fed])
        positions = torch.tensor([len(one) - 1 for one in answers])[:, None] + torch.arange(count)
        span = [round_up(len(one) + count - 1, eyes.chunk) for one in answers]
        embeds = eyes.model.embed_text(tokens)
        hidden = eyes.model.hidden(embeds, cache, positions=positions, span=span, alone=True)


def _drawn(
    eyes: JanusEyes, answers: Sequence[Answer], hidden: Tensor, uniforms: Tensor, temperature: float
) -> list[list[int]]:
    """What follows each of (N, T, D) tokens, of which the first draws the next token of its answer."""
    count, last = hidden.shape[1], uniforms.shape[1] - 1
    numbers = torch.tensor([one.number for one in answers])[:, None]
    at = torch.tensor([len(one.written) for one in answers])[:, None] + torch.arange(count)
    logits = padded_rows(eyes.model.text_logits, eyes.rows, hidden.flatten(0, 1))
    return pick(logits.float(), uniforms[numbers, at.clamp(max=last)].flatten(), temperature).view(-1, count).tolist()


def _grown(
    eyes: JanusEyes, answer: Answer, ids: Sequence[int], limit: int, on_ids: Callable[[list[int]], None] | None
) -> bool:
    """Puts tokens behind an answer, as far as it goes; whether it has ended."""
    for token in ids:
        answer.written.append(token)
        eyes.followers.read(answer.last)
        if on_ids is not None:
            on_ids([token])
        if token == eyes.tokenizer.eos or len(answer.written) == limit:
            return True
        if answer.over is not None and answer.over(eyes.text(answer.written)):
            return True
        eyes.work.decoded += 1
    return False
