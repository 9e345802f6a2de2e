"""Where the parts of a Show-o checkpoint lie, and its configuration put together from them. Imports nothing heavy.

The authors publish three repositories: the model (`show-o`), the image tokenizer (`magvitv2`) and Phi-1.5, of which
only the configuration and the tokenizer are used. On disk these are three folders side by side, however they are
called: each is recognised by its config.json. Either the folder above them or the model's own may be given. An
`inference.yaml` beside them may say how long prompts are. Our layout is one folder with one config.json.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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


def model_folder(folder: Path) -> Path | None:
    """The authors' model folder: this one, or one right in it; None if there is none."""
    return next((path for path in (folder, *_children(folder)) if _kind(path) == "showo"), None)


def find_parts(folder: Path) -> Parts:
    """The parts of the checkpoint in `folder` or right beside it; ValueError if one of them is missing."""
    if _kind(folder) == "ours":
        return Parts(folder, folder, folder)
    model = model_folder(folder)
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


def read_config(parts: Parts) -> dict[str, Any]:
    """The configuration of a checkpoint in our layout (see `ShowoConfig.from_dict`), put together from its parts."""
    data = _read_json(parts.model / "config.json")
    if parts.ours:
        return data
    data = data | {"phi": _read_json(parts.phi / "config.json")}
    data |= {"vq_model": _read_json(parts.pictures / "config.json") | {"type": "magvitv2"}}
    if parts.settings is not None:
        data |= _prompt_length(parts.settings)
    return data


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
    import yaml

    try:
        settings = yaml.safe_load(path.read_text("utf-8"))
        length = settings["dataset"]["preprocessing"]["max_seq_length"]
    except (KeyError, TypeError):
        return {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {str(error).splitlines()[0]}; fetch it again.") from error
    return {"max_seq_length": int(length)}
