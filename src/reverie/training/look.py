"""What a recipe would train, without training it: the recipe runs up to its loop and no further."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .loop import LoopConfig, Task

LOOKING: ContextVar[dict[str, Any] | None] = ContextVar("looking", default=None)
"""While a recipe is only looked at: its sections by name. The loop asks, and stops there."""


@dataclass
class Stopped(Exception):
    """Where a recipe that is only looked at ends."""

    task: Task
    loop: LoopConfig
    sections: dict[str, Any] = field(default_factory=dict)


def look(recipe: Mapping[str, Any]) -> Stopped:
    """The task and the settings that the recipe comes to, its models loaded. ValueError where it trains nothing, or
    has long work before it trains."""
    from .recipes import TASKS

    if recipe["task"] == "dpo-iterative":
        raise ValueError("dpo-iterative paints between its trainings: look at a recipe of one round, with task dpo.")
    token = LOOKING.set({})
    try:
        with tempfile.TemporaryDirectory() as out:
            TASKS[recipe["task"]]({**recipe, "out": out}, Path(out))
    except Stopped as found:
        return found
    finally:
        LOOKING.reset(token)
    raise ValueError(f"The task {recipe['task']} did not come to its training.")
