"""Roll-outs on a cluster: actors explore with weights that are sent to them, the trainer only learns.

An actor makes the recipe's own task and asks it to explore, so every reinforcement recipe can be spread, its rewards
included. A piece is one prompt. Nothing that is written depends on the rest of a batch, so with `ahead=0` the trainer
learns what it would have learnt alone, up to the rounding of other batch shapes.

With `ahead` above 0 the actors explore the next roll-outs while this one is learnt from, with weights that are so many
roll-outs old at most; ratios are then taken against what was written, and how old it was is logged as `staleness`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from ..training.grpo import GrpoTask, Turn
from ..training.learner import PolicyLearner
from ..training.look import look
from ..training.tree import Tree
from .pool import Actors, Pool


@dataclass
class Rollouts(Actors):
    """Section `rollouts` of a recipe: actors for each trainer process. ahead: roll-outs that may be explored before
    their turn."""

    ahead: int = 0

    def __post_init__(self) -> None:
        if self.actors < 1 or self.ahead < 0:
            raise ValueError(f"actors={self.actors}: at least 1; ahead={self.ahead}: at least 0.")


@dataclass(frozen=True)
class Piece:
    """A prompt to explore, and the weights to do it with: their number, and where Ray keeps them."""

    version: int
    weights: Sequence[Any]
    """One reference, in a list: Ray hands over what an argument refers to, and leaves alone what lies deeper."""
    prompt: str
    seed: int


@dataclass(frozen=True)
class Explorer:
    """Makes what an actor does."""

    recipe: Mapping[str, Any]

    def __call__(self) -> Callable[[Piece], Tree]:
        import ray

        task = look(self.recipe).task
        assert isinstance(task, GrpoTask)
        learning = {name: p for name, p in task.model.named_parameters() if p.requires_grad}
        held = -1

        @torch.no_grad()
        def explore(piece: Piece) -> Tree:
            nonlocal held
            if held != piece.version:
                for name, value in ray.get(piece.weights[0]).items():
                    learning[name].copy_(value)
                held = piece.version
                if task.begin is not None:
                    task.begin(held)
            (tree,) = task.explore([piece.prompt], [piece.seed])
            return tree

        return explore


class Spread:
    """`grpo.Explore` in actors. Close it when learning is over."""

    def __init__(self, task: GrpoTask, recipe: Mapping[str, Any], config: Rollouts, iterations: int) -> None:
        own = {name: value for name, value in recipe.items() if name != "rollouts"}
        self.task, self.ahead, self.iterations = task, config.ahead, iterations
        self.pool = Pool(config.cluster(), Explorer(own))
        self._thread = ThreadPoolExecutor(1)
        self._under_way: dict[tuple[int, int], tuple[int, Future[list[Tree]]]] = {}
        self._sent: tuple[int, Any] = (-1, None)
        self.staleness = 0
        """How many roll-outs older the weights were with which the last one was explored."""
        if config.ahead:
            for learner in task.learners:
                if isinstance(learner, PolicyLearner):
                    learner.rescore = False

    def __call__(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        turn = self.task.turn
        assert turn is not None
        waiting = self._under_way.pop((turn.iteration, turn.place), None)
        version, found = waiting or self._begun(turn, turn.iteration)
        for later in range(turn.iteration + 1, min(turn.iteration + 1 + self.ahead, self.iterations)):
            if (later, turn.place) not in self._under_way:
                self._under_way[later, turn.place] = self._begun(self.task.turn_at(later, turn.place), turn.iteration)
        self.staleness = turn.iteration - version
        return found.result()

    def _begun(self, turn: Turn, version: int) -> tuple[int, Future[list[Tree]]]:
        weights = self._weights(version)
        pairs = zip(turn.prompts, turn.seeds, strict=True)
        pieces = [Piece(version, [weights], prompt, seed) for prompt, seed in pairs]
        return version, self._thread.submit(lambda: [tree for _, tree in self.pool.each(pieces, ordered=True)])

    def _weights(self, version: int) -> Any:
        """What learns, as it is now, put where all actors can fetch it once."""
        if self._sent[0] != version:
            named = self.task.model.named_parameters()
            now = {name: p.detach().cpu().clone() for name, p in named if p.requires_grad}
            self._sent = version, self.pool.ray.put(now)
        return self._sent[1]

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self.pool.close()
