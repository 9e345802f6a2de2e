"""What every flow-matching pipeline of diffusers has in common as a painter, and what its adapter has to say.

Each adapter holds a loaded pipeline and calls the pipeline's own parts, so offloading hooks, LoRA and quantised weights
work as diffusers made them. Nothing here remembers anything between calls. The conventions are those of the pipelines
of diffusers 0.42, whose `__call__` is the reference: equal noise gives equal pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

EDIT_AREA = 1024**2
"""Pixels to which the editing pipelines scale a source picture."""


@dataclass(frozen=True)
class Text:
    """What the transformer reads of one prompt."""

    states: Tensor
    """(1, T, D)."""
    pooled: Tensor | None = None
    """(1, P), where the family has such a vector."""
    source: Tensor | None = None
    """(1, S, C) packed latents of the pictures to be edited."""
    shapes: tuple[tuple[int, int, int], ...] = ()
    """Of these pictures: frames, rows, columns of tokens."""


class Family:
    """Packed latents of 2 x 2 patches and a dynamic shift, as Qwen-Image and FLUX have them; others overrule."""

    steps, guidance, negative, limit = 50, 4.0, " ", 512
    """What the pipeline's `__call__` takes if nothing is said; `limit` is that of prompt tokens."""
    embedded = False
    """Whether the guidance weight is an input of the transformer, so that there is one way only."""
    edits = False
    shift = 1.15
    """`max_shift` where the scheduler does not name one."""

    def __init__(self, pipeline: Any, limit: int | None = None, area: int | None = None):
        """area: pixels to which a source picture is scaled, where that is not `EDIT_AREA`."""
        self.pipeline = pipeline
        self.limit, self.area = limit or self.limit, area or EDIT_AREA

    @property
    def device(self) -> torch.device:
        """Where tensors must lie; with offloading, weights may be elsewhere until they are called."""
        return self.pipeline._execution_device

    @property
    def dtype(self) -> torch.dtype:
        """Of latents: that of the prompt's states."""
        encoder = self.pipeline.text_encoder
        return (encoder if encoder is not None else self.pipeline.transformer).dtype

    @property
    def multiple(self) -> int:
        """Heights and widths are multiples of this, in pixels."""
        return 2 * self.pipeline.vae_scale_factor

    @property
    def side(self) -> int:
        """Height and width that the model was made for, in pixels."""
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    def tokens(self, size: tuple[int, int]) -> int:
        """Image tokens of a picture of (height, width) pixels."""
        return (size[0] // self.multiple) * (size[1] // self.multiple)

    def sigmas(self, steps: int, size: tuple[int, int]) -> Tensor:
        """(steps + 1,) noise levels from the pipeline's scheduler, down to 0; float32 on the CPU."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=self._mu(size))
        return scheduler.sigmas

    def noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """(N, S, C) for N CPU generators: the numbers that the pipeline draws from the same generators."""
        channels = self.pipeline.transformer.config.in_channels // 4
        rows, columns = 2 * (size[0] // self.multiple), 2 * (size[1] // self.multiple)
        drawn = [torch.randn(1, channels, rows, columns, generator=g, dtype=self.dtype) for g in generators]
        return pack(torch.cat(drawn)).to(self.device)

    def count(self, prompt: str) -> tuple[int, int]:
        """Tokens that the prompt has, and how many of them the model reads. Needs the tokenizer only."""
        raise NotImplementedError

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        """One prompt, read alone, so that it is rounded the same whoever else is in the batch."""
        raise NotImplementedError

    def swap(self, vectors: Tensor, pooled_text: str) -> Text:
        """Vectors (1, L, D) in the place of the T5 encoder's output, with the pooled vector of `pooled_text`: what
        ThinkDiff paints from (arXiv 2502.10458). The T5 need not be loaded."""
        raise ValueError(f"{type(self.pipeline).__name__} does not read its prompt through a T5 encoder.")

    def opposite(self, negative: str, text: Text) -> Text:
        """What guides away from `text` where T5's vectors have no mask: the negative prompt, as long as it is."""
        raise ValueError(f"{type(self.pipeline).__name__} does not read its prompt through a T5 encoder.")

    def predict(self, x: Tensor, sigma: Tensor, texts: Sequence[Text], weight: float, size: tuple[int, int]) -> Tensor:
        """Velocities of latents x (B, ...) at noise levels (B,), one text for each row; no guidance by two ways."""
        raise NotImplementedError

    def guided(self, cond: Tensor, blank: Tensor, weight: float) -> Tensor:
        """Classifier-free guidance."""
        return blank + weight * (cond - blank)

    def decode(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents (B, ...) to pixels (B, 3, H, W) in about [-1, 1]."""
        vae = self.pipeline.vae
        latents = unpack(x, size[0] // self.multiple, size[1] // self.multiple)
        return vae.decode((latents / vae.config.scaling_factor + vae.config.shift_factor), return_dict=False)[0]

    def _mu(self, size: tuple[int, int]) -> float:
        """The resolution's shift of the schedule: linear in image tokens."""
        config = self.pipeline.scheduler.config
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, most = config.get("base_shift", 0.5), config.get("max_shift", self.shift)
        slope = (most - base) / (high - low)
        return self.tokens(size) * slope + (base - slope * low)

    def _times(self, sigma: Tensor) -> Tensor:
        """The scheduler's timesteps (B,), of which these transformers take the thousandth part."""
        return sigma.to(self.device) * self.pipeline.scheduler.config.num_train_timesteps


def pack(latents: Tensor) -> Tensor:
    """(N, C, 2H, 2W) to (N, H * W, 4C): patches of 2 x 2."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(packed: Tensor, rows: int, columns: int) -> Tensor:
    """(N, H * W, 4C) to (N, C, 2H, 2W)."""
    return F.pixel_shuffle(packed.transpose(1, 2).unflatten(2, (rows, columns)), 2)


def check_width(vectors: Tensor, wanted: int) -> None:
    """ValueError for vectors (1, L, D) that the transformer cannot read, or none at all."""
    if vectors.ndim != 3 or not vectors.shape[1] or vectors.shape[-1] != wanted:
        raise ValueError(
            f"Got vectors {list(vectors.shape)}; this diffusion model reads {wanted} wide ones, (1, L, {wanted})."
        )


def padded(states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Texts (1, T, D) one below the other, zeros behind the shorter ones, and a mask (B, T) where there are such."""
    longest = max(part.shape[1] for part in states)
    whole = torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in states])
    if all(part.shape[1] == longest for part in states):
        return whole, None
    lengths = torch.tensor([part.shape[1] for part in states], device=whole.device)
    return whole, torch.arange(longest, device=whole.device) < lengths[:, None]


def together(texts: Sequence[Text]) -> Tensor:
    """The pooled vectors (B, P)."""
    return torch.cat([text.pooled for text in texts if text.pooled is not None])


def near_area(picture: Image, area: int) -> tuple[int, int]:
    """(height, width) of about `area` pixels in the picture's proportions, multiples of 32."""
    ratio = picture.width / picture.height
    width = math.sqrt(area * ratio)
    return round(width / ratio / 32) * 32, round(width / 32) * 32
