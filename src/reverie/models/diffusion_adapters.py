"""A diffusion model with adapters: what a run of `think-sft` or `dual-grpo` left, a folder that is a model too.

    adapters.json                                       {"base": ..., "before": [...], "settings": {...}}
    text_encoder/adapter_config.json, adapter_model.safetensors     LoRA, as peft saves it
    transformer/...                                                 the same

`base` is the model that was trained (a name, hub id or folder), `before` are folders of adapters that had been added to
it. Folders may be relative to this one. Adapters are added to the weights when the model is loaded, so painting costs
what it costs without them, and peft is not needed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

ADAPTERS = "adapters.json"
PARTS = ("text_encoder", "transformer")
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


def read_adapters(folder: Path) -> dict[str, Any] | None:
    """The adapters.json of a folder; None if it has none. ValueError for one that cannot be used."""
    path = folder / ADAPTERS
    if not path.is_file():
        return None
    try:
        about = json.loads(path.read_text("utf-8"))
        base, before = about["base"], [str(one) for one in about.get("before", ())]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is not valid ({error}); it must name the `base` of the adapters.") from error
    check_adapters(folder)
    return {
        "base": _beside(folder, str(base)),
        "folders": [*(Path(_beside(folder, one)) for one in before), folder],
        "settings": about.get("settings") or {},
    }


def _beside(folder: Path, name: str) -> str:
    """A folder next to this one where there is such a folder; else the name as it stands."""
    near = folder / name
    return str(near.resolve()) if near.is_dir() else name


def check_adapters(folder: Path) -> None:
    """ValueError for a folder without adapters."""
    if not any((folder / part / CONFIG).is_file() for part in PARTS):
        raise ValueError(f"{folder} holds no adapters ({', '.join(PARTS)}); give the `adapters` folder of a run.")


def add_adapters(pipeline: Any, folder: Path) -> None:
    """Adds the adapters in a folder to the weights of a pipeline."""
    check_adapters(folder)
    for part in PARTS:
        if (folder / part / CONFIG).is_file():
            add_adapter(getattr(pipeline, part), folder / part)


def add_adapter(network: nn.Module, folder: Path) -> None:
    """Adds one adapter to the weights of its network. ValueError where it does not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        config = json.loads((folder / CONFIG).read_text("utf-8"))
        tensors = load_file(folder / WEIGHTS)
        scale, targets = config["lora_alpha"] / config["r"], config["target_modules"]
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise ValueError(f"{folder} holds no adapter that can be read ({CONFIG}, {WEIGHTS}).") from error
    with torch.no_grad():
        for target in targets:
            try:
                weight: Any = network.get_submodule(target).weight
                down, up = (tensors[f"{target}.lora_{side}.weight"].float().to(weight.device) for side in "AB")
                weight += (scale * up @ down).to(weight)
            except (AttributeError, KeyError, RuntimeError) as error:
                raise ValueError(f"{folder} is an adapter of another network: {target} does not fit.") from error
