"""`reverie plan --method parm --model NAME -n 20`: what a way of reasoning costs for one picture, before it is run."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from reverie.reason import PRESETS, Plan, did_you_mean, make_plan

if TYPE_CHECKING:
    from reverie.costs.methods import Told
    from reverie.costs.units import Cost

FIELDS = ("think", "choose", "candidates", "reflect", "regions", "judge", "judge_steps", "judge_from", "guidance",
          "thought_tokens", "keep")  # fmt: skip
TRAINING = ("grpo", "dpo", "sft")
PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def plan_of(arguments: argparse.Namespace) -> Plan:
    """ValueError for a method that is not known."""
    from reverie.costs.methods import METHODS

    name = arguments.method.lower()
    if name.endswith(TRAINING):
        raise ValueError(f"{name} is a way of training: plan its recipe, such as reverie plan recipes/twig/grpo.yaml.")
    if name not in METHODS and name not in PRESETS:
        known = [*PRESETS, *METHODS]
        raise ValueError(f"unknown method {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}.")
    fields = {field: getattr(arguments, field) for field in FIELDS if getattr(arguments, field, None) is not None}
    return make_plan(None if name in METHODS else name, **{**METHODS.get(name, {}), **fields})


def plan_method(arguments: argparse.Namespace) -> int:
    import reverie
    from reverie.costs.methods import Outcome, cost
    from reverie.costs.units import Rig
    from reverie.judges.load import check_judge
    from reverie.refusals import check_canvas

    plan = plan_of(arguments)
    if not 0 <= arguments.stopped < 1:
        raise ValueError(f"--stopped {arguments.stopped}: a share of the candidates, from 0 to below 1.")
    check_judge(plan, arguments.prompt)
    painter = reverie.load(arguments.model, device=arguments.device)
    check_canvas(painter.source, plan)
    found = cost(Rig.of(painter, plan, arguments.prompt, plan.judge), plan, Outcome(stopped=arguments.stopped))
    about = {"method": arguments.method, "model": painter.name, "device": str(painter.model.device)}
    if arguments.json:
        print(json.dumps(about | as_json(found), indent=1))
    else:
        print("\n".join(lines(found, plan, about)))
    return 0


def as_json(found: Told) -> dict[str, Any]:
    from reverie.costs.methods import total

    parts = [{"part": line.part, "calls": line.calls, **asdict(line.cost)} for line in found.usual]
    ends = {"total": total(found.usual), "least": found.least, "most": found.most, "direct": found.direct}
    return {"parts": parts, **{name: asdict(value) for name, value in ends.items()}}


def lines(found: Told, plan: Plan, about: dict[str, str]) -> list[str]:
    """The costs for people."""
    from reverie.costs.methods import total

    whole = total(found.usual)
    rows = [(line.part, f"{line.calls:.0f}", line.cost) for line in found.usual]
    rows += [("all together", "", whole), ("painted as it stands", "", found.direct)]
    told = [f"One picture by {about['method']} with {about['model']}, measured in parts on {about['device']}:", _HEAD]
    told += [_row(*row) for row in rows]
    told.append(f"{_times(whole, found.direct)} as much as painting the prompt as it stands (FLOP).")
    if found.least != found.most:
        least, most = _times(found.least, found.direct), _times(found.most, found.direct)
        told.append(f"By what is seen and said on the way it is between {least} and {most}.")
    return told


_HEAD = f"  {'':22}{'calls':>7}{'read':>9}{'written':>9}{'shown':>7}{'seen':>6}{'FLOP':>9}{'bytes':>9}{'seconds':>9}"


def _row(name: str, calls: str, one: Cost) -> str:
    counts = f"{one.prefilled:>9.0f}{one.decoded:>9.0f}{one.vq_decodes:>7.0f}{one.vision_encodes:>6.0f}"
    return f"  {name:22}{calls:>7}{counts}{_short(one.flop):>9}{_short(one.moved):>9}{one.seconds:>9.2f}"


def _times(one: Cost, direct: Cost) -> str:
    return f"{one.flop / direct.flop:.1f} times" if direct.flop else "?"


def _short(number: float) -> str:
    size, letter = next(((size, letter) for size, letter in PREFIXES if number >= size), (1.0, ""))
    return f"{number / size:.3g} {letter}".rstrip()
