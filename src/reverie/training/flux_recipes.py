"""The recipes of the picture side of atelier-thinkdiff, from their sections: a T5, an autoencoder, a FLUX on both."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..models.t5 import load_t5
from .autoencoder import AutoencoderTask, AutoencoderTraining, fresh_autoencoder, load_autoencoder, save_autoencoder
from .card import write_card
from .flux import FluxSizes, FluxTask, FluxTraining, fresh_flux, go_on, save_flux
from .loop import LoopConfig, train
from .recipes import section
from .samples import paintings, reconstructions
from .text_space import TextSizes, TextTask, TextTraining, caption_texts, fresh_t5, rescale, save_t5, word_pieces


def text_space(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the T5 and its tokenizer; returns `out`."""
    sizes, mix = section(recipe, "model", TextSizes), section(recipe, "mix", TextTraining)
    loop = section(recipe, "loop", LoopConfig)
    words = word_pieces(caption_texts(), sizes.vocabulary)
    task = TextTask(fresh_t5(sizes, words), words, mix, seed)
    train(task, loop, out, task.understood, recipe)
    rescale(task.model, sizes.scale)
    folder = _export(recipe, out)
    save_t5(task.model, words, folder)
    write_card(out, folder, "T5 of the Atelier", ["Trained from scratch on the Atelier's captions."])
    return out


def autoencoder(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the decoder of a fresh transform, or of the autoencoder in `from` (a run of its own, or a tokenizer);
    returns `out`."""
    mix, loop = section(recipe, "mix", AutoencoderTraining), section(recipe, "loop", LoopConfig)
    model = load_autoencoder(recipe["from"]) if recipe.get("from") else fresh_autoencoder(mix, seed)
    task = AutoencoderTask(model, mix, seed)
    train(task, loop, out, lambda step, folder: reconstructions(task, step, folder), recipe)
    folder = _export(recipe, out)
    save_autoencoder(task.model, folder)
    write_card(out, folder, "Autoencoder of the Atelier", ["AutoencoderKL on folded pixels, see models/folded_kl.py."])
    return out


def flux(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the transformer and the pooled text vector around a finished T5 and autoencoder; returns `out`."""
    sizes, mix = section(recipe, "model", FluxSizes), section(recipe, "mix", FluxTraining)
    loop = section(recipe, "loop", LoopConfig)
    vae = load_autoencoder(recipe.get("vae") or "runs/atelier/tokenizer")
    t5, words = load_t5(recipe.get("t5") or "runs/atelier/t5/checkpoint")
    pipeline = fresh_flux(sizes, vae, t5, words)
    if recipe.get("from"):
        go_on(pipeline, recipe["from"])
    task = FluxTask(pipeline, sizes, mix, seed)
    train(task, loop, out, lambda step, folder: paintings(task, step, folder), recipe)
    folder = _export(recipe, out)
    save_flux(pipeline, t5, sizes, mix.side, folder)
    write_card(out, folder, "FLUX of the Atelier", ["Trained from scratch on drawn scenes; it never saw a VLM."])
    return out


def _export(recipe: Mapping[str, Any], out: Path) -> Path:
    return Path(recipe.get("export") or out / "checkpoint")
