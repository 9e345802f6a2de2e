"""Recipes of thinking while painting (arXiv 2511.16671): supervised fine-tuning on stories."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.stories import Stories
from ..models.janus_checkpoint import load_janus, save_janus
from ..models.registry import fetched, resolve
from . import adapters
from .card import write_card
from .loop import LoopConfig, train
from .recipes import section
from .stories import StoryTask, StoryTraining


def sft(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (a Janus: name, hub id or folder), data (a folder of `data build thoughts`), export. Sections: mix
    (StoryTraining), lora, loop."""
    mix, loop = section(recipe, "mix", StoryTraining), section(recipe, "loop", LoopConfig)
    lora, source = section(recipe, "lora", adapters.Lora), resolve(recipe["model"])
    if source.family not in (None, "janus"):
        raise ValueError(f"{source.name} does not think while it paints; give a Janus.")
    stories = Stories(recipe["data"])
    folder = fetched(source).folder
    assert folder is not None
    model, words = load_janus(folder, dtype=torch.float32)
    task = StoryTask(model.train(), words, stories, mix, seed)
    if lora.rank:
        task.model = adapters.add(model, lora)
    train(task, loop, out, recipe=dict(recipe))
    if lora.rank:
        adapters.merged(task.model)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_janus(model, words, folder)
    write_card(out, folder, "Janus that thinks while it paints", [f"Begun with {source.name}; {len(stories)} stories."])
    return out
