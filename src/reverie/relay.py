"""The relay through words: pictures for painters that only read.

Eyes describe each picture, and what is painted is a text: the description changed as the instruction says (an edit),
or what the examples lead up to (a context; such a relay is the baseline for ThinkDiff, arXiv 2502.10458). A model that
writes writes this text. Where none does, or it was never taught to, the words are joined by rule,
and the event says so. Everything is written at temperature 0, so it depends on the pictures and the prompt alone.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Thought
from reverie.inputs import NOTHING, Inputs, Picture
from reverie.thinkers import as_written, parse

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Generator as Canvases
    from reverie.canvas import Work
    from reverie.vlms import VLM, Message

LOOK_TOKENS, WRITE_TOKENS = 128, 256
JOINED = "no model here writes such an answer, so the words are joined by rule"


@dataclass(frozen=True)
class Words:
    """How a model is asked: {seen} is what a picture shows, {prompt} what the user typed; the answer's last line begins
    with 'Picture:'. None where the model was never taught to answer."""

    look: str
    edit: str | None = None
    context: str | None = None
    sees: bool = False
    """Whether the picture that is edited stands beside the request."""


WORDS = {
    # What the models of the Atelier were trained on: a change is thought about like any other prompt.
    "atelier": Words("Describe this picture.", "Think about this picture: {seen}. {prompt}"),
    "instruct": Words(
        "Describe this picture in one or two plain sentences: every object, how many there are of it, its colours and "
        "its place, and the background.",
        "A picture shows this: {seen}\nA user wants it changed: {prompt}\n\n"
        "Think first, in a few sentences: what does the change mean, which facts does it rely on, what looks different "
        "afterwards, and what stays as it is?\n"
        "Then write one last line that starts with 'Picture:' and describes the whole picture after the change in one "
        "plain sentence, with everything that stays.",
        "Some pictures and words belong together:\n{seen}\nNow a picture is wanted for: {prompt}\n\n"
        "Think first, in a few sentences: what do the pictures have in common that the words do not say, and how does "
        "each word change its picture?\n"
        "Then write one last line that starts with 'Picture:' and describes the wanted picture in one plain sentence.",
        sees=True,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Told:
    """What a painter is told in place of pictures: their descriptions, a thought, and the text to paint from."""

    seen: tuple[str, ...]
    thought: str
    prompt: str
    note: str | None = None

    @property
    def whole(self) -> str:
        """All that was said, for people."""
        return "\n".join([*(f"Seen: {text}" for text in self.seen), *([self.thought] if self.thought else [])])

    def to_json(self) -> dict[str, Any]:
        record = {"seen": list(self.seen), "thought": self.thought, "prompt": self.prompt}
        return record | ({"note": self.note} if self.note else {})

    @classmethod
    def from_json(cls, record: Any) -> Told:
        if not isinstance(record, dict) or not isinstance(record.get("prompt"), str):
            raise ValueError("the recipe is damaged: what stands for its pictures is no text.")
        seen = tuple(str(text) for text in record.get("seen", ()))
        return cls(seen, str(record.get("thought", "")), record["prompt"], record.get("note"))


@dataclass
class Relay:
    """Who looks, who writes, and in which words."""

    name: str
    """Of the eyes."""
    look: Callable[[Sequence[Image]], list[str]]
    """A description of each picture."""
    writer: VLM | None
    words: Words
    """In which the writer is asked."""
    interleaved: bool
    """Whether the writer reads pictures between words in one turn; then nobody describes a context first."""
    fits: Callable[[str], None]
    """Raises ValueError for a request that is too long for the writer."""
    paints: Callable[[str], None]
    """Raises ValueError for a text that the painter cannot paint from."""
    work: Work

    def tell(
        self, prompts: Sequence[str], inputs: Sequence[Inputs], known: Mapping[int, Told], batch: int
    ) -> Generator[Event, None, list[Told | None]]:
        """For each image what stands for its pictures, None where there are none; each different order is told once."""
        firsts: dict[tuple[str, Inputs], int] = {}
        for i, order in enumerate(zip(prompts, inputs, strict=True)):
            if order[1]:
                firsts.setdefault(order, i)
        told = {order: known[i] for order, i in firsts.items() if i in known}
        new = [order for order in firsts if order not in told]
        seen = self._look([one for _, given in new if not self._whole(given) for one in given.pictures], batch)
        asked = {order: self._asked(*order, seen) for order in new}
        written: dict[tuple[str, Inputs], str] = {}
        if len(new) == 1 and (request := asked[new[0]]) is not None and self.writer is not None:
            place = firsts[new[0]]
            for text in self._descriptions(new[0][1], seen):
                yield Thought(place, f"Seen: {text}\n")
            answers: list[str] = []
            writing = partial(self.writer.write, request, WRITE_TOKENS)
            for piece in as_written(lambda on_text: answers.append(writing(on_text=on_text))):
                yield Thought(place, piece)
            written[new[0]] = answers[0]
        else:
            for order, answer in self._write({o: r for o, r in asked.items() if r is not None}, batch).items():
                written[order] = answer
        for order in new:
            told[order] = self._read(*order, self._descriptions(order[1], seen), written.get(order))
        for order, place in firsts.items():
            yield Thought(place, whole=told[order].whole, prompt=told[order].prompt, note=told[order].note)
        return [told.get(order) for order in zip(prompts, inputs, strict=True)]

    def _whole(self, given: Inputs) -> bool:
        """Whether the writer reads the pictures themselves."""
        return self.interleaved and bool(given.context)

    def _look(self, pictures: Sequence[Picture], batch: int) -> dict[str, str]:
        different = list({one.sha256: one for one in pictures}.values())
        seen: dict[str, str] = {}
        for first in range(0, len(different), batch):
            group = different[first : first + batch]
            said = self.look([one.image for one in group])
            seen |= {one.sha256: " ".join(text.split()) for one, text in zip(group, said, strict=True)}
        return seen

    def _descriptions(self, given: Inputs, seen: Mapping[str, str]) -> tuple[str, ...]:
        return () if self._whole(given) else tuple(seen[one.sha256] for one in given.pictures)

    def _asked(self, prompt: str, given: Inputs, seen: Mapping[str, str]) -> list[Message] | None:
        """What the writer is asked; None if there is none, it was not taught to answer, or that is too long for it."""
        from reverie.vlms import Message

        if self.writer is None:
            return None
        if self._whole(given):
            return interleaved(given.parts, prompt)
        request = self.words.context if given.context else self.words.edit
        if request is None:
            return None
        shown = "\n".join(lines(given, seen)) if given.context else seen[given.pictures[0].sha256].rstrip(". ")
        text = request.replace("{seen}", shown).replace("{prompt}", " ".join(prompt.split()))
        try:
            self.fits(text)
        except ValueError:
            return None
        beside = (given.picture.image,) if self.words.sees and given.picture is not None else ()
        return [Message("user", text, beside)]

    def _write(self, requests: Mapping[Any, list[Message]], batch: int) -> dict[Any, str]:
        answers: dict[Any, str] = {}
        orders = list(requests)
        for first in range(0, len(orders), batch):
            group = orders[first : first + batch]
            assert self.writer is not None
            answers |= zip(group, self.writer.write_batch([requests[o] for o in group], WRITE_TOKENS), strict=True)
        return answers

    def _read(self, prompt: str, given: Inputs, seen: tuple[str, ...], answer: str | None) -> Told:
        joined = joined_by_rule(prompt, given, seen)
        if answer is None:
            told = Told(seen, "", joined, JOINED)
        elif self._whole(given):
            said = " ".join(answer.split())
            told = Told(seen, "", said) if re.search(r"\w", said) else Told(seen, "", prompt, "the answer is empty")
        else:
            read = parse("instruct", answer, joined)
            told = Told(seen, read.thought, read.prompt, read.note and f"{read.note.partition(',')[0]}; {JOINED}")
        try:
            self.paints(told.prompt)
        except ValueError as error:
            told = Told(seen, told.thought, prompt, f"the words for the pictures cannot be painted: {error}")
        return told


def interleaved(parts: Sequence[Any], prompt: str) -> list[Message]:
    """One turn with pictures between the words: CoBSAT's question where each picture has its word, else as given."""
    from reverie.models.thinkdiff import in_context, mark_free, pairs
    from reverie.vlms import IMAGE, Message

    found = pairs(parts)
    if found is not None:
        return in_context(found, prompt)
    pictures = tuple(part for part in parts if not isinstance(part, str))
    lines = [mark_free(part) if isinstance(part, str) else IMAGE for part in parts]
    request = (
        "A picture is wanted that follows from all of the above and from this: "
        f"{mark_free(prompt)}\nAnswer with nothing but a description of it for a text-to-image model."
    )
    return [Message("user", "\n".join([*lines, request]), pictures)]


