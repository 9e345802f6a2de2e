"""Show-o weights on disk: the authors' parts (see models/showo_parts.py), and ours in one folder (the
authors' keys in safetensors shards).

Files are opened as tensors only. Every tensor must be there in the right shape, and nothing may be left over except
what the authors' files carry without using it (`IGNORED`).
"""

import re
from pathlib import Path

import torch
from torch import Tensor

from reverie.models.janus_checkpoint import WEIGHTS, resolve, weight_files, weights_path, write_checkpoint
from reverie.models.shared_pictures import completed, without_shared
from reverie.models.showo import Showo, ShowoConfig
from reverie.models.showo_parts import PARTS, Parts, find_parts, read_config
from reverie.models.showo_text import ShowoTokenizer

IGNORED = re.compile(r"(vq_model\.)?quantize\.(embedding|power_vals)|mm_projector\..*")
"""Tables that follow from the number of bits; the bridge to CLIP features, which only understanding uses."""
SHARED = "vq_model.vq."
"""Where an image tokenizer stands that is shared with a Janus, see models/shared_pictures.py."""
NAMES = ("pytorch_model.safetensors.index.json", "pytorch_model.safetensors", *WEIGHTS)


def load_showo(
    source: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> tuple[Showo, ShowoTokenizer]:
    """The model, in evaluation mode, and its text tokenizer, from a folder that `find_parts` understands.

    dtype: type of all weights; by default bfloat16 on accelerators and float32 on the CPU.
    Raises ValueError, in one sentence, for folders that do not hold a complete Show-o checkpoint.
    """
    parts = find_parts(Path(source))
    config = ShowoConfig.from_dict(read_config(parts))
    tokenizer = ShowoTokenizer.load(parts.phi, config.text_tokens, config.longest)
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    with torch.device("meta"):
        model = Showo(config)
    model.load_state_dict(read_weights(parts, model, dtype), assign=True)
    return model.eval().to(device), tokenizer


def fetch_parts() -> None:
    """Downloads what a published Show-o needs beside its own repository, or finds it in the hub's cache."""
    for part in PARTS.values():
        # Phi's own weights are large and not used.
        resolve(part, ["*.json"] if part == PARTS["phi"] else None)


def read_weights(parts: Parts, model: Showo, dtype: torch.dtype) -> dict[str, Tensor]:
    """All tensors under our names and in `dtype`, each checked against the shape the config asks for."""
    expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
    found: dict[str, Tensor] = {}
    sources = [(parts.model, "")] if parts.ours else [(parts.model, ""), (parts.pictures, "vq_model.")]
    for folder, prefix in sources:
        for path, tensors in weight_files(folder, NAMES):
            for key, tensor in tensors.items():
                name = prefix + key
                if IGNORED.fullmatch(name):
                    continue
                if name not in expected:
                    raise ValueError(
                        f"{path} holds the tensor {key}, which no Show-o of this config.json has; check both."
                    )
                if tensor.shape != expected[name]:
                    raise ValueError(
                        f"{path} holds {key} in the shape {list(tensor.shape)}, but config.json makes it "
                        f"{list(expected[name])}; check that both belong together."
                    )
                found[name] = tensor.to(dtype, copy=False).contiguous()
    shared = completed({}, model.config.own, SHARED, parts.model)
    found |= {name: tensor.to(dtype).contiguous() for name, tensor in shared.items() if name in expected}
    missing = next((name for name in expected if name not in found), None)
    if missing is not None:
        prefix = "" if parts.ours or not missing.startswith("vq_model.") else "vq_model."
        folder = parts.pictures if prefix else parts.model
        raise ValueError(
            f"{weights_path(folder, NAMES)} lacks the tensor {missing.removeprefix(prefix)}; "
            f"fetch the checkpoint again."
        )
    return found


def save_showo(model: Showo, tokenizer: ShowoTokenizer, folder: str | Path) -> None:
    """Writes our layout in bfloat16, in shards of at most 15 MiB; the folder appears whole or not at all.

    An older checkpoint of that name is replaced.
    """
    tensors = {name: t.detach().to("cpu", torch.bfloat16).contiguous() for name, t in model.state_dict().items()}
    tensors = without_shared(tensors, model.config.own, SHARED, Path(folder))
    write_checkpoint(Path(folder), model.config.to_dict(), tokenizer.save, tensors)
