"""Recipes of thinking while painting (arXiv 2511.16671): supervised fine-tuning on stories, and reinforcement, with
which T2I-R1 (2505.00703) and Dual-GRPO go as well. All weights learn, or adapters (LoRA), which are kept as small
checkpoints of their own (models/low_rank.py)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from ..data.stories import DrawnStories, Stories
from ..loading import here
from ..models.janus import Janus
from ..models.janus_checkpoint import load_janus, save_janus
from ..models.low_rank import base_of, read_adapter, save_adapter
from ..models.registry import Source, fetched, resolve
from ..refusals import check_place
from . import adapters, folded
from .card import write_card
from .loop import LoopConfig, train
from .recipes import section, shipped
from .stories import StoryTask, StoryTraining

CONTEXT = 512
"""Tokens that a small Janus reads once it has learnt from stories: a prompt, all thoughts, and the picture."""


def sft(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: model (a Janus: name, hub id or folder), data (a folder of `data build thoughts`, or atelier:3,3,2 to draw
    stories of so many regions as it goes), from (an adapter to go on from), export. Sections: mix (StoryTraining),
    lora, loop."""
    mix, loop = section(recipe, "mix", StoryTraining), section(recipe, "loop", LoopConfig)
    lora, source = section(recipe, "lora", adapters.Lora), resolve(recipe["model"])
    if source.family not in (None, "janus"):
        raise ValueError(f"{source.name} does not think while it paints; give a Janus.")
    drawn = str(recipe["data"]).partition(":") if str(recipe["data"]).startswith("atelier") else None
    known = None if drawn else Stories(recipe["data"])
    folder = fetched(source).folder
    assert folder is not None
    model, words = load_janus(folder, dtype=_kind(recipe, lora), device=here(None))
    stories = known or _drawn(model, drawn[2] if drawn else "", seed, mix)
    task = StoryTask(model.train(), words, stories, mix, seed)
    if lora.rank:
        task.model = folded.fold(model, lora) if lora.folded else adapters.add(model, lora)
        if recipe.get("from"):
            (folded if lora.folded else adapters).put(task.model, read_adapter(recipe["from"]))
    train(task, loop, out, recipe=dict(recipe))
    _speaks(model, stories.wording)
    folder = Path(recipe.get("export") or out / "checkpoint")
    number = f"{len(known)} stories" if known else "stories drawn as it went"
    told = f"Begun with {source.name}; {number}."
    _keep(model, words, task.model if lora.rank else None, folder, source.name, lora, out, told)
    return out


def _drawn(model: Janus, regions: str, seed: int, mix: StoryTraining) -> DrawnStories:
    """Stories that are drawn as they are wanted. ValueError for what is no list of numbers."""
    from ..data.teachers import AtelierTeacher

    parts = regions.split(",") if regions else ["3"]
    if not all(part.strip().isdecimal() and int(part) for part in parts):
        raise ValueError(f"data=atelier:{regions}: after the colon stand numbers of regions such as 3 or 2,3,4.")
    grid = model.config.grid
    side = grid * model.config.pixels_per_code
    counts = tuple(map(int, parts))
    wrong = 0.5 if mix.reflect else 0.0
    teacher = AtelierTeacher(None, grid * grid, grid, counts, wrong, side, seed, unheard=mix.unheard)
    return DrawnStories(teacher, grid * grid)


