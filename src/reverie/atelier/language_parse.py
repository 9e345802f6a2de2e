"""What a prompt demands, the words for it, and the parser from English back to it.

A `Demand` is the record of GenEval (Ghosh et al. 2023, arXiv:2310.11513), extended by textures, sizes, actions,
states, a background and a style. The words stand here, beside the parser, and `language.py` speaks with the same
tables; so whatever it says (terse, plain, canonical) is understood. The parser tries readings in turn and takes the
first that uses every word, which is how "an orange flying" and "an orange flying cat" come apart.

Left out on purpose: bare plurals without a number ("cats"), and positions between clauses that are not neighbours.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from .scene import ACTIONS, BACKGROUNDS, COLOURS, RELATIONS, SIZES, STYLES, TEXTURES

COUNTS = ("zero", "one", "two", "three", "four", "five", "six")

# Everywhere below the first wording is the canonical one.
TEXTURE_WORDS = {texture: (texture,) for texture in TEXTURES[1:]} | {
    "wood": ("wooden",),
    "metal": ("metal", "metallic"),
}
SIZE_WORDS = {"small": ("small", "little"), "medium": ("medium", "medium sized"), "large": ("large", "big")}
ACTION_WORDS = dict(
    zip(ACTIONS, ("swimming", "sleeping", "singing", "running", "reading", "flying", "eating", "crying"), strict=True)
)
RELATION_WORDS = {
    "left of": ("left of", "to the left of", "on the left of"),
    "right of": ("right of", "to the right of", "on the right of"),
    "above": ("above", "over"),
    "below": ("below", "under", "beneath"),
    "inside": ("inside",),
    "on": ("on", "on top of"),
}
# "on the left is a cat, on the right a dog" demands a cat left of a dog.
SIDES = {
    "left of": ("on the left", "on the right"),
    "right of": ("on the right", "on the left"),
    "above": ("at the top", "at the bottom"),
    "below": ("at the bottom", "at the top"),
}
BACKGROUND_WORDS = {
    "night": ("at night", "by night"),
    "meadow": ("in a meadow", "on a meadow"),
    "beach": ("on the beach", "at the beach"),
    "desert": ("in the desert", "in a desert"),
    "glacier": ("on a glacier", "on the glacier"),
    "volcano": ("at a volcano", "near a volcano"),
    "park": ("in the park", "in an amusement park"),
    "gym": ("in the gym", "in a gym"),
    "waterfall": ("by a waterfall", "at a waterfall"),
    "space": ("in space", "in outer space"),
    "cave": ("in a cave", "inside a cave"),
    "seafloor": ("on the seafloor", "at the bottom of the sea"),
}
STYLE_NOUNS = {
    "watercolor": ("a watercolor", "a watercolor painting"),
    "sketch": ("a sketch", "a pencil sketch"),
    "pixel": ("pixel art",),
    "icon": ("an icon",),
    "futuristic": ("a futuristic picture", "a futuristic image"),
    "old": ("an old photo", "an old photograph"),
}
STYLE_TAILS = {
    "watercolor": ("in watercolor", "as a watercolor"),
    "sketch": ("as a sketch",),
    "pixel": ("as pixel art",),
    "icon": ("as an icon",),
    "futuristic": ("in a futuristic style",),
    "old": ("as an old photo",),
}
PLAIN_HEADS = ("a photo of", "a picture of", "draw", "there {is}")
HELD_OUT_HEADS = ("an image of", "please show me")  # never used by the training streams
OTHER_NAMES = {"lightning bolt": "lightning", "lightning bolts": "lightning", "plane": "airplane", "planes": "airplane"}


@dataclass(frozen=True)
class Clause:
    """`count` things of one kind and look. position: (relation, index of an earlier clause), as in GenEval:
    this clause stands in `relation` to that one. What is None (texture: "plain") is not demanded."""

    kind: str
    count: int = 1
    colour: str | None = None
    position: tuple[str, int] | None = None
    texture: str = "plain"
    size: str | None = None
    action: str | None = None
    state: str | None = None

    def to_record(self) -> dict[str, Any]:
        position = list(self.position) if self.position else None
        extras = {"color": self.colour, "position": position, "size": self.size, "action": self.action}
        extras |= {"state": self.state, "texture": None if self.texture == "plain" else self.texture}
        return {"class": self.kind, "count": self.count} | {key: value for key, value in extras.items() if value}

    @classmethod
    def from_record(cls, record: dict[str, Any], index: int = 0) -> Clause:
        """The clause number `index` of a demand; ValueError where a key or a name is unknown."""
        _known_keys(record, ("class", "count", "color", "position", "texture", "size", "action", "state"))
        if "class" not in record:
            raise ValueError(f"The clause {record} has no 'class': name the kind it is about.")
        position = record.get("position")
        if position and (position[0] not in RELATIONS or not 0 <= position[1] < index):
            raise ValueError(f"The position {position} is unknown: give one of {RELATIONS} and an earlier clause.")
        clause = cls(
            record["class"], record.get("count", 1), record.get("color"), tuple(position) if position else None,
            record.get("texture", "plain"), record.get("size"), record.get("action"), record.get("state"),
        )  # fmt: skip
        kind = kind_of(clause.kind)
        if not isinstance(clause.count, int) or clause.count < 1:
            raise ValueError(f"The count {clause.count!r} of {clause.kind} must be a whole number from 1 on.")
        _known_name("colour", clause.colour, COLOURS)
        _known_name("texture", clause.texture, TEXTURES)
        _known_name("size", clause.size, SIZES)
        _known_name("action", clause.action, ACTIONS)
        _known_name(f"state of {clause.kind}", clause.state, kind.states)
        return clause


@dataclass(frozen=True)
class Demand:
    """What must be in the picture, and what must not: of each excluded clause fewer than `count`."""

    include: tuple[Clause, ...] = ()
    exclude: tuple[Clause, ...] = ()
    background: str = "plain"
    style: str = "plain"

    def to_record(self) -> dict[str, Any]:
        """A JSON-ready record in GenEval's form; a plain background or style is left away."""
        record: dict[str, Any] = {"include": [clause.to_record() for clause in self.include]}
        record["exclude"] = [clause.to_record() for clause in self.exclude]
        extras = {"background": self.background, "style": self.style}
        return record | {key: value for key, value in extras.items() if value != "plain"}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> Demand:
        """The demand of a record; GenEval's `tag` and `prompt` are allowed and not read. ValueError if malformed."""
        _known_keys(record, ("include", "exclude", "background", "style", "tag", "prompt"))
        demand = cls(
            tuple(Clause.from_record(entry, index) for index, entry in enumerate(record.get("include", ()))),
            tuple(Clause.from_record(entry) for entry in record.get("exclude", ())),
            record.get("background", "plain"),
            record.get("style", "plain"),
        )
        _known_name("background", demand.background, BACKGROUNDS)
        _known_name("style", demand.style, STYLES)
        return demand


