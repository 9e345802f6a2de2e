"""What happens during a run, as a stream of small records, and the trace that keeps it on disk.

Every run yields events; the command line draws them, the trace writes them, training reads them. This file imports
nothing of ours and nothing heavy. Pictures inside events are PIL images; in JSON they are left out, or named when
they lie in a trace folder.

A trace is a folder with `events.jsonl` (one event a line) and the PNGs that it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Event:
    """The base of all events. `image` in an event is the index of the image it is about, in the order of the seeds."""

    name: ClassVar[str]
    pictured: ClassVar[str | None] = None
    """The field that holds pictures (one or a tuple of them), if any."""

    @property
    def pictures(self) -> tuple[Image | None, ...]:
        held = getattr(self, self.pictured) if self.pictured else ()
        return held if isinstance(held, tuple) else (held,)

    def to_json(self, files: Sequence[str | None] = ()) -> dict[str, Any]:
        """A JSON object. `files` names the pictures, in the order of `pictures`; without them they are left out."""
        record = {"event": self.name} | {f.name: getattr(self, f.name) for f in fields(self) if f.name != self.pictured}
        return record | {"files": list(files)} if files else record


@dataclass(frozen=True)
class Started(Event):
    """The first event: what is to be painted and how."""

    name = "started"
    prompts: tuple[str, ...]
    seeds: tuple[int, ...]
    plan: Mapping[str, Any]
    steps: int
    """How many steps a finished image takes."""


@dataclass(frozen=True)
class Thought(Event):
    """A piece of a thought as it is written; the last event of a thought has `whole` and the rewritten `prompt`."""

    name = "thought"
    image: int
    """The first image it is for; others with the same prompt share it."""
    fragment: str = ""
    whole: str | None = None
    prompt: str | None = None
    """What will be painted from now on."""
    note: str | None = None
    """Said when the model's answer could not be used as it was."""
    region: int | None = None
    """Counted from 1, of a thought about a part of the picture."""


@dataclass(frozen=True)
class Scheduled(Event):
    """The regions of an image, where its model was asked for them: the step at which each ends."""

    name = "scheduled"
    image: int
    ends: tuple[int, ...]
    answer: str = ""
    note: str | None = None


@dataclass(frozen=True)
class Preview(Event):
    """So much is painted. Images are None where they are not being painted just now."""

    name = "preview"
    pictured = "images"
    step: int
    """Steps done so far, over all batches of the run."""
    steps: int
    """Steps of the whole run."""
    images: tuple[Image | None, ...] = ()


@dataclass(frozen=True)
class Verdict(Event):
    """A judge's scores of one image, finished or not."""

    name = "verdict"
    pictured = "picture"
    image: int
    judge: str
    scores: Mapping[str, float]
    reason: str | None = None
    candidate: int = 0
    """Which of the candidates for this image."""
    question: str = ""
    """What was asked: orm, prm, clarity, potential or reflection."""
    step: int | None = None
    """How far the image was painted."""
    picture: Image | None = None
    note: str | None = None
    """Said when the judge's answer could not be read as it was."""
    region: int | None = None
    """Counted from 1, if a part of the picture was judged."""
    accepted: bool | None = None
    """Whether it may stay, if that was the question."""


@dataclass(frozen=True)
class Pruned(Event):
    """Candidates were given up at `step`: for each, the image it competed for and its number among those."""

    name = "pruned"
    images: tuple[int, ...]
    step: int
    candidates: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chosen(Event):
    """Which candidate is kept for an image, out of how many that were left; with a note where that is not plain."""

    name = "chosen"
    image: int
    candidate: int
    seed: int
    left: int
    note: str | None = None


@dataclass(frozen=True)
class Revised(Event):
    """An image is unpainted back to `step` and goes on from another prompt."""

    name = "revised"
    image: int
    step: int
    prompt: str
    reason: str | None = None
    note: str | None = None
    """Said when the painter could not be told as was asked for."""
    region: int | None = None


