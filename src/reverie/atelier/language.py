"""The grammar of the Atelier: what a scene contains, said in many ways and read back.

`demand_of` turns a drawn scene into a `Demand`, `say` and `canonical` turn a demand into English, `describe` tells a
whole scene with every thing's place, and `parse` (from `language_parse.py`, where the tables of words stand) goes
back: parse(say(d)) == d and parse(canonical(d)) == d. The `held_out_*` rules say which compositions and wordings only
benchmarks may use.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

from .language_parse import (
    BACKGROUND_WORDS,
    COUNTS,
    RELATION_WORDS,
    SIDES,
    SIZE_WORDS,
    STYLE_NOUNS,
    STYLE_TAILS,
    TEXTURE_WORDS,
    Clause,
    Demand,
    action_wordings,
    agree,
    kind_of,
    parse,
    state_wordings,
    style_heads,
)
from .scene import Scene, Thing

__all__ = [
    "Clause", "Demand", "canonical", "demand_of", "describe", "held_out_colour", "held_out_count", "held_out_pair",
    "parse", "say",
]  # fmt: skip

Richness = Literal["terse", "plain", "rich"]
Split = Literal["train", "held_out", "any"]
HELD_OUT_SHARE = 10  # one composition in ten


# ------------------------------------------------------------------------------------- from scenes to demands


def demand_of(scene: Scene, relations: bool = True, sizes: bool = False) -> Demand:
    """What a drawn scene contains, everything that is named counted.

    Identical things become one clause, in order of first appearance. Only two single things get a position: the
    second relative to the first, along the axis on which their centres lie further apart (none if they coincide).
    """
    counts: dict[Clause, int] = {}
    for thing in scene.things:
        clause = _clause_of(thing, sizes)
        counts[clause] = counts.get(clause, 0) + 1
    include = [_replaced(clause, count) for clause, count in counts.items()]
    if relations and len(include) == 2 and len(scene.things) == 2:
        relation = relation_of(scene.things[1], scene.things[0])
        include[1] = _replaced(include[1], 1, (relation, 0) if relation else None)
    return Demand(tuple(include), (), scene.background, scene.style)


def relation_of(thing: Thing, other: Thing) -> str | None:
    """The relation in which `thing` stands to `other`, by centres; None if these coincide."""
    right, down = thing.x - other.x, thing.y - other.y
    if right == down == 0:
        return None
    if abs(right) >= abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


def _clause_of(thing: Thing, sizes: bool) -> Clause:
    size = thing.size if sizes else None
    return Clause(thing.kind, 1, thing.colour, None, thing.texture, size, thing.action, thing.state)


def _replaced(clause: Clause, count: int, position: tuple[str, int] | None = None) -> Clause:
    return Clause(clause.kind, count, clause.colour, position, clause.texture, clause.size, clause.action, clause.state)


# ---------------------------------------------------------------------------------------- from demands to words


def say(demand: Demand, rng: random.Random, richness: Richness = "plain", split: Split = "any") -> str:
    """One of many wordings of a demand, chosen by `rng`.

    "terse" names the things and little else, "plain" adds heads ("a photo of") and turns of phrase, "rich" makes two
    or more sentences, which `parse` does not read. `split` keeps to the training wordings or to the held-out ones
    (heads such as "an image of"). ValueError where the grammar has no words: a position that is not relative to the
    clause just before, or an unknown name.
    """
    heads = style_heads(demand.style, split)
    if richness == "rich":
        return _say_rich(demand, rng, split)
    if richness not in ("terse", "plain"):
        raise ValueError(f"There is no richness {richness!r}: use terse, plain or rich.")
    choose = rng if richness == "plain" else _Mostly(rng)
    head, tails = rng.choice(heads), []
    if split != "held_out" and demand.style == "plain" and (richness == "terse" or rng.random() < 0.4):
        head = ""
    elif split != "held_out" and demand.style != "plain" and rng.random() < 0.3:
        head, tails = "", [rng.choice(STYLE_TAILS[demand.style])]
    first_count = _said_first(demand.include)
    body = _body(demand.include, choose)
    if not head and richness == "plain" and _is_pair(demand) and rng.random() < 0.3:
        body = _sides(demand.include, rng)
    front = ""
    if demand.background != "plain":
        place = _pick(BACKGROUND_WORDS[demand.background], choose)
        if richness == "plain" and rng.random() < 0.25:
            front = f"{place}, "
        else:
            tails.insert(rng.randint(0, len(tails)), place)
    text = front + " ".join([*([agree(head, first_count)] if head else []), body, *tails, *_excluded(demand)])
    return _capital(text) if front else text


def canonical(demand: Demand) -> str:
    """The one shortest wording of a demand, for rewritten prompts: "three blue cats at night". Errors as in `say`."""
    head = [] if demand.style == "plain" else [f"{STYLE_NOUNS[demand.style][0]} of"]
    tail = [] if demand.background == "plain" else [BACKGROUND_WORDS[demand.background][0]]
    return " ".join([*head, _body(demand.include, None), *tail, *_excluded(demand)])


class _Mostly(random.Random):
    """Chooses the canonical wording three times in four, so that terse prompts stay short."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(rng.getrandbits(64))

    def choice(self, seq: Any) -> Any:
        return seq[0] if self.random() < 0.75 else super().choice(seq)


