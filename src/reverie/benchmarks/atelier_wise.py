"""`atelier-wise`: prompts that must be reasoned about, in the six categories of WISE (arXiv:2503.07265).

The prompts are `atelier.knowledge.wise_prompts`, all from held-out wordings; one image each, named by its id. Instead
of a language model, the inspector judges, by a strict rule: an image is correct if every demanded clause is seen.
That is, of each demanded kind exactly as many as are demanded (one more is as wrong as one less; other kinds do no
harm), each with the colour, texture, size, state and action that is asked for, in the asked place, on the asked
background and in the asked style. What is not demanded is not looked at. Overall is the mean over images, as in the
namesake.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..atelier.inspector import colour_shows, relation_between
from ..atelier.kinds import KINDS
from ..atelier.knowledge import wise_prompts
from ..atelier.language_parse import Clause, Demand
from . import geneval
from .atelier_geneval import seen
from .protocol import Benchmark, Judgement, Sample

if TYPE_CHECKING:
    from ..atelier.inspector import Seen, Sighting

NAME, VERSION = "atelier-wise", "v1"


def samples() -> tuple[Sample, ...]:
    return tuple(
        Sample(str(entry["prompt_id"]), entry["prompt"], entry["category"], entry, str(entry["prompt_id"]))
        for entry in wise_prompts(VERSION)
    )


def judge(sample: Sample, sighting: Sighting) -> Judgement:
    reasons = failures(Demand.from_record(sample.record["demand"]), sighting)
    return Judgement(float(not reasons), "\n".join(reasons), seen(sighting))


def failures(demand: Demand, sighting: Sighting) -> list[str]:
    """What of a demand is not seen, one sentence each; empty if the picture is right."""
    reasons = []
    for what in ("background", "style"):
        wanted, found = getattr(demand, what), getattr(sighting, what)
        if wanted not in ("plain", found):
            reasons.append(f"expected the {what} {wanted}, found {found}")
    matched: dict[int, list[Seen]] = {}
    for kind in dict.fromkeys(clause.kind for clause in demand.include):
        reasons += _match(kind, demand.include, sighting, matched)
    for index, clause in enumerate(demand.include):
        if clause.position and index in matched and clause.position[1] in matched:
            reasons += _misplaced(clause, matched[index], matched[clause.position[1]])
    for clause in demand.exclude:
        number = sum(thing.kind == clause.kind for thing in sighting.objects)
        if number >= clause.count:
            reasons.append(f"expected {clause.kind}<{clause.count}, found {number}")
    return reasons


def _match(kind: str, include: tuple[Clause, ...], sighting: Sighting, matched: dict[int, list[Seen]]) -> list[str]:
    """Give every clause about `kind` things of its own (into `matched`), or say why that cannot be."""
    slots = [index for index, clause in enumerate(include) if clause.kind == kind for _ in range(clause.count)]
    things = [thing for thing in sighting.objects if thing.kind == kind]
    if len(things) != len(slots):
        return [f"expected {len(slots)} {kind}, found {len(things)}"]
    wrong = [[differences(include[slot], thing, sighting.style) for thing in things] for slot in slots]
    order = _assign([[not differences for differences in row] for row in wrong])
    if order is None:
        nearest = [min(row, key=len) for row in wrong]
        texts = [f"expected {kind} {', '.join(each)}" for each in nearest if each]
        return list(dict.fromkeys(texts)) or [f"expected each {kind} to look as asked, found two alike"]
    for slot, choice in zip(slots, order, strict=True):
        matched.setdefault(slot, []).append(things[choice])
    return []


def _assign(fits: list[list[bool]]) -> list[int] | None:
    """For each row a column of its own in which it fits, or None; by augmenting paths."""
    taken: dict[int, int] = {}

    def place(row: int, tried: set[int]) -> bool:
        for column, fit in enumerate(fits[row]):
            if fit and column not in tried:
                tried.add(column)
                if column not in taken or place(taken[column], tried):
                    taken[column] = row
                    return True
        return False

    if not all(place(row, set()) for row in range(len(fits))):
        return None
    columns = {row: column for column, row in taken.items()}
    return [columns[row] for row in range(len(fits))]


def differences(clause: Clause, thing: Seen, style: str) -> list[str]:
    """In what a thing of the right kind is not what the clause asks for: "colour red, found blue"."""
    states = KINDS[clause.kind].states
    looks: dict[str, tuple[Any, Any]] = {
        "colour": (clause.colour if colour_shows(thing, style) else None, thing.colour),
        "texture": (None if clause.texture == "plain" else clause.texture, thing.texture),
        "size": (clause.size, thing.size),
        "action": (clause.action, thing.action),
        "state": (clause.state, thing.state or (states[0] if states else None)),
    }
    return [f"{what} {wanted}, found {found}" for what, (wanted, found) in looks.items() if wanted not in (None, found)]


def _misplaced(clause: Clause, things: list[Seen], others: list[Seen]) -> list[str]:
    """The four sides by GenEval's rule; inside and on by the inspector's, for GenEval has none."""
    assert clause.position
    wanted, found = clause.position[0], [""]
    for thing in things:
        for other in others:
            if wanted in ("inside", "on"):
                found = [relation_between(thing, other) or ""]
            else:
                found = geneval.relations(thing.box, other.box)
            if wanted not in found:
                return [f"expected {clause.kind} {wanted} {other.kind}, found {' and '.join(found) or 'neither side'}"]
    return []


def benchmark() -> Benchmark:
    return Benchmark(NAME, VERSION, samples(), 1, judge, _file, lambda sample: None, "items")


def _file(sample: Sample, index: int) -> str:
    return f"{sample.id}.png" if index == 0 else f"{sample.id}_{index}.png"
