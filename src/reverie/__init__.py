"""Reverie makes image generators think.

    import reverie
    painter = reverie.load("atelier-janus")             # or a hub id, or a folder
    result = painter.generate("a red fish below a boat", think="before", seed=7)
    result.image.save("fish.png")

Importing this package imports nothing heavy; torch comes in when a model is loaded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie.painter import Painter, Result, load
    from reverie.pipelines import around
    from reverie.reason import Plan

__version__ = "0.1.0"
__all__ = ["Painter", "Plan", "Result", "__version__", "around", "load"]


def __getattr__(name: str) -> Any:
    if name in ("Painter", "Result", "load"):
        from reverie import painter

        return getattr(painter, name)
    if name == "around":
        from reverie.pipelines import around

        return around
    if name == "Plan":
        from reverie.reason import Plan

        return Plan
    raise AttributeError(f"module 'reverie' has no attribute {name!r}")
