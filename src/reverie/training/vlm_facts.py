"""What plain heads are to read in a picture of the Atelier: shares over the names of each group."""

from __future__ import annotations

from ..atelier.kinds import KINDS
from ..atelier.scene import ACTIONS, BACKGROUNDS, COLOURS, STYLES, TEXTURES, Scene

NONE = "none"
GROUPS: dict[str, tuple[str, ...]] = {
    "kind": tuple(KINDS),
    "colour": (NONE, *COLOURS),
    "texture": TEXTURES,
    "action": (NONE, *ACTIONS),
    "background": BACKGROUNDS,
    "style": STYLES,
}


def facts(scene: Scene) -> list[float]:
    """One share for each name of each group, in order; a group's shares sum to 1. Several things share equally."""
    found: list[float] = []
    for group, names in GROUPS.items():
        if group in ("background", "style"):
            right = [getattr(scene, group)]
        else:
            right = [getattr(thing, group) or NONE for thing in scene.things]
        found += [right.count(name) / len(right) for name in names]
    return found
