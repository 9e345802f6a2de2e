"""LLaVA-OneVision weights on disk: the authors' layout (LLaVA-NeXT names), converted on load, and that of transformers.

One layout serves the public zero-shot model and the fine-tuned judges of "verify and reinforce" (arXiv 2501.13926): a
flat config.json with Qwen2 and multimodal fields side by side, a SigLIP tower without its last block, a two-layer
projector, Qwen2. What the loader takes care of, since the folder does not say it in words transformers would read:

- the tower has as many blocks as are stored; its last hidden state is used, without the final norm that is stored, too;
- embedding and head are cut to the tokenizer's length: the rows beyond it are untrained and would enter the softmax;
- `model_type` may be `llava`, which transformers takes for LLaVA-1.5: the layout is recognised by `architectures`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.models.janus_checkpoint import resolve, weight_files, weights_path

AUTHORS = "LlavaQwenForCausalLM"
TRANSFORMERS = "LlavaOnevisionForConditionalGeneration"
TOWERS = {
    "google/siglip-so400m-patch14-384": {
        "hidden_size": 1152,
        "intermediate_size": 4304,
        "num_attention_heads": 16,
        "image_size": 384,
        "patch_size": 14,
    }
}
"""Geometry of the vision towers that a config.json only names."""
QWEN2 = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "max_position_embeddings",
    "rms_norm_eps",
    "hidden_act",
)
# (the authors' beginning of a name, that of transformers), tried in order.
RENAMES = (
    ("model.vision_tower.vision_tower.vision_model.", "model.vision_tower."),
    ("model.mm_projector.0.", "model.multi_modal_projector.linear_1."),
    ("model.mm_projector.2.", "model.multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline"),
    ("lm_head.", "lm_head."),
    ("model.", "model.language_model."),
)
BLOCKS = "model.vision_tower.vision_tower.vision_model.encoder.layers."


@dataclass
class Llava:
    """A loaded model with what its files say besides."""

    model: Any
    """`LlavaOnevisionForConditionalGeneration`, in evaluation mode."""
    tokenizer: Any
    raw: dict[str, Any]
    """config.json as it stands."""
    pinpoints: list[tuple[int, int]]
    """(width, height) of the canvases that any-resolution views are tiled on."""
    filters: tuple[int, float]
    """top_k and top_p of generation_config.json; (0, 1.0) where it filters nothing."""


def load_llava(source: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu") -> Llava:
    """A folder, or the id of a Hugging Face repository, which is then fetched.

    dtype: of all weights; by default bfloat16 on accelerators and float32 on the CPU.
    Raises ValueError, in one sentence, for folders that do not hold a complete LLaVA-OneVision.
    """
    folder = resolve(source)
    raw = read_json(folder / "config.json")
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    kind = (raw.get("architectures") or ["nothing"])[0]
    if kind not in (AUTHORS, TRANSFORMERS):
        raise ValueError(f"{folder} is a {kind}; a LLaVA judge is a {AUTHORS} or a {TRANSFORMERS}.")
    from transformers import LlavaOnevisionForConditionalGeneration, Qwen2Tokenizer

    weights_path(folder)
    tokenizer = Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)
    if kind == AUTHORS:
        model = _converted(folder, raw, len(tokenizer), dtype)
    else:
        model = LlavaOnevisionForConditionalGeneration.from_pretrained(folder, dtype=dtype, local_files_only=True)
    path = folder / "generation_config.json"
    generation = read_json(path) if path.is_file() else {}
    filters = (generation.get("top_k") or 0, generation.get("top_p") or 1.0)
    pinpoints = [(int(a), int(b)) for a, b in raw.get("image_grid_pinpoints") or []]
    if kind == TRANSFORMERS:
        pinpoints = [(width, height) for height, width in pinpoints]
    return Llava(model.to(device).eval(), tokenizer, raw, pinpoints, filters)


def read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise ValueError(f"{path.parent} holds no {path.name}, so it is no checkpoint; give the folder that holds it.")
    try:
        return json.loads(path.read_text("utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from error


def _converted(folder: Path, raw: dict[str, Any], words: int, dtype: torch.dtype) -> Any:
    from accelerate import init_empty_weights
    from transformers import LlavaOnevisionForConditionalGeneration

    stored = {name: tensor.to(dtype) for _, part in weight_files(folder) for name, tensor in part.items()}
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name in stored:
            stored[name] = stored[name][:words].contiguous()
    blocks = 1 + max((int(n.removeprefix(BLOCKS).split(".")[0]) for n in stored if n.startswith(BLOCKS)), default=-1)
    # Buffers, such as rotary frequencies, are in no file: they must be computed, the weights need not.
    with init_empty_weights(include_buffers=False):
        model = LlavaOnevisionForConditionalGeneration(_config(folder, raw, words, blocks))
    expected = {name: tensor.shape for name, tensor in model.named_parameters()}
    inner = any(name.startswith("model.vision_tower.vision_model.") for name in expected)
    found: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        ours = to_transformers(name, inner)
        if ours not in expected:
            raise ValueError(f"{folder} holds the tensor {name}, which no LLaVA-OneVision of its config.json has.")
        if tensor.shape != expected[ours]:
            raise ValueError(
                f"{folder} holds {name} in the shape {list(tensor.shape)}, but by config.json and tokenizer it should "
                f"be {list(expected[ours])}; check that they belong together."
            )
        found[ours] = tensor
    missing = next((name for name in expected if name not in found), None)
    if missing is not None:
        raise ValueError(f"{weights_path(folder)} lacks a tensor ({missing} in transformers); fetch it again.")
    model.load_state_dict(found, assign=True, strict=False)  # strict would ask for the computed buffers
    return model


def to_transformers(name: str, inner: bool) -> str:
    """The name that transformers gives a tensor. inner: whether its towers have a `vision_model` inside."""
    for theirs, ours in RENAMES:
        if name.startswith(theirs):
            tower = ours == "model.vision_tower." and inner
            return ours + ("vision_model." if tower else "") + name.removeprefix(theirs)
    return name


def _config(folder: Path, raw: dict[str, Any], words: int, blocks: int) -> Any:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    named = raw.get("mm_vision_tower") or raw.get("vision_tower")
    tower = raw.get("mm_vision_tower_config") or TOWERS.get(str(named))
    if tower is None:
        raise ValueError(f"{folder} has the vision tower {named!r}; this version knows {', '.join(TOWERS)}.")
    lacking = next((name for name in ("hidden_size", "num_hidden_layers", "num_attention_heads") if name not in raw), 0)
    if lacking:
        raise ValueError(f"{folder / 'config.json'} has no {lacking!r}; fetch the checkpoint again.")
    if raw.get("mm_projector_type", "mlp2x_gelu") != "mlp2x_gelu":
        raise ValueError(f"{folder} has a projector of type {raw['mm_projector_type']!r}; only mlp2x_gelu is known.")
    rope = {"rope_type": "default", "rope_theta": float(raw.get("rope_theta", 1e6))}
    stated: dict[str, Any] = {name: raw[name] for name in QWEN2 if name in raw}
    text = Qwen2Config(
        vocab_size=words, rope_parameters=rope, tie_word_embeddings=False, use_sliding_window=False,
        **stated,
    )  # fmt: skip
    seen: dict[str, Any] = {name: value for name, value in tower.items() if name != "num_hidden_layers"}
    vision = SiglipVisionConfig(
        num_hidden_layers=blocks, vision_use_head=False, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6, **seen
    )
    return LlavaOnevisionConfig(
        vision_config=vision,
        text_config=text,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        vision_aspect_ratio=raw.get("image_aspect_ratio", "anyres_max_9"),
        projector_hidden_act="gelu",
        tie_word_embeddings=False,
        # Never used, as pictures enter as vectors; it only must be an id that exists.
        image_token_index=0,
        video_token_index=0,
    )
