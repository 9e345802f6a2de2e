"""What a Show-o reads before it paints: prompts, and the flawed pictures behind them; each once, whoever asks for it.

Nothing here belongs to one image of a canvas: states of a text are the same at every step and for every candidate.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

from reverie.models.phi import TextStates
from reverie.models.rows import at_once, in_fixed_parts
from reverie.models.showo import Showo, text_width

if TYPE_CHECKING:
    from PIL.Image import Image


Kind = tuple[bool, int]


@dataclass(frozen=True)
class Read:
    """A prompt's ids, and which picture stands behind it."""

    ids: tuple[int, ...]
    picture: str | None = None
    """A digest; None for no picture."""

    @property
    def kind(self) -> Kind:
        """Whether there is a picture, and the width of the text (see `text_width`)."""
        return self.picture is not None, text_width(self.ids)


@dataclass
class Shelf:
    """States of texts of one width that are all with a picture, or all without one."""

    places: dict[Read, int]
    states: TextStates

    def rows(self, texts: Sequence[Read]) -> TextStates:
        """The states that the rows of a batch look at."""
        places = [self.places[text] for text in texts]
        return replace(self.states, rows=torch.tensor(places, device=self.states.seen.device))


@dataclass
class ShowoCache:
    """What was read, by `Read.kind`. Forks and pruned canvases share it."""

    shelves: dict[Kind, Shelf]

    def fork(self, k: int) -> ShowoCache:
        return self

    def select(self, indices: Sequence[int]) -> ShowoCache:
        return self

    @property
    def known(self) -> set[Read]:
        return {text for shelf in self.shelves.values() for text in shelf.places}


def digest(picture: Image | None) -> str | None:
    if picture is None:
        return None
    return hashlib.sha256(repr((picture.mode, picture.size)).encode() + picture.tobytes()).hexdigest()


def read(
    model: Showo,
    needed: Sequence[Read],
    pictures: Mapping[str | None, Image],
    old: ShowoCache | None,
    rows: int,
    spent: Callable[[int, int], None],
) -> ShowoCache:
    """A cache of exactly `needed`; what `old` knows is kept. spent: told how many tokens and pictures were read."""
    shelves = {}
    for kind in dict.fromkeys(text.kind for text in needed):
        seen, width = kind
        texts = [text for text in needed if text.kind == kind]
        before = old.shelves.get(kind) if old is not None else None
        kept = [text for text in texts if before is not None and text in before.places]
        new = [text for text in texts if text not in kept]
        parts = [narrowed(before.states, [before.places[text] for text in kept])] if before and kept else []
        if new:
            states = model.read_prompts([text.ids for text in new], rows, width)
            tokens = sum(len(text.ids) for text in new)
            if seen:
                states = model.look(_codes(model, [pictures[text.picture] for text in new]), states, rows)
                tokens += len(new) * (model.config.image_length + 2)
            spent(tokens, len(new) if seen else 0)
            parts.append(states)
        if parts:
            shelves[kind] = Shelf({text: place for place, text in enumerate(kept + new)}, joined(parts))
    return ShowoCache(shelves)


def _codes(model: Showo, pictures: Sequence[Image]) -> torch.Tensor:
    """(P, L), encoded in parts of fixed size (see models/rows.py)."""
    from reverie.vlms.showo import prepare

    side = model.config.grid * model.pictures.pixels_per_code
    pixels = torch.stack([prepare(picture, side) for picture in pictures]).to(model.device)
    return torch.cat(in_fixed_parts(model.pictures.encode, at_once(model.device), pixels))


def narrowed(states: TextStates, places: Sequence[int]) -> TextStates:
    index = torch.tensor(places, device=states.seen.device)
    keys, values = ([layer[index] for layer in part] for part in (states.keys, states.values))
    return replace(states, keys=keys, values=values, seen=states.seen[index])


def joined(parts: Sequence[TextStates]) -> TextStates:
    if len(parts) == 1:
        return parts[0]
    keys, values = (
        [torch.cat(layer) for layer in zip(*(getattr(part, name) for part in parts), strict=True)]
        for name in ("keys", "values")
    )
    return replace(parts[0], keys=keys, values=values, seen=torch.cat([part.seen for part in parts]))
