"""Reward guidance for DPO that has a gradient: pairs made on the fly from what the policy paints now.

"Can We Generate Images with CoT?" (arXiv 2501.13926) adds a reward model's opinion of fresh images to the DPO loss, to
fight the shift between the stored pairs and the policy. The released term is computed without a gradient and changes
nothing. Here each fresh image is judged, the best and the worst of a prompt become a pair, and the pair enters the same
DPO loss: the gradient pushes towards what the reward model likes.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..canvas import Conditions, copy_seed
from ..choose import painted, without_cache
from ..data.paths import codes_of
from ..judges import View
from ..judges.rules import passes, share
from .dpo import DpoConfig, DpoTask, Pair, Scorer
from .grpo import Turn
from .sharding import is_sharded, whole

if TYPE_CHECKING:
    from ..canvas import Generator as GeneratorOfImages
    from ..judges import Judge


@dataclass
class OnlineConfig:
    """prompts, images: so many images of so many prompts are painted in every step that is guided; `every`: only each
    so-many-th step is."""

    prompts: int = 2
    images: int = 4
    every: int = 1

    def __post_init__(self) -> None:
        if self.prompts < 1 or self.images < 2 or self.every < 1:
            raise ValueError(
                f"prompts={self.prompts}, every={self.every}: at least 1; images={self.images}: at least 2 to compare."
            )


@dataclass
class OnlinePairs:
    """A `Guidance` (see dpo.py). `generator` makes a painter with the weights as they are now."""

    model: nn.Module
    score: Scorer
    reference: Scorer
    generator: Callable[[], GeneratorOfImages]
    judge: Judge
    prompts: Sequence[str]
    config: OnlineConfig
    dpo: DpoConfig
    batches: int = 1
    """Of an update."""
    level: Pair | None = field(default=None, repr=False)
    """An image of the last exploration against itself: nothing to learn."""

    def share(self, batches: int) -> None:
        self.batches = batches

    def batch(self, step: int) -> Turn:
        rng = random.Random(f"online/{self.dpo.seed}/{step}")
        if step // self.batches % self.config.every:
            return Turn(step, 0, [], [])
        prompts = [rng.choice(self.prompts) for _ in range(self.config.prompts)]
        return Turn(step, 0, prompts, [copy_seed(self.dpo.seed, 2, step * 4096 + i + 1) for i in range(len(prompts))])

    def loss(self, turn: Turn) -> tuple[Tensor, dict[str, float | Tensor]]:
        pairs, told = self.pairs(turn)
        weight = 1.0
        if not pairs and self.level is not None and is_sharded(self.model):
            # Another process may have pairs, and waits for this one wherever it computes.
            pairs, weight = [self.level], 0.0
        if not pairs:
            return next(p for p in self.model.parameters() if p.requires_grad).sum() * 0.0, told
        quiet = replace(self.dpo, batch=len(pairs), online=0.0, sft=0.0)
        task = DpoTask(self.model, self.score, pairs, self.reference, quiet)
        loss, log = task.loss(task.batch(0))
        return weight * loss, {**told, **log}

    @torch.no_grad()
    def pairs(self, turn: Turn) -> tuple[list[Pair], dict[str, float | Tensor]]:
        """The best and the worst image of each prompt, where the judge tells them apart."""
        if not turn.prompts:
            return [], {}
        k, device = self.config.images, next(self.model.parameters()).device
        generator = self.generator()
        with (
            whole(self.model),
            torch.autocast(device.type, enabled=False),
        ):  # painted as ever, whatever the loop casts while it learns
            canvas = generator.advance(generator.start(Conditions(tuple(turn.prompts)), turn.seeds).fork(k))
            views = [View(turn.prompts[i // k], picture) for i, picture in enumerate(painted(generator, canvas))]
            answers = self.judge.ask("orm", views)
        codes = codes_of(generator, without_cache(canvas))
        self.level = Pair(turn.prompts[0], codes[0], codes[0])
        found: list[Pair] = []
        for which, prompt in enumerate(turn.prompts):
            rows = range(which * k, (which + 1) * k)
            ranked = sorted(rows, key=lambda i: (passes(answers[i]), _number(answers[i])))
            worst, best = ranked[0], ranked[-1]
            if _number(answers[best]) > _number(answers[worst]):
                found.append(Pair(prompt, codes[best], codes[worst]))
        right = sum(passes(answer) for answer in answers) / len(answers)
        return found, {"right": right, "pairs": float(len(found))}


def _number(answer: Any) -> float:
    number = share(answer)
    return number if number == number else -1.0
