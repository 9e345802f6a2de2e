"""LoRA on any of our networks, by peft: added in place, switched off for a reference, merged at the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import nn


@dataclass
class Lora:
    """rank: of the adapters; 0 trains all weights instead. alpha: their scale is alpha / rank."""

    rank: int = 0
    alpha: int = 16
    inside: str = ""
    """Only linear layers whose names contain this, such as `language_model`; empty takes all that learn."""

    def __post_init__(self) -> None:
        if self.rank < 0 or self.alpha <= 0:
            raise ValueError(f"rank={self.rank}: at least 0; alpha={self.alpha}: above 0.")


def add(model: nn.Module, lora: Lora) -> Any:
    """`model` with adapters on the linear layers that learn; nothing else learns any more. ValueError without peft."""
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise ValueError("LoRA needs the library peft; install reverie[diffusion], or leave lora out.") from error
    targets = [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and module.weight.requires_grad and lora.inside in name
    ]
    if not targets:
        raise ValueError(f"lora.inside={lora.inside!r}: no linear layer that learns has this in its name.")
    config = LoraConfig(r=lora.rank, lora_alpha=lora.alpha, target_modules=targets, bias="none")
    return get_peft_model(model, config)  # type: ignore[arg-type]


def merged(model: Any) -> nn.Module:
    """The network with its adapters added to its weights."""
    return model.merge_and_unload()
