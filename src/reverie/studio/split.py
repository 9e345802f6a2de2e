"""One painted batch, many runs: each event of the batch as the runs hear it whose images it is about.

Runs stand side by side in a batch: run 0 has the first images, run 1 the next ones. An image does not depend on its
neighbours (docs/determinism.md), so what a run hears here is what it would have heard alone, but for three things:
thoughts about several prompts are told whole and not word by word, previews are fewer, what was spent is shared out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from reverie.events import Event, Preview, Pruned, Spent, Started, Thought


@dataclass(frozen=True)
class Part:
    """The images of one run: `count` of them, from `first` on; `total` is how many the batch has."""

    first: int
    count: int
    total: int
    prompts: tuple[str, ...]
    """The prompts of the whole batch."""

    def own(self, image: int) -> int | None:
        """The run's own number of an image of the batch, None if it is another run's."""
        return image - self.first if self.first <= image < self.first + self.count else None

    def share(self, number: int) -> int:
        """The run's share of something counted for the batch; the shares of all runs add up to it."""
        return number * (self.first + self.count) // self.total - number * self.first // self.total


def parts_of(prompts: Sequence[str], counts: Sequence[int]) -> list[Part]:
    """Runs with so many images each, side by side; `prompts` has one entry for each image."""
    starts = [sum(counts[:place]) for place in range(len(counts))]
    return [Part(first, count, len(prompts), tuple(prompts)) for first, count in zip(starts, counts, strict=True)]


def heard(event: Event, part: Part) -> Iterator[Event]:
    """What a run hears of an event of its batch: the event with the run's own numbers, or nothing."""
    mine = slice(part.first, part.first + part.count)
    if isinstance(event, Started):
        yield replace(event, prompts=event.prompts[mine], seeds=event.seeds[mine])
    elif isinstance(event, Preview):
        yield replace(event, images=event.images[mine])
    elif isinstance(event, Pruned):
        kept = [place for place, image in enumerate(event.images) if part.own(image) is not None]
        if kept:
            images = tuple(event.images[place] - part.first for place in kept)
            yield replace(event, images=images, candidates=tuple(event.candidates[place] for place in kept))
    elif isinstance(event, Spent):
        work = {name: (part.share(spent), part.share(plain)) for name, (spent, plain) in event.work.items()}
        yield replace(event, work=work)
    elif isinstance(event, Thought) and event.region is None:
        yield from _shared(event, part)
    else:
        image = part.own(_image(event))
        if image is not None:
            yield _renumbered(event, image)


def _shared(event: Thought, part: Part) -> Iterator[Event]:
    """A thought about a whole prompt is for every image with that prompt, whichever run has it."""
    prompt = part.prompts[event.image]
    mine = part.prompts[part.first : part.first + part.count]
    if prompt in mine:
        yield replace(event, image=mine.index(prompt))


def _image(event: Any) -> int:
    return event.image


def _renumbered(event: Any, image: int) -> Event:
    return replace(event, image=image)
