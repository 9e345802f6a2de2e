"""Where a kind of thing says its name, family, natural colour, shape and states; see `Kind`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..pen import Ink, Pen

Painter = Callable[[Pen, Ink, str | None], None]


@dataclass(frozen=True)
class Kind:
    """A kind of thing.

    natural: its colour where nobody names one; width, height: how much of the frame [-1, 1]² the drawing fills
    (1 is all of it), from which its bounding box follows; states: looks beside the usual one, the first is the usual
    one where there are any; paint(pen, ink, state) draws it.
    """

    name: str
    family: str
    natural: str
    width: float
    height: float
    states: tuple[str, ...]
    paint: Painter
    plural: str


KINDS: dict[str, Kind] = {}


def kind(
    name: str,
    family: str,
    natural: str,
    size: tuple[float, float] = (1.0, 1.0),
    states: tuple[str, ...] = (),
    plural: str | None = None,
) -> Callable[[Painter], Painter]:
    """Register the decorated drawing function as the painter of `name`."""

    def register(paint: Painter) -> Painter:
        KINDS[name] = Kind(name, family, natural, size[0], size[1], states, paint, plural or name + "s")
        return paint

    return register
