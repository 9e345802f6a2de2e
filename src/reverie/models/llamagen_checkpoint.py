"""LlamaGen weights on disk: the authors' two .pt files, and ours (their keys in safetensors, a config.json, a T5).

The authors' files say nothing about themselves. Most sizes are read off the tensors; the number of heads follows from
depth and width (`HEADS`), the size of pictures from the file's name (t2i_XL_stage1_256.pt). An `args.json` beside them,
with the names of the authors' command line, overrules: gpt_ckpt, vq_ckpt, block_size or image_size,
gpt_overrides.n_head, gpt_overrides.n_kv_head, and `text_encoder`, a folder or hub id.

Files are opened as tensors only. Every tensor of the model must be there in the right shape; in the authors' files more
may be there (positions, caches, usage counts), as their own scripts allow.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from reverie.models.janus_checkpoint import read_tensors, resolve, to_authors, to_ours, weight_files, write_checkpoint
from reverie.models.llamagen import CAPTION_SLOTS, Llamagen, LlamagenConfig
from reverie.models.llamagen_text import PUBLIC_ENCODER, CaptionEncoder
from reverie.models.shared_pictures import OURS, completed, without_shared

HEADS = {
    (12, 768): 12, (24, 1024): 16, (36, 1280): 20, (48, 1536): 24, (48, 2560): 40,
    (22, 2048): 32, (24, 3200): 32, (32, 4096): 32,
}  # fmt: skip
"""(layers, width) of the authors' sizes B, L, XL, XXL, XXXL, 1B, 3B, 7B to their number of heads."""
VQ_PREFIX = "gen_vision_model."
"""Under this prefix Janus carries the same tokenizer, so its table of names serves here, too."""
LAYER_NAMES = {
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
OTHER_NAMES = {
    "tok_embeddings.weight": "language_model.model.embed_tokens.weight",
    "norm.weight": "language_model.model.norm.weight",
    "output.weight": "language_model.lm_head.weight",
    "cls_embedding.uncond_embedding": "unconditional",
    "cls_embedding.cap_proj.fc1.weight": "caption.fc1.weight",
    "cls_embedding.cap_proj.fc2.weight": "caption.fc2.weight",
}


def load_llamagen(
    source: str | Path,
    *,
    text_encoder: str | Path | None = None,
    dtype: torch.dtype | None = None,
    device: str | torch.device = "cpu",
) -> tuple[Llamagen, CaptionEncoder]:
    """The network, in evaluation mode, and its text encoder.

    source: a folder in either layout, or a hub id, which is then fetched.
    text_encoder: folder or hub id of the T5; by default the folder `text_encoder` or `flan-t5-xl` beside the weights,
        or what config.json or args.json name.
    dtype: type of all weights; by default bfloat16 on accelerators and float32 on the CPU.
    Raises ValueError, in one sentence, for folders that do not hold a complete checkpoint.
    """
    folder = resolve(source, ["*.json", "*.safetensors", "*.pt"])
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    place = text_encoder or find_text_encoder(folder)
    model = load_networks(folder, dtype=dtype, device=device)
    captions = CaptionEncoder.load(place, dtype, device)
    if captions.width != model.config.caption_dim:
        raise ValueError(
            f"the text encoder {place} gives {captions.width} numbers for each token, but {folder} was trained with "
            f"{model.config.caption_dim}; give the encoder that belongs to it."
        )
    return model, captions


def load_networks(folder: str | Path, *, dtype: torch.dtype, device: str | torch.device = "cpu") -> Llamagen:
    """Transformer and image tokenizer, without the text encoder; either layout. ValueError as `load_llamagen`."""
    folder = Path(folder)
    ours = (folder / "config.json").is_file()
    config, found, where = _read_ours(folder) if ours else _read_authors(folder)
    with torch.device("meta"):
        model = Llamagen(config)
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    for name, shape in expected.items():
        theirs = authors_name(name)
        if name not in found:
            raise ValueError(f"{where} lacks the tensor {theirs}; fetch the checkpoint again.")
        if found[name].shape != shape:
            raise ValueError(
                f"{where} holds {theirs} in the shape {list(found[name].shape)}, but the other tensors ask for "
                f"{list(shape)}; check that all files belong together."
            )
    model.load_state_dict({name: found[name].to(dtype).contiguous() for name in expected}, assign=True)
    return model.eval().to(device)


def find_text_encoder(folder: Path) -> str | Path:
    """Where the T5 of a checkpoint is; ValueError if nothing says so. Nothing is fetched that nobody named."""
    for name in ("text_encoder", "flan-t5-xl"):
        if (folder / name / "config.json").is_file():
            return folder / name
    if named := read_settings(folder).get("text_encoder"):
        return named
    raise ValueError(
        f"{folder} has no text encoder; put {PUBLIC_ENCODER} into {folder / 'text_encoder'}, or write "
        f'"text_encoder": "{PUBLIC_ENCODER}" into {folder / "args.json"} and it will be fetched.'
    )


def read_settings(folder: Path) -> dict[str, Any]:
    """config.json in our layout, args.json (which may be missing) in the authors'."""
    path = next((folder / name for name in ("config.json", "args.json") if (folder / name).is_file()), None)
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); write it again.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold names and values; write it again.")
    return found


