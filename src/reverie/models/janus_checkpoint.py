"""Janus weights on disk: the authors' layout, that of transformers, and ours (the authors' keys in safetensors shards).

Files are opened as tensors only. Every tensor of the model must be there in the right shape, and nothing may be left
over except what the authors' files carry without using it (`IGNORED`).
"""

import json
import os
import pickle
import re
import shutil
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reverie.models.janus import Janus, JanusConfig
from reverie.models.janus_text import JanusTokenizer
from reverie.models.low_rank import add_adapter, whole

SHARD_BYTES = 15 * 2**20
IGNORED = re.compile(r"vision_model\.vision_tower\.attn_pool\..*|gen_vision_model\.quantize\.codebook_used")
FETCHED = ("*.json", "*.safetensors", "*.bin")
DAMAGE = (RuntimeError, EOFError, ValueError, LookupError, TypeError, AttributeError, struct.error)
"""What torch raises on bytes that are no pickle, or half of one."""
WEIGHTS = ("model.safetensors.index.json", "model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin")

# (authors' name, our name), tried in order; {} stands for the same text on both sides.
RENAMES = [
    ("vision_model.vision_tower.patch_embed.proj.{}", "vision_model.embeddings.patch_embedding.{}"),
    ("vision_model.vision_tower.pos_embed", "vision_model.embeddings.position_embedding.weight"),
    ("vision_model.vision_tower.blocks.{}.norm1.{}", "vision_model.encoder.layers.{}.layer_norm1.{}"),
    ("vision_model.vision_tower.blocks.{}.norm2.{}", "vision_model.encoder.layers.{}.layer_norm2.{}"),
    ("vision_model.vision_tower.blocks.{}.attn.qkv.{}", "vision_model.encoder.layers.{}.self_attn.qkv.{}"),
    (
        "vision_model.vision_tower.blocks.{}.attn.proj.{}",
        "vision_model.encoder.layers.{}.self_attn.projection_layer.{}",
    ),
    ("vision_model.vision_tower.blocks.{}.mlp.{}", "vision_model.encoder.layers.{}.mlp.{}"),
    ("vision_model.vision_tower.norm.{}", "vision_model.post_layernorm.{}"),
    ("gen_vision_model.{}coder.conv_blocks.{}.res.{}", "vqmodel.{}coder.LEVELS.{}.block.{}"),
    ("gen_vision_model.{}coder.conv_blocks.{}", "vqmodel.{}coder.LEVELS.{}"),
    ("gen_vision_model.{}coder.mid.0.{}", "vqmodel.{}coder.mid.block_1.{}"),
    ("gen_vision_model.{}coder.mid.1.{}", "vqmodel.{}coder.mid.attn_1.{}"),
    ("gen_vision_model.{}coder.mid.2.{}", "vqmodel.{}coder.mid.block_2.{}"),
    ("gen_vision_model.{}", "vqmodel.{}"),
    ("gen_embed.{}", "generation_embeddings.{}"),
    ("gen_head.output_mlp_projector.{}", "generation_head.proj_out.{}"),
    ("gen_head.vision_head.{}", "generation_head.vision_head.{}"),
    ("language_model.{}", "language_model.{}"),
]
PROJECTORS = {"aligner": "aligner", "gen_aligner": "generation_aligner"}


def load_janus(
    source: str | Path,
    *,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
    device_map: str | dict[str, str | int | torch.device] | None = None,
    roles: Sequence[str] | None = None,
) -> tuple[Janus, JanusTokenizer]:
    """The model, in evaluation mode, and its tokenizer.

    source: a folder, or the id of a Hugging Face repository, which is then fetched.
    dtype: type of all weights; by default bfloat16 on accelerators and float32 on the CPU.
    device_map: puts language_model, vision_model and vqmodel on devices of their own: a dictionary, or "auto" to let
        accelerate decide by free memory. No part is split.
    roles: names of user and assistant in the chat string, if they are not those of Janus-Pro.
    Raises ValueError, in one sentence, for folders that do not hold a complete Janus checkpoint.
    """
    folder = resolve(source)
    config, home = read_config(folder), whole(folder)
    tokenizer = JanusTokenizer.load(home, config.image_size, roles)
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" and device_map is None else torch.bfloat16)
    model = skeleton(config)
    weights = read_weights(home, model, dtype)
    if home != folder:
        add_adapter(folder, weights)
    model.load_state_dict(weights, assign=True)
    model.eval()
    return (model.to(device) if device_map is None else place(model, device_map)), tokenizer


