"""What a training takes, before it starts: memory by part, the micro-batch that fits, time and FLOP of an update.

    found = plan(recipe, Device(24 << 30), devices=1)       # the recipe as a dictionary
    found.overrides                                         # such as {"dpo.batch": 5, "loop.accumulate": 2}

Nothing is guessed that can be measured: the recipe's own task makes a few steps here, at a quarter and a half of its
batch, and at the whole where that is no burden, plain and with recomputation; what lies between or beyond is on a line
through them. What is not measured follows from counts: averages from what learns, shares of sharded blocks from sizes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import psutil
import torch
from torch import nn

from .blocks import blocks_of, forget, recompute
from .look import look
from .memory import alive, bytes_of, most_added

if TYPE_CHECKING:
    from .loop import LoopConfig

ROWS: dict[str, tuple[str, ...]] = {
    "tokenizer": ("model.batch",),
    "janus": ("mix.paint", "mix.think", "mix.look"),
    "llamagen": ("mix.paint",),
    "showo": ("mix.paint",),
    "vlm": ("mix.pictures", "mix.look", "mix.told", "mix.episodes"),
    "clip": ("mix.batch",),
    "inspector": ("data.batch",),
    "reinforce": ("grpo.prompts",),
    "stories": ("mix.think", "mix.generate", "mix.reflect", "mix.plain"),
    "think-sft": ("mix.batch",),
    "dual-grpo": ("grpo.prompts",),
    "judge": ("judge.batch",),
    "judge-claims": ("claims.pictures",),
    "self-correction": ("correction.batch", "correction.plain"),
    "dpo": ("dpo.batch",),
    "text-space": ("mix.batch",),
    "autoencoder": ("mix.batch",),
    "flux": ("mix.batch", "mix.fresh"),
    "qwen-vae": ("mix.batch",),
    "qwen-vlm": ("mix.ask", "mix.look", "mix.paint", "mix.edit"),
    "qwen": ("mix.batch",),
    "thinkdiff-lvlm": ("data.batch",),
    "thinkdiff-clip": ("data.batch",),
}
"""Where each task's recipe says how many rows a batch has. Halving them all and doubling `loop.accumulate` is the same
update in two pieces. A task that is not here is not cut."""
PATIENCE = 10.0
"""Seconds that a measured micro-batch may take, where there are two smaller ones already."""
SPARE = 0.92
"""Share of a device's memory that is planned with; the rest goes to the driver, to fragments and to libraries."""


@dataclass(frozen=True)
class Static:
    """Bytes that do not depend on the batch, in one process."""

    learning: int
    frozen: int
    others: int
    """What the task holds beside its model: references, encoders, stored data."""
    gradients: int
    optimizer: int
    average: int

    @property
    def total(self) -> int:
        return sum(vars(self).values())


@dataclass(frozen=True)
class Work:
    """What a micro-batch of `rows` (a share of the recipe's) takes beyond the static part."""

    rows: float
    first: int
    """The most bytes where no gradients are there before, gradients included."""
    later: int
    """The same on top of gradients that are there."""
    seconds: float
    flop: float
    moved: float = 0.0
    """Bytes that operations read and write (costs/meter.py)."""


@dataclass(frozen=True)
class Measured:
    """What one way of computing takes: static, and the works of several micro-batches, the smallest first."""

    static: Static
    works: tuple[Work, ...]
    step: int
    """Bytes that the optimizer's step adds for a moment."""
    blocks: int
    """Bytes of the repeated blocks' weights that learn."""
    largest: int
    """Of one block."""

    def at(self, rows: float) -> Work:
        """At a share of the recipe's batch: as measured, or on the line through the two measurements next to it."""
        same = [work for work in self.works if work.rows == rows]
        if same or len(self.works) == 1:
            return replace((same or self.works)[0], rows=rows)
        above = next((i for i, work in enumerate(self.works) if work.rows > rows), len(self.works) - 1)
        a, b = self.works[max(above, 1) - 1 : max(above, 1) + 1]
        t = (rows - a.rows) / (b.rows - a.rows)

        def line(x: float, y: float) -> float:
            return max(0.0, x + t * (y - x))

        return Work(
            rows,
            int(line(a.first, b.first)),
            int(line(a.later, b.later)),
            line(a.seconds, b.seconds),
            line(a.flop, b.flop),
            line(a.moved, b.moved),
        )