def _known_keys(record: dict[str, Any], allowed: tuple[str, ...]) -> None:
    unknown = [key for key in record if key not in allowed]
    if unknown:
        raise ValueError(f"A demand has no entry {unknown[0]!r}: use {', '.join(allowed)}.")


def _known_name(what: str, name: str | None, allowed: Iterable[str]) -> None:
    if name is not None and name not in allowed:
        raise ValueError(f"There is no {what} {name!r}: use one of {', '.join(allowed) or 'none at all'}.")


def kind_of(name: str) -> Any:
    """The registered `Kind` of that name; ValueError if there is none."""
    from .kinds import KINDS  # late: the drawing modules are not needed to import the language

    if name not in KINDS:
        raise ValueError(f"There is no kind {name!r}: use one of {', '.join(KINDS)}.")
    return KINDS[name]


def state_wordings(kind: str, state: str) -> list[tuple[str, str]]:
    """Ways to say a state, as ("before" or "after" the noun, text with {is} for is/are); the first is canonical."""
    if kind == "clock":
        return [("after", f"at {state} o'clock"), ("after", f"showing {state} o'clock")]
    if kind == "dice":
        return [("after", f"showing {state}"), ("after", f"that show{{s}} {state}")]
    if kind == "traffic light":
        if state == "off":
            return [("after", "that {is} off"), ("after", "switched off")]
        return [("after", f"showing {state}"), ("after", f"that show{{s}} {state}")]
    if kind == "flag" and state != "plain":
        return [("before", state), ("after", f"of {state}")]
    if kind == "tree":
        return [("before", state), ("after", f"in {state}")]
    if kind in ("moon", "plant") or state in ("plain", "whole", "mild"):
        return [("before", state)]
    return [("before", state), ("after", f"that {{is}} {state}")]


def action_wordings(action: str) -> list[tuple[str, str]]:
    """As `state_wordings`, for an action."""
    word = ACTION_WORDS[action]
    return [("before", word), ("after", word), ("after", f"that {{is}} {word}")]


