"""Which hidden states of a language model are the feature of a token, and how they are kept while it writes.

ThinkDiff (arXiv 2502.10458) takes one: what the output head read when it wrote the token, behind the final norm. That
says which token comes, since the head is linear, and may say little else. Lower layers say more of the words so far,
and the states at the token's own place, one step later, know which token was drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class FeatureStates:
    """layers: counted from the top as transformers counts `hidden_states`: -1 is what the output head reads, behind
    the final norm, -2 what the last block reads, and so on down to the embeddings. They lie side by side in a feature.

    read: the states of the same layers at the position that has read the token stand beside those at the position that
    wrote it. The last token of an answer is never read: there they are zeros, whatever else is in the batch.
    """

    layers: tuple[int, ...] = (-1,)
    read: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "layers", tuple(self.layers))  # JSON has lists
        if not self.layers or max(self.layers) > -1 or len(set(self.layers)) < len(self.layers):
            told = ", ".join(map(str, self.layers))
            raise ValueError(f"layers={told}: at least one, each once, counted from the top: -1, -2, ...")

    def __str__(self) -> str:
        return f"layers {', '.join(map(str, self.layers))}" + (", read" if self.read else "")

    @classmethod
    def told(cls, value: Mapping[str, Any] | FeatureStates | None) -> FeatureStates:
        """What a header, an index or a recipe says; nothing means the published way."""
        if value is None or isinstance(value, FeatureStates):
            return value or LAST
        if unknown := sorted(set(value) - {"layers", "read"}):
            raise ValueError(f"states has no use for {unknown[0]!r}; known are layers and read.")
        return cls(**value)

    @property
    def parts(self) -> int:
        """States in a feature."""
        return len(self.layers) * (2 if self.read else 1)

    def check(self, blocks: int) -> None:
        """ValueError if a model of so many blocks lacks one of the layers."""
        if (lowest := min(self.layers)) < -blocks - 1:
            raise ValueError(f"layers: there is no {lowest}; a model of {blocks} blocks has -1 to {-blocks - 1}.")

    def within(self, other: FeatureStates, width: int) -> Tensor:
        """The columns of a feature of `other`, each state `width` wide, that make a feature of these states.
        ValueError if it lacks one."""
        missing = [layer for layer in self.layers if layer not in other.layers]
        if missing or self.read > other.read:
            raise ValueError(f"Features of {self} cannot be taken from those of {other}; build them anew.")
        blocks = torch.arange(other.parts * width).view(-1, len(other.layers), width)
        return blocks[: 1 + self.read, [other.layers.index(layer) for layer in self.layers]].flatten()


LAST = FeatureStates()
"""The published way."""


def all_of(several: Iterable[FeatureStates]) -> FeatureStates:
    """Those from which each of these can be taken; the published ones if there are none."""
    found = list(several) or [LAST]
    layers = {layer for one in found for layer in one.layers}
    return FeatureStates(tuple(sorted(layers, reverse=True)), any(one.read for one in found))


class Kept:
    """Keeps what some layers hand on at the last position of every call; (steps, B, layers x D), allocated once."""

    def __init__(self, model: Any, states: FeatureStates, rows: int, steps: int):
        """model: of transformers, with an output head. ValueError if it lacks a layer."""
        head = model.get_output_embeddings()
        self.states, self.width, self.count = states, head.in_features, 0
        blocks: Any = []
        if states.layers != LAST.layers:
            blocks = model.get_decoder().layers
            states.check(len(blocks))
        # What a layer hands on is what the next one reads.
        self.readers = [head if layer == -1 else blocks[layer + 1] for layer in states.layers]
        self.head, self.shape = head, (steps, rows, len(states.layers) * self.width)
        self.kept: Tensor | None = None

    def __enter__(self) -> Kept:
        hooks = [
            reader.register_forward_pre_hook(partial(self._keep, place), with_kwargs=True)
            for place, reader in enumerate(self.readers)
        ]
        self.hooks = [*hooks, self.head.register_forward_hook(self._end)]
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self.hooks:
            hook.remove()

    def of(self, row: int, tokens: int) -> Tensor:
        """(tokens, parts x D): the features of an answer, in memory of the CPU."""
        assert self.kept is not None
        wrote = self.kept[:tokens, row]
        if self.states.read:
            read = torch.cat((self.kept[1:tokens, row], torch.zeros_like(wrote[:1])))
            wrote = torch.cat((wrote, read), 1)
        return wrote.cpu()

    def _keep(self, place: int, module: Any, inputs: tuple[Tensor, ...], named: dict[str, Any]) -> None:
        last = (inputs[0] if inputs else named["hidden_states"])[:, -1]
        if self.kept is None:
            self.kept = last.new_empty(self.shape)
        self.kept[self.count, :, place * self.width : (place + 1) * self.width] = last

    def _end(self, *call: Any) -> None:
        """The head comes last in each step."""
        self.count += 1
