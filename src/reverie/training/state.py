"""The state of a run on disk, from which it goes on: `state.pt`, or the sharded form of `sharded_state.py`."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..files import write_atomically
from . import sharded_state

if TYPE_CHECKING:
    from .loop import Ema
    from .zero import Zero


@dataclass
class Progress:
    step: int = 0
    seconds: float = 0.0


def save(
    out: Path,
    model: nn.Module,
    opts: list[Any],
    ema: Ema,
    progress: Progress,
    sharded: bool,
    main: bool,
    zero: Zero | None = None,
) -> None:
    """`state.pt` by the main process, or by all of them a sharded checkpoint."""
    if sharded:
        sharded_state.save(out, model, opts, ema, progress, zero)
        return
    if not main:
        return
    state = {
        "model": model.state_dict(),
        "optimizers": [opt.state_dict() for opt in opts],
        "ema": {"mean": ema.mean, "steps": ema.steps},
        "progress": {"step": progress.step, "seconds": progress.seconds},
        "rng": torch.get_rng_state(),
    }
    write_atomically(out / "state.pt", lambda part: torch.save(state, part))
    for older in out.glob("state-*"):
        shutil.rmtree(older)  # of a sharded run that went on as this one


@torch.no_grad()
def load_mean(path: Path, model: nn.Module) -> None:
    """Puts the EMA weights of a run's `state.pt` into `model`, whose learning parameters must be those of that run.
    ValueError where there is no such run, or another's."""
    if not path.is_file():
        raise ValueError(f"There is no finished run with {path}; train that first.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    try:
        model.load_state_dict(state["model"])
        means = dict(zip((n for n, p in model.named_parameters()), state["ema"]["mean"], strict=True))
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{path} is of a model of other sizes; use the recipe it was trained with.") from error
    for name, parameter in model.named_parameters():
        parameter.copy_(means[name])


def resume(out: Path, model: nn.Module, opts: list[Any], ema: Ema, sharded: bool, zero: Zero | None = None) -> Progress:
    held, path = sharded_state.latest(out), out / "state.pt"
    if held is not None:
        progress = Progress()
        sharded_state.load(held, model, opts, ema, progress, zero)
        return progress
    if not path.exists():
        return Progress()
    if sharded:
        raise ValueError(f"{path} is of a run that was not sharded: leave loop.shard out, or give another `out`.")
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    for opt, saved in zip(opts, state["optimizers"], strict=True):
        opt.load_state_dict(saved)
    for mine, saved in zip(ema.mean, state["ema"]["mean"], strict=True):
        mine.copy_(saved)
    ema.steps = state["ema"]["steps"]
    torch.set_rng_state(state["rng"])
    return Progress(state["progress"]["step"], state["progress"]["seconds"])