def agree(text: str, count: int) -> str:
    """Fill the verbs of a wording: is or are, shows or show."""
    return text.format_map({"is": "is", "s": "s"} if count == 1 else {"is": "are", "s": ""})


def style_heads(style: str, split: str) -> list[str]:
    """The heads of a style for a `split` of the wordings: "train", "held_out" or "any"."""
    if style == "plain":
        train, held_out = list(PLAIN_HEADS), list(HELD_OUT_HEADS)
    else:
        train, held_out = [f"{noun} of" for noun in STYLE_NOUNS[style]], [f"{STYLE_NOUNS[style][0]} showing"]
    if split not in ("train", "held_out", "any"):
        raise ValueError(f"There is no split {split!r} of the wordings: use train, held_out or any.")
    return {"train": train, "held_out": held_out, "any": train + held_out}[split]


# ---------------------------------------------------------------------------------------------- the parser

Table = list[tuple[tuple[str, ...], Any]]  # (words of a phrase, its meaning), longest phrases first


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[^\s,.;:!?\"()\-]+|,", text.lower().replace("’", "'")))


def _table(pairs: Iterable[tuple[str, Any]]) -> Table:
    """Both numbers of every phrase, longest first: "on top of" must be tried before "on"."""
    rows = {(_words(agree(text, count)), meaning): None for text, meaning in pairs for count in (1, 2)}
    return sorted(rows, key=lambda row: -len(row[0]))


@functools.cache
def _tables() -> dict[str, Table]:
    """All phrases by their place in the sentence; after-noun phrases stand under "after <kind>"."""
    from .kinds import KINDS

    before: list[tuple[str, Any]] = [(colour, ("colour", colour)) for colour in COLOURS]
    before += [(word, ("texture", name)) for name, words in TEXTURE_WORDS.items() for word in words]
    before += [(word, ("size", name)) for name, words in SIZE_WORDS.items() for word in words]
    before += [(word, ("action", name)) for name, word in ACTION_WORDS.items()]
    tables = {}
    for kind in KINDS.values():
        sayings = [
            (side, text, ("state", state)) for state in kind.states for side, text in state_wordings(kind.name, state)
        ]
        sayings += [(side, text, ("action", action)) for action in ACTIONS for side, text in action_wordings(action)]
        before += [(text, meaning) for side, text, meaning in sayings if side == "before"]
        tables[f"after {kind.name}"] = _table((text, meaning) for side, text, meaning in sayings if side == "after")
    # `singular` tells which forms may stand without a number
    names = [(kind.name, (kind.name, True)) for kind in KINDS.values()]
    names += [(kind.plural, (kind.name, False)) for kind in KINDS.values() if kind.plural != kind.name]
    names += [(text, (name, not text.endswith("s"))) for text, name in OTHER_NAMES.items() if name in KINDS]
    numbers = [(word, count) for count, word in enumerate(COUNTS) if count] + [(word, 1) for word in ("a", "an", "the")]
    return tables | {
        "before": _table(before),
        "kind": _table(names),
        "number": _table(numbers),
        "head": _table((head, style) for style in STYLES for head in style_heads(style, "any")),
        "relation": _table((text, name) for name, texts in RELATION_WORDS.items() for text in texts),
        "background": _table((text, name) for name, texts in BACKGROUND_WORDS.items() for text in texts),
        "style": _table((text, name) for name, texts in STYLE_TAILS.items() for text in texts),
        "side": _table((first, (name, _words(second))) for name, (first, second) in SIDES.items()),
        "link": _table((text, None) for text in ("and", ", and", ",")),
        "comma": _table([(",", None)]),
        "verb": _table([("{is}", None)]),
        "nothing": _table([("nothing", None)]),
        "without": _table([("without", 1), ("without any", 1), ("without a", 1), ("without an", 1)]),
        "fewer": _table([("with fewer than", None)]),
    }


def _vocabulary() -> set[str]:
    return {word for table in _tables().values() for words, _ in table for word in words}


