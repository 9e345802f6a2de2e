"""The training loop that every recipe shares: schedule, mixed precision, clipping, EMA, logging, checkpoints, resume.

What is trained says only two things (`Task`): the batch of a step, and the loss of a batch. A batch depends on
(seed, step) alone, so the step number IS the data position and a stopped run goes on exactly where it was. Callbacks
only watch. accelerate moves and casts; the mathematics is in the tasks.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from ..files import write_atomically
from ..models.heap import keep_memory
from ..precision import multiplies_bf16
from .blocks import compiled, forget, recompute
from .look import LOOKING, Stopped
from .muon import Muon
from .processes import agreed, average_gradients, clip_gradients, mean_row
from .sharding import Sharded, apart, is_sharded, whole
from .state import resume, save
from .zero import STAGES, Zero
from .zero import check as check_zero

TABLES = ("embed", "head", "shared", "relative_attention_bias")
"""Parts of the names of embeddings and heads; the last two are those of T5."""


class Task(Protocol):
    """What a recipe optimises."""

    @property
    def model(self) -> nn.Module:
        """The network, all of it; frozen parts have no gradient."""

    def batch(self, step: int) -> Any:
        """The data of one step, made from (seed, step) alone; runs in a worker process."""

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, float | Tensor]]:
        """The scalar loss of a batch, and what to log beside it."""


@dataclass
class LoopConfig:
    """How long and how fast to learn.

    The learning rate rises over `warmup` (a share of the run), stays, and falls linearly to `final` (a factor) over
    the last `decay` (a share). A run ends after `steps`, or after `minutes` of training time if those come first; the
    schedule follows whichever is nearer to its end, so a time-limited run still anneals.

    schedule `cosine`: the rate rises over `warmup` from `first` (a factor) and then follows half a cosine that began at
    the start of the run and comes down to `final` after `wave` runs; more than 1 leaves the wave unfinished.
    decay_vectors: whether biases and norms feel the weight decay too.
    """

    steps: int = 1000
    minutes: float | None = None
    lr: float = 3e-4
    muon_lr: float | None = None
    rates: dict[str, float] = field(default_factory=dict)
    """Factors on the rate of parameters whose name begins with the key: several policies, one run."""
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-9
    decay_vectors: bool = True
    schedule: str = "linear"
    first: float = 1e-3
    wave: float = 1.0
    warmup: float = 0.02
    decay: float = 0.4
    final: float = 0.02
    clip: float = 1.0
    ema: float = 0.999
    accumulate: int = 1
    """Batches of an update, for each process; those of all processes together are numbered through."""
    shard: bool | str = False
    """Share the repeated blocks among the processes (FSDP2), or by DeepSpeed the moments of all that learns (`zero1`),
    or these and its gradients (`zero2`); and write sharded checkpoints."""
    recompute: bool = False
    """Compute the activations of the repeated blocks twice in place of keeping them."""
    compile: bool = False
    """Let torch.compile fuse the repeated blocks: worth its minute where a network is narrow and steps are many."""
    precision: str = "auto"
    """bf16, fp16 or no (float32); auto is bf16 where the device multiplies it, and float32 on others."""
    workers: int = 0
    threads: int | None = None
    save_every: int = 500
    sample_every: int = 0
    log_every: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps={self.steps}: must be at least 1")
        if self.accumulate < 1:
            raise ValueError(f"accumulate={self.accumulate}: must be at least 1")
        if self.precision is False:  # what YAML makes of an unquoted no
            self.precision = "no"
        if self.precision not in ("auto", "no", "bf16", "fp16"):
            raise ValueError(f"precision={self.precision!r}: must be one of auto, no, bf16, fp16")
        if self.schedule not in ("linear", "cosine"):
            raise ValueError(f"schedule={self.schedule!r}: must be linear or cosine")
        if not isinstance(self.shard, bool) and self.shard not in STAGES:
            raise ValueError(f"shard={self.shard!r}: must be true, false, zero1 or zero2")
        if self.compile and (self.recompute or self.shard):
            raise ValueError("compile: blocks are compiled as they are, so not with recompute or shard")
        check_zero(self)
        if self.shard and self.precision == "fp16":
            raise ValueError("shard: its gradients are not scaled; take precision bf16 or no")

    def mixed(self, device: torch.device) -> str:
        """The precision on a device: no, bf16 or fp16."""
        if self.precision != "auto":
            return self.precision
        return "bf16" if multiplies_bf16(device) else "no"


def learning_rate(config: LoopConfig, progress: float) -> float:
    """The factor on the base rate at `progress` in [0, 1]."""
    if config.schedule == "cosine":
        if progress < config.warmup:
            return config.first + (1 - config.first) * progress / config.warmup
        return config.final + (1 - config.final) * (1 + math.cos(math.pi * min(1.0, progress / config.wave))) / 2
    if progress < config.warmup:
        return max(progress / config.warmup, 1e-3)
    start = 1 - config.decay
    if progress < start or config.decay == 0:
        return 1.0
    return 1 + (config.final - 1) * min(1.0, (progress - start) / config.decay)


def _split_by_rate(opts: list[torch.optim.Optimizer], model: nn.Module, rates: Mapping[str, float]) -> None:
    """Parameter groups of one factor (`rate`) each, taken from the first of `rates` that a name begins with."""
    if not rates:
        return
    factors = {
        id(p): next((rate for prefix, rate in rates.items() if name.startswith(prefix)), 1.0)
        for name, p in model.named_parameters()
    }
    for opt in opts:
        groups = []
        for group in opt.param_groups:
            for rate in dict.fromkeys(factors[id(p)] for p in group["params"]):
                chosen = [p for p in group["params"] if factors[id(p)] == rate]
                groups.append({**group, "params": chosen, "rate": rate})
        opt.param_groups[:] = groups


def optimizers(model: nn.Module, config: LoopConfig) -> list[torch.optim.Optimizer]:
    """AdamW for everything; with `muon_lr`, Muon (orthogonalised momentum) for the matrices inside the network.

    Embeddings and output heads are matrices too but act as tables, one row a symbol: they stay with AdamW.
    """
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        table = any(part in name for part in TABLES)
        (matrices if config.muon_lr and p.ndim == 2 and not table else rest).append(p)
    found: list[torch.optim.Optimizer] = [
        torch.optim.AdamW(
            _by_decay(rest, config), lr=config.lr, betas=config.betas, weight_decay=config.weight_decay, eps=config.eps
        )
    ]
    if matrices:
        assert config.muon_lr is not None
        found.append(
            Muon(matrices, lr=config.muon_lr, weight_decay=config.weight_decay, adjust_lr_fn="match_rms_adamw")
        )
    _split_by_rate(found, model, config.rates)
    return found


def _by_decay(chosen: list[nn.Parameter], config: LoopConfig) -> Any:
    """Matrices with weight decay, biases and norms without; or the parameters themselves where all have it."""
    if config.decay_vectors:
        return chosen
    vectors = {"params": [p for p in chosen if p.ndim <= 1], "weight_decay": 0.0}
    return [{"params": [p for p in chosen if p.ndim > 1]}, vectors]


class Ema:
    """An exponential moving average of the trainable parameters, with a ramp so that early steps do not weigh."""

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.live = [p for p in model.parameters() if p.requires_grad]
        self.mean = [p.detach().clone() for p in self.live]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for sharded in (False, True):  # one call cannot mix the two
            pairs = [(m, p) for m, p in zip(self.mean, self.live, strict=True) if isinstance(p, DTensor) == sharded]
            if pairs:
                torch._foreach_lerp_([m for m, _ in pairs], [p.detach() for _, p in pairs], 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the live weights and the mean; call it twice to look at the mean and come back."""
        for p, m in zip(self.live, self.mean, strict=True):
            held = p.detach().clone()
            p.copy_(m)
            m.copy_(held)