def _pick(options: Sequence[Any], rng: random.Random | None) -> Any:
    return options[0] if rng is None else rng.choice(options)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _article(word: str) -> str:
    """a or an; Ukraine is the one name here that begins with a vowel's letter and not with its sound."""
    return "an" if word[0].lower() in "aeiou" and not word.startswith("Ukraine") else "a"


def _counted(count: int, words: str) -> str:
    if count == 1:
        return f"{_article(words)} {words}"
    return f"{COUNTS[count] if count < len(COUNTS) else count} {words}"


def _noun_phrase(clause: Clause, rng: random.Random | None) -> str:
    """ "two small rotten bananas": article or number, adjectives, noun, and what follows the noun."""
    kind = kind_of(clause.kind)
    before: list[str] = []
    after: list[str] = []
    if clause.size:
        before.append(_pick(SIZE_WORDS[clause.size], rng))
    for name, wordings in ((clause.state, lambda s: state_wordings(kind.name, s)), (clause.action, action_wordings)):
        if name:
            side, text = _pick(wordings(name), rng)
            (before if side == "before" else after).append(agree(text, clause.count))
    if clause.colour:
        before.append(clause.colour)
    if clause.texture != "plain":
        before.append(_pick(TEXTURE_WORDS[clause.texture], rng))
    noun = kind.name if clause.count == 1 else kind.plural
    return " ".join([_counted(clause.count, " ".join([*before, noun])), *after])


def _relation(clause: Clause) -> str:
    """Of a clause that is placed."""
    assert clause.position
    return clause.position[0]


def _chains(include: Sequence[Clause]) -> list[list[Clause]]:
    """Clauses in runs in which each is placed relative to the one before it."""
    chains: list[list[Clause]] = []
    for index, clause in enumerate(include):
        if clause.position is None:
            chains.append([clause])
        elif clause.position[1] == index - 1 >= 0:
            chains[-1].append(clause)
        else:
            raise ValueError(f"Clause {index} must be placed relative to the clause just before it, to be sayable.")
    return chains


def _said_first(include: Sequence[Clause]) -> int:
    """The count of the clause that is spoken first: the last of the first chain."""
    return _chains(include)[0][-1].count if include else 1


def _body(include: Sequence[Clause], rng: random.Random | None) -> str:
    if not include:
        return "nothing"
    parts = []
    for chain in _chains(include):
        text = _noun_phrase(chain[0], rng)
        for clause in chain[1:]:  # GenEval's order: what is placed comes after what it is placed by, but is said first
            text = f"{_noun_phrase(clause, rng)} {_pick(RELATION_WORDS[_relation(clause)], rng)} {text}"
        parts.append(text)
    return _listed(parts)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _is_pair(demand: Demand) -> bool:
    """Whether "on the left is a cat, on the right a dog" can say it: two clauses, side by side or one above."""
    return (
        len(demand.include) == 2 and demand.include[1].position is not None and (demand.include[1].position[0] in SIDES)
    )


def _sides(include: Sequence[Clause], rng: random.Random) -> str:
    other, clause = include
    here, there = SIDES[_relation(clause)]
    verb = "is" if clause.count == 1 else "are"
    link = rng.choice((",", " and"))
    return f"{here} {verb} {_noun_phrase(clause, rng)}{link} {there} {_noun_phrase(other, rng)}"


def _excluded(demand: Demand) -> list[str]:
    texts = []
    for clause in demand.exclude:
        if clause != Clause(clause.kind, clause.count):
            raise ValueError(f"Only kind and count of the excluded {clause.kind} can be said: leave the rest away.")
        plural = kind_of(clause.kind).plural
        texts.append(f"without {plural}" if clause.count == 1 else f"with fewer than {_counted(clause.count, plural)}")
    return texts


