"""What next-token painters have computed of a batch.

For every image the tokens of its prompt and then its codes, each in the slot of its own position.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from reverie.models.llama import KVCache


@dataclass
class NextTokenCache:
    """Keys and values of N images of `ways` rows each (2 with guidance: prompt, then blank twin; else 1)."""

    kv: KVCache
    first: Tensor
    """(N * ways, D): hidden state of each prompt's last token, from which code 0 is drawn."""
    prompts: list[list[int]]
    lengths: Tensor
    """(N,) prompt lengths; equal to those of `prompts`, but on the device."""
    ways: int

    def fork(self, k: int) -> "NextTokenCache":
        images = [i for i in range(len(self.prompts)) for _ in range(k)]
        rows = self._rows(images)
        return NextTokenCache(
            self.kv.take(rows), self.first[rows], [self.prompts[i] for i in images], self.lengths[images], self.ways
        )

    def select(self, indices: Sequence[int]) -> "NextTokenCache":
        rows = self._rows(indices)
        if all(a < b for a, b in pairwise(rows)):
            # Rows only ever move towards the front, past rows that are no longer needed.
            for target, source in enumerate(rows):
                if target != source:
                    self.kv.keys[:, target].copy_(self.kv.keys[:, source])
                    self.kv.values[:, target].copy_(self.kv.values[:, source])
            kv = self.kv.narrow(0, len(rows))
        else:
            kv = self.kv.take(rows)
        images = list(indices)
        return NextTokenCache(kv, self.first[rows], [self.prompts[i] for i in images], self.lengths[images], self.ways)

    @staticmethod
    def join(caches: "Sequence[NextTokenCache]") -> "NextTokenCache":
        """Copies of several, one below the other, in one store as large as the largest."""
        capacity, total = max(cache.kv.capacity for cache in caches), sum(len(cache.first) for cache in caches)
        like = caches[0].kv.keys
        shape = (like.shape[0], total, like.shape[2], capacity, like.shape[4])
        kv, row = KVCache(like.new_zeros(shape), like.new_zeros(shape), caches[0].kv.rows), 0
        for cache in caches:
            part = kv.narrow(row, row := row + len(cache.first))
            part.keys[:, :, :, : cache.kv.capacity] = cache.kv.keys
            part.values[:, :, :, : cache.kv.capacity] = cache.kv.values
        prompts = [prompt for cache in caches for prompt in cache.prompts]
        first, lengths = torch.cat([cache.first for cache in caches]), torch.cat([cache.lengths for cache in caches])
        return NextTokenCache(kv, first, prompts, lengths, caches[0].ways)

    def narrow(self, start: int, end: int) -> "NextTokenCache":
        """Images start..end as a view: what is written there is written here."""
        rows = slice(start * self.ways, end * self.ways)
        kv = self.kv.narrow(rows.start, rows.stop)
        return NextTokenCache(kv, self.first[rows], self.prompts[start:end], self.lengths[start:end], self.ways)

    def _rows(self, images: Sequence[int]) -> list[int]:
        return [image * self.ways + way for image in images for way in range(self.ways)]