def lines(given: Inputs, seen: Mapping[str, str]) -> list[str]:
    """A context in words: what each picture shows, and the word that goes with it."""

    from reverie.models.thinkdiff import pairs

    def shown(picture: Picture) -> str:
        return f"- a picture of {seen[picture.sha256].rstrip('. ')}"

    found = pairs(given.context)
    if found is not None:
        return [f"{shown(picture)} goes with: {word}" for picture, word in found]
    return [f"- {part}" if isinstance(part, str) else shown(part) for part in given.context]


def joined_by_rule(prompt: str, given: Inputs, seen: Sequence[str]) -> str:
    """The text to paint from where nobody writes one. An edit: the description, then the instruction. A context whose
    pictures have words: the last description, less what not all of them say, the prompt in the place of its word. Any
    other: all descriptions and texts in their order, then the prompt."""
    from reverie.models.thinkdiff import pairs

    if given.picture is not None:
        return f"{seen[0].rstrip('. ')}. {prompt}" if seen else prompt
    found = pairs(given.context)
    if found is not None and len(found) == len(seen) > 1:
        return analogy(seen, [word for _, word in found], prompt)
    said = iter(seen)
    texts = [part if isinstance(part, str) else next(said, "") for part in given.context]
    return ", ".join([*(text.rstrip(". ") for text in texts if text), prompt])


