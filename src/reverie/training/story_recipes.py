"""Recipes of thinking while painting (arXiv 2511.16671): supervised fine-tuning on stories, and reinforcement, with
which T2I-R1 (2505.00703) and Dual-GRPO go as well. All weights learn, or adapters (LoRA), which are kept as small
checkpoints of their own (models/janus_adapter.py)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.stories import Stories
from ..loading import here
from ..models.janus import Janus
from ..models.janus_adapter import base_of, read_adapter, save_adapter
from ..models.janus_checkpoint import load_janus, save_janus
from ..models.registry import Source, fetched, resolve
from . import adapters
from .card import write_card
from .loop import LoopConfig, train
from .recipes import section, shipped
from .stories import StoryTask, StoryTraining

CONTEXT = 512
"""Tokens that a small Janus reads once it has learnt from stories: a prompt, all thoughts, and the picture."""


def sft(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (a Janus: name, hub id or folder), data (a folder of `data build thoughts`), from (an adapter to go
    on from), export. Sections: mix (StoryTraining), lora, loop."""
    mix, loop = section(recipe, "mix", StoryTraining), section(recipe, "loop", LoopConfig)
    lora, source = section(recipe, "lora", adapters.Lora), resolve(recipe["model"])
    if source.family not in (None, "janus"):
        raise ValueError(f"{source.name} does not think while it paints; give a Janus.")
    stories = Stories(recipe["data"])
    folder = fetched(source).folder
    assert folder is not None
    model, words = load_janus(folder, dtype=torch.float32, device=here(None))
    task = StoryTask(model.train(), words, stories, mix, seed)
    if lora.rank:
        task.model = adapters.add(model, lora)
        if recipe.get("from"):
            adapters.put(task.model, read_adapter(recipe["from"]))
    train(task, loop, out, recipe=dict(recipe))
    _speaks(model, stories.wording)
    folder = Path(recipe.get("export") or out / "checkpoint")
    told = f"Begun with {source.name}; {len(stories)} stories."
    _keep(model, words, task.model if lora.rank else None, folder, source.name, lora, out, told)
    return out


def reinforced(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Sections: tree (AtelierRl), grpo (GrpoConfig), alarms (Alarms), lora, loop; from: the Janus that learns (name,
    folder, or an adapter, which with `lora` goes on learning), the shipped one if left out; inspector: a folder of
    weights, likewise; export: folder for the finished checkpoint."""
    from ..atelier.inspector import Inspector
    from .alarms import Alarms
    from .atelier_grpo import AtelierRl, atelier_task
    from .grpo import GrpoConfig, reinforce
    from .roll_sheets import roll_sheet
    from .twin import Twin

    tree, grpo = section(recipe, "tree", AtelierRl), section(recipe, "grpo", GrpoConfig)
    alarms, loop = section(recipe, "alarms", Alarms), section(recipe, "loop", LoopConfig)
    lora, source = section(recipe, "lora", adapters.Lora), fetched(resolve(recipe.get("from") or "atelier-janus"))
    base, device = (source.folder, here(None))
    assert base is not None
    began = base_of(base) if lora.rank else None
    model, words = load_janus(began or base, dtype=torch.float32, device=device)
    wrapped = _only_language(model, lora)
    if wrapped is not None and began is not None:
        adapters.put(wrapped, read_adapter(base))
    inspector = Inspector.load(recipe.get("inspector") or shipped("atelier-inspector"), device)
    twin = Twin.of(model, wrapped) if wrapped is not None or device != "cpu" else None
    task = atelier_task(model, words, source.thinker, inspector, tree, grpo, alarms, twin, wrapped, source.dialogue)
    reinforce(task, loop, out, recipe, lambda step, folder: roll_sheet(task.latest, step, folder))
    _speaks(model, source.dialogue)
    folder = Path(recipe.get("export") or out / "checkpoint")
    home = recipe.get("from") or "atelier-janus"
    if began is not None:
        home = _base_name(source)
    told = f"Begun with {source.name}; paid by the inspector."
    _keep(model, words, wrapped, folder, home, lora, out, told)
    return out


def _base_name(source: Source) -> str:
    """What the adapter of a source says that it builds on."""
    return source.config["reverie"]["adapter"]["base"]


def _only_language(model: Janus, lora: adapters.Lora) -> Any:
    """Adapters on the language model alone, if there are to be any; what looks and what makes pixels never learns."""
    if not lora.rank:
        return None
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    return adapters.add(model, lora)


def _speaks(model: Janus, wording: str) -> None:
    """Notes in the configuration how the model is asked while it paints, and that it reads that much."""
    if wording:
        raw = model.config.raw
        raw["reverie"] = {**raw.get("reverie", {}), "dialogue": wording}
        language = raw["language_config"]
        language["max_position_embeddings"] = max(CONTEXT, language.get("max_position_embeddings", 0))


def _keep(
    model: Janus, words: Any, wrapped: Any, folder: Path, base: str, lora: adapters.Lora, out: Path, told: str
) -> None:
    """The finished weights: whole, or the adapters alone beside the name of what they build on."""
    title = "Janus that thinks while it paints"
    if wrapped is None:
        save_janus(model, words, folder)
    else:
        base = str(Path(base).resolve()) if Path(base).is_dir() else base
        save_adapter(folder, base, model.config.to_dict(), lora.alpha / lora.rank, adapters.parts(wrapped))
        title += ", as an adapter"
    write_card(out, folder, title, [told])