def reinforced(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Sections: tree (AtelierRl), grpo (GrpoConfig), alarms (Alarms), lora, loop; from: the Janus that learns (name,
    folder, or an adapter, which with `lora` goes on learning), the shipped one if left out; inspector: a folder of
    weights, likewise; export: folder for the finished checkpoint. With prompts (a file, see rewards.read_facts) and
    rewards (rewards.RewardChoice by name) it is any Janus in any world, tree is a JanusRl, and judging
    (cluster.rewards.Judging) says where rewards are computed. dtype: of the weights that stay, with lora. keep: the
    weights of every sample sheet, too, beside it as `kept-STEP`."""
    from ..cluster.rewards import closing
    from .alarms import Alarms
    from .grpo import GrpoConfig, reinforce
    from .janus_grpo import Learning
    from .roll_sheets import roll_sheet
    from .twin import Twin

    grpo, alarms = section(recipe, "grpo", GrpoConfig), section(recipe, "alarms", Alarms)
    loop, lora = section(recipe, "loop", LoopConfig), section(recipe, "lora", adapters.Lora)
    if lora.folded:
        raise ValueError("lora.folded is for supervised learning; leave it out here.")
    rewards: dict[str, Any] = {}
    make, device = _rewarding(recipe, rewards), here(None)
    source = fetched(resolve(recipe.get("from") or "atelier-janus"))
    base = source.folder
    assert base is not None
    began = base_of(base) if lora.rank else None
    model, words = load_janus(began or base, dtype=_kind(recipe, lora), device=device)
    wrapped = _only_language(model, lora)
    if wrapped is not None and began is not None:
        adapters.put(wrapped, read_adapter(base))
    twin = Twin.of(model, wrapped) if wrapped is not None or device != "cpu" else None
    learning = Learning(model, words, source.thinker, source.dialogue, twin, wrapped)
    task = make(learning, grpo, alarms, device)
    home = str(recipe.get("from") or "atelier-janus") if began is None else _base_name(source)
    paid = "its rewards" if recipe.get("prompts") else "the inspector"
    _speaks(model, source.dialogue)

    def kept(folder: Path) -> None:
        _keep(model, words, wrapped, folder, home, lora, out, f"Begun with {source.name}; paid by {paid}.")

    def sampled(step: int, folder: Path) -> None:
        roll_sheet(task.latest, step, folder)
        if recipe.get("keep"):
            kept(folder / f"kept-{step:06}")

    with closing(rewards):
        reinforce(task, loop, out, recipe, sampled)
    folder = Path(recipe.get("export") or out / "checkpoint")
    kept(folder)
    return out


def _rewarding(recipe: Mapping[str, Any], rewards: dict[str, Any]) -> Callable[[Any, Any, Any, str], Any]:
    """Checks what the recipe says of prompts, rewards and tree; makes the task once the model is there, and notes the
    rewards."""
    from ..cluster.rewards import judging_of

    judging = judging_of(recipe)
    if not recipe.get("prompts"):
        if judging is not None:
            raise ValueError("judging: the inspector judges beside the trainer; give prompts and rewards of their own.")
        from .atelier_grpo import AtelierRl, atelier_task

        atelier, where = section(recipe, "tree", AtelierRl), recipe.get("inspector") or shipped("atelier-inspector")

        def painted(learning: Any, grpo: Any, alarms: Any, device: str) -> Any:
            from ..atelier.inspector import Inspector

            return atelier_task(learning, Inspector.load(where, device), atelier, grpo, alarms)

        return painted
    from .janus_grpo import JanusRl, janus_task
    from .rewards import chosen, opened, read_facts

    tree, choices = section(recipe, "tree", JanusRl), chosen(recipe.get("rewards") or {})
    facts = {one.prompt: one for one in read_facts(recipe["prompts"])}
    tree.rewards = {name: choice.weight for name, choice in choices.items() if choice.weight}

    def judged(learning: Any, grpo: Any, alarms: Any, device: str) -> Any:
        rewards.update(opened(choices, facts, device, judging))
        return janus_task(learning, list(facts), rewards, tree, grpo, alarms)

    return judged


def _kind(recipe: Mapping[str, Any], lora: adapters.Lora) -> torch.dtype:
    """The type of the weights that stay; what learns is float32. ValueError for half precision without adapters."""
    name = recipe.get("dtype") or "float32"
    check_place(None, name)
    if name != "float32" and not lora.rank:
        raise ValueError(f"dtype={name}: all weights learn in float32; with lora.rank the base may be in {name}.")
    return getattr(torch, name)


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
        parts = (folded if lora.folded else adapters).parts(wrapped)
        save_adapter(folder, base, model.config.to_dict(), lora.alpha / lora.rank, parts)
        title += ", as an adapter"
    write_card(out, folder, title, [told])