def resolve(source: str | Path, patterns: Sequence[str] | None = None) -> Path:
    """The folder itself, or a local snapshot of the repository of that name (of the files that match `patterns`)."""
    folder = Path(source)
    if folder.is_dir():
        return folder
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", str(source)):
        raise ValueError(f"{source} is neither a folder nor the id of a repository (owner/name); check the spelling.")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(str(source), allow_patterns=list(patterns or FETCHED)))
    except (HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise ValueError(
            f"{source} is no folder here and could not be fetched: {str(error).splitlines()[0]}"
        ) from error


def read_config(folder: str | Path) -> JanusConfig:
    path = Path(folder) / "config.json"
    if not path.is_file():
        raise ValueError(f"{folder} holds no config.json, so it is no checkpoint; give the folder that contains it.")
    try:
        return JanusConfig.from_dict(json.loads(path.read_text("utf-8")))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from error


class _Unfilled(TorchFunctionMode):
    """Leaves out `torch.nn.init`: on the meta device it fills nothing, but imports torch's compiler, which takes longer
    than painting a picture."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else (kwargs or {})["tensor"]
        return func(*args, **(kwargs or {}))


def skeleton(config: JanusConfig) -> Janus:
    """The model on the meta device: shapes without values."""
    with torch.device("meta"), _Unfilled():
        return Janus(config)


def memory_needed(config: JanusConfig, dtype: torch.dtype) -> int:
    """Bytes that all weights take, counted without allocating them (caches come on top)."""
    model = skeleton(config)
    return sum(parameter.numel() for parameter in model.parameters()) * dtype.itemsize


def place(model: Janus, device_map: str | dict) -> Janus:
    """Moves the three large parts to their devices, and the small ones to that of the language model."""
    if isinstance(device_map, str):
        if device_map != "auto":
            raise ValueError(f"The device map is a dictionary or 'auto', not {device_map!r}; give one of them.")
        from accelerate import infer_auto_device_map

        whole = [type(part).__name__ for part in model.children()]
        device_map = dict(infer_auto_device_map(model, no_split_module_classes=whole))
    devices = {name: device_map.get(name, device_map.get("")) for name in ("language_model", "vision_model", "vqmodel")}
    if bad := next((name for name, device in devices.items() if device in (None, "disk")), None):
        raise ValueError(
            f"The device map must put {bad} on a device; got {devices[bad]!r}. Choose a smaller model or a type."
        )
    for name, part in model.named_children():
        part.to(devices.get(name, devices["language_model"]))
    return model


def read_weights(folder: Path, model: Janus, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors under our names and in `dtype`, each checked against the shape the config asks for."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found: dict[str, Tensor] = {}
    for path, tensors in weight_files(folder):
        for key, tensor in tensors.items():
            for name, part in to_ours(key, tensor):
                if name not in expected:
                    raise ValueError(
                        f"{path} holds the tensor {key}, which no Janus model of this config.json has; check both."
                    )
                if part.shape != expected[name]:
                    raise ValueError(
                        f"{path} holds {key} in the shape {list(tensor.shape)}, which does not fit config.json "
                        f"({name} should be {list(expected[name])}); check that both belong together."
                    )
                found[name] = part.to(dtype, copy=False).contiguous()
    head, embedding = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"
    raw = json.loads((folder / "config.json").read_text("utf-8"))
    if (
        head not in found
        and embedding in found
        and raw.get("model_type") == "janus"
        and raw.get("tie_word_embeddings", True)
    ):
        found[head] = found[embedding].clone()
    missing = next((name for name in expected if name not in found), None)
    if missing is not None:
        raise ValueError(f"{weights_path(folder)} lacks the tensor {to_authors(missing)}; fetch the checkpoint again.")
    return found


def weights_path(folder: Path, names: Sequence[str] = WEIGHTS) -> Path:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise ValueError(f"{folder} holds no weights ({', '.join(names)}); fetch the checkpoint again.")


def weight_files(folder: Path, names: Sequence[str] = WEIGHTS) -> Iterator[tuple[Path, dict[str, Tensor]]]:
    """Each weight file with its tensors, one file at a time; the first of `names` that is there decides which."""
    first = weights_path(folder, names)
    paths = [first]
    if first.suffix == ".json":
        paths = [folder / name for name in sorted(set(json.loads(first.read_text("utf-8"))["weight_map"].values()))]
    for path in paths:
        if not path.is_file():
            raise ValueError(f"{first} names the file {path.name}, which is not there; fetch the checkpoint again.")
        yield path, read_tensors(path)


def read_tensors(path: Path) -> dict[str, Any]:
    """What a safetensors file or a weights-only pickle holds; ValueError, in one sentence, if it cannot be opened."""
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings():  # of pickles that torch did not write: the sentence below says what matters
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than tensors and could run code, so it is not opened; use safetensors."
        ) from error
    except (SafetensorError, *DAMAGE) as error:
        reason = str(error).splitlines() or [type(error).__name__]
        raise ValueError(f"{path} is damaged ({reason[0]}); fetch it again.") from error


def to_ours(key: str, tensor: Tensor) -> list[tuple[str, Tensor]]:
    """One tensor of either foreign layout as (our name, tensor) pairs; none if it is never used."""
    if IGNORED.fullmatch(key):
        return []
    if key == "lm_head.weight":
        return [("language_model.lm_head.weight", tensor)]
    if key.startswith("model."):
        name = key.removeprefix("model.")
        return [(name.replace("language_model.", "language_model.model.", 1), tensor)]
    head, _, tail = key.partition(".layers.")
    if head in PROJECTORS:
        index, _, kind = tail.partition(".")
        layer = "fc1" if index == "0" else f"hidden_layers.{int(index) // 2 - 1}"
        return [(f"{PROJECTORS[head]}.{layer}.{kind}", tensor)]
    name = _rename(key, RENAMES).replace("encoder.LEVELS", "encoder.down").replace("decoder.LEVELS", "decoder.up")
    if name.endswith("position_embedding.weight"):
        return [(name, tensor.squeeze(0))]
    if ".self_attn.qkv." in name:
        return [(name.replace("qkv", f"{part}_proj"), rows) for part, rows in zip("qkv", tensor.chunk(3), strict=False)]
    return [(name, tensor)]


def to_authors(name: str) -> str:
    """The authors' name of one of our tensors (three of ours, q, k and v of the tower, make one of theirs)."""
    head, _, tail = name.partition(".")
    for theirs, ours in PROJECTORS.items():
        if head == ours:
            layer, kind = tail.rsplit(".", 1)
            index = 0 if layer == "fc1" else 2 * (int(layer.removeprefix("hidden_layers.")) + 1)
            return f"{theirs}.layers.{index}.{kind}"
    name = re.sub(r"(vision_model\.encoder\..*self_attn\.)[qkv]_proj", r"\1qkv", name)
    name = name.replace("encoder.down.", "encoder.LEVELS.").replace("decoder.up.", "decoder.LEVELS.")
    return _rename(name, [(ours, theirs) for theirs, ours in RENAMES])


def _rename(name: str, table: list[tuple[str, str]]) -> str:
    for source, target in table:
        if match := re.fullmatch(re.escape(source).replace(r"\{\}", "(.+?)"), name):
            return target.format(*match.groups())
    return name


def save_janus(model: Janus, tokenizer: JanusTokenizer, folder: str | Path) -> None:
    """Writes our layout in bfloat16, in shards of at most 15 MiB; the folder appears whole or not at all.

    An older checkpoint of that name is replaced.
    """
    write_checkpoint(Path(folder), model.config.to_dict(), tokenizer.save, _authors_tensors(model))


def write_checkpoint(
    folder: Path, config: dict[str, Any], save_tokenizer: Callable[[Path], None], tensors: dict[str, Tensor]
) -> None:
    """A folder with config.json, tokenizer and tensors, which appears whole or not at all and replaces an older one."""
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    (partial / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")
    save_tokenizer(partial)
    shards = list(_shards(tensors))
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors" if len(shards) > 1 else "model.safetensors"
        save_file(shard, partial / name, metadata={"format": "pt"})
        (partial / name).chmod(0o644)  # safetensors lets only the owner read
        weight_map |= dict.fromkeys(shard, name)
    if len(shards) > 1:
        total = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        (partial / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n", "utf-8")
    if folder.exists():
        old = folder.with_name(folder.name + ".old")
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
        os.replace(partial, folder)
        shutil.rmtree(old)
    else:
        os.replace(partial, folder)


def _authors_tensors(model: Janus) -> dict[str, Tensor]:
    groups: dict[str, list[Tensor]] = {}
    # Only q, k and v share a name, and the authors stack them in this order.
    for name, tensor in sorted(
        model.state_dict().items(), key=lambda item: ".k_proj" in item[0] or 2 * (".v_proj" in item[0])
    ):
        groups.setdefault(to_authors(name), []).append(tensor.detach().to("cpu", torch.bfloat16))
    tensors = {name: torch.cat(parts) if len(parts) > 1 else parts[0].contiguous() for name, parts in groups.items()}
    position = "vision_model.vision_tower.pos_embed"
    return tensors | {position: tensors[position][None]}


def _shards(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    """In order, each as full as the limit allows; a tensor larger than the limit makes a shard of its own."""
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    if shard:
        yield shard
