"""A finished run as one value: what `Painter.generate` returns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, without_pictures

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Result:
    """What `Painter.generate` returns; `image` is the first of the images."""

    images: tuple[Image, ...]
    seeds: tuple[int, ...]
    recipes: tuple[Mapping[str, Any], ...]
    """For each image, all that is needed to paint it again."""
    prompt: str
    """As it was typed."""
    thought: str | None = None
    rewritten: str | None = None
    """What was painted from, after a thought or where pictures were put into words."""
    trace: tuple[Event, ...] = field(default=(), repr=False)
    """Every event of the run, without the pictures of its previews."""

    @property
    def image(self) -> Image:
        return self.images[0]


def result_of(events: Sequence[Event]) -> Result:
    """A finished run as one value."""
    finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.image)
    recipe = finished[0].recipe if finished else {}
    thought, rewritten = reasoned(recipe)
    return Result(
        images=tuple(event.picture for event in finished if event.picture is not None),
        seeds=tuple(event.seed for event in finished),
        recipes=tuple(event.recipe for event in finished),
        prompt=recipe.get("prompt", ""),
        thought=thought,
        rewritten=rewritten,
        trace=tuple(without_pictures(event) for event in events),
    )


def reasoned(recipe: Mapping[str, Any]) -> tuple[str | None, str | None]:
    """The thought and the text that an image was painted from, None where there was no reasoning."""
    told = recipe.get("told") or {}
    said = [text for text in (*told.get("seen", ()), told.get("thought"), recipe.get("thought")) if text]
    return "\n".join(said) or None, recipe.get("rewritten") or told.get("prompt")
