"""A diffusion pipeline as a policy: paints thoughts' prompts by an SDE, and scores the steps of its window.

Any pipeline that `generators/diffusion.py` paints with (Qwen-Image and its editors, FLUX.1, Stable Diffusion 3).
Prompts are read once for each different text of a roll-out, the text that guides away once in all, and all images of
all prompts go through the transformer in batches of `rows`. States of prompts are actions of whoever wrote the prompt:
no gradient goes through them. Guidance belongs to the policy, with one scale in
roll-out and learning; `free_blank` lets the gradient of the guiding branch through as well.

It is a `VelocityPolicy` too: `forward_loss.py` learns from finished images without an SDE (DiffusionNFT, 2509.16117),
and then a slowly following copy of the weights paints (`slow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..generators.diffusion import DiffusionPainter, Guided
from ..models.diffusion_family import Text
from ..models.flow_sde import SdeNoise, Window
from ..models.prompt_states import Asked, read_prompts
from .adapted import Adapted, follow, follower, swapped
from .flow_policy import FlowPolicy
from .rollout import Path
from .tree import Segment


@dataclass
class DiffusionPolicy(FlowPolicy):
    """Made by `diffusion_policy`."""

    painter: DiffusionPainter = field(default=None, repr=False)  # type: ignore[assignment]
    adapted: Adapted = field(default=None, repr=False)  # type: ignore[assignment]
    asked: Callable[[Path], Asked] = lambda path: (path.prompt, ())
    """Prompt and pictures that a path is painted from."""
    rows: int = 64
    """Images that go through the transformer, and texts through their encoder, at once."""
    reading: Callable[[], AbstractContextManager[Any]] = nullcontext
    """What surrounds the reading of prompts."""
    slow: dict[str, Tensor] | None = None
    """With the forward-process loss: the weights that paint."""
    read: int = 0
    """Texts that were read so far."""
    predictions: int = 0
    """Rows that went through the transformer so far, both ways of guidance counted."""
    _held: dict[int, Guided] = field(default_factory=dict, repr=False)

    def write(self, paths: Sequence[Path]) -> list[list[Segment]]:
        """One segment for each path. Call it without gradient."""
        with self.reading():
            guided = self.conditions([self.asked(path) for path in paths])
        self._held = {id(path): one for path, one in zip(paths, guided, strict=True)}
        found: list[list[Segment]] = []
        with self._painting():
            for first in range(0, len(paths), self.rows):
                found += super().write(paths[first : first + self.rows])
        self._held = {}
        return found

    def conditions(self, asked: Sequence[Asked]) -> list[Guided]:
        """What each is painted from; every different text is read once, in batches."""
        painter, family = self.painter, self.painter.family
        weight = painter.guidance
        ways = 1 if family.embedded or weight <= 1 else 2
        blanks = [(painter.negative, pictures) for _, pictures in asked] if ways == 2 else []
        texts = read_prompts(painter, [*asked, *blanks], self.rows)
        self.read += len({id(text) for text in texts})
        assert painter.size is not None
        negative: Sequence[Text | None] = texts[len(asked) :] or [None] * len(asked)
        return [
            Guided(text, blank, weight, painter.size) for text, blank in zip(texts[: len(asked)], negative, strict=True)
        ]

    @contextmanager
    def _painting(self) -> Iterator[None]:
        if self.slow is None:
            yield
            return
        with swapped(dict(self.adapted.network.named_parameters()), self.slow):
            yield

    def pictures(self, segments: Sequence[Segment], together: int = 16) -> list[np.ndarray]:
        """uint8 (H, W, 3) of finished segments, decoded in batches. Call it without gradient."""
        found: list[np.ndarray] = []
        family, size = self.painter.family, self.painter.size
        assert size is not None
        for first in range(0, len(segments), together):
            latents = torch.stack([s.actions[-1] for s in segments[first : first + together]]).to(family.device)
            pixels = family.decode(latents.to(family.dtype), size).float()
            found += list(((pixels.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy())
        return found

    # For the forward-process loss.

    def velocity_of(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        return self.velocity(x, sigma, [segment.context.condition for segment in segments])


class ForwardPolicy:
    """A `DiffusionPolicy` as forward_loss.py asks for it."""

    def __init__(self, policy: DiffusionPolicy, rate: float):
        """rate: how far the copy that paints follows at each iteration; 1 is on-policy."""
        self.policy, self.rate = policy, rate
        policy.slow = follower(policy.adapted.network)

    @property
    def name(self) -> str:
        return self.policy.name

    def velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        return self.policy.velocity_of(segments, x, sigma)

    def old_velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad(), self.policy._painting():
            return self.policy.velocity_of(segments, x, sigma)

    def reference_velocity(self, segments: Sequence[Segment], x: Tensor, sigma: Tensor) -> Tensor:
        with torch.no_grad(), self.policy.adapted.reference():
            return self.policy.velocity_of(segments, x, sigma)

    def follow(self) -> None:
        assert self.policy.slow is not None
        follow(self.policy.slow, self.policy.adapted.network, self.rate)


def diffusion_policy(
    painter: DiffusionPainter,
    adapted: Adapted,
    *,
    noise: SdeNoise,
    window: Callable[[Path], Window] | None = None,
    asked: Callable[[Path], Asked] = lambda path: (path.prompt, ()),
    rows: int = 64,
    free_blank: bool = False,
    same_start: bool = False,
    storage: torch.dtype = torch.float32,
    name: str = "painter",
) -> DiffusionPolicy:
    """The policy of a painter with a fixed size of its pictures."""
    if painter.size is None:
        raise ValueError("a policy paints pictures of one size; give the painter height and width")
    sigmas = painter.sigmas(painter.size)
    shape = painter.family.noise([torch.Generator().manual_seed(0)], painter.size).shape[1:]

    def velocity(x: Tensor, sigma: Tensor, guided: Sequence[Any]) -> Tensor:
        # Two passes and not one of twice the rows: the text that guides away is short and need not be padded.
        policy.predictions += len(x) * (1 if guided[0].blank is None else 2)
        cast = x.to(painter.family.dtype)
        cond = painter.velocity(cast, sigma, [replace(one, blank=None) for one in guided])
        if guided[0].blank is None:
            return cond.float()
        with torch.set_grad_enabled(torch.is_grad_enabled() and free_blank):
            blank = painter.velocity(cast, sigma, [replace(one, text=one.blank, blank=None) for one in guided])
        return painter.family.guided(cond, blank, guided[0].weight).float()

    def first(x: Tensor, sigma: Tensor, guided: Sequence[Any]) -> Tensor:
        with adapted.reference():
            return velocity(x, sigma, guided)

    policy = DiffusionPolicy(
        name, velocity, sigmas, tuple(shape), noise, window, first, lambda path: policy._held[id(path)], same_start,
        storage, painter=painter, adapted=adapted, asked=asked, rows=rows,
    )  # fmt: skip
    return policy