# Our layout.


def _read_ours(folder: Path) -> tuple[LlamagenConfig, dict[str, Tensor], str]:
    config = LlamagenConfig.from_dict(read_settings(folder))
    tensors = {key: tensor for _, part in weight_files(folder) for key, tensor in part.items()}
    found = completed(from_authors(tensors, config), config.own, OURS, folder)
    return config, found, str(folder)


def save_llamagen(model: Llamagen, captions: CaptionEncoder, folder: str | Path) -> None:
    """Writes our layout in bfloat16; the folder appears whole or not at all. An older one of that name is replaced."""
    tensors = {key: tensor.to("cpu", torch.bfloat16).contiguous() for key, tensor in to_authors_tensors(model).items()}
    pictures = {f"{OURS}{name}": t.to("cpu", torch.bfloat16) for name, t in model.vqmodel.state_dict().items()}
    if not without_shared(pictures, model.config.own, OURS, Path(folder)):
        tensors = {key: tensor for key, tensor in tensors.items() if not key.startswith(VQ_PREFIX)}
    config = {**model.config.to_dict(), "model_type": "llamagen"}
    write_checkpoint(Path(folder), config, lambda partial: captions.save(partial / "text_encoder"), tensors)


# The authors' layout.


def authors_files(folder: Path) -> tuple[Path, Path]:
    """(transformer, image tokenizer); ValueError if it is not clear which files they are."""
    settings = read_settings(folder)
    files = sorted(path for path in folder.iterdir() if path.suffix in (".pt", ".safetensors", ".bin"))
    chosen = []
    for what, key, fits in (
        ("transformer", "gpt_ckpt", lambda path: not path.name.startswith("vq")),
        ("image tokenizer", "vq_ckpt", lambda path: path.name.startswith("vq")),
    ):
        named = settings.get(key)
        found = [folder / Path(named).name] if named else [path for path in files if fits(path)]
        if not found or not found[0].is_file():
            missing = found[0].name if found else ("t2i_XL_stage1_256.pt" if key == "gpt_ckpt" else "vq_ds16_t2i.pt")
            raise ValueError(f"{folder} lacks the weights of the {what} ({missing}); put the file there.")
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise ValueError(
                f"{folder} holds several files that may be the {what} ({names}); name one as {key!r} in "
                f"{folder / 'args.json'}."
            )
        chosen += found
    return chosen[0], chosen[1]


