"""Prompts to learn from, without those that a benchmark asks.

    prompts = read("captions.txt", exclude=["evaluation_metadata.jsonl"])    # one a line, or JSON lines with `prompt`
    prompts = read("atelier:2000")                                           # the Atelier's training side
    prompts = read("atelier-geneval:2000")                                   # of it, the six tasks of atelier-geneval
    prompts = read("atelier-geneval:colors+counting:500")                    # some of these, in turn
    prompts = read("things.json:13000")                                      # GenEval's six templates over a list

"Can We Generate Images with CoT?" (arXiv 2501.13926) fills GenEval's templates with countable everyday objects and
colours, and removes what stands in the test set. `things.json` is {"objects": [...], "colors": [...]}; its prompts
carry GenEval's own record, so that a detector can say whether a picture is right.
"""

from __future__ import annotations

import itertools
import json
import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..benchmarks.geneval import TAGS

NUMBERS = {2: "two", 3: "three", 4: "four"}
SIDES = ("left of", "right of", "above", "below")
PATIENCE = 2000
"""Draws without a new prompt before it is said that there are not so many."""


@dataclass(frozen=True)
class Prompt:
    """What is painted, and what else its line says, such as GenEval's `tag` and `include`."""

    text: str
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)


@dataclass(frozen=True)
class Prompts:
    """The prompts of a source in its order, and how many were left out."""

    prompts: tuple[Prompt, ...]
    twins: int = 0
    """Said before in other capitals, spaces or punctuation."""
    asked: int = 0
    """Asked by a benchmark."""


def read(source: str, exclude: Sequence[str | Path] = (), seed: int = 0) -> Prompts:
    """`source`: a file, `atelier:N`, `atelier-geneval:N`, `atelier-geneval:TASKS:N`, or `FILE.json:N`. `exclude`: files
    with the prompts of benchmarks, in the form of the first. ValueError, in one sentence, for what cannot be used."""
    held = {key(prompt.text) for file in exclude for prompt in lines(Path(file))}
    name, sign, count = source.rpartition(":")
    if not sign or Path(source).is_file():
        return _sifted(iter(lines(Path(source))), held, None, source)
    if not re.fullmatch(r"[1-9]\d*", count):
        raise ValueError(f"prompts={source!r}: behind the colon stands how many, such as {name}:1000.")
    name, _, tasks = name.partition(":") if name.startswith("atelier-geneval:") else (name, "", "")
    if name in ATELIER:
        rng = random.Random(f"prompts/{seed}")
        drawn = _atelier_geneval(rng, _tasks(tasks, source)) if tasks else ATELIER[name](rng)
        return _sifted(drawn, held | _atelier_asks(), int(count), source)
    return _sifted(templates(*things(Path(name)), random.Random(f"prompts/{seed}")), held, int(count), source)


def key(text: str) -> str:
    """What two spellings of one prompt share."""
    return re.sub(r"\s+", " ", text).strip(" .,;:!?\"'").casefold()


def lines(path: Path) -> list[Prompt]:
    """One prompt a line: plain text, or JSON lines with the field `prompt`. ValueError names the line that is wrong."""
    if not path.is_file():
        raise ValueError(f"There are no prompts at {path}; give a text file, JSON lines, or atelier:N.")
    try:
        rows = path.read_text("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file in UTF-8; give prompts, one a line.") from error
    read_row = _from_json if path.suffix in (".jsonl", ".json") else lambda path, number, row: Prompt(row.strip())
    found = [read_row(path, number, row) for number, row in enumerate(rows, 1) if row.strip()]
    if not found:
        raise ValueError(f"{path} holds no prompts; give one a line.")
    return found


def _from_json(path: Path, number: int, row: str) -> Prompt:
    try:
        record = json.loads(row)
        text = record["prompt"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path}, line {number}: needs a JSON object with the field `prompt`.") from error
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"{path}, line {number}: `prompt` must be a text.")
    return Prompt(text.strip(), {name: value for name, value in record.items() if name != "prompt"})


def _sifted(drawn: Iterator[Prompt], held: set[str], count: int | None, source: str) -> Prompts:
    """All of `drawn`, or the first `count` of an endless one that are new and not held out."""
    kept: dict[str, Prompt] = {}
    twins = asked = stale = 0
    for prompt in drawn:
        name = key(prompt.text)
        stale += 1
        if count is not None and stale > PATIENCE:
            raise ValueError(f"prompts={source!r}: hardly more than {len(kept)} different ones; ask for so many.")
        if name in held:
            asked += 1
        elif name in kept:
            twins += 1
        else:
            kept[name], stale = prompt, 0
        if count is not None and len(kept) == count:
            break
    if not kept:
        raise ValueError(f"prompts={source!r}: every prompt is one that a benchmark asks; give others.")
    return Prompts(tuple(kept.values()), twins, asked)


# --- the Atelier


def _atelier(rng: random.Random) -> Iterator[Prompt]:
    from ..atelier.language import say
    from ..atelier.sample import random_demand

    while True:
        demand = random_demand(rng)
        yield Prompt(say(demand, rng, split="train"))


def _tasks(said: str, source: str) -> tuple[str, ...]:
    """Names with + between them; one may stand there several times."""
    found = tuple(said.split("+"))
    if unknown := [task for task in found if task not in TAGS]:
        raise ValueError(f"prompts={source!r}: there is no task {unknown[0]!r}; use {', '.join(TAGS)}.")
    return found


