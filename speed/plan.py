"""Is the planner right? Its memory for a recipe beside what a real run of three steps has at most.

    python speed/plan.py RECIPE [key=value ...] [--device cpu]

Prints a line of JSON. On the CPU both see what torch allocates; on a GPU, what its allocator hands out.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from reverie.loading import here
from reverie.training.look import look
from reverie.training.loop import train
from reverie.training.memory import alive, most_added
from reverie.training.plan import plan
from reverie.training.recipes import read


def real(recipe: dict[str, Any], device: torch.device) -> int:
    """The most bytes of three steps of the real loop, the task's own models included."""
    before = alive(device)
    begun = torch.cuda.memory_allocated(device) if device.type == "cuda" else 0
    found = look(recipe)
    found.loop.steps, found.loop.minutes, found.loop.workers, found.loop.save_every = 3, None, 0, 10**9
    found.task.model.to(device)
    held = sum(size for place, size in alive(device).items() if place not in before)
    if device.type == "cuda":
        held = torch.cuda.memory_allocated(device) - begun
    with tempfile.TemporaryDirectory() as out:
        return held + most_added(lambda: train(found.task, found.loop, Path(out)), device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--device")
    arguments = parser.parse_args()
    recipe, device = read(arguments.recipe, arguments.overrides), torch.device(here(arguments.device))
    planned = plan(recipe, 1 << 60, device=str(device))
    assert planned.chosen is not None
    told = {"recipe": arguments.recipe, "planned": planned.chosen.total, "measured": real(recipe, device)}
    told["error"] = round(told["planned"] / told["measured"] - 1, 4)
    print(json.dumps(told | {"parts": planned.chosen.memory}))


if __name__ == "__main__":
    main()
