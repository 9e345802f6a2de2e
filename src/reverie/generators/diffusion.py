"""Flow-matching pipelines of diffusers as painters: Qwen-Image and its editors, Stable Diffusion 3, FLUX.1.

The procedure is that of the pipeline's own `__call__` with the same noise: prompt states once for each different text,
the scheduler's noise levels, Euler steps, guidance, decoding; one image with seed s is what the pipeline paints with
`generator=torch.Generator().manual_seed(s)`. Beyond it: previews of the predicted image, forks, pruning, rewinding, new
prompts between steps, interruption, stochastic steps with known probabilities (models/flow_sde.py), and the velocity as
a function of its own, which is what a policy needs.

An image depends on its own seed and prompt alone. With `together=1`, the default, each image goes through the
transformer by itself, both ways of its guidance in one batch, and is bit for bit the same in any company; at the sizes
that these models have, one image fills a GPU. With more, matrix products and the padding of shorter prompts round
differently: in float32 by about 1e-5 of a latent.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from reverie.canvas import Canvas, Conditions, Work
from reverie.generators.flow_canvas import FlowCanvas
from reverie.models.diffusion_families import family_of
from reverie.models.diffusion_family import Family, Text, near_area
from reverie.models.diffusion_qwen import in_words_alone
from reverie.models.flow_sde import SdeNoise, flow_step

Key = tuple[str, tuple[str, ...]]
"""A prompt and the hashes of the pictures that go with it."""


@dataclass(frozen=True)
class Guided:
    """What one image is painted from: its text, the text that guides it away, and how strongly."""

    text: Text
    blank: Text | None
    """None where there is one way only."""
    weight: float
    size: tuple[int, int]


@dataclass
class TextCache:
    """States of prompts. Nothing in it belongs to one image, so forks and pruned canvases share it."""

    texts: dict[Key, Text]

    def fork(self, k: int) -> TextCache:
        return self

    def select(self, indices: Sequence[int]) -> TextCache:
        return self


class DiffusionPainter:
    """A `Generator` (see canvas.py) over a loaded pipeline."""

    takes_context = False

    def __init__(
        self,
        pipeline: Any,
        *,
        steps: int | None = None,
        guidance: float | None = None,
        negative: str | None = None,
        height: int | None = None,
        width: int | None = None,
        noise: SdeNoise | None = None,
        branch: SdeNoise | None = None,
        together: int = 1,
        limit: int | None = None,
        area: int | None = None,
        paints: bool = False,
    ):
        """steps, guidance, negative: where None, what the pipeline's `__call__` takes (for Qwen-Image, the blank
            negative prompt of its authors, without which it would not guide at all).
        height, width: of all images; by default what the model was made for, or for an editor what its picture has.
        noise: makes every step stochastic; by default none is.
        branch: with which a forked copy takes its first step of its own.
        together: so many images go through the transformer at once.
        limit: prompt tokens that are read; beyond the pipeline's own default where the model allows it.
        area: pixels to which an editor scales its source pictures; by default what its pipeline takes.
        paints: whether the weights of an editor were also made to paint from words alone.
        """
        self.pipeline, self.family = pipeline, family_of(pipeline, limit, area)
        self.words = in_words_alone(pipeline, limit) if paints and self.family.edits else None
        self.steps = self.family.steps if steps is None else steps
        self.guidance = self.family.guidance if guidance is None else guidance
        self.negative = self.family.negative if negative is None else negative
        self.noise, self.branch, self.together = noise, branch or SdeNoise("cps", 0.7), together
        self.edits, self.paints = self.family.edits, not self.family.edits or self.words is not None
        if self.steps < 1 or together < 1:
            raise ValueError(f"steps={self.steps}, together={together}: both must be at least 1.")
        if together > 1 and self.family.edits:
            raise ValueError(f"together={together}: pictures of different sizes are edited one by one; leave it at 1.")
        self.size = None if height is None and width is None else self._checked(height or width, width or height)

    def start(self, conditions: Conditions, seeds: Sequence[int]) -> FlowCanvas:
        """Blank canvases. An editor wants pictures in the conditions, one or more for each prompt."""
        name = type(self.pipeline).__name__
        if self.edits and not all(conditions.pictures or [self.paints]):
            raise ValueError(f"{name} edits pictures; give Conditions with a picture for each prompt.")
        if conditions.pictures and not self.edits:
            raise ValueError(f"{name} paints from words alone; give Conditions without pictures.")
        if conditions.contexts and not self.takes_context:
            raise ValueError(f"{name} reads no context; give Conditions without one.")
        return FlowCanvas.empty(conditions, seeds, self._size(conditions))

    @torch.no_grad()
    def advance(self, canvas: Canvas, to: int | None = None) -> FlowCanvas:
        canvas, to = flow_canvas(canvas), self.steps if to is None else to
        if not canvas.step <= to <= self.steps:
            raise ValueError(f"Cannot advance from step {canvas.step} to {to}; the last step is {self.steps}.")
        if to == canvas.step or not len(canvas):
            return replace(canvas, step=to, cache=canvas.release())
        guided = self._guided(canvas)
        trail = [x.to(self.family.device) for x in canvas.trail] or [self._noise(canvas.seeds, canvas.size)]
        clean = list(canvas.clean)
        sigmas = self.family.sigmas(self.steps, canvas.size)  # on the CPU: nothing waits for a device
        for step in range(canvas.step, to):
            velocity = self._velocities(trail[-1], float(sigmas[step]), guided, canvas.work)
            clean.append((trail[-1].float() - sigmas[step] * velocity.float()).to(velocity.dtype))
            trail.append(self._stepped(trail[-1], velocity, step, sigmas, canvas))
        return replace(canvas, trail=tuple(trail), clean=tuple(clean), step=to, cache=canvas.release())

    @torch.no_grad()
    def preview(self, canvas: Canvas) -> list[np.ndarray]:
        """uint8 (H, W, 3) each: the image that the last velocity points to, and at the end the image itself. Before the
        first step, what the decoder makes of nothing. One at a time: convolutions may round differently in a batch."""
        canvas = flow_canvas(canvas)
        canvas.work.vq_decodes += len(canvas)
        if not canvas.step:
            shown = torch.zeros_like(self._noise(canvas.seeds, canvas.size))
        else:
            shown = canvas.trail[-1] if canvas.step == self.steps else canvas.clean[-1]
        return [self._picture(row[None].to(self.family.device), canvas.size) for row in shown]

    def recondition(self, canvas: Canvas, conditions: Conditions) -> FlowCanvas:
        """New prompts from the next step on; what is painted stays. Only texts that are new are read."""
        canvas = flow_canvas(canvas)
        if len(conditions) != len(canvas):
            raise ValueError(f"Got {len(conditions)} prompts for a canvas of {len(canvas)} images; give one for each.")
        if self.edits and not conditions.pictures:
            conditions = replace(conditions, pictures=canvas.conditions.pictures)
        return replace(canvas, conditions=conditions, cache=canvas.release())

    def rewind(self, canvas: Canvas, to: int) -> FlowCanvas:
        """Back to what the canvas was at step `to`. At step 0, forked copies begin with noise of their own."""
        canvas = flow_canvas(canvas)
        if not 0 <= to <= canvas.step:
            raise ValueError(
                f"Cannot rewind a canvas at step {canvas.step} to {to}; give a step between 0 and {canvas.step}."
            )
        parted = tuple(min(step, to) if to else -1 for step in canvas.parted)
        past = canvas.trail[: to + 1] if to else ()
        return replace(canvas, trail=past, clean=canvas.clean[:to], step=to, parted=parted, cache=canvas.release())

    def parting(self, canvas: Canvas) -> FlowCanvas:
        """The same canvas, whose next step takes noise, so that it goes on differently than it did before."""
        canvas = flow_canvas(canvas)
        return replace(canvas, parted=(canvas.step or -1,) * len(canvas))

    def plain_work(self, conditions: Conditions) -> Work:
        """Each different text read once, the image tokens of every row at every step, one picture."""
        ways = self._ways(self._weight(conditions))
        tokens = self.family.tokens(self._size(conditions))
        read = sum(self._reader(seen).count(words)[1] for words, seen in self._needed(conditions))
        return Work(read, ways * len(conditions) * self.steps * tokens, len(conditions))

    # For policies: `velocity` has the signature that training/flow_policy.py asks for.

    def sigmas(self, size: tuple[int, int]) -> Tensor:
        """(steps + 1,) noise levels for pictures of this size, from 1 down to 0; on the device of the latents."""
        return self.family.sigmas(self.steps, size).to(self.family.device)

    @torch.no_grad()
    def conditioned(self, conditions: Conditions) -> list[Guided]:
        """Every prompt read, each different one once: the last argument of `velocity`."""
        cache = self._read(conditions)
        return self._assembled(conditions, cache, self._size(conditions))

    def velocity(self, x: Tensor, sigma: Tensor, guided: Sequence[Guided]) -> Tensor:
        """Guided velocities of latents x (B, ...) at noise levels sigma (B,), with gradient where that is on. The ways
        of guidance go in one batch; rows need a common size and number of ways."""
        first = guided[0]
        texts, rows, times = [item.text for item in guided], x, sigma
        if first.blank is None:
            return self.family.predict(x, sigma, texts, first.weight, first.size)
        blanks = [item.blank for item in guided if item.blank is not None]
        rows, times = torch.cat([x, x]), torch.cat([sigma, sigma])
        blank, cond = self.family.predict(rows, times, blanks + texts, first.weight, first.size).chunk(2)
        return self.family.guided(cond, blank, first.weight)

    # How the numbers come about.

    def _weight(self, conditions: Conditions) -> float:
        return self.guidance if conditions.guidance is None else conditions.guidance

    def _ways(self, weight: float) -> int:
        """As in the pipelines, a weight of 1 or less does not guide."""
        return 1 if self.family.embedded or weight <= 1 else 2

    def _checked(self, height: int | None, width: int | None) -> tuple[int, int]:
        assert height is not None
        assert width is not None
        multiple = self.family.multiple
        if height < multiple or width < multiple or height % multiple or width % multiple:
            raise ValueError(f"size {height} x {width}: both must be multiples of {multiple}.")
        return height, width

    def _size(self, conditions: Conditions) -> tuple[int, int]:
        if self.size is not None:
            return self.size
        if not conditions.pictures:
            return self.family.side, self.family.side
        sizes = {near_area(group[-1], self.family.area) for group in conditions.pictures if group}
        if len(sizes) != 1:
            raise ValueError("pictures of different proportions on one canvas; edit them one by one, or give a size.")
        return sizes.pop()

    def _noise(self, seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        return self.family.noise([torch.Generator().manual_seed(seed) for seed in seeds], size)

    def _velocities(self, x: Tensor, sigma: float, guided: Sequence[Guided], work: Work) -> Tensor:
        parts = []
        for rows in self._parts(guided):
            times = torch.full([len(x[rows])], sigma, device=x.device)
            parts.append(self.velocity(x[rows], times, guided[rows]))
        work.decoded += len(x) * self._ways(guided[0].weight) * self.family.tokens(guided[0].size)
        return torch.cat(parts)

    def _parts(self, guided: Sequence[Guided]) -> Iterator[slice]:
        """The rows that go through the transformer together."""
        for first in range(0, len(guided), self.together):
            yield slice(first, min(first + self.together, len(guided)))

    def _stepped(self, x: Tensor, velocity: Tensor, step: int, sigmas: Tensor, canvas: FlowCanvas) -> Tensor:
        """The next latents: Euler, exactly as the scheduler of diffusers computes it, or a step with noise."""
        then = (x.float() + (sigmas[step + 1] - sigmas[step]) * velocity).to(velocity.dtype)
        for row, parted in enumerate(canvas.parted):
            noise = self.branch if parted == step else self.noise
            if noise is not None and not noise.deterministic:
                draw = step_noise(canvas.seeds[row], step, x[row]).to(x.device)[None]
                here = slice(row, row + 1)
                levels = (sigmas[step], sigmas[step + 1])
                done = flow_step(x[here], velocity[here], *levels, noise, second=sigmas[1], draw=draw)
                then[here] = done.x_next.to(velocity.dtype)
        return then

    def _picture(self, latents: Tensor, size: tuple[int, int]) -> np.ndarray:
        pixels = self.family.decode(latents, size)
        return np.asarray(self.pipeline.image_processor.postprocess(pixels, output_type="pil")[0])

    # Texts.

    def _guided(self, canvas: FlowCanvas) -> list[Guided]:
        """What each image is painted from; the canvas keeps the states of exactly the texts that it needs."""
        canvas.cache = self._read(canvas.conditions, canvas.release(), canvas.work)
        return self._assembled(canvas.conditions, canvas.cache, canvas.size)

    def _assembled(self, conditions: Conditions, cache: TextCache, size: tuple[int, int]) -> list[Guided]:
        weight = self._weight(conditions)
        guided = []
        for prompt, pictures in with_pictures(conditions):
            hashes = tuple(map(hash_of, pictures))
            blank = cache.texts[self.negative, hashes] if self._ways(weight) == 2 else None
            guided.append(Guided(cache.texts[prompt, hashes], blank, weight, size))
        return guided

    def _needed(self, conditions: Conditions) -> dict[Key, tuple[Any, ...]]:
        """The different texts of a batch, those that guide away included, and their pictures."""
        ways = self._ways(self._weight(conditions))
        return {
            (words, tuple(map(hash_of, pictures))): pictures
            for prompt, pictures in with_pictures(conditions)
            for words in (prompt, self.negative)[:ways]
        }

    def _read(self, conditions: Conditions, old: TextCache | None = None, work: Work | None = None) -> TextCache:
        """States of all texts of a batch, each read once; those that `old` holds are not read again."""
        texts = {}
        for key, pictures in self._needed(conditions).items():
            known = old.texts.get(key) if old is not None else None
            texts[key] = known or self._encoded(key[0], pictures, work or Work())
        return TextCache(texts)

    def _encoded(self, prompt: str, pictures: Sequence[Any], work: Work) -> Text:
        family = self._reader(pictures)
        count, read = family.count(prompt)
        if read < count:
            warnings.warn(
                f"the prompt has {count} tokens, but {type(self.pipeline).__name__} reads {read} of them; "
                f"its end is not painted from: {prompt[:60]!r}...",
                stacklevel=2,
            )
        work.prefilled += read
        return family.encode(prompt, pictures)

    def _reader(self, pictures: Sequence[Any]) -> Family:
        """Who reads a prompt with or without pictures."""
        return self.family if pictures or self.words is None else self.words


def flow_canvas(canvas: Canvas) -> FlowCanvas:
    if not isinstance(canvas, FlowCanvas):
        raise ValueError("this canvas was started by another kind of model; start it with this one.")
    return canvas


def with_pictures(conditions: Conditions) -> list[tuple[str, tuple[Any, ...]]]:
    """Each prompt and its pictures, of which there are none outside of editing."""
    pictures = conditions.pictures or ((),) * len(conditions)
    return list(zip(conditions.prompts, pictures, strict=True))


def hash_of(picture: Any) -> str:
    """Of its pixels."""
    return hashlib.sha256(f"{picture.mode}{picture.size}".encode() + picture.tobytes()).hexdigest()


def step_noise(seed: int, step: int, like: Tensor) -> Tensor:
    """Standard normal, float32 on the CPU, in the shape of `like`: always the same for an image's seed and a step."""
    digest = hashlib.sha256(f"{seed}/step {step}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.randn(like.shape, generator=generator)