def _atelier_geneval(rng: random.Random, tasks: Sequence[str] = TAGS) -> Iterator[Prompt]:
    """Tasks in turn, of things, pairs, numbers and colours that are not held out for benchmarks."""
    from ..atelier.kinds import KINDS
    from ..atelier.language import canonical, held_out_colour, held_out_count, held_out_pair
    from ..atelier.language_parse import Clause, Demand
    from ..atelier.sample import allowed
    from ..atelier.scene import COLOURS

    kinds = sorted(KINDS)

    def pair() -> list[str]:
        return next(two for _ in iter(int, 1) if not held_out_pair(*(two := rng.sample(kinds, 2))))

    def counted() -> Clause:
        drawn = ((rng.choice(list(NUMBERS)), rng.choice(kinds)) for _ in iter(int, 1))
        return next(Clause(kind, n) for n, kind in drawn if not held_out_count(n, kind))

    def coloured() -> Clause:
        drawn = ((rng.choice(list(COLOURS)), rng.choice(kinds)) for _ in iter(int, 1))
        return next(Clause(kind, 1, colour) for colour, kind in drawn if not held_out_colour(colour, kind))

    def placed() -> tuple[Clause, ...]:
        first, second = pair()
        return Clause(first), Clause(second, position=(rng.choice(SIDES), 0))

    def both() -> tuple[Clause, ...]:
        drawn = (zip(pair(), rng.sample(list(COLOURS), 2), strict=True) for _ in iter(int, 1))
        clauses = (tuple(Clause(kind, 1, colour) for kind, colour in two) for two in drawn)
        return next(two for two in clauses if allowed(two))

    draws: dict[str, Callable[[], tuple[Clause, ...]]] = {
        "single_object": lambda: (Clause(rng.choice(kinds)),), "two_object": lambda: tuple(map(Clause, pair())),
        "counting": lambda: (counted(),), "colors": lambda: (coloured(),), "position": placed, "color_attr": both,
    }  # fmt: skip
    for task in itertools.cycle(tasks):
        yield Prompt(f"{rng.choice(('a photo of', 'a picture of'))} {canonical(Demand(draws[task]()))}")


ATELIER: Mapping[str, Callable[[random.Random], Iterator[Prompt]]] = {
    "atelier": _atelier,
    "atelier-geneval": _atelier_geneval,
}


def _atelier_asks() -> set[str]:
    """The prompts of the Atelier's benchmarks. Training demands are of another kind by rule; this makes sure."""
    from ..benchmarks import registry

    return {key(sample.prompt) for name in registry.ATELIER for sample in registry.load(name).samples}


# --- GenEval's templates


def things(path: Path) -> tuple[list[str], list[str]]:
    """(objects, colours) of a JSON file."""
    try:
        data = json.loads(path.read_text("utf-8"))
        objects, colours = list(data["objects"]), list(data["colors"])
    except FileNotFoundError as error:
        raise ValueError(
            f"There is no file {path}; give a JSON file with `objects` and `colors`, or atelier:N."
        ) from error
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} must be a JSON object with the lists `objects` and `colors`.") from error
    if len(set(objects)) < 2 or len(set(colours)) < 2 or not all(isinstance(x, str) and x for x in objects + colours):
        raise ValueError(f"{path}: `objects` and `colors` must be lists of two names or more.")
    return objects, colours


def templates(objects: Sequence[str], colours: Sequence[str], rng: random.Random) -> Iterator[Prompt]:
    """Endless prompts in the words of GenEval, each of the six tasks as often, with its record."""
    draws: list[tuple[str, Callable[[], tuple[list[dict[str, Any]], str]]]] = [
        ("single_object", lambda: _listed([_clause(rng.choice(objects))])),
        ("two_object", lambda: _listed([_clause(name) for name in rng.sample(objects, 2)])),
        ("counting", lambda: _counted(rng.choice(objects), rng.choice(list(NUMBERS)))),
        ("colors", lambda: _listed([_clause(rng.choice(objects), rng.choice(colours))])),
        ("position", lambda: _placed(rng.sample(objects, 2), rng.choice(SIDES))),
        ("color_attr", lambda: _listed(list(map(_clause, rng.sample(objects, 2), rng.sample(colours, 2))))),
    ]
    for tag, draw in itertools.cycle(draws):
        include, words = draw()
        record: dict[str, Any] = {"tag": tag, "include": include}
        if tag == "counting":
            record["exclude"] = [include[0] | {"count": include[0]["count"] + 1}]
        yield Prompt(f"a photo of {words}", record)


def _clause(name: str, colour: str | None = None) -> dict[str, Any]:
    return {"class": name, "count": 1} | ({"color": colour} if colour else {})


def _listed(include: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], str]:
    return include, " and ".join(_article(f"{one.get('color', '')} {one['class']}".strip()) for one in include)


def _counted(name: str, count: int) -> tuple[list[dict[str, Any]], str]:
    return [{"class": name, "count": count}], f"{NUMBERS[count]} {plural(name)}"


def _placed(names: Sequence[str], side: str) -> tuple[list[dict[str, Any]], str]:
    first, second = names
    include = [_clause(first), _clause(second) | {"position": [side, 0]}]
    return include, f"{_article(second)} {side} {_article(first)}"


def _article(words: str) -> str:
    return f"{'an' if words[0].lower() in 'aeiou' else 'a'} {words}"


def plural(name: str) -> str:
    """Regular English plurals, and the few that detectors' vocabularies need."""
    odd = {
        "person": "people",
        "mouse": "mice",
        "sheep": "sheep",
        "skis": "skis",
        "scissors": "scissors",
        "knife": "knives",
    }
    head, _, last = name.rpartition(" ")
    if last in odd:
        new = odd[last]
    elif re.search(r"(s|x|z|ch|sh)$", last):
        new = last + "es"
    elif re.search(r"[^aeiou]y$", last):
        new = last[:-1] + "ies"
    else:
        new = last + "s"
    return f"{head} {new}".strip()
