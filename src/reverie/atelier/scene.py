"""What the Atelier can contain, and a scene as plain data.

A `Scene` is a frozen tree (background, style, things) that turns into JSON and back. Coordinates are fractions of
the picture's side, x to the right, y downward; a `Thing` is placed by its centre and its `scale`, the length of the
square it is drawn into. Nothing here draws: see `draw.py`. Nothing here speaks: see `language.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

# The ten colours of GenEval, in its order.
COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (220, 45, 45),
    "orange": (247, 138, 28),
    "yellow": (252, 218, 48),
    "green": (62, 166, 76),
    "blue": (52, 104, 222),
    "purple": (142, 68, 188),
    "pink": (250, 150, 194),
    "brown": (136, 84, 46),
    "black": (44, 44, 50),
    "white": (250, 250, 250),
}

# CoBSAT's names where they can be drawn; "plain" and "night", "meadow" are ours.
BACKGROUNDS = (
    "plain", "night", "meadow", "beach", "desert", "glacier", "volcano", "park", "gym", "waterfall", "space", "cave",
    "seafloor",
)  # fmt: skip
TEXTURES = ("plain", "wood", "wicker", "sequined", "metal", "leather", "lace", "denim", "ceramic")
STYLES = ("plain", "watercolor", "sketch", "pixel", "icon", "futuristic", "old")
ACTIONS = ("swim", "sleep", "sing", "run", "read", "fly", "eat", "cry")
SIZES = {"small": 0.21, "medium": 0.33, "large": 0.50}
RELATIONS = ("left of", "right of", "above", "below", "inside", "on")


@dataclass(frozen=True)
class Thing:
    """One object of a scene.

    kind: a name of `kinds.KINDS`; colour: a name of `COLOURS`, or None for the kind's natural colour;
    x, y: centre, and scale: side, in fractions of the picture; texture, action, state: names, see above
    (`state` is one of the kind's own states, such as a clock's hour, or None for the kind's usual look).
    """

    kind: str
    colour: str | None = None
    x: float = 0.5
    y: float = 0.5
    scale: float = 0.33
    texture: str = "plain"
    action: str | None = None
    state: str | None = None

    @property
    def size(self) -> str:
        """The size word nearest to `scale`."""
        return min(SIZES, key=lambda word: abs(SIZES[word] - self.scale))


@dataclass(frozen=True)
class Scene:
    """A whole picture as data. Things are drawn in order: later ones stand in front."""

    things: tuple[Thing, ...] = ()
    background: str = "plain"
    style: str = "plain"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Scene:
        known = {**data, "things": tuple(Thing(**thing) for thing in data.get("things", ()))}
        return cls(**known)

    def with_things(self, things: Iterable[Thing]) -> Scene:
        return replace(self, things=tuple(things))
