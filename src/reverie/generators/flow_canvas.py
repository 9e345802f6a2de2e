"""The canvas of flow-matching models: latents instead of codes, and every latent that the image has gone through.

The past is kept because an ODE cannot be run backwards exactly: rewinding is looking up. Beside each latent stands the
image that was predicted from the one before it, so that a preview costs no pass through the transformer. Both are
shared between canvases and never written to; `fork` and `select` copy rows.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from reverie.canvas import Canvas, Conditions, Work

FORMAT = "reverie-flow-canvas-1"


@dataclass
class FlowCanvas(Canvas):
    """N images of one size, all at the same step. `tokens` and `uniforms` are empty: the randomness is Gaussian, drawn
    from the seeds when it is needed."""

    size: tuple[int, int] = (0, 0)
    """Height and width in pixels."""
    trail: tuple[Tensor, ...] = ()
    """step + 1 latents (N, ...), from the noise to where the images are now; empty before the first step."""
    clean: tuple[Tensor, ...] = ()
    """step predictions (N, ...) of the finished latents."""
    parted: tuple[int, ...] = field(default=())
    """For each image, the step at which it left the image that it was forked from; -1 if it never did."""

    def __post_init__(self):
        super().__post_init__()
        self.parted = tuple(self.parted) or (-1,) * len(self.seeds)

    @classmethod
    def empty(cls, conditions: Conditions, seeds: Sequence[int], size: tuple[int, int]) -> FlowCanvas:
        """Nothing painted yet."""
        if len(conditions) != len(seeds):
            raise ValueError(f"Got {len(seeds)} seeds for {len(conditions)} prompts; give one seed for each image.")
        return cls(conditions, tuple(seeds), *_no_codes(len(seeds)), size=size)

    def fork(self, k: int, first: int = 0) -> FlowCanvas:
        """Every image k times, side by side. Before the first step the copies begin with noise of their own; later,
        copies other than 0 take their next step with noise, and so go on differently."""
        new = super().fork(k, first)
        assert isinstance(new, FlowCanvas)
        new.trail, new.clean = (tuple(x.repeat_interleave(k, 0) for x in past) for past in (self.trail, self.clean))
        apart = self.step if self.step else -1
        new.parted = tuple(apart if copy else step for step in self.parted for copy in range(first, first + k))
        return new

    def select(self, indices: Sequence[int] | Tensor) -> FlowCanvas:
        new, chosen = super().select(indices), [int(i) for i in indices]
        assert isinstance(new, FlowCanvas)
        new.trail, new.clean = (tuple(x[chosen] for x in past) for past in (self.trail, self.clean))
        new.parted = tuple(self.parted[i] for i in chosen)
        return new

    def save(self, path: str | Path) -> None:
        """One safetensors file, whole or not at all, with all latents and the pictures that are edited."""
        path = Path(path)
        groups = self.conditions.pictures
        if self.conditions.contexts:
            raise ValueError("A canvas whose painter reads a context cannot be saved; finish it first.")
        header = {
            "format": FORMAT,
            "prompts": self.conditions.prompts,
            "guidance": self.conditions.guidance,
            "pictures": [len(group) for group in groups],
            "work": asdict(self.work),
            **{name: getattr(self, name) for name in ("seeds", "step", "given", "forks", "size", "parted")},
        }
        tensors = {f"trail.{i}": x.cpu().contiguous() for i, x in enumerate(self.trail)}
        tensors |= {f"clean.{i}": x.cpu().contiguous() for i, x in enumerate(self.clean)}
        for i, group in enumerate(groups):
            tensors |= {f"picture.{i}.{j}": torch.tensor(np.asarray(p.convert("RGB"))) for j, p in enumerate(group)}
        partial = path.with_name(path.name + ".partial")
        save_file(tensors, partial, metadata={"canvas": json.dumps(header)})
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | Path) -> FlowCanvas:
        """A saved canvas, on the CPU; the generator moves it when it is advanced."""
        try:
            with safe_open(path, framework="pt") as file:
                header = json.loads((file.metadata() or {}).get("canvas", "{}"))
                found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dictionary
        except SafetensorError as error:
            raise ValueError(f"{path} is not a saved canvas ({error}); give a file written by its save.") from error
        if header.get("format") != FORMAT:
            raise ValueError(
                f"{path} is not a saved canvas of a diffusion model; load it with the class that saved it."
            )
        return cls(
            _saved_conditions(header, found),
            tuple(header["seeds"]),
            *_no_codes(len(header["seeds"])),
            header["step"],
            tuple(header["given"]),
            header["forks"],
            Work(**header["work"]),
            size=tuple(header["size"]),
            trail=tuple(found[f"trail.{i}"] for i in range(header["step"] + 1) if header["step"]),
            clean=tuple(found[f"clean.{i}"] for i in range(header["step"])),
            parted=tuple(header["parted"]),
        )


def _no_codes(count: int) -> tuple[Tensor, Tensor]:
    return torch.empty(count, 0, dtype=torch.long), torch.empty(count, 0, dtype=torch.float64)


def _saved_conditions(header: dict[str, Any], found: dict[str, Tensor]) -> Conditions:
    from PIL import Image

    groups = [
        [Image.fromarray(found[f"picture.{i}.{j}"].numpy()) for j in range(count)]
        for i, count in enumerate(header["pictures"])
    ]
    return Conditions(header["prompts"], header["guidance"], tuple(map(tuple, groups)))
