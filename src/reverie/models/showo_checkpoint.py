"""Show-o weights on disk: the authors' parts, and ours in one folder (the authors' keys in safetensors shards).

The authors publish three repositories: the model (`show-o`), the image tokenizer (`magvitv2`) and Phi-1.5, of which only
the configuration and the tokenizer are used. On disk these are three folders side by side, however they are called:
each is recognised by its config.json. Any of the folder above them and the model's own folder may be given. An
`inference.yaml` beside them may say how long prompts are. Our layout is one folder with one config.json.

Files are opened as tensors only. Every tensor must be there in the right shape, and nothing may be left over except
what the authors' files carry without using it (`IGNORED`).
"""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor

from reverie.models.janus_checkpoint import WEIGHTS, weight_files, weights_path, write_checkpoint
from reverie.models.showo import Showo, ShowoConfig
from reverie.models.showo_text import ShowoTokenizer

IGNORED = re.compile(r"(vq_model\.)?quantize\.(embedding|power_vals)|mm_projector\..*")
"""Tables that follow from the number of bits; the bridge to CLIP features, which only understanding uses."""
NAMES = ("pytorch_model.safetensors.index.json", "pytorch_model.safetensors", *WEIGHTS)
PARTS = {"magvitv2": "showlab/magvitv2", "phi": "microsoft/phi-1_5"}
"""The other repositories that a published Show-o needs."""


@dataclass(frozen=True)
class Parts:
    """Where the parts of a checkpoint lie; all three are the same folder in our layout."""

    model: Path
    pictures: Path
    phi: Path
    settings: Path | None = None
    """The authors' inference.yaml."""

    @property
    def ours(self) -> bool:
        return self.model == self.pictures


def load_showo(
    source: str | Path, *, dtype: torch.dtype | None = None, device: str | torch.device = "cpu"
) -> tuple[Showo, ShowoTokenizer]:
    """The model, in evaluation mode, and its text tokenizer, from a folder that `find_parts` understands.

    dtype: type of all weights; by default bfloat16 on accelerators and float32 on the CPU.
    Raises ValueError, in one sentence, for folders that do not hold a complete Show-o checkpoint.
    """
    parts = find_parts(Path(source))
    config = read_config(parts)
    tokenizer = ShowoTokenizer.load(parts.phi, config.text_tokens, config.longest)
    dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.bfloat16)
    with torch.device("meta"):
        model = Showo(config)
    model.load_state_dict(read_weights(parts, model, dtype), assign=True)
    return model.eval().to(device), tokenizer


def is_showo(folder: Path) -> bool:
    """Whether a folder is a Show-o checkpoint, or holds one as the authors lay it out."""
    return any(_kind(path) in ("showo", "ours") for path in (folder, *_children(folder)))


def find_parts(folder: Path) -> Parts:
    """The parts of the checkpoint in `folder` or right beside it; ValueError if one of them is missing."""
    if _kind(folder) == "ours":
        return Parts(folder, folder, folder)
    model = next((path for path in (folder, *_children(folder)) if _kind(path) == "showo"), None)
    if model is None:
        raise ValueError(f"{folder} holds no Show-o model (a config.json of _class_name 'Showo'); give its folder.")
    near = [*_children(model), *_children(model.parent), *_fetched_parts()]
    found = {kind: next((path for path in near if _kind(path) == kind), None) for kind in PARTS}
    named = _read_json(model / "config.json").get("llm_model_path")
    if named and _kind(model.parent / named) == "phi":
        found["phi"] = model.parent / named
    for kind, path in found.items():
        if path is None:
            raise ValueError(
                f"{model.parent} holds no folder with the part {kind!r} that Show-o needs (as in {PARTS[kind]}); "
                f"put it beside {model.name}."
            )
    settings = next(
        (path for path in (model.parent / "inference.yaml", model / "inference.yaml") if path.is_file()), None
    )
    assert found["magvitv2"] is not None
    assert found["phi"] is not None
    return Parts(model, found["magvitv2"], found["phi"], settings)


def fetch(repository: str) -> Path:
    """Downloads a published Show-o with its parts, or finds them in the hub's cache; the model's folder."""
    from reverie.models.janus_checkpoint import resolve

    for part in PARTS.values():
        # Phi's own weights are large and not used.
        resolve(part, ["*.json"] if part == PARTS["phi"] else None)
    return resolve(repository)


def read_config(parts: Parts) -> ShowoConfig:
    """The configuration of a checkpoint, put together from its parts."""
    data = _read_json(parts.model / "config.json")
    if parts.ours:
        return ShowoConfig.from_dict(data)
    data = data | {"phi": _read_json(parts.phi / "config.json")}
    data |= {"vq_model": _read_json(parts.pictures / "config.json") | {"type": "magvitv2"}}
    if parts.settings is not None:
        data |= _prompt_length(parts.settings)
    return ShowoConfig.from_dict(data)


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
    write_checkpoint(Path(folder), model.config.to_dict(), tokenizer.save, tensors)


def _kind(folder: Path) -> str | None:
    """What a folder's config.json says it is: `ours`, `showo`, `magvitv2` or `phi`; None for anything else."""
    try:
        data = _read_json(folder / "config.json")
    except (OSError, ValueError):
        return None  # neighbours are none of our business; a bad one among the parts is reported as missing
    named = {"Showo": "showo", "MAGVITv2": "magvitv2"}.get(data.get("_class_name", ""))
    return named or {"showo": "ours", "phi": "phi"}.get(data.get("model_type", ""))


def _children(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []


def _fetched_parts() -> list[Path]:
    """Snapshots of the other repositories in the hub's local cache, if they are there."""
    from reverie.models.registry import snapshots

    return [path for part in PARTS.values() for path in snapshots(part)]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not valid JSON ({error}); fetch it again.") from error
    if not isinstance(data, dict):
        raise ValueError(f"{path} is not a configuration; fetch it again.")
    return data


def _prompt_length(path: Path) -> dict[str, int]:
    """max_seq_length out of an inference.yaml, if it is there."""
    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
        length = settings["dataset"]["preprocessing"]["max_seq_length"]
    except (KeyError, TypeError):
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {str(error).splitlines()[0]}; fetch it again.") from error
    return {"max_seq_length": int(length)}
