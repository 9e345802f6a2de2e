"""LoRA on any of our networks, by peft: added in place, switched off for a reference, merged at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass
class Lora:
    """rank: of the adapters; 0 trains all weights instead. alpha: their scale is alpha / rank."""

    rank: int = 0
    alpha: int = 16
    inside: str = ""
    """Only linear layers whose names contain this, such as `language_model`; empty takes all that learn."""
    folded: bool = False
    """Add them to the weights once a step (folded.py): faster for small networks on large batches."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise ValueError(f"rank={self.rank}: at least 0; alpha={self.alpha}: above 0.")


def add(model: nn.Module, lora: Lora) -> Any:
    """`model` with adapters on the linear layers that learn; nothing else learns any more. ValueError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("LoRA needs the library peft; install reverie[diffusion], or leave lora out.") from error
    names = list(targets(model, lora))
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=names, bias="none")
    return get_peft_model(model, config)  # type: ignore[arg-type]


def targets(model: nn.Module, lora: Lora) -> dict[str, nn.Linear]:
    """The linear layers that learn and that `lora` means. ValueError where there are none."""
    found = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and lora.inside in name
    }
    if not found:
        raise ValueError(f"lora.inside={lora.inside!r}: no linear layer that learns has this in its name.")
    return found


def parts(model: Any) -> dict[str, Tensor]:
    """The adapters of a network that `add` wrapped: NAME.lora_A (r, in) and NAME.lora_B (out, r), in our names."""
    return dict(_pieces(model))


def put(model: Any, held: Mapping[str, Tensor]) -> None:
    """Sets adapters that `add` made to those that `parts` returned. ValueError where they differ in names or sizes."""
    copy_into(parts(model), held)


def copy_into(mine: Mapping[str, Tensor], held: Mapping[str, Tensor]) -> None:
    """What `held` holds into the adapters `mine`. ValueError where they differ in names or sizes."""
    if mine.keys() != held.keys() or any(mine[name].shape != held[name].shape for name in mine):
        raise ValueError("the adapter to go on from has other layers or another rank than the recipe's lora section.")
    with torch.no_grad():
        for name, part in mine.items():
            part.copy_(held[name])


def _pieces(model: Any) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "lora_A") and "default" in module.lora_A:
            yield f"{name}.lora_A", module.lora_A["default"].weight
            yield f"{name}.lora_B", module.lora_B["default"].weight


def copy_merged(model: Any, into: nn.Module) -> None:
    """Puts the weights of a network that `add` wrapped, adapters added, into a plain one, whatever its type."""
    deltas = {
        f"{name}.weight": (module.lora_B["default"].weight, module.lora_A["default"].weight, module.scaling["default"])
        for name, module in model.get_base_model().named_modules()
        if hasattr(module, "lora_A") and "default" in module.lora_A
    }
    with torch.no_grad():
        held = {name.replace(".base_layer", ""): p for name, p in model.get_base_model().named_parameters()}
        for name, parameter in into.named_parameters():
            value = held[name].float()
            if name in deltas:
                b, a, scale = deltas[name]
                value = value + scale * b.float() @ a.float()
            parameter.copy_(value)


def merged(model: Any) -> nn.Module:
    """The network with its adapters added to its weights."""
    return model.merge_and_unload()
