"""Drawn corrections for a small Show-o: a flawed picture, what is wrong with it, and a right one (atelier/flaws.py).

A part of its training, by which it learns to see a picture before it has painted any; training/self_correction.py goes
on with what it painted.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from torch import Tensor

from ..models.showo import Showo
from .cross_entropy import cross_entropy
from .drawn_codes import DrawnCodes
from .janus import stack


class DrawnFlaws(DrawnCodes):
    """Pairs of drawn pictures as codes (rows, 2 L), flawed and right, used several times."""

    def caption(self, number: int, rng: random.Random) -> str:
        """The prompt in one of many wordings, and the reason in the next line, as in wordings.yaml (`atelier`)."""
        from ..atelier.flaws import flaw

        demand, _, fixed = self._demand(number)
        return f"{super().caption(number, rng)}\n{flaw(demand, fixed).reason}"

    def pictures(self, numbers: Sequence[int]) -> Tensor:
        """(N, 2, 3, H, W) uint8."""
        from ..atelier.draw import draw
        from ..atelier.flaws import flaw

        found = [flaw(demand, rng) for demand, _, rng in map(self._demand, numbers)]
        scenes = [scene for one in found for scene in (one.before, one.after)]
        return stack([draw(scene, self.side) for scene in scenes]).unflatten(0, (-1, 2))

    def codes(self, rows: dict[str, Tensor], encode: Callable[[Tensor], Tensor]) -> Tensor:
        """(rows, 2 L)"""

        def both(pixels: Tensor) -> Tensor:
            return encode(pixels.flatten(0, 1)).unflatten(0, (-1, 2)).flatten(1)

        return super().codes(rows, both)


def flaws_loss(model: Showo, ids: Tensor, seen: Tensor, codes: Tensor, masked: Tensor) -> Tensor:
    """Mean negative log-probability of the hidden codes of new images. ids (B, T) of prompts and reasons, `seen` False
    at pads; codes (B, 2 L) of the flawed and the right picture; masked (B, L) of the latter."""
    before, after = codes.chunk(2, 1)
    text = model.look(before, model.read(ids, seen))
    # The head runs over hidden slots only.
    logits = model.code_logits(model.paint(after, masked, text)[:, 1:-1][masked])
    return cross_entropy(logits, after[masked])
