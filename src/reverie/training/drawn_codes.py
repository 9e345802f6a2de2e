"""Drawn pictures as codes, each used several times, since an accelerator asks for more than a few cores draw.

Picture n, and what it shows, follow from (seed, n) alone. Every step brings `fresh` new ones; the other rows of a batch
are chosen among the last `window` ones, under another wording (and, where codes are hidden, with other codes hidden).
Workers draw; the learning process encodes what is new and keeps the codes on its device. What a run that goes on lacks,
it draws again, so batches stay functions of (seed, step).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .janus import demanded, stack, worded


class DrawnCodes:
    def __init__(self, seed: int, rows: int, share: float, riddles: float, side: int, window: int = 1 << 16):
        """rows: of a batch; share: of them that are drawn anew each step, at least one row; riddles: share of pictures
        that answer riddles; side: of pictures, in pixels; window: pictures whose codes are kept. ValueError for a share
        that is none."""
        if not 0 < share <= 1:
            raise ValueError(f"fresh={share}: the share of pictures that are drawn anew, above 0 and at most 1.")
        self.seed, self.rows, self.riddles, self.side = seed, rows, riddles, side
        self.fresh = max(1, round(share * rows))
        self.window = max(window, self.fresh)
        self.known = [-1] * self.window
        """Which picture a place of the table holds."""
        self.table: Tensor | None = None

    # In a worker.

    def batch(self, step: int, rng: random.Random) -> tuple[list[str], dict[str, Tensor]]:
        """Captions of a step, the `numbers` (rows,) of its pictures, and `pixels` (fresh, 3, H, W) uint8 of those that
        are new and come first."""
        first = step * self.fresh
        numbers = list(range(first, first + self.fresh))
        oldest = max(0, first + self.fresh - self.window)
        older = range(oldest, first) if first > oldest else range(first, first + self.fresh)
        numbers += [rng.choice(older) for _ in range(self.rows - self.fresh)]
        captions = [self.caption(number, rng) for number in numbers]
        return captions, {"numbers": torch.tensor(numbers), "pixels": self.pictures(numbers[: self.fresh])}

    def caption(self, number: int, rng: random.Random) -> str:
        """What picture `number` shows, in one of many wordings."""
        demand, said, _ = self._demand(number)
        return worded(demand, said, rng)

    def _demand(self, number: int) -> tuple[Any, str | None, random.Random]:
        rng = random.Random(f"{self.seed}/picture/{number}")
        return *demanded(rng, self.riddles), rng

    def pictures(self, numbers: Sequence[int]) -> Tensor:
        """(N, 3, H, W) uint8."""
        from ..atelier.draw import draw
        from ..atelier.sample import compose

        found = (self._demand(number) for number in numbers)
        return stack([draw(compose(demand, rng), self.side) for demand, _, rng in found])

    # Where the model learns.

    @torch.no_grad()
    def codes(self, rows: dict[str, Tensor], encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(rows, L) codes of a batch; `encode` takes pixels (N, 3, H, W) in [-1, 1]."""
        numbers = rows["numbers"].tolist()
        self._keep(numbers[: self.fresh], rows["pixels"], encode)
        lacking = sorted({n for n in numbers[self.fresh :] if self.known[n % self.window] != n})
        if lacking:
            self._keep(lacking, self.pictures(lacking).to(rows["pixels"].device), encode)
        assert self.table is not None
        return self.table[rows["numbers"] % self.window].long()

    def _keep(self, numbers: Sequence[int], pixels: Tensor, encode: Callable[[Tensor], Tensor]) -> None:
        codes = encode(pixels.float() / 127.5 - 1)
        if self.table is None:
            self.table = torch.zeros(self.window, codes.shape[1], dtype=torch.int32, device=codes.device)
        places = [number % self.window for number in numbers]
        self.table[torch.tensor(places, device=codes.device)] = codes.int()
        for place, number in zip(places, numbers, strict=True):
            self.known[place] = number
