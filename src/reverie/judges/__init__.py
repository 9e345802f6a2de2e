"""Judges: who looks at pictures, finished or not, and says how well they fit their prompts.

A judge answers one of four questions about many views at once: `orm` (is the finished picture faithful?), `prm` (is an
unfinished one on its way?), `clarity` (can it be judged yet?), `potential` (can it become faithful?), after "verify
and reinforce" (arXiv 2501.13926). It may also say what is wrong (`reflect`). Who stands behind it does not matter: a
VLM (vlm.py), a Python function or several judges together (mixed.py), the Atelier's inspector (inspector.py). What
follows from the answers is said by rules.py, and done by reverie/choose.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Work

QUESTIONS = ("orm", "prm", "clarity", "potential")


@dataclass
class View:
    """A picture as it is shown to a judge."""

    prompt: str
    picture: Image
    painted: float = 1.0
    """How much of it is done, 0 to 1."""
    memory: dict[int, Any] = field(default_factory=dict, repr=False)
    """What judges keep of it between two questions, by the id of the judge."""


@dataclass(frozen=True)
class Answer:
    """What a judge answers about one view: in words (token, yes, no), or with a score of its own."""

    yes: float = 0.0
    """Probability that the answer's first token is yes, over the whole vocabulary."""
    no: float = 0.0
    token: str = ""
    """The first token itself, as the vocabulary writes it; empty for judges without words."""
    score: float | None = None
    """Higher is better; of judges without words, such as reward models. NaN if there is none."""
    passed: bool | None = None
    """A verdict that does not follow from the numbers; None if it does."""
    reason: str | None = None
    """Why."""
    note: str | None = None
    """Said when the answer could not be read as it was."""


@dataclass(frozen=True)
class Reflection:
    """Whether a finished picture is what was asked for, how sure that is, and what is wrong with it."""

    aligned: bool
    score: float
    reason: str = ""
    note: str | None = None
    """Said when the judge could not be read, or could not judge; an image that cannot be judged counts as aligned."""


class Judge(Protocol):
    """Whoever judges.

    One that never calls a picture clear of which less than a certain share is painted may say so: `clear_from`, 0 if it
    does not. PARM then looks no earlier.
    """

    @property
    def name(self) -> str: ...

    @property
    def work(self) -> Work:
        """The account on which it writes what it spends."""

    def check(self, prompt: str) -> None:
        """ValueError for a prompt that it cannot judge by."""

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        """One answer for each view; `question` is one of QUESTIONS."""

    def reflect(self, views: Sequence[View]) -> list[Reflection]:
        """One for each finished picture."""
