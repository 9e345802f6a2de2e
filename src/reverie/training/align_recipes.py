"""The recipes of ThinkDiff's aligners, built from their sections: data, frozen T5, aligner, task, loop, export."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..data.webdataset import open_features
from ..models.aligner import Aligner, AlignerConfig, load_aligner, save_aligner
from ..models.t5 import load_t5, read_back
from ..models.vision_tokens import load_blip2, load_tower
from ..vlms.states import LAST, FeatureStates
from .align import AlignConfig, AlignTask, Masking, Words, stack_features
from .align_clip import ClipAlignTask, read_captions
from .encoder_space import SpacedAligner, principal_space
from .loop import LoopConfig, train
from .recipes import section


@dataclass
class AlignerSetup:
    """type: one of the authors' projector types. copy_norm: its norms start as the T5 encoder's final norm (False: at
    1, the paper's ablation). std: linear layers start normal with this deviation and zero biases; None: torch's rule.
    space: so many principal directions of the encoder's vectors are all that the aligner writes (`encoder_space.py`);
    0: it writes what it likes, the paper's method.
    """

    type: str = "mlp2x_gelu_t5_norm"
    copy_norm: bool = True
    std: float | None = None
    space: int = 0


def lvlm(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains on stored features, or on the `states` of them that the recipe names; returns `out`, where
    aligner.safetensors then lies."""
    from transformers import AutoTokenizer

    setup, config = section(recipe, "aligner", AlignerSetup), section(recipe, "data", AlignConfig)
    masking, loop = section(recipe, "masking", Masking), section(recipe, "loop", LoopConfig)
    states = FeatureStates.told(recipe["states"]) if recipe.get("states") else None
    source = open_features(_needed(recipe, "features"), recipe.get("kind", "generated"), states)
    kept = Path(recipe["features"]) / "tokenizer"
    if not recipe.get("answers") and not kept.is_dir():
        raise ValueError(f"{recipe['features']} holds no tokenizer; name the VLM that wrote the answers as `answers`.")
    answers = AutoTokenizer.from_pretrained(recipe.get("answers") or kept)
    begun = _begun(recipe, source.width // source.states.parts)
    t5, words = load_t5(_needed(recipe, "t5"), encoder=setup.space > 0 or config.pull > 0, dtype=_dtype())
    aligner: Any = _fresh(setup, source.width, t5, "lvlm", source.states) if begun is None else begun
    if setup.space:
        texts = [source[number].text for number in range(min(sum(source.shards), 4096))]
        aligner = SpacedAligner(aligner, *principal_space(t5, Words(words, config.text), texts, setup.space))
    task = AlignTask(aligner, t5, words, source, answers, config, masking, seed)
    return _run(task, loop, out, recipe, lambda step, folder: readings(task, step, folder))


def clip(recipe: Mapping[str, Any], out: Path, seed: int) -> Path:
    """Trains on pictures and captions; returns `out`, where aligner.safetensors then lies."""
    setup, config = section(recipe, "aligner", AlignerSetup), section(recipe, "data", AlignConfig)
    loop, captions = section(recipe, "loop", LoopConfig), read_captions(_needed(recipe, "captions"))
    begun = _begun(recipe, None)
    tower, t5, words = _looking(recipe)
    aligner = _fresh(setup, tower.config.hidden_size, t5, "clip") if begun is None else begun
    task = ClipAlignTask(aligner, tower, t5, words, captions, config, recipe.get("downsample", 2), seed)
    return _run(task, loop, out, recipe, None)


def _looking(recipe: Mapping[str, Any]) -> tuple[Any, Any, Any]:
    """(vision tower, T5, its tokenizer): those of a BLIP-2, as published, or of a CLIP and of a T5 of their own."""
    if recipe.get("tower"):
        t5, words = load_t5(_needed(recipe, "t5"), dtype=_dtype())
        return load_tower(recipe["tower"], _dtype()), t5, words
    return load_blip2(_needed(recipe, "blip2"), dtype=_dtype())


def readings(task: AlignTask, step: int, out: Path, count: int = 8) -> None:
    """Appends what the T5 reads from a few aligned answers to `out`/readings.jsonl, beside the answers themselves.

    The loss is a poor guide: runs are chosen by what their vectors say.
    """
    device = task.model.device
    task.place(device)
    task.t5.eval()
    numbers = range(0, sum(task.source.shards), max(1, sum(task.source.shards) // count))
    samples = [task.source[number] for number in numbers]
    features, mask = stack_features([sample.features[: task.masking.limit].float() for sample in samples])
    with torch.no_grad():
        memory: Tensor = task.model(features.to(device))
    ids = read_back(task.t5, memory, mask.to(device), task.config.text)
    task.t5.train(task.config.dropout)
    with (out / "readings.jsonl").open("a", encoding="utf-8") as file:
        for sample, read in zip(samples, task.words.tokenizer.batch_decode(ids, skip_special_tokens=True), strict=True):
            row = {"step": step, "key": sample.key, "answer": sample.text, "read": read}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


def _begun(recipe: Mapping[str, Any], width: int | None) -> Aligner | None:
    """The aligner to go on from, if the recipe names one; it is loaded before anything heavy."""
    return load_aligner(recipe["from"], source=width).train() if recipe.get("from") else None


def _fresh(setup: AlignerSetup, width: int, t5: Any, variant: str, states: FeatureStates = LAST) -> Aligner:
    norm = t5.encoder.final_layer_norm.weight.float() if setup.copy_norm else None
    config = AlignerConfig.from_type(setup.type, width, t5.config.d_model, variant, states)
    return Aligner(config).initialise(norm, setup.std)


def _run(
    task: Any, loop: LoopConfig, out: Path, recipe: Mapping[str, Any], on_sample: Callable[[int, Path], None] | None
) -> Path:
    from accelerate import PartialState

    # Before the loop starts its workers, which would otherwise keep the copy of the frozen parts that the CPU holds.
    task.place(PartialState().device)
    trained: nn.Module = train(task, loop, out, on_sample, recipe)
    finished = trained.folded() if isinstance(trained, SpacedAligner) else trained
    assert isinstance(finished, Aligner)
    save_aligner(finished, Path(recipe.get("export") or out / "aligner.safetensors"))
    return out


def _needed(recipe: Mapping[str, Any], key: str) -> str:
    if not recipe.get(key):
        raise ValueError(f"the recipe needs `{key}`; see recipes/thinkdiff.")
    return str(recipe[key])


def _dtype() -> torch.dtype:
    """Of what is frozen."""
    return torch.bfloat16 if torch.cuda.is_available() else torch.float32
