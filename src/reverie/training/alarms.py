"""Alarms of collapse: what a run says before its reward curve does.

Policies that have found a trick look healthy by their reward. They show it elsewhere: entropy gone, far from the
reference, one picture for every seed, thoughts that shrink to nothing or run on.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from .tree import Tree


@dataclass(frozen=True)
class Alarms:
    """Bounds on what is logged; None is no bound."""

    entropy: float | None = 0.01
    """Per step, at least; of policies whose steps are tokens."""
    kl: float | None = 10.0
    """To the reference, per step, at most."""
    identical: float | None = 0.5
    """Share of images that equal another of their prompt, at most."""
    shortest: float | None = None
    """Mean steps of a text, at least."""
    longest: float | None = None
    """Mean steps of a text, at most."""
    ratio_gap: float | None = 1e-3
    """|ratio - 1| before the first update of a roll-out, at most: beyond it, sampling and scoring disagree."""

    def sound(self, row: Mapping[str, float], first_update: bool = True) -> dict[str, str]:
        """A sentence for each value in the row of a log that breaks its bound, by the value's name."""
        found = {}
        for name, value in row.items():
            *_, last = name.split("/")
            text = name.split("/")[-2:-1] == ["text"]
            for bound, broken, words in (
                (self.entropy, last == "entropy" and _below(value, self.entropy), "fell below"),
                (self.kl, last == "kl" and _above(value, self.kl), "rose above"),
                (self.identical, last == "identical" and _above(value, self.identical), "rose above"),
                (self.shortest, text and last == "length" and _below(value, self.shortest), "fell below"),
                (self.longest, text and last == "length" and _above(value, self.longest), "rose above"),
                (self.ratio_gap, first_update and last == "ratio_gap" and _above(value, self.ratio_gap), "rose above"),
            ):
                if broken:
                    found[name] = f"{name} {words} {bound:g}: it is {value:.4g}"
        return found


def _below(value: float, bound: float | None) -> bool:
    return bound is not None and value < bound


def _above(value: float, bound: float | None) -> bool:
    return bound is not None and value > bound


def identical_images(trees: Sequence[Tree]) -> float:
    """Share of leaves whose image equals that of an earlier leaf of the same prompt. Images: arrays, tensors, or
    anything numpy can read (PIL images too)."""
    repeats = total = 0
    for tree in trees:
        seen = Counter(_digest(leaf.result) for leaf in tree.leaves())
        total += seen.total()
        repeats += seen.total() - len(seen)
    return repeats / max(1, total)


def _digest(image: object) -> bytes:
    array = image.detach().cpu().numpy() if isinstance(image, torch.Tensor) else np.asarray(image)
    return hashlib.sha256(f"{array.shape}{array.dtype}".encode() + np.ascontiguousarray(array).tobytes()).digest()
