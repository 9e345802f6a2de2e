"""What a roll-out looks like, while it learns: the worst and the best picture of each prompt, and their rewards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .samples import sheet
from .tree import Branch, Tree

SHOWN = 16
"""Prompts on a sheet, at most."""


def roll_sheet(trees: Sequence[Tree], step: int, folder: Path) -> None:
    """Writes rollout-STEP.png, a column a prompt with its worst picture above its best, and a line for each column to
    rollouts.jsonl: the prompt and all rewards of both."""
    shown = [(tree, *_ends(tree)) for tree in trees[:SHOWN]]
    if not shown:
        return
    columns = [np.concatenate([np.asarray(worst.result), np.asarray(best.result)]) for _, worst, best in shown]
    sheet(columns, min(len(columns), 8)).save(folder / f"rollout-{step:06d}.png")
    with (folder / "rollouts.jsonl").open("a") as log:
        for tree, worst, best in shown:
            row = {"step": step, "prompt": tree.prompt, "worst": worst.rewards, "best": best.rewards}
            log.write(json.dumps(row) + "\n")


def _ends(tree: Tree) -> tuple[Branch, Branch]:
    """The leaves with the least and the largest sum of rewards; a missing one counts as 0 here."""
    leaves = sorted(tree.leaves(), key=lambda leaf: float(np.nansum(list(leaf.rewards.values()))))
    return leaves[0], leaves[-1]
