"""Training that is spread over processes by DeepSpeed's ZeRO: each keeps its share of the moments (`zero1`) and of the
gradients too (`zero2`), for all weights that learn; the weights themselves stand whole in every process.

An engine of DeepSpeed wraps a module whose forward gives the loss. Here that module is the task: what it calls of its
network, and how often, is its own affair. The engine knows only of what learns, so a frozen base keeps its type.

Processes must compute gradients of the same parameters in the same order, in every update, since what is summed is
found by its place, and what has no gradient would still move by its moments. Where they do not, the update is refused
before it is made. What never has a gradient feels the weight decay alone.

A run is kept as `sharded_state.py` keeps it, under the parameters' names, so it goes on with any number of processes,
under FSDP2 as well.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import increment_version

from .processes import count

if TYPE_CHECKING:
    from .loop import LoopConfig, Task

STAGES = {"zero1": 1, "zero2": 2}
LARGEST_BUCKET = 500_000_000
"""Numbers that are summed in one message at most, as DeepSpeed has it."""


def library(device: torch.device) -> Any:
    """DeepSpeed; ValueError where it is not installed."""
    if device.type == "cpu":
        os.environ.setdefault("DS_ACCELERATOR", "cpu")
    try:
        import deepspeed
    except ImportError as error:
        raise ValueError(
            "loop.shard=zero1 and zero2 need deepspeed: install reverie[deepspeed], or take loop.shard=true."
        ) from error
    from deepspeed.utils import logger

    logger.setLevel("ERROR")
    # A kernel for messages on one machine, which it would compile at every first start.
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    return deepspeed


def check(config: LoopConfig) -> None:
    """ValueError for settings that ZeRO cannot follow."""
    if config.shard in STAGES and config.muon_lr:
        raise ValueError(
            f"loop.shard={config.shard} cuts matrices into flat pieces, and Muon needs them whole: "
            "set loop.muon_lr=null, or take loop.shard=true."
        )


class _Loss(nn.Module):
    """A task as the module that DeepSpeed wants."""

    def __init__(self, task: Task, autocast: Any) -> None:
        super().__init__()
        self.learning = nn.ParameterList([p for p in task.model.parameters() if p.requires_grad])
        self._held = [task, autocast]  # in a list: the network's frozen parts are none of the engine's business
        self.row: Mapping[str, float | Tensor] = {}

    def forward(self, batch: Any) -> Tensor:
        task, autocast = self._held
        with autocast():
            loss, self.row = task.loss(batch)
        return loss


class Zero:
    """The engine of a run until `close`."""

    def __init__(self, task: Task, opt: torch.optim.Optimizer, config: LoopConfig, accelerator: Any) -> None:
        self.stage = str(config.shard)
        # Its buffers have this size however little learns; where all fits, all is summed in one message.
        bucket = min(LARGEST_BUCKET, sum(p.numel() for p in task.model.parameters() if p.requires_grad))
        settings = {
            "train_micro_batch_size_per_gpu": 1,  # of our batches, whatever is in them
            "gradient_accumulation_steps": config.accumulate,
            "gradient_clipping": config.clip,
            "zero_optimization": {
                "stage": STAGES[self.stage],
                "reduce_bucket_size": bucket,
                "allgather_bucket_size": bucket,
            },
            "zero_allow_untested_optimizer": True,
        }
        deepspeed = library(accelerator.device)
        self.learning = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
        self._order: list[int] = []
        self._reached: set[str] = set()
        self._hooks = [
            p.register_post_accumulate_grad_hook(lambda _, number=number: self._order.append(number))
            for number, p in enumerate(self.learning.values())
        ]
        self.engine, self.optimizer, _, _ = deepspeed.initialize(
            model=_Loss(task, accelerator.autocast), optimizer=opt, config=settings, dist_init_required=False
        )

    def learn(self, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The gradients of one batch, and with the last of an update the update."""
        loss = self.engine(batch)
        self.engine.backward(loss)
        self._agree()
        self.engine.step()
        increment_version(
            list(self.learning.values())
        )  # it writes past autograd: who keeps what follows from them asks
        return loss, dict(self.engine.module.row)

    @property
    def norm(self) -> Tensor:
        """Of the gradients of the last update, before they were clipped."""
        return torch.as_tensor(self.engine.get_global_grad_norm())

    def _agree(self) -> None:
        order, self._order = self._order, []
        names = list(self.learning)
        reached = {names[number] for number in order}
        self._reached = self._reached or reached
        other = min(reached ^ self._reached, default=None)
        everybody: list[Any] = [None] * count()
        torch.distributed.all_gather_object(everybody, (other, hashlib.sha256(repr(order).encode()).hexdigest()))
        others = [name for name, _ in everybody if name]
        if others:
            why = f"{others[0]} gets a gradient in some updates and none in others"
        elif any(one != everybody[0] for one in everybody):
            why = "the processes computed their gradients in different orders"
        else:
            return
        raise RuntimeError(f"loop.shard={self.stage}: {why}, which ZeRO cannot follow; take loop.shard=true.")

    def moments(self) -> Iterator[tuple[str, Tensor]]:
        """(name/key, whole tensor) of what the optimizer keeps; each from one process, all of which must ask."""
        from deepspeed.utils import safe_get_full_optimizer_state

        for number, (name, p) in enumerate(self.learning.items()):
            flat, state = self._state_of(name)
            mine = number % count() == torch.distributed.get_rank()
            for key, value in state.items():
                whole = safe_get_full_optimizer_state(p, key) if value.shape == flat.shape else value
                if mine:
                    yield f"{name}/{key}", whole.cpu()

    def make_room(self, keys: Sequence[str]) -> None:
        """Moments by these names, which the optimizer has none of before its first step."""
        from deepspeed.utils import lazy_init_hp_params_optimizer_state

        inner = self.optimizer.optimizer
        for group, own in zip(inner.param_groups, self._groups(), strict=True):
            (flat,) = group["params"]
            inner.state[flat] = {k: torch.zeros(()) if k == "step" else torch.zeros_like(flat) for k in keys}
            lazy_init_hp_params_optimizer_state(own, flat, inner.state)

    def put(self, name: str, key: str, whole: Tensor) -> None:
        """This process's share of one of its moments."""
        from deepspeed.utils import safe_set_full_optimizer_state

        flat, state = self._state_of(name)
        if state[key].shape == flat.shape:
            safe_set_full_optimizer_state(self.learning[name], whole.to(flat.device), key)
        else:
            state[key].copy_(whole)

    def take(self) -> None:
        """Lets the engine's own copies of the weights follow the network's."""
        from deepspeed.utils import safe_set_full_fp32_param

        for p in self.learning.values():
            safe_set_full_fp32_param(p, p.detach().float())

    def _groups(self) -> list[list[nn.Parameter]]:
        return self.optimizer.bit16_groups

    def _state_of(self, name: str) -> tuple[Tensor, dict[str, Tensor]]:
        """The flat piece of a parameter's group that is here, and what the optimizer keeps for it."""
        inner = self.optimizer.optimizer
        for group, own in zip(inner.param_groups, self._groups(), strict=True):
            if any(p is self.learning[name] for p in own):
                (flat,) = group["params"]
                return flat, inner.state[flat]
        raise KeyError(name)

    def close(self) -> None:
        for hook in self._hooks:
            hook.remove()
        self.engine.destroy()
