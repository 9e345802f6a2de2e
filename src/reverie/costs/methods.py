"""How often each way of reasoning does what, and so what it costs for one picture.

The counts follow `choose.py`, `look_back.py` and `during.py`. What depends on what is seen and said (how many
candidates a judge stops, how many rounds are needed) is an `Outcome`: the usual one, the cheapest and the dearest are
told beside each other.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from reverie.choose import first_look, look_steps
from reverie.costs.units import Cost, Rig, Unit, measure

if TYPE_CHECKING:
    from reverie.reason import Plan

METHODS: dict[str, dict[str, Any]] = {
    "orm": {"choose": "orm", "candidates": 20},
    "prm": {"choose": "prm", "candidates": 20},
}
"""Methods that have no preset of their own (see `reason.PRESETS`)."""


@dataclass(frozen=True)
class Outcome:
    """What happens on the way. clear: the look, from 1, at which PARM's judge finds pictures clear; None: the first at
    which it is asked. stopped: the share of candidates that it stops there. rounds: of looking back that are needed, of
    the whole picture or of each region; None: all that the plan allows."""

    clear: int | None = None
    stopped: float = 0.5
    rounds: float | None = None


@dataclass(frozen=True)
class Line:
    """One kind of work: how often it is called, and what all of it costs."""

    part: str
    calls: float
    cost: Cost


def cheapest(plan: Plan) -> Outcome:
    """One candidate is left, and nothing is to be done again."""
    return Outcome(stopped=1 - 1 / plan.candidates, rounds=0)


def dearest(plan: Plan, looks: int) -> Outcome:
    """No candidate is stopped or ever clear before the end, and every round is needed."""
    return Outcome(clear=looks, stopped=0.0)


def lines(units: Mapping[str, Unit], plan: Plan, steps: int, start: int, outcome: Outcome) -> list[Line]:
    """What one picture costs. steps: of a picture; start: the look from which PARM asks."""
    found: dict[str, Line] = {}
    for part, calls, cost in _parts(units, plan, steps, start, outcome):
        old = found.get(part, Line(part, 0, Cost()))
        found[part] = Line(part, old.calls + calls, old.cost + cost)
    return [line for line in found.values() if line.calls]


def total(found: list[Line]) -> Cost:
    return sum((line.cost for line in found), Cost())


Part = tuple[str, float, Cost]


def _parts(units: Mapping[str, Unit], plan: Plan, steps: int, start: int, outcome: Outcome) -> Iterator[Part]:
    def some(name: str, part: str, times: float = 1, rows: float = 1) -> Iterator[Part]:
        yield part, times, units[name].at(rows) * times

    def painted(rows: float, count: float) -> Iterator[Part]:
        yield from some("step", "paint", count, rows)

    if plan.interleaved and "think" in units:
        yield from _during(units, plan, steps, outcome)
        return
    if plan.think == "before" and "think" in units:
        yield from some("think", "think")
    rounds = plan.reflect if outcome.rounds is None else min(outcome.rounds, plan.reflect)
    n = plan.candidates
    for _ in range(round(rounds) + 1):
        yield from some("enter", "paint", 1, n)
        if plan.choose == "parm":
            yield from _pruned(units, plan, steps, start, outcome)
        elif plan.choose == "prm":
            looks = len(look_steps(steps, plan.judge_steps))
            yield from painted(n, steps - 1)
            yield from some("show", "show", looks, n)
            yield from some("prm", "judge", looks, n)
        else:
            yield from painted(n, steps - 1)
            yield from some("show", "show", 1, n)
            if plan.choose == "orm":
                yield from some("orm", "judge", 1, n)
        if plan.reflect:
            yield from some("reflect", "look back")


def _pruned(units: Mapping[str, Unit], plan: Plan, steps: int, start: int, outcome: Outcome) -> Iterator[Part]:
    """PARM after its first step: all candidates up to the look at which they are clear, the others to the end."""
    n, looks = plan.candidates, look_steps(steps, plan.judge_steps)
    clear = max(start, min(outcome.clear or start, len(looks)))
    left = max(1, round(n * (1 - outcome.stopped)))
    asked = clear - start + 1
    yield "paint", looks[clear - 1] - 1, units["step"].at(n) * (looks[clear - 1] - 1)
    yield "paint", steps - looks[clear - 1], units["step"].at(left) * (steps - looks[clear - 1])
    yield "show", asked, units["show"].at(n) * asked
    yield "judge", asked, units["clarity"].at(n) * asked
    yield "judge", 1, units["potential"].at(n)
    if left > 1:
        yield "show", left, units["show"].at(1) * left
        yield "judge", 1, units["orm"].at(left)
    yield "show", 1, units["show"].at(1)


def _during(units: Mapping[str, Unit], plan: Plan, steps: int, outcome: Outcome) -> Iterator[Part]:
    """Thinking while painting: a thought before each region, a critique after it, and redone regions."""
    thoughts = 0 if plan.think == "after" else plan.regions or 1
    regions = (plan.regions or 1) if plan.think == "during" else 1
    rounds = plan.reflect if outcome.rounds is None else min(outcome.rounds, plan.reflect)
    redone = regions * rounds
    critiques = regions * min(rounds + 1, plan.reflect + (plan.keep == "best" and rounds > 0))
    # Thoughts that are written beside the critique before them (asking.py), which accepts.
    beside = regions - 1 if critiques and not rounds and "critique, think on" in units else 0
    if thoughts:
        further = "think on" if plan.think == "during" else "think"
        yield "think", thoughts - beside, units["think"].at(1) + units[further].at(1) * (thoughts - 1 - beside)
    yield "paint", 1, units["enter"].at(1)
    stepped = steps - 1 + steps / regions * redone
    yield "paint", stepped, units["step"].at(1) * stepped
    again = regions - 1 + redone
    yield "new prompt", again, units["reenter"].at(1) * again
    looks = regions + redone + (thoughts > 0 and "blank" in units)
    yield "show", looks, units["show"].at(1) * looks
    yield "critique", critiques - beside, units["critique"].at(1) * (critiques - beside)
    if beside:
        yield "critique", beside, units["critique, think on"].at(1) * beside


@dataclass(frozen=True)
class Told:
    """A method beside painting the prompt as it stands, which takes the same parts."""

    usual: list[Line]
    least: Cost
    most: Cost
    direct: Cost


def cost(rig: Rig, plan: Plan, outcome: Outcome | None = None) -> Told:
    """What a plan costs for one picture, from a short measurement here."""
    units, steps = measure(rig, plan, plan.candidates), rig.generator.steps
    looks = look_steps(steps, plan.judge_steps)
    start = first_look(looks, plan.judge_from, rig.judge) if rig.judge is not None else 1
    plain = replace(plan, think="never", choose="first", candidates=1, reflect=0, regions=1, judge=None)

    def whole(one: Outcome) -> Cost:
        return total(lines(units, plan, steps, start, one))

    return Told(
        lines(units, plan, steps, start, outcome or Outcome()),
        whole(cheapest(plan)),
        whole(dearest(plan, len(looks))),
        total(lines(units | ({"enter": units["alone"]} if "alone" in units else {}), plain, steps, start, Outcome())),
    )
