"""A model as a small difference from another one: low-rank adapters (LoRA, arXiv 2106.09685) in a folder of their own.

    config.json              that of the whole model, with "reverie": {"adapter": {"base": ..., "scale": ...}, ...}
    adapter.safetensors      for each matrix that differs NAME.lora_A (r, in) and NAME.lora_B (out, r) in 8 bits, and
                             what each row of them is to be multiplied by, as .rows (float32); or all of its change,
                             likewise, as NAME.change; tensors under their full names stand there whole

`base` is a name of `reverie models`, a hub id, or a folder (a relative one counts from the adapter's). The matrix is
the base's plus scale * B @ A, added once at loading, so painting costs nothing more. All else is the base's. A Janus or
a chat model of transformers may be one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

FILE, CHANGE = "adapter.safetensors", ".change"


def base_of(folder: str | Path) -> Path | None:
    """The folder of the whole model that an adapter's folder builds on; None for a folder that is whole itself."""
    folder = Path(folder)
    if not (folder / FILE).is_file():
        return None
    from .registry import fetched, resolve

    base = _about(folder).get("base")
    if not isinstance(base, str):
        raise ValueError(f"{folder}/config.json does not name the base of its adapter; fetch it again.")
    beside = folder / base
    found = fetched(resolve(beside if beside.is_dir() else base, "judge")).folder
    if found is None or (found / FILE).is_file():
        raise ValueError(f"{folder} builds on {base}, which is no whole model; give it another base.")
    return found


def whole(folder: Path) -> Path:
    """Where tokenizer and full weights lie: the base of an adapter, or the folder itself."""
    return base_of(folder) or folder


def add_adapter(folder: str | Path, tensors: dict[str, Tensor]) -> None:
    """Adds the adapter of `folder` to a state dict, in place and in float32. ValueError where they do not fit."""
    folder = Path(folder)
    scale, parts = float(_about(folder).get("scale", 1.0)), read_adapter(folder)
    for name in sorted({key.rpartition(".")[0] for key in parts if key.endswith((".lora_A", ".lora_B"))}):
        weight = tensors.get(f"{name}.weight")
        a, b = parts.get(f"{name}.lora_A"), parts.get(f"{name}.lora_B")
        if weight is None or a is None or b is None or (b.shape[0], a.shape[1]) != tuple(weight.shape):
            raise ValueError(f"{folder / FILE} does not fit its base at {name}; fetch both again.")
        tensors[f"{name}.weight"] = (weight.float() + scale * b.float() @ a.float()).to(weight.dtype)
    for name, part in parts.items():
        if not name.endswith((".lora_A", ".lora_B")):
            old = tensors.get(name.removesuffix(CHANGE))
            if old is None or old.numel() != part.numel():
                raise ValueError(f"{folder / FILE} does not fit its base at {name}; fetch both again.")
            new = old.float() + scale * part.view(old.shape) if name.endswith(CHANGE) else part.view(old.shape)
            tensors[name.removesuffix(CHANGE)] = new.to(old.dtype)


def read_adapter(folder: str | Path) -> dict[str, Tensor]:
    path = Path(folder) / FILE
    if not path.is_file():
        raise ValueError(f"{folder} holds no {FILE}; give the folder of an adapter.")
    held = load_file(path)
    return {
        name: part.float() * held[f"{name}.rows"][:, None] if f"{name}.rows" in held else part
        for name, part in held.items()
        if not name.endswith(".rows")
    }


def _packed(name: str, part: Tensor) -> dict[str, Tensor]:
    """A matrix, or a factor of one, in 8 bits a number, with the size of each of its rows; all else in bfloat16."""
    if not name.endswith((".lora_A", ".lora_B", CHANGE)):
        return {name: part.detach().to("cpu", torch.bfloat16).contiguous()}
    rows = part.detach().float().cpu()
    sizes = rows.abs().amax(1).clamp(min=1e-12) / 127
    return {name: (rows / sizes[:, None]).round().to(torch.int8).contiguous(), f"{name}.rows": sizes}


def save_adapter(folder: str | Path, base: str, config: Mapping[str, Any], scale: float, parts: Mapping[str, Tensor]):
    """Writes `parts` (lora_A, lora_B and change in 8 bits, others whole); the folder appears whole or not at all.

    config: the model's, whose "reverie" section gets the adapter's facts.
    """
    folder = Path(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    own = {**config.get("reverie", {}), "adapter": {"base": base, "scale": scale}}
    (partial / "config.json").write_text(json.dumps({**config, "reverie": own}, indent=2) + "\n", "utf-8")
    tensors = {key: tensor for name, part in parts.items() for key, tensor in _packed(name, part).items()}
    save_file(tensors, partial / FILE, metadata={"format": "pt"})
    (partial / FILE).chmod(0o644)  # safetensors lets only the owner read
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(partial, folder)


def difference(tensors: Mapping[str, Tensor], base: Mapping[str, Tensor], rank: int = 0) -> dict[str, Tensor]:
    """What makes one state dict of another, as `save_adapter` writes it with scale 1. Of a matrix that is the `rank`
    largest singular values of its change where they take less room than the change itself, and else that."""
    parts: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach().cpu()
        change = tensor.float() - base[name].detach().cpu().float()
        if not change.any():
            continue
        if tensor.ndim < 2:
            parts[name] = tensor
        elif not rank or tensor.ndim > 2 or rank * sum(tensor.shape) >= tensor.numel():
            parts[name + CHANGE] = change.flatten(1)
        else:
            u, s, v = torch.linalg.svd(change, full_matrices=False)
            root = s[:rank].sqrt()
            parts[f"{name.removesuffix('.weight')}.lora_B"] = u[:, :rank] * root
            parts[f"{name.removesuffix('.weight')}.lora_A"] = root[:, None] * v[:rank]
    return parts


def _about(folder: Path) -> dict[str, Any]:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    return (config.get("reverie") or {}).get("adapter") or {}
