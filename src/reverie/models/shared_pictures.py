"""An image tokenizer that a checkpoint shares with a Janus instead of holding it a second time.

`"reverie": {"pictures": "atelier-janus"}` in config.json names whose: a name of models.yaml, a folder, also one beside
the checkpoint, or a hub id. Codes are only worth something to the tokenizer they were made with, so what is saved names
another's only where both are the same, weight for weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

KEY = "pictures"
OURS = "vqmodel."


def shared_weights(name: str, beside: Path) -> dict[str, Tensor]:
    """The tokenizer's tensors of the Janus `name`, under `VQ16`'s names. ValueError if there is none."""
    from .janus_checkpoint import to_ours, weight_files
    from .registry import fetched, resolve

    near = beside / name
    source = fetched(resolve(near if (near / "config.json").is_file() else name))
    if source.family != "janus" or source.folder is None:
        raise ValueError(f"{beside} paints with the image tokenizer of {name}, which is no Janus; name one that is.")
    pairs = (
        pair for _, file in weight_files(source.folder) for key, tensor in file.items() for pair in to_ours(key, tensor)
    )
    return {key.removeprefix(OURS): tensor for key, tensor in pairs if key.startswith(OURS)}


def completed(tensors: dict[str, Tensor], own: Mapping[str, Any], prefix: str, folder: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint with those of the tokenizer that it shares, as `prefix` + name."""
    if not own.get(KEY):
        return tensors
    shared = shared_weights(own[KEY], folder)
    return tensors | {prefix + name: tensor for name, tensor in shared.items() if prefix + name not in tensors}


def without_shared(tensors: dict[str, Tensor], own: Mapping[str, Any], prefix: str, folder: Path) -> dict[str, Tensor]:
    """The tensors that have to be saved. ValueError where the tokenizer is not the one that `own` names."""
    if not own.get(KEY):
        return tensors
    shared = shared_weights(own[KEY], folder)
    mine = {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
    if mine.keys() != shared.keys() or not all(torch.equal(mine[n], shared[n].to(mine[n].dtype)) for n in mine):
        raise ValueError(f"the image tokenizer is no longer that of {own[KEY]}; take `{KEY}` out of its configuration.")
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(prefix)}