@dataclass(frozen=True)
class Choice:
    """One way to run the recipe. parts: into how many micro-batches its batch is cut."""

    parts: int
    recompute: bool
    shard: bool
    memory: Mapping[str, int]
    seconds: float
    """Of an update, on the device that measured."""
    flop: float
    moved: float = 0.0

    @property
    def total(self) -> int:
        return sum(self.memory.values())


@dataclass(frozen=True)
class Plan:
    choices: tuple[Choice, ...]
    """All that were looked at, in the order in which they are preferred."""
    chosen: Choice | None
    """The first that fits."""
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Of the recipe, for the chosen one."""
    steps: int = 0


@dataclass(frozen=True)
class Survey:
    """What was measured of a recipe, from which every plan follows."""

    rows: Mapping[str, int]
    loop: LoopConfig
    ways: Mapping[bool, Measured]
    """Plain, and with recomputation where that is possible and not the recipe's own."""
    blocks: bool


def plan(recipe: Mapping[str, Any], memory: int, devices: int = 1, device: str | None = None) -> Plan:
    """How the recipe fits in `memory` bytes on each of `devices`, measured on `device` (None: a GPU if there is one).
    ValueError for bad recipes."""
    from ..loading import here

    if memory < 1 or devices < 1:
        raise ValueError(f"memory={memory}, devices={devices}: both must be at least 1.")
    return choose(survey(recipe, torch.device(here(device))), memory, devices)


def survey(recipe: Mapping[str, Any], device: torch.device) -> Survey:
    found = look(recipe)
    rows, loop, blocks = _rows(recipe, found.sections), found.loop, bool(blocks_of(found.task.model))
    del found
    ways = {loop.recompute: measure(recipe, rows, device, loop.recompute)}
    if blocks and not loop.recompute:
        ways[True] = measure(recipe, rows, device, True)
    return Survey(rows, loop, ways, blocks)


def choose(found: Survey, memory: int, devices: int = 1) -> Plan:
    """The first way that fits: small micro-batches before recomputation, and both before sharding, which costs most."""
    choices = []
    for shard in (False, True) if devices > 1 and found.blocks else (False,):
        for again, way in found.ways.items():
            parts = _cuts(found.rows)
            choices += [choice(way, cut, found.loop, again, shard, devices) for cut in parts]
    chosen = next((one for one in choices if one.total <= SPARE * memory), None)
    overrides = {} if chosen is None else _overrides(chosen, found.rows, found.loop)
    return Plan(tuple(choices), chosen, overrides, found.loop.steps)


def choice(way: Measured, parts: int, loop: LoopConfig, again: bool, shard: bool, devices: int) -> Choice:
    """The memory of one process, by part, and the time of an update."""
    work, static = way.at(1 / parts), way.static
    accumulate = parts * loop.accumulate
    moving = work.later if accumulate > 1 else max(work.first - static.gradients, 0)
    share = way.blocks / static.learning if shard and static.learning else 0.0
    kept = 1 - share * (1 - 1 / devices)

    def less(part: int) -> int:
        return int(part * kept)

    memory = {
        "weights that learn": less(static.learning) + (2 * way.largest if shard else 0),
        "weights that do not": static.frozen,
        "other models and data": static.others,
        "gradients": less(static.gradients),
        "optimizer": less(static.optimizer),
        "average": less(static.average),
        "activations and work": max(moving, less(way.step)),
    }
    times = (work.seconds * accumulate, work.flop * accumulate, work.moved * accumulate)
    return Choice(parts, again, shard, memory, *times)