# ------------------------------------------------------------------------------------------ whole sentences


def _opening(background: str, style: str, rng: random.Random) -> str:
    """A first sentence on style and background, or nothing if both are plain."""
    noun = rng.choice(STYLE_NOUNS[style]) if style != "plain" else ""
    place = rng.choice(BACKGROUND_WORDS[background]) if background != "plain" else ""
    if noun and place:
        return rng.choice((f"This is {noun}, set {place}.", f"The picture is {noun} and takes place {place}."))
    if noun:
        return rng.choice((f"This is {noun}.", f"The picture is {noun}."))
    return rng.choice((f"The scene is set {place}.", f"It all takes place {place}.")) if place else ""


def _say_rich(demand: Demand, rng: random.Random, split: Split) -> str:
    shows = {"train": ["It shows", "There one sees"], "held_out": ["What meets the eye is"]}
    verb = rng.choice(shows["train"] + shows["held_out"] if split == "any" else shows[split])
    opening = _opening(demand.background, demand.style, rng) or "This is a picture on a plain ground."
    chains = _chains(demand.include)
    sentences = [
        opening,
        f"{verb} {_listed([_noun_phrase(c, rng) for chain in chains for c in chain] or ['nothing'])}.",
    ]
    for chain in chains:
        for earlier, clause in pairwise(chain):
            relation = rng.choice(RELATION_WORDS[_relation(clause)])
            verb = "is" if clause.count == 1 else "are"
            sentences.append(f"{_capital(_the(clause))} {verb} {relation} {_the(earlier)}.")
    for clause in demand.exclude:
        plural = kind_of(clause.kind).plural
        few = f"no {plural}" if clause.count == 1 else f"fewer than {_counted(clause.count, plural)}"
        sentences.append(f"There are {few} in it.")
    return " ".join(sentences)


def _the(clause: Clause) -> str:
    """ "the red cat", to speak again of what was named."""
    kind = kind_of(clause.kind)
    noun = kind.name if clause.count == 1 else kind.plural
    return f"the {clause.colour} {noun}" if clause.colour else f"the {noun}"


PLACES = (
    ("in the upper left", "at the top", "in the upper right"),
    ("on the left", "in the middle", "on the right"),
    ("in the lower left", "at the bottom", "in the lower right"),
)


def describe(scene: Scene, rng: random.Random) -> str:
    """Two or more sentences on every single thing and where it stands, for captions.

    The order is fixed: the rows of a 3 x 3 grid from top to bottom, each from left to right by centres, so that a
    model can write it down while it looks. `rng` chooses only the words.
    """
    things = sorted(scene.things, key=lambda thing: (_third(thing.y), thing.x, thing.y))
    count = len(things)
    amount = "nothing" if not count else f"{COUNTS[count] if count < len(COUNTS) else count} thing{'s' * (count > 1)}"
    opening = _opening(scene.background, scene.style, rng)
    total = rng.choice((f"It shows {amount}.", f"One sees {amount}."))
    sentences = [opening or "This is a picture on a plain ground.", total]
    for thing in things:
        phrase = _noun_phrase(_clause_of(thing, sizes=thing.size != "medium"), rng)  # medium goes without saying
        place = PLACES[_third(thing.y)][_third(thing.x)]
        wordings = (
            f"{_capital(place)} there is {phrase}.",
            f"{_capital(place)} is {phrase}.",
            f"{_capital(phrase)} is {place}.",
        )
        sentences.append(rng.choice(wordings))
    return " ".join(sentences)


def _third(fraction: float) -> int:
    return min(2, max(0, int(fraction * 3)))


# --------------------------------------------------------------------------------- what training never sees


def _held_out(*names: str) -> bool:
    """A fixed coin: CRC-32, since Python's own hash of strings changes from run to run."""
    return zlib.crc32("|".join(names).encode()) % HELD_OUT_SHARE == 0


def held_out_pair(a: str, b: str) -> bool:
    """Whether the kinds a and b, in either order, appear together only in benchmarks."""
    return _held_out("pair", *sorted((a, b)))


def held_out_colour(colour: str, kind: str) -> bool:
    """Whether this kind has this colour only in benchmarks."""
    return _held_out("colour", colour, kind)


def held_out_count(n: int, kind: str) -> bool:
    """Whether n things of this kind appear together only in benchmarks; one alone is never held out."""
    return n > 1 and _held_out("count", str(n), kind)
