"""How a judge is to be asked, as its config.json says in the `reverie` section beside the wording."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any

from reverie.judges.moved import FINISHED, MOVES

if TYPE_CHECKING:
    from torch import Tensor

    from reverie.judges import Answer


@dataclass(frozen=True)
class Manner:
    """clear_from: of a picture of which a smaller share is painted, its training data never said that it is clear.
    reasons: whether it learnt to say what is wrong; else nothing is written, and a stock sentence stands for it.
    moves: from how many more places it looks at a finished picture (moved.py).
    lenient: by how many nats yes is favoured when it is asked about potential, so that a path is given up only where no
    is e^lenient times as likely: what is given up wrongly is lost, what is kept wrongly is judged again when it is
    finished (Elkan, IJCAI 2001). 0 is the rule of "verify and reinforce".
    strict: by how many nats no is favoured when it is asked about finished pictures, by a judge that is too sure of
    them. Who is the best of several stays; what looking back refuses does not.

    ValueError, in one sentence, for what is none of that."""

    clear_from: float = 0.0
    reasons: bool = True
    moves: int = 0
    lenient: float = 0.0
    strict: float = 0.0

    def __post_init__(self) -> None:
        if not _number(self.clear_from) or not 0 <= self.clear_from <= 1:
            raise ValueError(f"clear_from is {self.clear_from!r}; it is a share between 0 and 1.")
        if not isinstance(self.reasons, bool):
            raise ValueError(f"reasons is {self.reasons!r}; it is true or false.")
        if isinstance(self.moves, bool) or not isinstance(self.moves, int) or not 0 <= self.moves <= len(MOVES):
            raise ValueError(f"moves is {self.moves!r}; it is 0 to {len(MOVES)}.")
        for name in ("lenient", "strict"):
            nats = getattr(self, name)
            if not _number(nats) or not 0 <= nats < math.inf:
                raise ValueError(f"{name} is {nats!r}; it is a number of nats, 0 or more.")

    def favours(self, question: str) -> float:
        """Nats by which yes is favoured in answers to a question; below 0 where no is."""
        if question in FINISHED:
            return -self.strict
        return self.lenient if question == "potential" else 0.0

    @classmethod
    def of(cls, said: Mapping[str, Any], where: str) -> Manner:
        """What a `reverie` section or a recipe says, among other things; `where` begins the sentence of an error."""
        try:
            return cls(**{one.name: said[one.name] for one in fields(cls) if said.get(one.name) is not None})
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def favoured(told: Tensor, nats: float) -> Tensor:
    """(..., 2) probabilities of yes and no, with the log odds of yes greater by so much and the same sum."""
    import torch

    lean = told * torch.tensor([math.exp(nats / 2), math.exp(-nats / 2)], dtype=told.dtype, device=told.device)
    return lean * (told.sum(-1, keepdim=True) / lean.sum(-1, keepdim=True).clamp(min=torch.finfo(told.dtype).tiny))


def leaning(answers: Sequence[Answer], nats: float) -> Sequence[Answer]:
    """The same of answers."""
    import torch

    if not nats:
        return answers
    told = favoured(torch.tensor([[one.yes, one.no] for one in answers], dtype=torch.float64).view(-1, 2), nats)
    return [replace(one, yes=yes, no=no) for one, (yes, no) in zip(answers, told.tolist(), strict=True)]