class _Turns(torch.utils.data.Dataset):
    """The batches of one process as a map-style dataset, so that worker processes prepare coming ones in order. Those
    of a step are numbered through its accumulation and its processes: any split of them sees the same data."""

    def __init__(self, task: Task, turns: int, rank: int, processes: int):
        self.task, self.turns, self.rank, self.processes = task, turns, rank, processes

    def __len__(self) -> int:
        return self.turns

    def __getitem__(self, turn: int) -> Any:
        return self.task.batch(turn * self.processes + self.rank)


def _batches(
    task: Task, config: LoopConfig, first: int, rank: int, processes: int, device: torch.device
) -> Iterator[Any]:
    share = getattr(task, "share", None)
    if share is not None:  # some must know how many batches make an update
        share(config.accumulate * processes)
    turns = config.steps * config.accumulate
    loader: torch.utils.data.DataLoader[Any] = torch.utils.data.DataLoader(
        _Turns(task, turns, rank, processes),
        batch_size=None,
        sampler=range(first * config.accumulate, turns),
        num_workers=config.workers,
        prefetch_factor=4 if config.workers else None,
        pin_memory=device.type == "cuda",  # a copy from pinned memory need not wait for the step before
    )
    return iter(loader)


def train(
    task: Task,
    config: LoopConfig,
    out: str | Path,
    on_sample: Callable[[int, Path], None] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> nn.Module:
    """Run the loop in folder `out` until its end; go on from `out/state.pt` if there is one. Leaves the EMA weights.

    Writes `log.jsonl`, tensorboard events, `recipe.json` (what was resolved), `state.pt`; `on_sample(step, folder)` is
    called with the EMA weights in place every `sample_every` steps and at the end.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    sections = LOOKING.get()
    if sections is not None:
        raise Stopped(task, config, sections)
    if config.threads:
        torch.set_num_threads(config.threads)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    settings = json.dumps({"recipe": dict(recipe or {}), "loop": asdict(config)}, indent=1)
    AcceleratorState._reset_state()  # another training of this process may have had another precision
    mixed = config.precision
    if mixed == "auto":  # the device is known when the processes have met, which is what an Accelerator is made by
        mixed = config.mixed(Accelerator().device)
        AcceleratorState._reset_state()
    accelerator = Accelerator(mixed_precision=mixed, log_with="tensorboard", project_dir=out)
    if accelerator.is_main_process:
        write_atomically(out / "recipe.json", lambda path: path.write_text(settings))
    accelerator.init_trackers("events")
    if accelerator.device.type == "cpu":
        keep_memory()
    task.model.to(accelerator.device)
    change = recompute if config.recompute else compiled if config.compile else None
    blocks = change(task.model) if change else []
    processes = accelerator.num_processes
    several = processes > 1
    sharded = Sharded(task.model, accelerator.device) if config.shard is True and several else None
    opts = optimizers(task.model, config)
    zero = Zero(task, opts[0], config, accelerator) if config.shard in STAGES and several else None
    if sharded:
        for opt in opts:
            apart(opt)
    prepared = [zero.optimizer] if zero else [accelerator.prepare(opt) for opt in opts]
    ema = Ema(task.model, config.ema)
    progress = resume(out, task.model, prepared, ema, bool(config.shard) and several, zero)
    bases = [config.lr, config.muon_lr or config.lr]  # of AdamW, of Muon
    clock = time.monotonic() - progress.seconds
    batches = _batches(task, config, progress.step, accelerator.process_index, processes, accelerator.device)
    main = accelerator.is_main_process
    with (out / "log.jsonl").open("a") as log:
        while progress.step < config.steps:
            spent = agreed(time.monotonic() - clock, accelerator.device) / 60
            share = max(progress.step / config.steps, spent / config.minutes if config.minutes else 0.0)
            if share >= 1:
                break
            factor = learning_rate(config, share)
            for opt, base in zip(opts, bases, strict=False):
                for group in opt.param_groups:
                    group["lr"] = base * factor * group.get("rate", 1.0)
            rows = _step(task, accelerator, prepared, ema, batches, config, zero)
            progress.step += 1
            progress.seconds = time.monotonic() - clock
            if progress.step % config.log_every == 0 or progress.step == 1:
                row = mean_row(rows)
                if not math.isfinite(row["loss"]):
                    raise RuntimeError(f"the loss became {row['loss']} at step {progress.step}; lower lr in the recipe")
                row |= {"step": progress.step, "minutes": round(progress.seconds / 60, 3), "lr": factor * config.lr}
                if main:
                    _log(log, row, accelerator)
            if progress.step % config.save_every == 0:
                save(out, task.model, opts, ema, progress, bool(config.shard), main, zero)
            if on_sample and config.sample_every and progress.step % config.sample_every == 0:
                ema.swap()
                with whole(task.model):
                    if main:
                        on_sample(progress.step, out)
                ema.swap()
    save(out, task.model, opts, ema, progress, bool(config.shard), main, zero)
    ema.swap()
    forget(blocks)
    if sharded:
        sharded.join()
    if zero:
        zero.close()
    if main and on_sample:
        on_sample(progress.step, out)
    for tracker in accelerator.trackers:  # not end_training(): a recipe may train again, with the same processes
        tracker.finish()
    return task.model


def _log(log: Any, row: dict[str, float], accelerator: Any) -> None:
    log.write(json.dumps({k: float(f"{v:.6g}") for k, v in row.items()}) + "\n")
    log.flush()
    accelerator.log({k: v for k, v in row.items() if k != "step"}, step=int(row["step"]))


def _step(
    task: Task,
    accelerator: Any,
    opts: list[Any],
    ema: Ema,
    batches: Iterator[Any],
    config: LoopConfig,
    zero: Zero | None,
) -> list[dict[str, Any]]:
    """One update; returns what to log of each of its batches here."""
    rows = []
    device = accelerator.device
    pinned = device.type == "cuda"  # only from such memory is a copy that does not wait safe
    for _ in range(config.accumulate):
        batch = torch.utils._pytree.tree_map(
            lambda x: x.to(device, non_blocking=pinned) if isinstance(x, Tensor) else x, next(batches)
        )
        if zero:
            loss, row = zero.learn(batch)
        else:
            with accelerator.autocast():
                loss, row = task.loss(batch)
            accelerator.backward(loss / config.accumulate)
        rows.append({"loss": loss.detach(), **row})
    norm = zero.norm if zero else _update(task.model, accelerator, opts, config)
    ema.update()
    return [{"loss": row.pop("loss"), "grad_norm": norm, **row} for row in rows]


def _update(model: nn.Module, accelerator: Any, opts: list[Any], config: LoopConfig) -> Tensor:
    """Moves the weights by the gradients that are there. Returns their norm before they were clipped."""
    if accelerator.num_processes > 1:
        average_gradients(model)
    clip = clip_gradients if is_sharded(model) else accelerator.clip_grad_norm_
    norm = clip(model.parameters(), config.clip)
    for opt in opts:
        opt.step()
        opt.zero_grad(set_to_none=True)
    return norm
