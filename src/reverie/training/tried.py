"""Tries prompts before reinforcement: rolls out each once, as the recipe says, and writes what its pictures earned.

    python -m reverie.training.tried recipes/t2g/dual-nft.yaml data.prompts=atelier:1000 --out runs/t2g/tried.jsonl
    reverie train recipes/t2g/dual-nft.yaml data.prompts=runs/t2g/tried.jsonl data.differ=exact

Pictures of one thought that are all right or all wrong have no advantage. Where a painter is mostly right, or mostly
wrong, that is most of them: four prompts of five cost a roll-out and teach nothing. DAPO (2503.14476, dynamic
sampling) draws until a batch is full of groups that differ; as a painter changes slowly, here it is asked once, before.

A line: `prompt`, `demand` (of the Atelier's), `rewards`: of each reward a list for each thought, of each of its
pictures a number, or null where the judge failed. A stopped trial goes on behind the last prompt.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from ..files import write_atomically
from .tree import Tree


def row(tree: Tree, truth: Any) -> dict[str, Any]:
    """What is written of a judged tree."""
    from ..atelier.language_parse import Demand

    groups = [list(branch.leaves()) for branch in tree.branches] if tree.branches[0].branches else [tree.branches]
    rewards = {
        name: [[_said(leaf.rewards[name]) for leaf in group] for group in groups] for name in groups[0][0].rewards
    }
    known = {"demand": truth.to_record()} if isinstance(truth, Demand) else {}
    return {"prompt": tree.prompt, **known, "rewards": rewards}


def _said(reward: float) -> float | None:
    return None if math.isnan(reward) else round(reward, 4)


def tried_in(out: Path, prompts: Sequence[str]) -> int:
    """How many of the prompts a file holds; a line that a stop cut off is dropped. ValueError where it holds others."""
    text = out.read_text("utf-8") if out.is_file() else ""
    whole, _, half = text.rpartition("\n")
    lines = whole.splitlines()
    if [json.loads(line)["prompt"] for line in lines] != list(prompts[: len(lines)]):
        raise ValueError(f"{out} holds other prompts than this recipe asks; give another --out.")
    if half:
        write_atomically(out, lambda part: part.write_text("".join(f"{line}\n" for line in lines), "utf-8"))
    return len(lines)


@torch.no_grad()
def attempt(recipe: dict[str, Any], out: Path) -> int:
    """Tries every prompt of the recipe that `out` does not hold yet; returns how many it holds."""
    from ..canvas import copy_seed
    from ..cluster.rewards import closing
    from .t2g_recipes import dual_parts

    seed = int(recipe.get("seed", 0))
    torch.manual_seed(seed)
    _, pipeline, made, rewards = dual_parts(recipe, seed)
    prompts, together = list(made.task.prompts), made.task.config.prompts
    done = tried_in(out, prompts)
    out.parent.mkdir(parents=True, exist_ok=True)
    precision = torch.autocast(pipeline._execution_device.type, torch.bfloat16)
    with closing(rewards), precision, out.open("a", encoding="utf-8") as file:
        for first in range(done, len(prompts), together):
            asked = prompts[first : first + together]
            seeds = [copy_seed(seed, 2, first + place + 1) for place in range(len(asked))]
            for tree in made.task.explore(asked, seeds):
                file.write(json.dumps(row(tree, made.questions[tree.prompt].truth)) + "\n")
            file.flush()
    return max(done, len(prompts))


def main(arguments: Sequence[str] | None = None) -> None:
    from .recipes import read

    parser = argparse.ArgumentParser(description="Tries prompts before reinforcement.")
    parser.add_argument("recipe", type=Path)
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    recipe = read(given.recipe, given.overrides)
    if recipe["task"] != "dual-grpo":
        parser.error(f"{given.recipe} is a recipe of {recipe['task']}; prompts are tried for dual-grpo")
    try:
        print(f"{attempt(recipe, given.out)} prompts in {given.out}")
    except ValueError as error:
        parser.error(str(error))


if __name__ == "__main__":
    main()
