"""Direct preference optimisation of image generators, next-token and masked-token, on pairs of code sequences.

    loss = -log sigmoid(beta ((lp(w) - lp(l)) - (lp_ref(w) - lp_ref(l))))        w preferred to l

For a next-token model lp is the log-probability of all codes. A masked-token model has no such number; its surrogate is
the sum over the slots that one drawn mask hides. Winner and loser share their masks here (the published code draws
them apart, so that the difference of two noises drowns that of two images), and several masks may be drawn for a pair.

Masks and dropped prompts are functions of (seed, pair), so the reference may be a table made once, before training.

Sources: DPO (2305.18290, Eq. 7); "Can We Generate Images with CoT?" (2501.13926) and its training code: masking by
cos(u pi / 2), prompts dropped at 0.1, beta 0.1. Its reward guidance had no gradient; `online` below is a guidance that
has one.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ..files import write_atomically
from .grpo import Turn

Scorer = Callable[[Sequence[str], Tensor, Tensor], Tensor]
"""Prompts, codes (B, L), hidden slots (B, L) bool, to log-probabilities (B, L) of the codes. A masked-token model sees
the codes that are not hidden, and is asked for the hidden ones; a next-token model is asked for all."""


def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> tuple[Tensor, dict[str, Tensor]]:
    """Mean loss over pairs, and what to log, from log-probabilities of sequences, each (B,)."""
    for_chosen, for_rejected = chosen - ref_chosen.detach(), rejected - ref_rejected.detach()
    margin = beta * (for_chosen - for_rejected)
    log = {
        "margin": margin.detach().mean(),
        "accuracy": (margin.detach() > 0).to(margin.dtype).mean(),
        "chosen": beta * for_chosen.detach().mean(),
        "rejected": beta * for_rejected.detach().mean(),
    }
    return -F.logsigmoid(margin).mean(), log


def code_log_prob(logits: Tensor, codes: Tensor, first: int = 0, count: int | None = None) -> Tensor:
    """(B, L) log-probabilities of `codes` (B, L), which count from 0, under logits (B, L, V).

    With `count`, the softmax runs over the columns [first, first + count) alone, as sampling does; without, over the
    whole vocabulary, as the published loss does.
    """
    if count is not None:
        logits, first = logits[..., first : first + count], 0
    return logits.float().log_softmax(-1).gather(-1, (codes + first)[..., None])[..., 0]


def hidden_slots(key: str, length: int) -> Tensor:
    """(length,) bool: a share cos(u pi / 2) of the slots, u uniform, at least one; the same for the same key."""
    stream = random.Random(key)
    count = max(1, round(length * math.cos(stream.random() * math.pi / 2)))
    hidden = torch.zeros(length, dtype=torch.bool)
    hidden[stream.sample(range(length), count)] = True
    return hidden


@dataclass
class Pair:
    """Two images of one prompt as codes (L,), the better first. Codes, since encoding a decoded image does not give its
    codes back."""

    prompt: str
    chosen: Tensor
    rejected: Tensor

    def __post_init__(self) -> None:
        if self.chosen.shape != self.rejected.shape or self.chosen.ndim != 1:
            raise ValueError(
                f"a pair for {self.prompt!r} has codes of shapes {tuple(self.chosen.shape)} and "
                f"{tuple(self.rejected.shape)}; both must be one row of the same length"
            )


@dataclass
class DpoConfig:
    batch: int = 10
    """Pairs of a step, for each process."""
    beta: float = 0.1
    masked: bool = True
    """Masked-token model; False: next-token, where nothing is hidden and every code counts."""
    draws: int = 1
    """Masks for each pair, shared by winner and loser."""
    drop_text: float = 0.1
    """Share of pairs without their prompt, so that guidance stays calibrated."""
    sft: float = 0.0
    """Weight of the cross-entropy of the winners' codes."""
    online: float = 0.0
    """Weight of guidance by a reward, see `Guidance`; 0 never explores and never calls a judge."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.batch < 1 or self.draws < 1 or self.beta <= 0:
            raise ValueError(f"batch={self.batch}, draws={self.draws}, beta={self.beta}: all must be above 0")
        if not 0 <= self.drop_text < 1:
            raise ValueError(f"drop_text={self.drop_text}: must be in [0, 1)")


@dataclass
class PairBatch:
    """`draws` rows for each of B pairs, side by side."""

    prompts: list[str]
    chosen: Tensor
    """(B draws, L)"""
    rejected: Tensor
    hidden: Tensor
    """(B draws, L) bool"""
    index: Tensor
    """(B,) which pairs."""


class Guidance(Protocol):
    """Guidance by a reward model: a `GrpoTask` (policy gradient) or `OnlinePairs` (fresh pairs)."""

    def share(self, batches: int) -> None:
        """How many batches make an update."""

    def batch(self, step: int) -> Turn:
        """What is explored in a step."""

    def loss(self, turn: Turn) -> tuple[Tensor, dict[str, float | Tensor]]:
        """A loss with a gradient, and what to log."""


@dataclass
class DpoTask:
    """The task for `training.loop.train`."""

    model: nn.Module
    score: Scorer
    pairs: Sequence[Pair]
    reference: Scorer | Tensor
    """The model that this round began with: a scorer (see `adapters_off`), or the table that `reference_table` made."""
    config: DpoConfig = field(default_factory=DpoConfig)
    online: Guidance | None = None

    def __post_init__(self) -> None:
        if not self.pairs:
            raise ValueError("there are no pairs; DPO needs prompts with both a better and a worse image")
        if self.config.online and self.online is None:
            raise ValueError("config.online asks for reward guidance; give the task to explore with as `online`")
        if isinstance(self.reference, Tensor) and self.reference.shape != (len(self.pairs), 2):
            raise ValueError(f"the reference table is {tuple(self.reference.shape)}; it must be ({len(self.pairs)}, 2)")
        self.model.eval()

    def share(self, batches: int) -> None:
        """Says how many batches make an update, to whoever explores."""
        if self.online is not None:
            self.online.share(batches)

    def batch(self, step: int) -> tuple[PairBatch, Turn | None]:
        """From (seed, step) alone: pairs in an order shuffled anew for each pass."""
        places = range(step * self.config.batch, (step + 1) * self.config.batch)
        epochs = [divmod(place, len(self.pairs)) for place in places]
        orders = {epoch: self._order(epoch) for epoch, _ in epochs}
        rows = self._rows([orders[epoch][place] for epoch, place in epochs], [epoch for epoch, _ in epochs])
        return rows, self.online.batch(step) if self.online and self.config.online else None

    def _order(self, epoch: int) -> list[int]:
        order = list(range(len(self.pairs)))
        random.Random(f"{self.config.seed}/{epoch}").shuffle(order)
        return order

    def _rows(self, indices: Sequence[int], epochs: Sequence[int]) -> PairBatch:
        """Masks are drawn anew in every epoch, unless the reference is a table, which knows those of the first."""
        prompts, hidden = [], []
        for index, epoch in zip(indices, epochs, strict=True):
            pair, drawn = self.pairs[index], 0 if isinstance(self.reference, Tensor) else epoch
            for draw in range(self.config.draws):
                key = f"{self.config.seed}/{index}/{drawn}/{draw}"
                dropped = random.Random(key + "/text").random() < self.config.drop_text
                prompts.append("" if dropped else pair.prompt)
                everything = torch.ones(len(pair.chosen), dtype=torch.bool)
                hidden.append(hidden_slots(key, len(pair.chosen)) if self.config.masked else everything)
        chosen = torch.stack([self.pairs[i].chosen for i in indices]).repeat_interleave(self.config.draws, 0)
        rejected = torch.stack([self.pairs[i].rejected for i in indices]).repeat_interleave(self.config.draws, 0)
        return PairBatch(prompts, chosen, rejected, torch.stack(hidden), torch.tensor(indices))

    def _sums(self, score: Scorer, rows: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities of winners and losers (B,), mean over draws; and the winners' mean over slots, a scalar.

        Winner and loser go through in one batch: rounded alike, so equal images have a margin of exactly 0.
        """
        device = next(self.model.parameters()).device
        codes = torch.cat([rows.chosen, rows.rejected]).to(device)
        hidden = torch.cat([rows.hidden, rows.hidden]).to(device)
        each = torch.where(hidden, score([*rows.prompts, *rows.prompts], codes, hidden), 0.0)
        sums = each.sum(1).view(2, -1, self.config.draws).mean(2)
        winners = each[: len(rows.chosen)].sum() / rows.hidden.sum()
        return sums[0], sums[1], winners

    def reference_sums(self, rows: PairBatch) -> tuple[Tensor, Tensor]:
        if isinstance(self.reference, Tensor):
            found = self.reference[rows.index]
            return found[:, 0], found[:, 1]
        with torch.no_grad():
            chosen, rejected, _ = self._sums(self.reference, rows)
        return chosen, rejected

    def loss(self, batch: tuple[PairBatch, Turn | None]) -> tuple[Tensor, dict[str, float | Tensor]]:
        rows, turn = batch
        chosen, rejected, winners = self._sums(self.score, rows)
        ref_chosen, ref_rejected = (x.to(chosen) for x in self.reference_sums(rows))
        loss, log = dpo_loss(chosen, rejected, ref_chosen, ref_rejected, self.config.beta)
        row: dict[str, float | Tensor] = {"dpo": loss.detach(), **log}
        if self.config.sft:
            loss = loss - self.config.sft * winners
        if turn is not None and self.online is not None:
            guidance, told = self.online.loss(turn)
            loss = loss + self.config.online * guidance
            row |= {f"online/{name}": value for name, value in told.items()}
        return loss, row


