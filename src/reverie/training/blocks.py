"""The repeated blocks of a network: what is sharded over processes, computed twice to save memory, or compiled."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


def blocks_of(model: nn.Module, least: int = 2) -> list[nn.Module]:
    """The layers that a network is mostly made of, outermost first: members of a list of at least so many modules of
    one class that are called as modules, where something learns. What is frozen throughout stays out: some processes
    may use it where others do not."""
    found: list[nn.Module] = []
    taken: set[int] = set()
    for module in model.modules():
        if id(module) in taken or not isinstance(module, nn.ModuleList) or len(module) < least:
            continue
        alike = called(module[0]) and all(type(layer) is type(module[0]) for layer in module)
        if alike and all(any(p.requires_grad for p in layer.parameters()) for layer in module):
            found += list(module)
            taken |= {id(inner) for inner in module.modules()}
    return found


def called(module: nn.Module) -> bool:
    """Whether a module is more than a container of others."""
    return type(module).forward is not nn.Module.forward or hasattr(module, "parts")


def parts_of(block: nn.Module) -> tuple[str, ...]:
    """The methods by which a block is called: `forward`, unless its class names others as `parts`."""
    return getattr(block, "parts", ("forward",))


def recompute(model: nn.Module) -> list[nn.Module]:
    """Lets every block forget its activations and compute them again on the way back (activation checkpointing);
    `forget` undoes it. Returns the blocks; ValueError where there are none."""
    blocks = blocks_of(model)
    if not blocks:
        raise ValueError("loop.recompute: this network has no repeated blocks that learn; leave it out.")
    for block in blocks:
        for name in parts_of(block):
            setattr(block, name, partial(checkpoint, getattr(block, name), use_reentrant=False))
    return blocks


def compiled(model: nn.Module) -> list[nn.Module]:
    """Lets every block run as kernels of torch.compile while it learns, one compilation for blocks of one kind and each
    shape of what comes in; in evaluation it runs as it is. `forget` undoes it. Returns the blocks; ValueError where
    there are none. What is computed differs by the rounding of what is no longer written to memory in between."""
    blocks = blocks_of(model, least=1)
    if not blocks:
        raise ValueError("loop.compile: this network has no lists of blocks that learn; leave it out.")
    for block in blocks:
        for name in parts_of(block):
            plain = getattr(block, name)
            setattr(block, name, partial(_either, block, plain, torch.compile(plain, dynamic=False)))
    return blocks


def _either(block: nn.Module, plain: Callable[..., Any], fast: Callable[..., Any], *args: Any, **named: Any) -> Any:
    return (fast if block.training else plain)(*args, **named)


def forget(blocks: list[nn.Module]) -> None:
    for block in blocks:
        for name in parts_of(block):
            delattr(block, name)