class _Reader:
    """Reads one sentence; every method yields the readings that start at word `i` as (meaning, next word)."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words
        self.furthest = 0  # where the best reading got stuck, for the error message

    def match(self, table: str, i: int) -> Iterator[tuple[Any, int]]:
        self.furthest = max(self.furthest, i)
        for phrase, meaning in _tables()[table]:
            if self.words[i : i + len(phrase)] == phrase:
                yield meaning, i + len(phrase)

    def maybe(self, table: str, i: int, absent: Any = None) -> Iterator[tuple[Any, int]]:
        yield from self.match(table, i)
        yield absent, i

    def number(self, i: int) -> Iterator[tuple[int | None, int]]:
        if i < len(self.words) and self.words[i].isdecimal() and int(self.words[i]) > 0:
            yield int(self.words[i]), i + 1
        yield from self.maybe("number", i)

    def clause(self, i: int) -> Iterator[tuple[Clause, int]]:
        for count, j in self.number(i):
            yield from self.noun(j, count, {})

    def noun(self, i: int, count: int | None, said: dict[str, Any]) -> Iterator[tuple[Clause, int]]:
        for (slot, name), j in self.match("before", i):
            if slot not in said:
                yield from self.noun(j, count, said | {slot: name})
        for (name, singular), j in self.match("kind", i):
            fits = said.get("state") is None or said["state"] in kind_of(name).states
            if fits and (singular or count is not None):
                yield from self.after(j, Clause(name, count or 1, **said))

    def after(self, i: int, clause: Clause) -> Iterator[tuple[Clause, int]]:
        for (slot, name), j in self.match(f"after {clause.kind}", i):
            if getattr(clause, slot) is None:
                yield from self.after(j, replace(clause, **{slot: name}))
        yield clause, i

    def chain(self, i: int, offset: int) -> Iterator[tuple[tuple[Clause, ...], int]]:
        """ "A above B left of C": in GenEval's order C, B, A, each placed by the one before; `offset` clauses stand
        before the chain."""
        for clause, j in self.clause(i):
            for relation, k in self.match("relation", j):
                for earlier, end in self.chain(k, offset):
                    yield (*earlier, replace(clause, position=(relation, offset + len(earlier) - 1))), end
            yield (clause,), j

    def body(self, i: int, offset: int = 0) -> Iterator[tuple[tuple[Clause, ...], int]]:
        for chain, j in self.chain(i, offset):
            for _, k in self.match("link", j):
                for rest, end in self.body(k, offset + len(chain)):
                    yield chain + rest, end
            yield chain, j

    def sides(self, i: int) -> Iterator[tuple[tuple[Clause, ...], int]]:
        for (relation, other), j in self.match("side", i):
            for _, k in self.maybe("verb", j):
                for clause, m in self.clause(k):
                    for _, n in self.match("link", m):
                        if self.words[n : n + len(other)] != other:
                            continue
                        for _, p in self.maybe("verb", n + len(other)):
                            for earlier, end in self.clause(p):
                                yield (earlier, replace(clause, position=(relation, 0))), end

    def tails(self, i: int, demand: Demand) -> Iterator[tuple[Demand, int]]:
        for _, j in self.maybe("comma", i):
            for slot in ("background", "style"):
                for name, k in self.match(slot, j):
                    if getattr(demand, slot) == "plain":
                        yield from self.tails(k, replace(demand, **{slot: name}))
            for count, k in self.match("without", j):
                yield from self.excluded(k, count, demand)
            for _, k in self.match("fewer", j):
                for count, m in self.number(k):
                    yield from self.excluded(m, count or 1, demand)
        yield demand, i

    def excluded(self, i: int, count: int, demand: Demand) -> Iterator[tuple[Demand, int]]:
        for (name, _), j in self.match("kind", i):
            yield from self.tails(j, replace(demand, exclude=(*demand.exclude, Clause(name, count))))

    def sentence(self) -> Iterator[Demand]:
        for front, i in self.maybe("background", 0, "plain"):
            for _, j in self.maybe("comma", i):
                for style, k in self.maybe("head", j, "plain"):
                    bodies = [((), end) for _, end in self.match("nothing", k)]
                    for include, m in (*bodies, *self.sides(k), *self.body(k)):
                        for demand, end in self.tails(m, Demand(include, (), front, style)):
                            self.furthest = max(self.furthest, end)
                            if end == len(self.words):
                                yield demand


def parse(text: str) -> Demand:
    """The demand that a prompt makes; ValueError with one sentence that names the word not understood."""
    words = _words(text)
    while words and words[-1] == ",":
        words = words[:-1]
    if not words:
        raise ValueError("The prompt is empty: name at least one thing, such as 'a red cat'.")
    vocabulary = _vocabulary()
    for word in words:
        if word not in vocabulary and not word.isdecimal():
            raise ValueError(f"I do not know the word {word!r} in {text!r}: name things that the Atelier can draw.")
    reader = _Reader(words)
    for demand in reader.sentence():
        return demand
    stuck = words[reader.furthest] if reader.furthest < len(words) else "the end"
    raise ValueError(f"I cannot make sense of {text!r} at {stuck!r}: say it like 'two red cats left of a green box'.")