def analogy(descriptions: Sequence[str], words: Sequence[str], prompt: str) -> str:
    """ "a red car" of "car" and "a red hat" of "hat" make of "box" "a red box"."""
    shared = set.intersection(*({w.casefold() for w in re.findall(r"\w+", text)} for text in descriptions))
    own = words[-1].split()[0].casefold()
    kept, placed = [], False
    for word in re.findall(r"\w+", descriptions[-1]):
        # "flying" is the form that "fly" takes in a description
        if not placed and word.casefold().startswith(own):
            kept.append(prompt)
            placed = True
        elif word.casefold() in shared:
            kept.append(word)
    return " ".join(kept if placed else [prompt, *kept])


def given_to(
    generator: Canvases, relay: Relay | None, prompts: Sequence[str], inputs: Sequence[Inputs]
) -> tuple[Inputs, ...]:
    """What stands beside each prompt. ValueError, where no relay puts it into words, for a generator that is given what
    it does not take, or not given what it needs."""
    given = tuple(inputs) or (NOTHING,) * len(prompts)
    if len(given) != len(prompts):
        raise ValueError(f"Got inputs for {len(given)} of {len(prompts)} prompts; give them for each, or none.")
    if relay is not None:
        return given
    edits, reads = getattr(generator, "edits", False), getattr(generator, "takes_context", False)
    if edits and not getattr(generator, "paints", False) and not all(one.picture for one in given):
        raise ValueError("this model edits pictures and paints none from words alone; give it a picture.")
    if any(one.picture for one in given) and not edits:
        raise ValueError("this model does not edit pictures; name a model with eyes that puts them into words.")
    if any(one.context for one in given) and not reads:
        raise ValueError(
            "this model reads no pictures in its prompt; name a model with eyes that puts them into words."
        )
    return given
