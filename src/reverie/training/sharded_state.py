"""Checkpoints of sharded runs (torch.distributed.checkpoint): every process writes its share, and any number of
processes, one included, reads them again.

    state-0000500/    weights, moments and average under the parameters' names, step, seconds, random state

A folder gets its name when it is whole; the one before goes then.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from .processes import count

if TYPE_CHECKING:
    from .loop import Ema
    from .state import Progress
    from .zero import Zero


def latest(out: Path) -> Path | None:
    """The newest whole checkpoint of a run."""
    found = sorted(path for path in out.glob("state-*") if path.name.removeprefix("state-").isdecimal())
    return found[-1] if found else None


def save(
    out: Path, model: nn.Module, opts: Sequence[Any], ema: Ema, progress: Progress, zero: Zero | None = None
) -> None:
    """Called by all processes. Replaces the run's earlier checkpoints, of either kind. zero: who has the moments, if
    the optimizers do not."""
    path = out / f"state-{progress.step:07}"
    partial = path.with_name(f".{path.name}.partial")
    if path.is_dir():
        return  # of this very step: the end of a run follows its last save
    main = count() == 1 or torch.distributed.get_rank() == 0
    if main:
        shutil.rmtree(partial, ignore_errors=True)
    _together()
    state = _state(model, [] if zero else opts, ema, _numbers(ema, progress))
    if zero:
        state |= {f"optimizer/{key}": value for key, value in zero.moments()}
    with _quiet():
        dcp.save(state, checkpoint_id=partial, no_dist=count() == 1)
    if main:
        partial.rename(path)
        for older in out.glob("state-*"):
            if older != path:
                shutil.rmtree(older)
        (out / "state.pt").unlink(missing_ok=True)
    _together()


def load(
    path: Path, model: nn.Module, opts: Sequence[Any], ema: Ema, progress: Progress, zero: Zero | None = None
) -> None:
    """Fills everything in place. ValueError where the checkpoint is of another network."""
    reader = dcp.FileSystemReader(path)
    held = reader.read_metadata().state_dict_metadata
    numbers = _numbers(ema, progress)
    if not zero:
        _make_room(held, model, opts)
    wanted = _state(model, [] if zero else opts, ema, numbers)
    missing = sorted(key for key in wanted if key not in held)
    if missing:
        raise ValueError(f"{path} holds no {missing[0]}; use the recipe it was trained with, or another `out`.")
    with _quiet():
        dcp.load(wanted, storage_reader=reader, no_dist=count() == 1)
        if zero:
            _give(zero, reader, held)
    progress.step, progress.seconds = int(numbers["step"]), float(numbers["seconds"])
    ema.steps = int(numbers["averaged"])
    torch.set_rng_state(numbers["random"])


def _give(zero: Zero, reader: dcp.FileSystemReader, held: Mapping[str, Any]) -> None:
    """Lets every process read all moments, one after another, and keep its share."""
    zero.take()
    fields = _fields(held)
    keys = {key: None for found in fields.values() for key in found}
    zero.make_room(list(keys))
    for name, found in fields.items():
        for key, about in found.items():
            value = torch.zeros(about.size, dtype=about.properties.dtype)
            dcp.load({f"optimizer/{name}/{key}": value}, storage_reader=reader, no_dist=True)
            zero.put(name, key, value)


def _together() -> None:
    if count() > 1:
        torch.distributed.barrier()


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the warning that one process is alone."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        yield


def _numbers(ema: Ema, progress: Progress) -> dict[str, Tensor]:
    return {
        "step": torch.tensor(progress.step),
        "seconds": torch.tensor(progress.seconds, dtype=torch.float64),
        "averaged": torch.tensor(ema.steps),
        "random": torch.get_rng_state(),
    }


def _state(model: nn.Module, opts: Sequence[Any], ema: Ema, numbers: Mapping[str, Tensor]) -> dict[str, Any]:
    """Everything by name: live tensors, so that loading into them is enough."""
    state: dict[str, Any] = {f"run/{name}": tensor for name, tensor in numbers.items()}
    state |= {f"model/{name}": tensor for name, tensor in model.state_dict().items()}
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    state |= {f"mean/{name}": mean for name, mean in zip(learning, ema.mean, strict=True)}
    for parameter, name, opt in _owners(model, opts):
        for key, value in opt.state.get(parameter, {}).items():
            state[f"optimizer/{name}/{key}"] = value
    return state


def _owners(model: nn.Module, opts: Sequence[Any]) -> list[tuple[nn.Parameter, str, Any]]:
    names = {id(p): name for name, p in model.named_parameters()}
    return [(p, names[id(p)], opt) for opt in opts for group in opt.param_groups for p in group["params"]]


def _make_room(held: Mapping[str, Any], model: nn.Module, opts: Sequence[Any]) -> None:
    """Moments for the optimizers, which have none before their first step."""
    fields = _fields(held)
    for parameter, name, opt in _owners(model, opts):
        for field, about in fields.get(name, {}).items():
            kind = about.properties.dtype
            alike = about.size == parameter.shape and parameter.ndim > 0 and field != "step"
            opt.state[parameter][field] = (
                torch.zeros_like(parameter, dtype=kind, requires_grad=False)
                if alike
                else torch.zeros(about.size, dtype=kind)
            )


def _fields(held: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What a checkpoint holds of each parameter's moments."""
    fields: dict[str, dict[str, Any]] = {}
    for key, about in held.items():
        kind, _, rest = key.partition("/")
        if kind == "optimizer":
            name, _, field = rest.rpartition("/")
            fields.setdefault(name, {})[field] = about
    return fields
