"""Building data on a cluster: actors fill the shards of one folder, which all machines must see.

A build that is split into parts takes one shard a part where there are as many parts as shards. A shard is a function
of its number and appears whole or not at all, so an actor that is lost costs its shard and nothing else. What holds the
whole together (the statistics, the pairs) is made at last, as a build in one part that finds everything done.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .pool import Cluster, Pool

Share = Callable[[int, int], Any]
"""Does part number `part` (from 0) of `parts` and says what the build says of the whole; None while others are due."""


@dataclass(frozen=True)
class _Opened:
    """What an actor is given: `open` loads the models of a build there."""

    open: Callable[[], Share]

    def __call__(self) -> Callable[[tuple[int, int]], Any]:
        share = self.open()
        return lambda piece: share(*piece)


def build_on(
    cluster: Cluster, open: Callable[[], Share], shards: int, on_shard: Callable[[int, int], None] | None = None
) -> Any:
    """Fills all shards in actors, and returns what the finished build says."""
    with Pool(cluster, _Opened(open)) as pool:
        for done, _ in enumerate(pool.each([(number, shards) for number in range(shards)]), 1):
            if on_shard is not None:
                on_shard(done, shards)
        ((_, said),) = pool.each([(0, 1)])
    return said
