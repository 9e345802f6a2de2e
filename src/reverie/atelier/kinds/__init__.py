"""The kinds of things the Atelier can draw: a registry of small drawing functions, one file a family group."""

from __future__ import annotations

# These register themselves when they are imported.
from . import animals, buildings, food, household, nature, shapes, vehicles  # noqa: F401
from .registry import KINDS, Kind

FAMILIES = tuple(dict.fromkeys(kind.family for kind in KINDS.values()))

__all__ = ["FAMILIES", "KINDS", "Kind"]
