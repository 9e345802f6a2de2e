"""A folder of data filled shard by shard: by several parts at a time, and on from where it was stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ..files import claim

OnShard = Callable[[int, int], None]
T = TypeVar("T")
Made = TypeVar("Made", covariant=True)


class Teaches(Protocol[Made]):
    name: str

    def teach(self, numbers: Sequence[int]) -> Sequence[Made | None]:
        """What is made of so many prompts, from their numbers and the build's seed alone; None for what is left out."""


@dataclass(frozen=True)
class ShardedBuild:
    """count: prompts. shard: prompts of a file. part, parts: this is share number `part` (from 0) of `parts`."""

    count: int
    shard: int = 64
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if min(self.count, self.shard, self.parts) < 1 or not 0 <= self.part < self.parts:
            raise ValueError(
                f"count={self.count}, shard={self.shard}: at least 1; part={self.part} of {self.parts}: counted from 0."
            )

    @property
    def shards(self) -> range:
        return range(-(-self.count // self.shard))


def fill(
    folder: Path,
    teacher: Teaches[T],
    build: ShardedBuild,
    about: dict[str, Any],
    file: Callable[[int], Path],
    write: Callable[[int, list[T]], None],
    on_shard: OnShard | None = None,
) -> bool:
    """Makes what is missing of this part's shards; whether all shards, other parts' too, are there. file: of a shard,
    whose being there says that it is whole; `write` writes it last. ValueError where `folder` was made otherwise."""
    claim(folder / "build.json", {**about, "teacher": teacher.name, "count": build.count, "shard": build.shard})
    mine = build.shards[build.part :: build.parts]
    for done, number in enumerate(mine, 1):
        if not file(number).is_file():
            first = number * build.shard
            made = teacher.teach(range(first, min(first + build.shard, build.count)))
            write(number, [one for one in made if one is not None])
        if on_shard is not None:
            on_shard(done, len(mine))
    return all(file(number).is_file() for number in build.shards)
