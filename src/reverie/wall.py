"""The canvases of a batch that thinks while it paints: one for each picture, painted together wherever they stand.

Between two wishes every picture has a canvas of its own, which is a value: earlier attempts stay valid. While it is
painted, all that stand at one step are one canvas, where the generator can join them, so that a new text enters, a code
is drawn and a preview is decoded for all of them at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from reverie.canvas import Canvas, Conditions, Work, advance_together
from reverie.canvas import Generator as GeneratorOfImages

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Paint:
    """Steps start..end painted from `prompt` with the random numbers of `seed`; what was there before is dropped."""

    prompt: str
    start: int
    end: int
    seed: int


class Shown(NamedTuple):
    """A canvas and what it looks like. The canvas is a value: it stays valid while the picture is painted over."""

    canvas: Canvas
    picture: Image


class Begun(Protocol):
    """What a canvas is begun from; a `during.Painting`."""

    prompt: str
    seed: int


class Wall:
    """The canvases of a batch, one for each picture."""

    def __init__(self, generator: GeneratorOfImages, paintings: Mapping[int, Begun], guidance: float | None):
        self.generator, self.guidance = generator, guidance
        self.work = Work()
        """What all of them have spent, on whichever canvas."""
        started = {
            image: generator.start(Conditions((painting.prompt,), guidance), [painting.seed])
            for image, painting in paintings.items()
        }
        self.canvases = {image: replace(canvas, work=self.work) for image, canvas in started.items()}

    def look(self, image: int) -> Shown:
        return self.looks([image])[image]

    def paint(self, wishes: Mapping[int, Paint]) -> dict[int, Shown]:
        """All of these at once. Only what a new text invalidates is computed again (see `recondition`); pictures that
        stand at the same step are one canvas meanwhile, where the generator can join them."""
        groups: dict[Any, list[int]] = {}
        for image, wish in wishes.items():
            canvas = self.canvases[image]
            if canvas.step > wish.start:
                self.canvases[image] = canvas = self._unpainted(canvas, wish.start)
            alike = (canvas.step, wish.end, canvas.cache is None)
            groups.setdefault(alike if hasattr(self.generator, "join") else image, []).append(image)
        ready = [self._told(images, wishes) for images in groups.values()]
        ends = [wishes[images[0]].end for images in groups.values()]
        for images, canvas in zip(groups.values(), advance_together(self.generator, ready, ends), strict=True):
            self.canvases |= zip(images, self._apart(canvas), strict=True)
        return self.looks(list(wishes))

    def _unpainted(self, canvas: Canvas, to: int) -> Canvas:
        """Back to step `to`, from where it is to go on differently, by random numbers or, without any, by noise."""
        canvas = self.generator.rewind(canvas, to)
        return self.generator.parting(canvas) if hasattr(self.generator, "parting") else canvas

    def _told(self, images: Sequence[int], wishes: Mapping[int, Paint]) -> Canvas:
        """One canvas of these, with the prompts and random numbers that they are to go on with."""
        canvases = [self.canvases[image] for image in images]
        canvas = canvases[0] if len(canvases) == 1 else self.generator.join(canvases)  # type: ignore[attr-defined]
        prompts = tuple(wishes[image].prompt for image in images)
        canvas = self.generator.recondition(canvas, Conditions(prompts, self.guidance))
        return canvas.reseed([wishes[image].seed for image in images])

    def _apart(self, canvas: Canvas) -> list[Canvas]:
        return [canvas] if len(canvas) == 1 else self.generator.split(canvas)  # type: ignore[attr-defined]

    def looks(self, images: Sequence[int]) -> dict[int, Shown]:
        """What several look like now, decoded together where the generator can."""
        from PIL import Image

        canvases = [self.canvases[image] for image in images]
        together = getattr(self.generator, "previews", None) if len(canvases) > 1 else None
        pictures = together(canvases) if together else [self.generator.preview(canvas)[0] for canvas in canvases]
        shown = [Shown(c, Image.fromarray(picture)) for c, picture in zip(canvases, pictures, strict=True)]
        return dict(zip(images, shown, strict=True))