def measure(recipe: Mapping[str, Any], rows: Mapping[str, int], device: torch.device, again: bool) -> Measured:
    """A few small steps of the recipe's task here."""
    before = alive(device)
    cuts = _cuts(rows)
    works: list[Work] = []
    static, step, sizes = None, 0, (0, 0)
    for cut in [cut for cut in (4, 2, 1) if cut in cuts]:
        if len(works) > 1 and _long(works[-1], 1 / cut, device):
            break
        found = look(_put(recipe, {key: value // cut for key, value in rows.items()}))
        model = found.task.model.to(device)
        blocks = recompute(model) if again else []
        works.append(_work(found.task, found.loop, device, 1 / cut))
        if static is None:
            sizes = _block_sizes(model)
            optimizer, step = _optimizer(model, found.loop, device)
            model.zero_grad(set_to_none=True)
            others = sum(size for place, size in alive(device).items() if place not in before)
            learning = bytes_of(*(p for p in model.parameters() if p.requires_grad))
            whole = bytes_of(*model.parameters(), *model.buffers())
            static = Static(learning, whole - learning, max(others - whole, 0), learning, optimizer, learning)
        forget(blocks)
        del found, model
    assert static is not None
    return Measured(static, tuple(works), step, *sizes)


def _long(last: Work, rows: float, device: torch.device) -> bool:
    """Whether a measurement of so many rows would take too much of this machine."""
    more = rows / last.rows
    free = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else psutil.virtual_memory().available
    return last.seconds * more > PATIENCE or last.first * more > free / 2


def _work(task: Any, loop: LoopConfig, device: torch.device, rows: float) -> Work:
    from ..costs.meter import Meter

    if hasattr(task, "share"):
        task.share(1)
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(loop.mixed(device))

    def once(number: int) -> None:
        batch = torch.utils._pytree.tree_map(
            lambda x: x.to(device) if isinstance(x, torch.Tensor) else x, task.batch(number)
        )
        with torch.autocast(device.type, kind, enabled=kind is not None):
            loss, _ = task.loss(batch)
        loss.backward()

    task.model.zero_grad(set_to_none=True)
    gradients = bytes_of(*(p for p in task.model.parameters() if p.requires_grad))
    first = most_added(lambda: once(0), device)
    with Meter() as meter:
        later = max(most_added(partial(once, number), device) for number in (1, 2))
    # Batches differ, and in reinforcement so does how much there is to learn from them: the dearest is planned with.
    first, later = max(first, later + gradients), max(later, first - gradients)
    begun = time.perf_counter()
    once(3)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return Work(rows, first, later, time.perf_counter() - begun, meter.flop / 2, meter.moved / 2)


def _optimizer(model: nn.Module, loop: LoopConfig, device: torch.device) -> tuple[int, int]:
    """(bytes that the optimizers keep, bytes that a step adds for a moment). Gradients are there; the weights move by
    nothing."""
    from .loop import optimizers

    opts = optimizers(model, replace(loop, lr=0.0, muon_lr=loop.muon_lr and 0.0, weight_decay=0.0))

    def step() -> None:
        for opt in opts:
            opt.step()

    step()
    added = most_added(step, device)
    held = [x for opt in opts for state in opt.state.values() for x in state.values() if isinstance(x, torch.Tensor)]
    return bytes_of(*held), added


def _block_sizes(model: nn.Module) -> tuple[int, int]:
    sizes = [bytes_of(*(p for p in block.parameters() if p.requires_grad)) for block in blocks_of(model)]
    return sum(sizes), max(sizes, default=0)


def _rows(recipe: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, int]:
    """How many rows of each kind a batch has; those that are 0 stay 0."""
    found = {}
    for key in ROWS.get(recipe["task"], ()):
        section, _, name = key.partition(".")
        if value := getattr(sections[section], name):
            found[key] = int(value)
    return found


def _cuts(rows: Mapping[str, int]) -> list[int]:
    """Into how many equal pieces a batch can be cut: 1, 2, 4, ..."""
    whole = math.gcd(*rows.values()) if rows else 1
    found = [1]
    while whole % (found[-1] * 2) == 0:
        found.append(found[-1] * 2)
    return found


def _put(recipe: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: dict(value) if isinstance(value, dict) else value for key, value in recipe.items()}
    for key, value in values.items():
        section, _, name = key.partition(".")
        made.setdefault(section, {})[name] = value
    return made


def _overrides(chosen: Choice, rows: Mapping[str, int], loop: LoopConfig) -> dict[str, Any]:
    found: dict[str, Any] = {}
    if chosen.parts > 1:
        found = {key: value // chosen.parts for key, value in rows.items()}
        found["loop.accumulate"] = chosen.parts * loop.accumulate
    if chosen.recompute != loop.recompute:
        found["loop.recompute"] = True
    if chosen.shard:
        found["loop.shard"] = loop.shard or True
    return found
