"""What the Atelier knows: facts asked for without being named, the thought that leads to each, and what is then seen.

The facts stand in `data/facts.jsonl`, in the six categories of WISE (Niu et al. 2025, arXiv:2503.07265). A fact has
several wordings ("the animal that gives us wool"), one thought that ends in the answer ("Wool is shorn from sheep, so
it is a sheep."), the answer in the words of `language.canonical`, and the things it demands. Two facts compose into a
harder prompt: both have to be resolved, then placed.

The split depends on the strings alone (CRC-32), never on chance or order: of every fact one wording is held out, and
of the ordered pairs of facts one in ten. Every wording shares a telling word with another one of its fact, so what is
held out can be learned from what is not.

    riddle(random.Random(0), "train")    # one prompt, its thought, its rewritten form and what it demands
    wise_prompts("v1")                   # the fixed benchmark, made of held-out wordings only
"""

from __future__ import annotations

import functools
import json
import random
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

from .language import canonical
from .language_parse import Clause, Demand

CATEGORIES = ("cultural", "time", "space", "biology", "physics", "chemistry")
SPLITS = ("train", "held_out")
VERSIONS = ("v1",)
MIN_WORDINGS = 5
COMPOSED_SHARE = 0.4  # of the stream of riddles
COMPOSED_PROMPTS = 60  # in the benchmark
MAX_THINGS = 6  # a composition with more does not fit a picture of 96 pixels

FORMS = ("{}", "paint {}", "show me {}", "a picture of {}", "can you draw {}?")
# How a prompt links two wordings, and the relation that it demands of the first answer to the second, if any.
LINKS: tuple[tuple[str, str | None], ...] = (
    ("{}, and {}", None),
    ("{}, beside {}", None),
    ("{}, to the left of {}", "left of"),
    ("{}, to the right of {}", "right of"),
    ("{}, above {}", "above"),
    ("{}, below {}", "below"),
)


@dataclass(frozen=True)
class Fact:
    """Something known. wordings: noun phrases that do not name the answer; thought: one sentence that ends in it;
    answer: what is seen, in canonical words; things, background: what the answer demands."""

    id: str
    category: str
    wordings: tuple[str, ...]
    thought: str
    answer: str
    things: tuple[Clause, ...]
    background: str = "plain"

    @property
    def demand(self) -> Demand:
        return Demand(self.things, background=self.background)

    @property
    def count(self) -> int:
        """How many things the answer shows."""
        return sum(thing.count for thing in self.things)


@dataclass(frozen=True)
class Riddle:
    """A prompt to reason about. rewritten: the same in plain words; demand: its record in GenEval's form (see
    `Demand.to_record`); category: of the first fact; facts: the ids of the one or two facts asked for."""

    prompt: str
    thought: str
    rewritten: str
    demand: dict[str, Any]
    category: str
    facts: tuple[str, ...]


def _fact(row: dict[str, Any]) -> Fact:
    """A line of the data as a fact; ValueError, naming the fact, where an entry is unknown or missing."""
    try:
        things = [
            Clause(**{**thing, "position": tuple(thing["position"])} if "position" in thing else thing)
            for thing in row["things"]
        ]
        fact = Fact(**{**row, "wordings": tuple(row["wordings"]), "things": tuple(things)})
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"The fact {row.get('id')!r} in facts.jsonl is malformed ({error}): compare a line that works."
        ) from error
    if fact.category not in CATEGORIES or len(fact.wordings) < MIN_WORDINGS:
        raise ValueError(f"The fact {fact.id!r} needs a category of {CATEGORIES} and {MIN_WORDINGS} wordings or more.")
    return fact


@functools.cache
def facts() -> tuple[Fact, ...]:
    """All facts, in the order of the data."""
    text = resources.files(__package__).joinpath("data/facts.jsonl").read_text(encoding="ascii")
    return tuple(_fact(json.loads(line)) for line in text.splitlines())


def _checksum(text: str) -> int:
    return zlib.crc32(text.encode())


def _check_split(split: str) -> None:
    if split not in SPLITS:
        raise ValueError(f"There is no split {split!r} of the knowledge: use one of {', '.join(SPLITS)}.")


def wordings(fact: Fact, split: str) -> tuple[str, ...]:
    """The wordings of a fact on one side of the split: held out is the one with the least checksum."""
    _check_split(split)
    held_out = min(fact.wordings, key=_checksum)
    return tuple(wording for wording in fact.wordings if (wording == held_out) == (split == "held_out"))


def pair_split(first: Fact, second: Fact) -> str:
    """The side of the split that the composition of two facts, in this order, falls on."""
    return "held_out" if _checksum(f"{first.id}+{second.id}") % 10 == 0 else "train"


def composable(first: Fact, second: Fact) -> bool:
    """Whether one picture can show both and tell them apart: no kind twice, one background at most, not too many."""
    kinds = {thing.kind for thing in first.things} & {thing.kind for thing in second.things}
    backgrounds = first.background != "plain" and second.background != "plain"
    return not kinds and not backgrounds and first.count + second.count <= MAX_THINGS


