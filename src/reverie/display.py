"""What a person sees of a run: thoughts as they are written, previews, a progress bar. Everything goes to stderr.

On a terminal the picture is redrawn in place, with half-block characters where it knows 24-bit colours; elsewhere (a
file, a pipe) there are a few plain lines. Text of models is shown without control characters, which could otherwise
steer the terminal.
"""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

from reverie.events import Chosen, Event, Preview, Pruned, Revised, Spent, Started, Thought, Verdict

if TYPE_CHECKING:
    from PIL.Image import Image
    from rich.console import RenderableType
    from rich.text import Text

CELLS = 32
"""Side of a preview in half-blocks: so many columns, half as many lines."""
JUDGED = 4
"""So many of the latest judged pictures are shown side by side."""


def printable(text: str) -> str:
    """The text without control characters other than line breaks."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "\ufffd" for letter in text)


def half_blocks(picture: Image, cells: int = CELLS) -> Text:
    """A picture as text: each character shows two pixels, one above the other."""
    from PIL.Image import Resampling
    from rich.style import Style
    from rich.text import Text

    pixels = picture.convert("RGB").resize((cells, cells), Resampling.BOX).load()
    assert pixels is not None
    text = Text(no_wrap=True)
    for y in range(0, cells, 2):
        for x in range(cells):
            above, below = ("#{:02x}{:02x}{:02x}".format(*pixels[x, row]) for row in (y, y + 1))  # type: ignore[misc]
            text.append("▀", Style(color=above, bgcolor=below))
        text.append("\n")
    return text


class Display:
    """A context manager; `show` takes every event of a run."""

    def __init__(self, quiet: bool = False):
        self.live: Any = None
        self.quiet, self.pictures = quiet, False
        """`pictures`: whether previews can be seen here."""
        self.status, self.thought, self.prompt, self.note = "", "", "", ""
        self.complete = False  # whether the thought is told to its end, so that the next fragment begins another
        self.judged = ""
        self.told: set[str] = set()
        """Notes of judges that were shown already: one is enough for all candidates."""
        self.progress = (0, 0)
        self.previews: tuple[Image, ...] = ()
        if not quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            self.pictures = console.color_system == "truecolor" and console.width >= CELLS
            self.live = Live(console=console, refresh_per_second=12, get_renderable=self._drawn, transient=False)

    def __enter__(self) -> Display:
        if self.live:
            self.live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self.live:
            self.status = ""
            self.live.__exit__(kind, error, where)

    def say(self, status: str) -> None:
        """What is going on, in a few words."""
        self.status = status
        self._line(f"{status} ...")

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self.status = "painting" if event.plan.get("think") == "never" else "thinking"
        elif isinstance(event, Thought):
            self._think(event)
        elif isinstance(event, Verdict | Revised) and event.region is not None:
            self._judge_region(event)
        elif isinstance(event, Preview):
            self.status, self.progress = "painting", (event.step, event.steps)
            self.previews = tuple(picture for picture in event.images if picture is not None) or self.previews
        elif isinstance(event, Verdict | Pruned | Chosen | Revised):
            self._judge(event)
        elif isinstance(event, Spent):
            self.status = ""
            self._line(f"painted in {event.seconds:.1f} s")

    def _judge(self, event: Verdict | Pruned | Chosen | Revised) -> None:
        """Choices and corrections get a line each; of single verdicts only what could not be read, once."""
        note = printable(event.note or "") if not isinstance(event, Pruned) else ""
        said = ""
        if isinstance(event, Verdict) and event.picture is not None:
            self.previews = (*self.previews, event.picture)[-JUDGED:]
        if isinstance(event, Verdict) and event.question == "reflection":
            aligned = bool(event.scores.get("aligned"))
            said = f"image {event.image + 1}: " + ("as asked for" if aligned else f"not yet: {event.reason or ''}")
        elif isinstance(event, Pruned):
            said = f"given up at step {event.step}: {len(event.images)} candidates"
        elif isinstance(event, Chosen):
            said = f"image {event.image + 1}: candidate {event.candidate + 1}, chosen from {event.left} that were left"
            said = f"image {event.image + 1}: candidate {event.candidate + 1}" if event.left == 0 else said
        elif isinstance(event, Revised):
            said = f"image {event.image + 1}: painted again from: {event.prompt}"
        if said:
            self.judged = printable(said)
            self._line(f"judge: {self.judged}")
        if note and note not in self.told:
            self.told.add(note)
            self.note = note
            self._line(f"note: {note}")

    def _think(self, event: Thought) -> None:
        self.thought = ("" if self.complete else self.thought) + printable(event.fragment)
        self.complete = event.whole is not None
        if event.whole is None:
            return
        self.thought, self.prompt, self.note = printable(event.whole), printable(event.prompt or ""), event.note or ""
        # A VLM's answer is a thought without a prompt, and a vision tower says nothing.
        for name, said in (("thought", self.thought), ("picture", self.prompt), ("note", self.note)):
            if said:
                self._line(f"{name}: {said}")

    def _judge_region(self, event: Verdict | Revised) -> None:
        """A critique of a region while it is painted, and what it is painted from again."""
        if isinstance(event, Revised):
            self.prompt = printable(event.prompt)
            self._line(f"again: {self.prompt}")
            return
        scores = ", ".join(f"{name} {value:g}" for name, value in event.scores.items())
        told = {True: ", accepted", False: ", rejected", None: ""}[event.accepted]
        self.note = printable(f"{event.judge}: {scores}{told}")
        self._line(self.note)

    def _line(self, text: str) -> None:
        if not self.quiet and self.live is None:
            print(" ".join(text.split()), file=sys.stderr, flush=True)

    def _drawn(self) -> RenderableType:
        from rich.columns import Columns
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        parts: list[RenderableType] = []
        if self.thought:
            parts.append(Text(self.thought, style="italic dim"))
        if self.prompt:
            parts.append(Text.assemble(("picture: ", "bold"), self.prompt))
        if self.judged:
            parts.append(Text.assemble(("judge: ", "bold"), self.judged))
        if self.note:
            parts.append(Text(self.note, style="yellow"))
        if self.pictures and self.previews:
            fitting = max(1, self.live.console.width // (CELLS + 1))
            parts.append(Columns([half_blocks(picture) for picture in self.previews[:fitting]], padding=(0, 1)))
        if self.status:
            row = Table.grid(padding=(0, 1))
            done, steps = self.progress
            row.add_row(Text(self.status), ProgressBar(steps, done, width=40) if steps else "")
            parts.append(row)
        return Group(*parts)
