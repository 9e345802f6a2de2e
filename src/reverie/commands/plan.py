"""`reverie plan RECIPE --gpus N --fit SIZE`: what a training takes, and how it fits, before anything starts."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.registry import memory_text, number_text
from reverie.refusals import check_place

if TYPE_CHECKING:
    from reverie.training.plan import Choice, Plan

GPUS = {
    "t4": 16, "l4": 24, "rtx3090": 24, "rtx4090": 24, "rtx5090": 32, "a10": 24, "v100": 32, "l40s": 48, "a100": 80,
    "h100": 80, "h200": 141, "b200": 180,
}  # fmt: skip
"""Memory of usual devices in GB, as their makers count."""
UNITS = {"GB": 10**9, "GIB": 2**30, "MB": 10**6, "MIB": 2**20}


def size_of(text: str) -> int:
    """Bytes of "24GB", "24GiB", or of a GPU by name such as h100. ValueError for others."""
    if text.lower() in GPUS:
        return GPUS[text.lower()] * UNITS["GB"]
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(GB|GiB|MB|MiB)", text, re.IGNORECASE)
    size = int(float(found[1]) * UNITS[found[2].upper()]) if found else 0
    if not size:
        raise ValueError(f"{text!r} is no size of memory: give one such as 24GB, or one of {', '.join(GPUS)}.")
    return size


def plan(arguments: argparse.Namespace) -> int:
    """Prints what the recipe takes, 1 where nothing fits; or what a method costs."""
    _quiet()
    if (arguments.recipe is None) == (arguments.method is None):
        raise ValueError("plan a recipe, or with --method a way of reasoning: give one of them.")
    if arguments.method is not None:
        from reverie.commands.plan_method import plan_method

        check_place(arguments.device, None)
        return plan_method(arguments)
    memory = size_of(arguments.fit)
    check_place(arguments.device, None)
    if arguments.gpus < 1:
        raise ValueError(f"--gpus {arguments.gpus}: must be at least 1.")
    if not Path(arguments.recipe).is_file():
        raise ValueError(
            f"there is no recipe {arguments.recipe}; give a YAML file, such as recipes/atelier/janus.yaml."
        )
    found = _planned(arguments.recipe, arguments.overrides, memory, arguments.gpus, arguments.device)
    if arguments.json:
        print(json.dumps(as_json(found), indent=1))
    else:
        print("\n".join(lines(found, memory, arguments.gpus)))
    return 0 if found.chosen else 1


def _quiet() -> None:
    """Its profiler would write to stderr whenever it begins and ends; read when torch is first imported."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "5")


def _planned(recipe: str, overrides: Sequence[str], memory: int, gpus: int = 1, device: str | None = None) -> Plan:
    from reverie.training.plan import plan as make
    from reverie.training.recipes import read

    return make(read(recipe, overrides), memory, gpus, device)


def as_json(found: Plan) -> dict[str, Any]:
    return {
        "overrides": dict(found.overrides) if found.chosen else None,
        "steps": found.steps,
        "choices": [vars(one) | {"total": one.total, "chosen": one is found.chosen} for one in found.choices],
    }


def lines(found: Plan, memory: int, gpus: int) -> list[str]:
    """The plan for people."""
    if found.chosen is None:
        least = min(found.choices, key=lambda one: one.total)
        return [
            f"This does not fit in {memory_text(memory)} on each of {gpus}; the least is {memory_text(least.total)}:",
            *_parts(least),
        ]
    one, words = found.chosen, " ".join(f"{key}={_yaml(value)}" for key, value in found.overrides.items())
    told = [f"Of {memory_text(memory)} on each of {gpus}:", *_parts(one), ""]
    told.append(f"Run it with: {words}" if words else "The recipe runs as it is.")
    told.append(
        f"An update is {number_text(round(one.flop))} FLOP and moves {memory_text(round(one.moved))} at most. "
        f"It took {one.seconds:.2f} s on the device that measured: "
        f"{one.seconds * found.steps / 3600:.1f} h for {found.steps} steps there."
    )
    whole = found.choices[0]
    if one is not whole:
        told.append(f"As it stands it would take {memory_text(whole.total)}.")
    return told


def _parts(one: Choice) -> list[str]:
    rows = [*one.memory.items(), ("all together", one.total)]
    return [f"  {name.ljust(24)}{memory_text(size).rjust(10)}" for name, size in rows if size]


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def fitted(recipe: str, overrides: list[str], fit: str) -> list[str]:
    """The overrides with which the recipe fits on the one device here, told on stderr. ValueError where none does."""
    _quiet()
    memory = size_of(fit)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("--fit measures in one process: ask `reverie plan` first, and give what it says.")
    found = _planned(recipe, overrides, memory)
    told = lines(found, memory, 1)
    if found.chosen is None:
        raise ValueError(" ".join(line.strip() for line in told))
    print("\n".join(told), file=sys.stderr)
    return [*overrides, *(f"{key}={_yaml(value)}" for key, value in found.overrides.items())]
