"""Thinkers: how a model is asked to reason about a prompt before it paints, and how its answer is read.

A thinker is a wording (data) and a parser; the model behind it is any VLM. Which wording suits a model is said by its
registry entry or by `"reverie": {"thinker": ...}` in its config.json. After Think-then-Generate (arXiv 2601.10332):
think about what should be seen, then rewrite the prompt so that it says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from queue import SimpleQueue
from threading import Event, Thread
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Work
    from reverie.vlms import VLM, Message


@dataclass(frozen=True)
class Wording:
    """The request, with {prompt} in it; the word that announces the rewritten prompt in the answer; how to ask what a
    picture shows."""

    request: str
    marker: str = "Picture:"
    look: str = "Describe this picture."
    enrich: str | None = None
    """How to ask for a description that follows the prompt (T2I-R1, arXiv 2505.00703); None asks as usual."""
    edit: str | None = None
    """How to ask about a change of a picture that stands beside the request; None asks as usual."""
    to_end: bool = False
    """Whether the first marker counts, wherever it stands, and everything behind it is the prompt (as in T2G); else
    the last marker that begins a line, and one line."""


WORDINGS = {
    # What the models of the Atelier were trained on.
    "atelier": Wording("Think about this picture: {prompt}"),
    # For chat models that follow instructions, such as the public Janus-Pro.
    "instruct": Wording(
        "A user wants a picture and asked for:\n{prompt}\n\n"
        "Think first, in a few sentences: what does the request really mean, which facts does it rely on, and which "
        "objects, how many of each, in which colours, places and light should be seen? Name every object by its plain "
        "name, even where the request only hints at it.\n"
        "Then write one last line that starts with 'Picture:' and describes exactly that picture in one plain "
        "sentence. Keep what the user said; add only what follows from your thought.",
        enrich="A user wants this picture: {prompt}\nSay in at most 50 words what is to be seen in it: every object "
        "with the attributes that were asked for, and how the objects stand to each other. Add nothing that was not "
        "asked for. Write only this description.",
    ),
    # For text encoders that write, such as that of Qwen-Image: what arXiv 2601.10332 asks for, in our words.
    "t2g": Wording(
        "You improve prompts for an image model. Think step by step about what the user means: which objects or which "
        "scene it is, and how they look in the end (subject, shape, colour, state). If you are sure what is meant, "
        "call it by its name. Put technical ideas as things that can be seen, and stay with what the user wants.\n"
        "First explain. Then write 'Revised Prompt:' and, on the next line, the new prompt.\n\nPrompt:\n{prompt}",
        marker="Revised Prompt:",
        edit="You improve instructions for a model that edits pictures. Look at the picture and think step by step "
        "about what the user wants changed: which thing is meant, which facts decide how it looks afterwards, and what "
        "stays as it is. Put it as things that can be seen, and stay with what the user wants.\n"
        "First explain. Then write 'Revised Prompt:' and, on the next line, the new instruction.\n\n"
        "Instruction:\n{prompt}",
        to_end=True,
    ),
}


@dataclass(frozen=True)
class Answer:
    """A thought, the prompt to paint from, and a note if the answer had no usable prompt."""

    thought: str
    prompt: str
    note: str | None = None


def request(wording: str, prompt: str, keep: bool = False, edit: bool = False) -> str:
    """What the model is asked; `wording` names an entry of WORDINGS. keep: the prompt itself will be kept. edit: it
    changes a picture that the model sees."""
    if wording not in WORDINGS:
        raise ValueError(f"Unknown thinker {wording!r}; known are {', '.join(WORDINGS)}.")
    words = WORDINGS[wording]
    return ((edit and words.edit) or (keep and words.enrich) or words.request).replace(
        "{prompt}", " ".join(prompt.split())
    )


def parse(wording: str, answer: str, prompt: str) -> Answer:
    """Reads '{thought}\\nPicture: {rewritten prompt}'. Without a usable last part the prompt stays as it was typed."""
    marker = WORDINGS[wording].marker
    if WORDINGS[wording].to_end:
        return _parse_to_end(marker, answer, prompt)
    parts = re.split(rf"^[\s*#>-]*{re.escape(marker)}[\s*]*", answer, flags=re.MULTILINE | re.IGNORECASE)
    thought = parts[0].strip()
    if len(parts) == 1:
        return Answer(thought, prompt, f"the answer has no line '{marker}', so the prompt is painted as it was typed")
    # The last one counts: a model that corrects itself says the better picture later.
    lines = [line.strip().strip("\"'`*“”").strip() for line in parts[-1].splitlines()]
    rewritten = next((line for line in lines if line), "")
    if not re.search(r"\w", rewritten):
        return Answer(thought, prompt, f"nothing stands after '{marker}', so the prompt is painted as it was typed")
    return Answer(thought, rewritten)


def enriched(wording: str, answer: str, prompt: str) -> Answer:
    """The prompt with the description after it, as T2I-R1 paints from both."""
    start = prompt.rstrip(". ") or prompt
    if WORDINGS[wording].enrich is None:
        read = parse(wording, answer, prompt)
        return read if read.note else replace(read, prompt=f"{start}. {read.prompt}")
    description = " ".join(answer.split())
    if not re.search(r"\w", description):
        return Answer("", prompt, "the answer is empty, so the prompt is painted as it was typed")
    return Answer(description, f"{start}. {description}")


def _parse_to_end(marker: str, answer: str, prompt: str) -> Answer:
    """Reads '{thought}{marker}\\n{rewritten prompt}', in think tags or without, the marker plain or bold."""
    thought, found, rest = re.sub(r"</?think>", "", answer).partition(marker)
    thought, rewritten = thought.rstrip("*# \n").strip(), rest.strip("*").strip()
    if not found:
        return Answer(thought, prompt, f"the answer has no '{marker}', so the prompt is painted as it was typed")
    if not re.search(r"\w", rewritten):
        return Answer(thought, prompt, f"nothing stands after '{marker}', so the prompt is painted as it was typed")
    return Answer(thought, rewritten)


@dataclass
class Thinker:
    """A model that reasons about prompts. Thoughts are the likeliest ones, so each depends on its prompt alone."""

    vlm: VLM
    wording: str
    check: Callable[[str], None]
    """Raises ValueError for a prompt that cannot be painted; then the prompt stays as it was typed."""
    work: Work
    """The account on which the model writes what it spends."""
    dialogue: str = ""
    """How it is asked while it paints (see dialogue.yaml), where not in the wording of that name."""

    def think(
        self, prompt: str, tokens: int, keep: bool = False, pictures: Sequence[Image] = ()
    ) -> Generator[str, None, Answer]:
        """Yields the thought as it is written, and returns the answer. keep: it follows the prompt (see `enriched`).
        pictures: those that the prompt is about, for a model that sees them."""
        answers: list[str] = []

        def write(on_text: Callable[[str], None]) -> None:
            # What is told leaves out a last letter that is not complete; what counts is the answer.
            answers.append(self.vlm.write(self._asked(prompt, keep, pictures), tokens, on_text=on_text))

        yield from as_written(write)
        return self._read(answers[0], prompt, keep)

    def think_batch(
        self, prompts: Sequence[str], tokens: int, keep: bool = False, pictures: Sequence[Sequence[Image]] = ()
    ) -> list[Answer]:
        """What `think` returns for each prompt, all at once."""
        beside = pictures or [()] * len(prompts)
        asked = [self._asked(prompt, keep, seen) for prompt, seen in zip(prompts, beside, strict=True)]
        written = self.vlm.write_batch(asked, tokens)
        return [self._read(text, prompt, keep) for text, prompt in zip(written, prompts, strict=True)]

    def _asked(self, prompt: str, keep: bool, pictures: Sequence[Image]) -> list[Message]:
        from reverie.vlms import IMAGE, Message

        asked = request(self.wording, prompt, keep, bool(pictures))
        return [Message("user", asked.replace(IMAGE, "") if pictures else asked, tuple(pictures))]

    def _read(self, written: str, prompt: str, keep: bool) -> Answer:
        answer = (enriched if keep else parse)(self.wording, written, prompt)
        try:
            self.check(answer.prompt)
        except ValueError as error:
            return replace(answer, prompt=prompt, note=f"the rewritten prompt cannot be painted: {error}")
        return answer


def as_written(write: Callable[..., object]) -> Iterator[str]:
    """The pieces of text that `write(on_text=...)` reports, while it is still writing, in a thread of its own.

    Whoever stops listening stops the writing at its next piece.
    """
    pieces: SimpleQueue[str | None] = SimpleQueue()
    unheard = Event()
    failure: list[BaseException] = []

    def tell(piece: str) -> None:
        if unheard.is_set():
            raise _Unheard
        pieces.put(piece)

    def work() -> None:
        try:
            write(on_text=tell)
        except _Unheard:
            pass
        except BaseException as error:  # handed over: it is raised again where the pieces are read
            failure.append(error)
        finally:
            pieces.put(None)

    thread = Thread(target=work, name="thinker", daemon=True)
    thread.start()
    try:
        while (piece := pieces.get()) is not None:
            yield piece
    finally:
        unheard.set()
        thread.join(timeout=5)  # a thread inside torch must not be there when the interpreter shuts down
    if failure:
        raise failure[0]


class _Unheard(Exception):
    """Ends the writing when nobody listens any more."""
