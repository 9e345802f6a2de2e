"""Features on a cluster: actors answer about pictures, this process alone writes shards, in the order of the pictures.

The pictures must lie where every machine sees them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..data.build_features import Answered, FeatureBuild, Item, answered, build_features
from .pool import Cluster, Pool

if TYPE_CHECKING:
    from ..vlms.states import FeatureStates
    from ..vlms.transformers import TransformersVLM


@dataclass(frozen=True)
class _About:
    """What this process must know of a VLM that it never loads."""

    width: int
    states: FeatureStates
    tokenizer: Any


@dataclass(frozen=True)
class _Opened:
    open: Callable[[], TransformersVLM]
    build: FeatureBuild

    def __call__(self) -> Callable[[Sequence[Item] | None], Answered | _About]:
        vlm = self.open()

        def answer(items: Sequence[Item] | None) -> Answered | _About:
            return _About(vlm.width, vlm.states, vlm.tokenizer) if items is None else answered(vlm, items, self.build)

        return answer


def features_on(
    cluster: Cluster,
    open: Callable[[], TransformersVLM],
    name: str,
    items: Sequence[Item],
    folder: str | Path,
    build: FeatureBuild,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[str]:
    """As `build_features`, with VLMs in actors."""
    items = [replace(item, paths=tuple(path.resolve() for path in item.paths)) for item in items]
    with Pool(cluster, _Opened(open, build)) as pool:
        ((_, about),) = pool.each([None])

        def answers(batches: Sequence[Sequence[Item]]) -> Iterator[Answered]:
            for _, said in pool.each(batches, ordered=True):
                yield said

        return build_features(about, name, items, folder, build, on_batch, answers)
