"""What the processes of a run agree on: the clock, gradients, their size, and what is logged.

The batches of an update are numbered through its accumulation and its processes, and everything here is a mean over
them, so two processes learn what one learns that accumulates two batches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor


def count() -> int:
    """How many processes train together."""
    ready = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if ready else 1


def leave() -> None:
    """Ends what the processes have in common, at the end of a program."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def agreed(seconds: float, device: torch.device) -> float:
    """The main process's clock, for all: processes that disagree about the end would wait for each other for ever."""
    if count() == 1:
        return seconds
    clock = torch.tensor([seconds], dtype=torch.float64, device=device)
    torch.distributed.broadcast(clock, 0)
    return float(clock)


def most(number: int) -> int:
    """The largest of all processes' numbers."""
    if count() == 1:
        return number
    numbers: list[Any] = [0] * count()
    torch.distributed.all_gather_object(numbers, number)
    return max(numbers)


def average_gradients(model: nn.Module) -> None:
    """Mean over processes, in one message: small models are bound by the number of messages. What this process's batch
    did not touch counts as zero, since another's may have; what nobody's did keeps no gradient, and so rests, as with
    one process. Sharded parameters are averaged where they are computed."""
    learning = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if not learning:
        return
    grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in learning]
    touched = grads[0].new_tensor([p.grad is not None for p in learning], dtype=torch.float32)
    flat = torch.cat([*(g.flatten() for g in grads), touched])
    torch.distributed.all_reduce(flat)
    *means, touched = flat.split([*(g.numel() for g in grads), len(grads)])
    for p, grad, mean, some in zip(learning, grads, means, touched.tolist(), strict=True):
        p.grad = grad.copy_((mean / count()).view_as(grad)) if some else None


@torch.no_grad()
def clip_gradients(parameters: Iterable[nn.Parameter], largest: float) -> Tensor:
    """Scales all gradients, sharded ones and those that every process has, to a norm of `largest` at most. Returns the
    norm as it was."""
    grads = [p.grad for p in parameters if p.grad is not None]
    shards = [g.to_local() for g in grads if isinstance(g, DTensor)]
    own = [g for g in grads if not isinstance(g, DTensor)]
    device = (shards or own)[0].device
    squared = torch.zeros((), device=device)
    if shards:
        squared = squared + torch.stack([g.float().square().sum() for g in shards]).sum()
    torch.distributed.all_reduce(squared)
    if own:
        squared = squared + torch.stack([g.float().square().sum() for g in own]).sum()
    norm = squared.sqrt()
    factor = (largest / (norm + 1e-6)).clamp(max=1.0)
    for grad in (*shards, *own):
        grad.mul_(factor.to(grad.dtype))
    return norm


def mean_row(rows: Sequence[Mapping[str, float | Tensor]]) -> dict[str, float]:
    """What was logged of each batch, as the mean over all batches of all processes. Called by all of them."""
    mine = [{name: float(value) for name, value in row.items()} for row in rows]
    if count() > 1:
        everybody: list[Any] = [None] * count()
        torch.distributed.all_gather_object(everybody, mine)
        mine = [row for some in everybody for row in some]
    names = dict.fromkeys(name for row in mine for name in row)
    found = {name: [row[name] for row in mine if name in row] for name in names}
    return {name: sum(values) / len(values) for name, values in found.items()}
