"""How much memory tensors take: what is alive, and the most that a piece of work adds, on any device.

On a GPU its allocator is asked. On the CPU the profiler tells of every allocation that torch makes; what libraries
take beside it is not seen.
"""

from __future__ import annotations

import gc
from collections.abc import Callable

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake


def alive(device: torch.device) -> dict[int, int]:
    """Bytes of the memory behind all tensors that exist there, by address: each counts once, however many views it
    has. What torch.compile leaves behind of its tracing has no memory. Garbage is freed first: an address that is given
    anew would seem to have been there before."""
    gc.collect()
    found: dict[int, int] = {}
    for thing in gc.get_objects():
        if not issubclass(type(thing), Tensor) or is_fake(thing):
            continue
        if thing.device.type == device.type and thing.layout == torch.strided:
            storage = _local(thing).untyped_storage()
            found[storage.data_ptr()] = storage.nbytes()
    return found


def bytes_of(*tensors: Tensor) -> int:
    """The same of these alone."""
    return sum({s.data_ptr(): s.nbytes() for s in (_local(t).untyped_storage() for t in tensors)}.values())


def _local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that is here."""
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def most_added(work: Callable[[], object], device: torch.device) -> int:
    """The most bytes that `work` has at a time beyond what there was before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
        work()
    live = most = 0
    for event in told.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    return most
