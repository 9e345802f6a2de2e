"""The recipes of atelier-qwen, from their sections: an autoencoder, a language model that sees, a transformer."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..models.diffusion_checkpoint import settings_of
from .card import write_card
from .loop import LoopConfig, train
from .qwen import QwenTask, QwenTraining, assemble, fresh_transformer
from .qwen_build import QwenSizes, QwenVlmSizes, build_processor, build_vlm, build_words, save_parts
from .qwen_vae import QwenVaeSizes, QwenVaeTask, QwenVaeTraining, fresh_vae, load_vae, measure, save_vae
from .qwen_vlm import QwenVlmTask, QwenVlmTraining
from .recipes import section
from .samples import paintings, reconstructions
from .state import load_mean


def vae(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the autoencoder, or one that there is on; returns `out`."""
    import torch

    sizes, mix = section(recipe, "model", QwenVaeSizes), section(recipe, "mix", QwenVaeTraining)
    loop, folder = section(recipe, "loop", LoopConfig), _export(recipe, out)
    begun = load_vae(recipe["from"]).requires_grad_(True) if recipe.get("from") else fresh_vae(sizes)
    task = QwenVaeTask(begun, mix, seed)
    model = train(task, loop, out, lambda step, folder: reconstructions(task, step, folder), recipe).eval()
    if mix.encoder:
        held_out = QwenVaeTask(task.model, mix, seed + 1)
        pixels = torch.cat([held_out.batch(step)["new"] for step in range(-(-min(512, mix.pool) // mix.fresh))])
        measure(model, (pixels.float() / 127.5 - 1).to(next(model.parameters()).device))
    save_vae(model.cpu(), folder)
    write_card(out, folder, "Autoencoder of atelier-qwen", ["AutoencoderKLQwenImage, trained on drawn scenes."])
    return out


def vlm(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the language model; returns `out`. `text_encoder`, `tokenizer` and `processor` lie in the export; those of
    the folder `words` are kept."""
    sizes, mix = section(recipe, "model", QwenVlmSizes), section(recipe, "mix", QwenVlmTraining)
    loop, folder = section(recipe, "loop", LoopConfig), _export(recipe, out)
    known = Path(recipe["words"]) if recipe.get("words") else None
    words = _words(known / "tokenizer") if known else build_words(sizes)
    task = QwenVlmTask(build_vlm(sizes, words), words, sizes, mix, seed)
    if recipe.get("from"):
        load_mean(Path(recipe["from"]) / "state.pt", task.model)
    train(task, loop, out, None, recipe)
    save_parts(task.vlm.cpu(), words, folder)
    if known:
        shutil.copytree(known / "processor", folder / "processor", dirs_exist_ok=True)
    else:
        build_processor(sizes, words).save_pretrained(folder / "processor")
    notes = ["Qwen2.5-VL, trained from scratch on words, facts and drawn scenes; it never saw a painter."]
    write_card(out, folder / "text_encoder", "Language model of atelier-qwen", notes)
    return out


def qwen(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains the transformer around a finished autoencoder and language model; returns `out`."""
    import diffusers
    import torch

    sizes, mix = section(recipe, "model", QwenSizes), section(recipe, "mix", QwenTraining)
    loop, folder = section(recipe, "loop", LoopConfig), _export(recipe, out)
    parts = Path(recipe.get("vlm") or "runs/atelier/qwen-vlm/checkpoint")
    encoder, words = load_encoder(parts)
    autoencoder = load_vae(recipe.get("vae") or "runs/atelier/qwen-vae/checkpoint")
    if recipe.get("from"):
        loader: Any = diffusers.QwenImageTransformer2DModel
        found = loader.from_pretrained(recipe["from"], subfolder="transformer", torch_dtype=torch.float32)
        transformer = found.requires_grad_(True)
    else:
        transformer = fresh_transformer(sizes, autoencoder, encoder)
    task = QwenTask(assemble(autoencoder, encoder, words, transformer), sizes, mix, seed)
    train(task, loop, out, lambda step, folder: paintings(task, step, folder), recipe)
    save_qwen(task.pipeline, parts, sizes, mix.side, folder)
    notes = [
        "Qwen-Image and its editor, small, trained from scratch on drawn scenes.",
        "It paints plain words and knows facts; what joins the two is thinking (`--think before`).",
    ]
    write_card(out, folder, "Qwen-Image of the Atelier", notes)
    return out


def load_encoder(folder: str | Path) -> tuple[Any, Any]:
    """The language model and the tokenizer that `vlm` left, frozen, in float32. ValueError if there is none."""
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration

    if not (Path(folder) / "text_encoder" / "config.json").is_file():
        raise ValueError(f"there is no language model in {folder}; train one first: recipes/atelier/qwen-vlm.yaml")
    found = Qwen2_5_VLForConditionalGeneration.from_pretrained(Path(folder) / "text_encoder", dtype=torch.float32)
    return found.eval().requires_grad_(False), _words(Path(folder) / "tokenizer")


def save_qwen(pipeline: Any, parts: str | Path, sizes: QwenSizes, side: int, folder: str | Path) -> None:
    """The diffusers layout in bfloat16: a QwenImageEditPipeline, from which a QwenImagePipeline loads as well. parts:
    where the processor is."""
    import diffusers
    import torch

    folder = Path(folder)
    plain: Any = diffusers.AutoencoderKLQwenImage.from_config(settings_of(pipeline.vae))
    plain.load_state_dict(pipeline.vae.state_dict())
    pipeline.to("cpu")
    pipeline.to(torch.bfloat16)
    pipeline.register_modules(vae=plain.to(torch.bfloat16))
    pipeline.save_pretrained(folder)
    shutil.copytree(Path(parts) / "processor", folder / "processor", dirs_exist_ok=True)
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    own = {"steps": sizes.steps, "guidance": sizes.guidance, "limit": sizes.limit, "height": side, "width": side}
    index |= {"_class_name": "QwenImageEditPipeline", "processor": ["transformers", "Qwen2VLProcessor"]}
    index["_reverie"] = own | {"area": side**2, "paints": True, "judge": "atelier"}
    write_atomically(folder / "model_index.json", lambda path: path.write_text(json.dumps(index, indent=2)))


def _words(folder: str | Path) -> Any:
    from transformers import Qwen2Tokenizer

    return Qwen2Tokenizer.from_pretrained(folder)


def _export(recipe: Mapping[str, Any], out: Path) -> Path:
    return Path(recipe.get("export") or out / "checkpoint")