def _read_authors(folder: Path) -> tuple[LlamagenConfig, dict[str, Tensor], str]:
    gpt_path, vq_path = authors_files(folder)
    gpt, vq = unwrapped(gpt_path), unwrapped(vq_path)
    settings = read_settings(folder)
    where = f"{gpt_path} (with {vq_path.name})"
    shapes = {key: tuple(tensor.shape) for key, tensor in gpt.items()}
    shapes |= {VQ_PREFIX + key: tuple(tensor.shape) for key, tensor in vq.items()}
    config = LlamagenConfig.from_dict(sizes_of(shapes, settings, gpt_path))
    return config, from_authors(gpt | {VQ_PREFIX + key: tensor for key, tensor in vq.items()}, config), where


def unwrapped(path: Path) -> dict[str, Tensor]:
    """The tensors of one of the authors' files, which lie under `model`, `module` (DeepSpeed), `ema` or `state_dict`,
    or right there. Training files also hold an argparse.Namespace, the one class that is let through."""
    with torch.serialization.safe_globals([argparse.Namespace]):
        found = read_tensors(path)
    for key in ("model", "module", "ema", "state_dict"):
        if isinstance(found.get(key), Mapping):
            found = found[key]
            break
    return {key: tensor for key, tensor in found.items() if isinstance(tensor, Tensor)}


