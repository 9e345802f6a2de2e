"""Rewards on a cluster: who judges is loaded in actors; the pictures of a roll-out go there, and numbers come back.

What a picture is paid depends on prompt and picture alone, so rewards are those of a run without actors, in their
order. The trainer waits for them: nothing is judged late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .pool import Actors, Pool, connect, library

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..training.rollout import Reward


@dataclass
class Judging(Actors):
    """Section `judging` of a recipe: actors for each trainer process and each reward. batch: pictures that an actor is
    given at a time."""

    batch: int = 8

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: at least 1.")
        self.cluster()


@dataclass(frozen=True)
class _Opened:
    make: Callable[[], Reward]

    def __call__(self) -> Callable[[tuple[Sequence[str], Sequence[Any]]], list[float | None]]:
        reward = self.make()
        return lambda piece: list(reward(*piece))


@dataclass
class Elsewhere:
    """A reward that is computed in actors, which start with the first roll-out."""

    make: Callable[[], Reward]
    """Loads who judges; runs in each actor."""
    judging: Judging
    _pool: Pool | None = field(default=None, repr=False)

    def __call__(self, prompts: Sequence[str], images: Sequence[Any]) -> list[float | None]:
        if self._pool is None:
            self._pool = Pool(self.judging.cluster(), _Opened(self.make))
        starts = range(0, len(prompts), self.judging.batch)
        pieces = [(prompts[i : i + self.judging.batch], images[i : i + self.judging.batch]) for i in starts]
        return [value for _, values in self._pool.each(pieces, ordered=True) for value in values]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.close()
            self._pool = None


def judging_of(recipe: Mapping[str, Any]) -> Judging | None:
    """The section `judging`, if there is one. ValueError beside `rollouts`, whose actors judge what they explore."""
    from ..training.recipes import section

    if not recipe.get("judging"):
        return None
    if recipe.get("rollouts"):
        raise ValueError("the actors of `rollouts` judge what they explore: leave `judging` out, or serve the judge.")
    return section(recipe, "judging", Judging)


@contextmanager
def closing(rewards: Mapping[str, Any]) -> Iterator[None]:
    """Has a cluster with room for the actors of all rewards, and lets them go at the end."""
    from ..training.look import LOOKING

    spread = [reward for reward in rewards.values() if isinstance(reward, Elsewhere)]
    joined = bool(spread) and LOOKING.get() is None and connect(spread[0].judging.cluster(len(spread)))
    try:
        yield
    finally:
        for reward in spread:
            reward.close()
        if joined:
            library().shutdown()
