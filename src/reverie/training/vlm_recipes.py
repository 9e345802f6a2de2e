"""The recipes of what looks in the Atelier, built from their sections: the small Qwen2-VL and the small CLIP."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card import write_card
from .clip import ClipSizes, ClipTask, ClipTraining, build_clip, save_clip
from .loop import LoopConfig, train
from .recipes import section
from .state import load_mean
from .vlm import VlmTask, VlmTraining
from .vlm_build import VlmSizes, build_processor, build_tokenizer, build_vlm, save_vlm
from .vlm_report import glimpse


def vlm(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains a Qwen2-VL; returns `out`. The checkpoint lies in `export`, or in `out`/checkpoint."""
    sizes, mix = section(recipe, "model", VlmSizes), section(recipe, "mix", VlmTraining)
    loop, tries = section(recipe, "loop", LoopConfig), int(recipe.get("glimpse", 6))
    processor = build_processor(sizes, build_tokenizer(sizes))
    task = VlmTask(build_vlm(sizes, processor.tokenizer), processor.tokenizer, sizes, mix, seed)
    if recipe.get("from"):
        load_mean(Path(recipe["from"]) / "state.pt", task.model)
    train(task, loop, out, lambda step, folder: glimpse(task.vlm, processor, step, folder, tries), recipe)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_vlm(task.vlm, processor, folder)
    write_card(
        out, folder, "Qwen2-VL of the Atelier", ["Trained from scratch on drawn scenes; it never saw a painter."]
    )
    return out


def clip(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains a CLIP; returns `out`, as above."""
    sizes, mix = section(recipe, "model", ClipSizes), section(recipe, "mix", ClipTraining)
    loop = section(recipe, "loop", LoopConfig)
    task = ClipTask(*build_clip(sizes), mix, seed)
    train(task, loop, out, recipe=recipe)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_clip(task.model, task.words, folder)
    write_card(out, folder, "CLIP of the Atelier", ["Trained from scratch on drawn scenes and captions."])
    return out
