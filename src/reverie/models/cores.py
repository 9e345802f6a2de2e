"""Several images on several cores: each part of a batch on one thread of its own.

Torch splits single products among threads, which for small matrices costs more than it brings; images are independent
anyway. Nothing about an image changes: who computes beside it was never its business (models/rows.py).
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

T = TypeVar("T")
R = TypeVar("R")
_ONE_AT_A_TIME = threading.Lock()


def shares(count: int, device: torch.device) -> list[slice]:
    """`count` rows in as many equal neighbourhoods as there are threads on a CPU; elsewhere all in one."""
    threads = min(torch.get_num_threads(), count) if device.type == "cpu" else 1
    edges = [count * number // max(1, threads) for number in range(max(1, threads) + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


@contextmanager
def one_after_another() -> Iterator[None]:
    """Meanwhile parts are done one after another, in the thread that asks: for who watches what that thread does."""
    mine = _ONE_AT_A_TIME.acquire(blocking=False)
    try:
        yield
    finally:
        if mine:
            _ONE_AT_A_TIME.release()


def side_by_side(function: Callable[[T], R], parts: Sequence[T]) -> list[R]:
    """`function` of each part, all at once, in their order. Meanwhile torch has one thread for each product; a second
    caller at the same time goes through its parts one after another."""
    threads = torch.get_num_threads()
    if len(parts) < 2 or threads < 2 or not _ONE_AT_A_TIME.acquire(blocking=False):
        return [function(part) for part in parts]
    grad = torch.is_grad_enabled()

    def alone(part: T) -> R:
        with torch.set_grad_enabled(grad):
            return function(part)

    try:
        # Threads ask how many they may be when they first compute, so they are new ones.
        torch.set_num_threads(1)
        with ThreadPoolExecutor(len(parts)) as pool:
            return list(pool.map(alone, parts))
    finally:
        torch.set_num_threads(threads)
        _ONE_AT_A_TIME.release()
