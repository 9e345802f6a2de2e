"""Who reasons and who judges: the one interface that thinkers and judges know, whatever model stands behind it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor

IMAGE = "<image>"
"""Marks in a message's text where its pictures go, if not in front."""


@dataclass(frozen=True)
class Message:
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[Image.Image, ...] = ()
    """Each stands on a line of its own before the text, unless the text says `IMAGE` once for every picture."""
    special: tuple[str, ...] = ()
    """Special tokens that this text quotes on purpose; all others in it are mere text."""

    def __post_init__(self):
        object.__setattr__(self, "images", tuple(self.images))
        marks = self.text.count(IMAGE)
        if self.images and marks not in (0, len(self.images)):
            raise ValueError(
                f"A message with {len(self.images)} pictures marks {marks} places for them; "
                f"write {IMAGE} once for each or never."
            )

    def with_places(self, place: str) -> str:
        """The text with `place` where each picture goes."""
        if not self.images:
            return self.text
        if IMAGE in self.text:
            return self.text.replace(IMAGE, place)
        return f"{place}\n" * len(self.images) + self.text


Messages = Sequence[Message]


def seeds_of(conversations: Sequence[Messages], seeds: Sequence[int] | None) -> Sequence[int]:
    """One seed for each conversation, 0 where none are given. ValueError for another number of them."""
    if seeds is None:
        return [0] * len(conversations)
    if len(seeds) != len(conversations):
        raise ValueError(f"Got {len(seeds)} seeds for {len(conversations)} conversations; give one for each, or none.")
    return seeds


class VLM(Protocol):
    """A model that reads text and pictures and writes text. Conversations end with a user turn. One that was trained to
    read several pictures between words says `interleaves = True`."""

    def write(
        self,
        messages: Messages,
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seed: int = 0,
        on_text: Callable[[str], None] | None = None,
    ) -> str:
        """The answer; temperature 0 always takes the likeliest token. `on_text` hears each piece as it is written."""

    def write_batch(
        self,
        conversations: Sequence[Messages],
        max_new_tokens: int = 512,
        temperature: float = 0.0,
        seeds: Sequence[int] | None = None,
    ) -> list[str]:
        """The answers to several conversations; each is what `write` would give with its seed."""

    def yes_probability(self, messages: Messages) -> float:
        """P(yes) / (P(yes) + P(no)) of the answer's first token, from one forward pass."""

    def features(self, messages: Messages) -> Tensor:
        """(T, D): the last hidden state at every position of the conversation."""


@runtime_checkable
class Brief(Protocol):
    """A VLM that ends an answer where the rest would not matter, and whose answers are the same to the last bit
    whatever is written beside them."""

    def write_until(
        self, conversations: Sequence[Messages], max_new_tokens: int, enough: Sequence[Callable[[str], bool] | None]
    ) -> list[str]:
        """The likeliest answers, each up to where its `enough` holds of the text so far."""


@dataclass(frozen=True)
class Reading:
    """A conversation that was read, up to where its answer begins."""

    logits: Tensor
    """(V,) float32: what the answer's first token may be."""
    memory: Any = None
    """What the model keeps of the conversation, for one that begins with the same; its contents are its own affair."""


@runtime_checkable
class Reader(Protocol):
    """A VLM that shows the logits of an answer's first token, for many conversations at once."""

    filters: tuple[int, float]
    """top_k and top_p that the checkpoint asks for when it is sampled from; (0, 1.0) is neither."""

    def read(
        self, conversations: Sequence[Messages], before: Sequence[Reading | None] = (), remember: bool = False
    ) -> list[Reading]:
        """One forward pass for each conversation. `before`: earlier readings, one for each or none at all; what a
        conversation shares with its own is not computed again. `remember`: whether the readings can be used so."""

    def first_ids(self, word: str) -> set[int]:
        """First tokens of the ways in which the model may write a one-word answer."""

    def token(self, index: int) -> str:
        """The vocabulary's string for an id."""
