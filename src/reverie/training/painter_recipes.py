"""The recipes of the Atelier's other painters of codes, Show-o and LlamaGen, built from their sections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .card import write_card
from .loop import LoopConfig, train
from .recipes import section, shipped
from .samples import paintings


def showo(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Keys: tokenizer (folder of a tokenizer run or of a Janus, or a shipped Janus by name, whose tokenizer is then
    shared and not saved again), words (a tokenizer.json of text, trained now if left out), from (a Show-o checkpoint to
    go on from instead of a fresh model), export. Sections: model (ShowoSizes), mix (ShowoTraining), loop."""
    from ..models.showo_checkpoint import load_showo, save_showo
    from .showo import ShowoSizes, ShowoTask, ShowoTraining, fresh_showo

    sizes, mix = section(recipe, "model", ShowoSizes), section(recipe, "mix", ShowoTraining)
    loop = section(recipe, "loop", LoopConfig)
    model, words = load_showo(recipe["from"]) if recipe.get("from") else fresh_showo(sizes, *_parts(recipe))
    task = ShowoTask(model, words, mix, seed)
    train(task, loop, out, lambda step, folder: paintings(task, step, folder), recipe)
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_showo(model, words, folder)
    write_card(out, folder, "Show-o of the Atelier", ["Trained from scratch on drawn scenes."])
    return out


def llamagen(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """The same of a LlamaGen; sections: model (LlamagenSizes), mix (LlamagenTraining), loop. Also decoder, a refined
    tokenizer run whose decoder replaces the first one at the end."""
    from ..models.llamagen_checkpoint import load_llamagen, save_llamagen
    from .llamagen import LlamagenSizes, LlamagenTask, LlamagenTraining, build_llamagen

    sizes, mix = section(recipe, "model", LlamagenSizes), section(recipe, "mix", LlamagenTraining)
    loop = section(recipe, "loop", LoopConfig)
    model, words = load_llamagen(recipe["from"]) if recipe.get("from") else build_llamagen(sizes, *_parts(recipe))
    task = LlamagenTask(model, words, mix, seed)
    train(task, loop, out, lambda step, folder: paintings(task, step, folder), recipe)
    if recipe.get("decoder"):
        from .tokenizer import finished_tokenizer

        _, refined = finished_tokenizer(recipe["decoder"])
        model.vqmodel.load_state_dict(refined.state_dict())
    folder = Path(recipe.get("export") or out / "checkpoint")
    save_llamagen(model, words, folder)
    write_card(out, folder, "LlamaGen of the Atelier", ["Trained from scratch on drawn scenes."])
    return out


def _parts(recipe: Mapping[str, Any]) -> tuple[Any, Any, str | None, Any]:
    """Sizes and network of the image tokenizer that a recipe names, the name of the shipped Janus that it is, and the
    tokenizer of text in the file `words`."""
    from tokenizers import Tokenizer

    from ..models.registry import entries
    from .tokenizer import finished_tokenizer

    name, words = recipe.get("tokenizer"), recipe.get("words")
    if words and not Path(words).is_file():
        raise ValueError(f"words={words}: there is no such tokenizer.json; leave it out to have one trained.")
    found = finished_tokenizer(shipped(str(name)) if name in entries() else name)
    return *found, name if name in entries() else None, Tokenizer.from_file(str(words)) if words else None
