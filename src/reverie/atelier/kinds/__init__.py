"""The kinds of things the Atelier can draw: a registry of small drawing functions, one file a family group."""

from __future__ import annotations

from .registry import KINDS, Kind
from . import animals, buildings, food, household, nature, shapes, vehicles  # noqa: E402, F401  isort: skip (they register themselves)

FAMILIES = tuple(dict.fromkeys(kind.family for kind in KINDS.values()))

__all__ = ["FAMILIES", "KINDS", "Kind"]