@dataclass(frozen=True)
class Finished(Event):
    """One image, done, with everything that is needed to paint it again."""

    name = "finished"
    pictured = "picture"
    image: int
    picture: Image | None
    seed: int
    recipe: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spent(Event):
    """The last event: what the run cost. Each kind of work as (spent, what plain sampling would have spent)."""

    name = "spent"
    seconds: float
    work: Mapping[str, tuple[int, int]] = field(default_factory=dict)


KINDS: dict[str, type[Event]] = {
    kind.name: kind
    for kind in (Started, Scheduled, Thought, Preview, Verdict, Pruned, Chosen, Revised, Finished, Spent)
}


def from_json(record: Mapping[str, Any], pictures: Sequence[Image | None] = ()) -> Event:
    """The event that `to_json` wrote; with its pictures if they are given."""
    kind = KINDS.get(record.get("event", ""))
    if kind is None:
        raise ValueError(f"Unknown event {record.get('event')!r}; known are {', '.join(KINDS)}.")
    known = {f.name for f in fields(kind)}
    values = {key: _tuples(value) for key, value in record.items() if key in known}
    if kind.pictured == "picture":
        values["picture"] = pictures[0] if pictures else None
    elif kind.pictured:
        values[kind.pictured] = tuple(pictures)
    return kind(**values)


def _tuples(value: Any) -> Any:
    """JSON knows lists only; events hold tuples."""
    if isinstance(value, list):
        return tuple(_tuples(entry) for entry in value)
    return {key: _tuples(entry) for key, entry in value.items()} if isinstance(value, dict) else value


class Trace:
    """Writes events into a folder as they happen. A stopped run leaves whole lines, and pictures whole or not at all.

    Refuses a folder that already holds a trace: two runs in one file could not be told apart.
    """

    def __init__(self, folder: str | Path):
        self.check(folder)
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._lines = (self.folder / "events.jsonl").open("x", encoding="utf-8")
        self._count = 0

    @staticmethod
    def check(folder: str | Path) -> None:
        """ValueError if a trace cannot begin here."""
        if (Path(folder) / "events.jsonl").exists():
            raise ValueError(f"{folder} already holds a trace; give another folder for this one.")

    def write(self, event: Event) -> Event:
        """Keeps the event and hands it on, so that a stream can pass through."""
        files = [self._picture(event.name, place, picture) for place, picture in enumerate(event.pictures)]
        self._lines.write(json.dumps(event.to_json(files), ensure_ascii=False) + "\n")
        self._lines.flush()
        self._count += 1
        return event

    def _picture(self, name: str, place: int, picture: Image | None) -> str | None:
        if picture is None:
            return None
        file = f"{self._count:05d}-{name}-{place}.png"
        partial = self.folder / f".{file}.partial"
        try:
            picture.save(partial, format="PNG")
            os.replace(partial, self.folder / file)
        finally:
            partial.unlink(missing_ok=True)
        return file

    def close(self) -> None:
        self._lines.close()

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self.close()


def read_trace(folder: str | Path) -> Iterator[Event]:
    """The events of a trace in order, pictures included. A last line cut short by a crash is left out."""
    from PIL import Image as images

    folder = Path(folder)
    if not (folder / "events.jsonl").is_file():
        raise ValueError(f"{folder} holds no trace (no events.jsonl); give the folder that --trace named.")
    for line in (folder / "events.jsonl").read_text("utf-8").splitlines(keepends=True):
        if not line.endswith("\n"):
            return
        record = json.loads(line)
        pictures: list[Image | None] = []
        for file in record.get("files", ()):
            # Only names of files beside the trace: a trace from elsewhere must not make us open other files.
            if file is not None and Path(file).name != file:
                raise ValueError(
                    f"{folder} names the picture {file!r}, which lies outside it; this is no trace of ours."
                )
            if file is None:
                pictures.append(None)
            else:
                with images.open(folder / file) as picture:
                    pictures.append(picture.convert("RGB"))
        yield from_json(record, pictures)


def without_pictures(event: Event) -> Event:
    """The same event with its pictures dropped, for lists of events that must stay small."""
    if event.pictured is None:
        return event
    return replace(event, **{event.pictured: None if event.pictured == "picture" else ()})
