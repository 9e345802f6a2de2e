"""Training that is spread over processes by FSDP2 (`fully_shard`): each keeps its share of every repeated block, of its
gradients, moments and average, and gathers a block's weights while it computes.

Tasks call a network by whatever method they like, so only what is called as a module is sharded: the blocks of
`blocks.py`. The rest (embeddings, heads, what is frozen) stands whole in every process, its gradients averaged by hand.

Processes must call blocks equally often, since each call is a message. Where they cannot know how often (exploring
trees of thoughts), they gather all weights first: `whole`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from .blocks import blocks_of, called, parts_of

HOOKS = ("_forward_pre_hooks", "_forward_pre_hooks_with_kwargs", "_forward_hooks", "_forward_hooks_with_kwargs")


class Sharded:
    """A network whose blocks are shared among the processes until `join`."""

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        """A network without blocks, such as an aligner, is one block itself. ValueError where that cannot be."""
        from torch.distributed.device_mesh import init_device_mesh

        self.model, self.blocks = model, blocks_of(model)
        if not self.blocks and called(model):
            self.blocks = [model]
        if not self.blocks:
            raise ValueError("loop.shard: this network has no repeated blocks that learn; leave it out.")
        self._before = [(type(b), {name: dict(getattr(b, name)) for name in HOOKS}) for b in self.blocks]
        mesh = init_device_mesh(device.type, (torch.distributed.get_world_size(),))
        for block in self.blocks:
            fully_shard(block, mesh=mesh)
            for name in parts_of(block):
                if name != "forward":
                    register_fsdp_forward_method(block, name)

    @torch.no_grad()
    def join(self) -> None:
        """Puts all weights back in every process: an ordinary network again."""
        for block, (kind, hooks) in zip(self.blocks, self._before, strict=True):
            block.reshard()  # type: ignore[operator]
            for module in block.modules():
                for name, p in list(module._parameters.items()):
                    if isinstance(p, DTensor):
                        module._parameters[name] = nn.Parameter(p.full_tensor(), requires_grad=p.requires_grad)
            for name, held in hooks.items():
                now = getattr(block, name)
                now.clear()
                now.update(held)
            for name in parts_of(block):
                block.__dict__.pop(name, None)  # the wrapped method
            block.__class__ = kind


@contextmanager
def whole(model: nn.Module) -> Iterator[None]:
    """All weights of a sharded network in every process for a while, so that each may compute without the others. All
    processes enter and leave together. Does nothing to other networks."""
    shared = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for module in shared:
        module.set_reshard_after_forward(False)
        module.unshard()
    try:
        yield
    finally:
        for module in shared:
            module.reshard()
            module.set_reshard_after_forward(True)


def is_sharded(model: nn.Module) -> bool:
    return any(isinstance(module, FSDPModule) for module in model.modules())


def apart(optimizer: torch.optim.Optimizer) -> None:
    """Sharded and other parameters in groups of their own: one call updates a group, and cannot mix the two."""
    groups = []
    for group in optimizer.param_groups:
        for sharded in (True, False):
            chosen = [p for p in group["params"] if isinstance(p, DTensor) == sharded]
            if chosen:
                groups.append({**group, "params": chosen})
    optimizer.param_groups[:] = groups