def relations(first: Fact, second: Fact) -> tuple[tuple[str, str | None], ...]:
    """The entries of `LINKS` that suit two facts: as in GenEval, only single things are placed."""
    single = first.count == second.count == 1
    return tuple(link for link in LINKS if single or link[1] is None)


def _shifted(things: tuple[Clause, ...], offset: int) -> tuple[Clause, ...]:
    """The same clauses with `offset` others before them, to which the indices of positions are not to point."""
    return tuple(
        replace(thing, position=(thing.position[0], thing.position[1] + offset)) if thing.position else thing
        for thing in things
    )


def compose_demands(first: Fact, second: Fact, relation: str | None) -> Demand:
    """What the picture of both demands. In GenEval's order: of a relation, the clause that is referred to is first."""
    background = first.background if first.background != "plain" else second.background
    if relation is None:
        return Demand(first.things + _shifted(second.things, len(first.things)), background=background)
    return Demand((*second.things, replace(first.things[0], position=(relation, 0))), background=background)


def single_riddle(fact: Fact, wording: str, form: str) -> Riddle:
    """The riddle that asks for one fact."""
    demand = fact.demand.to_record()
    return Riddle(form.format(wording), fact.thought, fact.answer, demand, fact.category, (fact.id,))


def composed_riddle(
    first: Fact, second: Fact, asked: tuple[str, str], link: tuple[str, str | None], form: str = "{}"
) -> Riddle:
    """The riddle that asks for two facts by the wordings `asked`, linked by an entry of `LINKS`."""
    template, relation = link
    demand = compose_demands(first, second, relation)
    return Riddle(
        form.format(template.format(*asked)),
        f"{first.thought} {second.thought}",
        canonical(demand),
        demand.to_record(),
        first.category,
        (first.id, second.id),
    )


Worn = Callable[[Fact, str, random.Random], str]
"""What becomes of a wording of a fact."""


def riddle(rng: random.Random, split: str, worn: Worn | None = None, composed: float = COMPOSED_SHARE) -> Riddle:
    """Draw one riddle of a split: one fact, or (`composed` of them) two, in one of `FORMS`. worn: what becomes of a
    wording before it is asked."""
    _check_split(split)
    form, said = rng.choice(FORMS), worn or (lambda fact, wording, rng: wording)
    if rng.random() >= composed:
        fact = rng.choice(facts())
        return single_riddle(fact, said(fact, rng.choice(wordings(fact, split)), rng), form)
    while True:
        first, second = rng.choice(facts()), rng.choice(facts())
        if pair_split(first, second) == split and composable(first, second):
            break
    one, other = (said(fact, rng.choice(wordings(fact, split)), rng) for fact in (first, second))
    return composed_riddle(first, second, (one, other), rng.choice(relations(first, second)), form)


def _held_out_pairs(version: str) -> list[tuple[Fact, Fact]]:
    """The pairs of the benchmark: held out, no first and no second fact twice, in the order of their checksums."""
    every = [(a, b) for a in facts() for b in facts() if pair_split(a, b) == "held_out" and composable(a, b)]
    firsts: set[str] = set()
    seconds: set[str] = set()
    pairs = []
    for a, b in sorted(every, key=lambda pair: _checksum(f"{version}:{pair[0].id}+{pair[1].id}")):
        if a.id not in firsts and b.id not in seconds:
            firsts.add(a.id)
            seconds.add(b.id)
            pairs.append((a, b))
        if len(pairs) == COMPOSED_PROMPTS:
            break
    return pairs


def wise_prompts(version: str = "v1") -> list[dict[str, Any]]:
    """The fixed benchmark: a prompt for every fact and `COMPOSED_PROMPTS` compositions, from held-out wordings only.

    Each is a record with prompt_id (from 1), category, subcategory ("single" or "composed"), prompt, explanation (the
    thought), rewritten and demand. ValueError for an unknown version.
    """
    if version not in VERSIONS:
        raise ValueError(f"There is no version {version!r} of the knowledge benchmark: use one of {VERSIONS}.")
    asked = {fact.id: wordings(fact, "held_out")[0] for fact in facts()}
    forms = {fact.id: FORMS[_checksum(f"{version}:{asked[fact.id]}") % len(FORMS)] for fact in facts()}
    riddles = [("single", single_riddle(fact, asked[fact.id], forms[fact.id])) for fact in facts()]
    for index, (first, second) in enumerate(_held_out_pairs(version)):
        links = relations(first, second)
        pair = (asked[first.id], asked[second.id])
        riddles.append(("composed", composed_riddle(first, second, pair, links[index % len(links)], forms[first.id])))
    return [
        {
            "prompt_id": number,
            "category": each.category,
            "subcategory": subcategory,
            "prompt": each.prompt,
            "explanation": each.thought,
            "rewritten": each.rewritten,
            "demand": each.demand,
        }
        for number, (subcategory, each) in enumerate(riddles, start=1)
    ]