def adapters_off(model: Any, score: Scorer) -> Scorer:
    """The reference without a second copy: `score` with the adapters of a peft model switched off."""
    if not hasattr(model, "disable_adapter"):
        raise ValueError("adapters_off needs a peft model; give a frozen copy's scorer, or a table, as the reference")

    def scored(prompts: Sequence[str], codes: Tensor, hidden: Tensor) -> Tensor:
        with model.disable_adapter():
            return score(prompts, codes, hidden)

    return scored


def reference_table(task: DpoTask, path: str | Path) -> Tensor:
    """(pairs, 2) log-probabilities of winners and losers by `task.score` as it is now; kept in a safetensors file.

    Read from the file if it is there: a resumed run must not take half-trained weights for its reference.
    """
    path = Path(path)
    if not path.exists():
        table = torch.empty(len(task.pairs), 2)
        first = DpoTask(task.model, task.score, task.pairs, table, task.config, task.online)
        for begin in range(0, len(task.pairs), task.config.batch):
            indices = list(range(begin, min(begin + task.config.batch, len(task.pairs))))
            with torch.no_grad():
                chosen, rejected, _ = first._sums(task.score, first._rows(indices, [0] * len(indices)))
            table[indices] = torch.stack([chosen, rejected], 1).float().cpu()
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, lambda part: save_file({"reference": table}, part))
    return load_file(path)["reference"]
