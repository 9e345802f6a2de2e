"""What earlier steps of a run brought, kept where the network is."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor


class Pool:
    """Rows of several tensors, each of the same length, in memory that grows by doubling up to `most` rows."""

    def __init__(self, most: int):
        self.most, self.count = most, 0
        self.kept: list[Tensor] = []

    def add(self, *rows: Tensor) -> None:
        if not self.kept:
            self.kept = [part[:0] for part in rows]
        end = self.count + len(rows[0])
        if end > len(self.kept[0]):
            room = min(self.most, max(2 * end, 1024)) - self.count
            self.kept = [
                torch.cat((old[: self.count], part.new_zeros(room, *part.shape[1:])))
                for old, part in zip(self.kept, rows, strict=True)
            ]
        for old, part in zip(self.kept, rows, strict=True):
            old[self.count : end] = part
        self.count = end

    def meet(
        self,
        first: int,
        new: Mapping[str, Any],
        draw: Callable[[int, int], Mapping[str, Any]],
        rows: Callable[[Mapping[str, Any]], Sequence[Tensor]],
    ) -> None:
        """Takes what a step brought: `new`, numbered from `first`; {} if nothing in it is new.

        A run that goes on has an empty pool: draw(first, end) draws once more what the steps before it brought, a few
        at a time. rows: what is kept of it.
        """
        for start in range(self.count, first, 256):
            self.add(*rows(draw(start, min(start + 256, first))))
        if new and self.count == first:
            self.add(*rows(new))