def sizes_of(shapes: Mapping[str, tuple[int, ...]], settings: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Our config.json for a checkpoint of these shapes; ValueError for what shapes and names cannot tell."""
    overrides = settings.get("gpt_overrides") or {}
    try:
        codes, width = shapes["tok_embeddings.weight"]
        layers = _count(shapes, r"layers\.(\d+)\..*")
        fused = shapes["layers.0.attention.wqkv.weight"][0]
        slots, caption = shapes["cls_embedding.uncond_embedding"]
        ffn = shapes["layers.0.feed_forward.w1.weight"][0]
        vq = _vq_sizes(shapes)
    except KeyError as error:
        name = str(error.args[0]).removeprefix(VQ_PREFIX)
        raise ValueError(f"{path} or its tokenizer lacks the tensor {name}; fetch the checkpoint again.") from error
    if slots != CAPTION_SLOTS:
        raise ValueError(f"{path} has {slots} caption slots, but text-conditional LlamaGen has {CAPTION_SLOTS}.")
    heads = overrides.get("n_head") or HEADS.get((layers, width))
    if heads is None:
        raise ValueError(
            f"{path} has {layers} layers of width {width}, which is none of the authors' sizes; write the number of "
            f'heads as {{"gpt_overrides": {{"n_head": ...}}}} into {path.with_name("args.json")}.'
        )
    return {
        "model_type": "llamagen",
        "gpt": {
            "dim": width,
            "n_layer": layers,
            "n_head": heads,
            "n_kv_head": overrides.get("n_kv_head") or (fused - width) // 2 // (width // heads),
            "ffn_dim": ffn,
            "norm_eps": 1e-5,
            "rope_base": 10000.0,
            "caption_dim": caption,
            "block_size": _block_size(settings, path),
        },
        "vq": vq | {"image_token_size": codes},
        "reverie": settings.get("reverie", {}),
    }


def _block_size(settings: Mapping[str, Any], path: Path) -> int:
    """Codes of a picture, from args.json or a name such as t2i_XL_stage1_256.pt."""
    if isinstance(settings.get("block_size"), int):
        return settings["block_size"]
    named = re.search(r"_(256|384|512)(?:\D|$)", path.stem)
    side = settings.get("image_size") or (int(named[1]) if named else None)
    if side is None:
        raise ValueError(
            f"the name {path.name} does not tell the size of its pictures; write the number of codes, such as "
            f'{{"block_size": 256}} for 256 x 256 pixels, into {path.with_name("args.json")}.'
        )
    return (side // settings.get("downsample_size", 16)) ** 2


def _vq_sizes(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """The section `vq` of our config.json, from the shapes of the tokenizer."""
    base, channels = shapes[f"{VQ_PREFIX}encoder.conv_in.weight"][:2]
    levels = _count(shapes, rf"{VQ_PREFIX}encoder\.conv_blocks\.(\d+)\..*")
    blocks = _count(shapes, rf"{VQ_PREFIX}encoder\.conv_blocks\.0\.res\.(\d+)\..*")
    last = [shapes[f"{VQ_PREFIX}encoder.conv_blocks.{i}.res.{blocks - 1}.conv2.weight"][0] for i in range(levels)]
    code, latent = shapes[f"{VQ_PREFIX}quant_conv.weight"][:2]
    return {
        "ch": base,
        "ch_mult": [width // base for width in last],
        "z_channels": latent,
        "n_embed": code,
        "num_res_blocks": blocks,
        "patch": round((channels / 3) ** 0.5),
    }


def _count(shapes: Mapping[str, tuple[int, ...]], pattern: str) -> int:
    return 1 + max((int(m[1]) for key in shapes if (m := re.fullmatch(pattern, key))), default=0)


# Names and the order of rotary pairs.


def authors_name(name: str) -> str:
    """The authors' name of one of our tensors (three of ours, q, k and v, make one of theirs)."""
    if name.startswith("vqmodel."):
        return to_authors(name).removeprefix(VQ_PREFIX)
    if found := next((theirs for theirs, ours in OTHER_NAMES.items() if ours == name), None):
        return found
    name = re.sub(r"self_attn\.[qkv]_proj", "attention.wqkv", name.removeprefix("language_model.model."))
    for theirs, ours in LAYER_NAMES.items():
        name = name.replace(f".{ours}.", f".{theirs}.")
    return name


def from_authors(tensors: Mapping[str, Tensor], config: LlamagenConfig) -> dict[str, Tensor]:
    """Tensors under our names. Those that the model does not have keep theirs, and are not looked for."""
    language = config.language
    head = language.head_dim
    sizes = [language.num_attention_heads * head, *[language.num_key_value_heads * head] * 2]
    found: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        if key.startswith(VQ_PREFIX):
            found |= to_ours(key, tensor)
        elif key.endswith(".attention.wqkv.weight") and len(tensor) == sum(sizes):
            query, fixed, value = tensor.split(sizes)
            stem = f"language_model.model.{key.removesuffix('attention.wqkv.weight')}self_attn."
            found[f"{stem}q_proj.weight"], found[f"{stem}k_proj.weight"] = halved(query, head), halved(fixed, head)
            found[f"{stem}v_proj.weight"] = value
        else:
            found[_our_name(key)] = tensor
    return found


def _our_name(key: str) -> str:
    layer = re.fullmatch(r"(layers\.\d+\.)(.+)(\.weight)", key)
    if layer and layer[2] in LAYER_NAMES:
        return f"language_model.model.{layer[1]}{LAYER_NAMES[layer[2]]}{layer[3]}"
    return OTHER_NAMES.get(key, key)


def to_authors_tensors(model: Llamagen) -> dict[str, Tensor]:
    """All weights under the authors' names, the tokenizer's behind `VQ_PREFIX`."""
    head = model.config.language.head_dim
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in model.state_dict().items():
        kind = name.split(".")[-2] if "_proj.weight" in name else ""
        if kind in ("q_proj", "k_proj"):
            tensor = interleaved(tensor, head)
        prefix = VQ_PREFIX if name.startswith("vqmodel.") else ""
        parts.setdefault(prefix + authors_name(name), {})[kind] = tensor.detach()
    # q, k and v lie on one another in this order.
    return {
        key: torch.cat([part[k] for k in ("q_proj", "k_proj", "v_proj")])
        if len(part) == 3
        else next(iter(part.values()))
        for key, part in parts.items()
    }


def halved(weight: Tensor, head: int) -> Tensor:
    """Rows of heads * head from pairs (2j, 2j + 1) to pairs (j, j + head / 2)."""
    return weight.view(-1, head // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def interleaved(weight: Tensor, head: int) -> Tensor:
    """The inverse of `halved`."""
    return weight.view(-1, 2, head // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)
