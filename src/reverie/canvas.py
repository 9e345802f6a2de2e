"""The canvas: a batch of images in the making, what they are painted from, and one random stream for each of them.

Every generator takes an unfinished canvas some steps further; every reasoning method is a short program of
`start`, `advance`, `preview`, `recondition`, `rewind`, `fork` and `select`. An image depends on its own seed and
conditions alone: its uniforms are drawn up front from its own CPU generator, one for each position, and a token is
the inverse of the cumulative distribution at that number. So no image notices who else is in the batch, who was
pruned, or how often the run was interrupted.
"""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

FORMAT = "reverie-canvas-1"


@dataclass(frozen=True)
class Conditions:
    """What a batch of images is painted from: one prompt for each, and how strongly to follow it."""

    prompts: tuple[str, ...]
    guidance: float | None = None
    """Classifier-free guidance weight of the whole batch; None takes the generator's own, 1 switches guidance off."""
    pictures: tuple[tuple[Any, ...], ...] = ()
    """For each image the PIL images that stand beside its prompt, none or several (a single one, or None, may be given
    as it is): a generator that `edits` paints them anew, one that `sees` looks at the first. Empty stands for none at
    all."""
    contexts: tuple[tuple[Any, ...], ...] = ()
    """For each image the PIL images and strings that are read before its prompt, in their order; empty stands for none
    at all. Only for generators that say `takes_context`."""

    def __post_init__(self):
        if isinstance(self.prompts, str):
            raise ValueError(
                "Conditions take a sequence of prompts, one for each image; put the single prompt into a list."
            )
        object.__setattr__(self, "prompts", tuple(self.prompts))
        for name in ("pictures", "contexts"):
            groups = tuple(_group(group) for group in getattr(self, name))
            object.__setattr__(self, name, groups if any(groups) else ())
            if any(groups) and len(groups) != len(self.prompts):
                raise ValueError(f"Got {len(groups)} {name} for {len(self.prompts)} prompts; give one for each.")

    def __len__(self) -> int:
        return len(self.prompts)

    def select(self, indices: Sequence[int]) -> "Conditions":
        pictures = tuple(self.pictures[i] for i in indices) if self.pictures else ()
        contexts = tuple(self.contexts[i] for i in indices) if self.contexts else ()
        prompts = tuple(self.prompts[i] for i in indices)
        return replace(self, prompts=prompts, pictures=pictures, contexts=contexts)

    @staticmethod
    def join(parts: "Sequence[Conditions]") -> "Conditions":
        """One after the other; all of one guidance weight."""

        def groups(name: str) -> tuple[Any, ...]:
            some = any(getattr(part, name) for part in parts)
            return tuple(g for part in parts for g in getattr(part, name) or ((),) * len(part)) if some else ()

        prompts = tuple(prompt for part in parts for prompt in part.prompts)
        return Conditions(prompts, parts[0].guidance, groups("pictures"), groups("contexts"))

    def repeat(self, k: int) -> "Conditions":
        """Each prompt k times, copies side by side."""
        return self.select([i for i in range(len(self)) for _ in range(k)])

    def picture(self, index: int) -> Any:
        """The first of those that stand beside a prompt, or None."""
        return next(iter(self.pictures[index]), None) if self.pictures else None


def _group(pictures: Any) -> tuple[Any, ...]:
    if pictures is None:
        return ()
    return tuple(pictures) if isinstance(pictures, tuple | list) else (pictures,)


@dataclass
class Work:
    """What a run has spent. A unit of the first two is one row of one token through the language model."""

    prefilled: int = 0
    """Tokens that went through the language model many at once (prompts, and codes behind a changed prompt)."""
    decoded: int = 0
    """Tokens that went through it to be painted: one at a time, or in masked-token models all slots at every step."""
    vq_decodes: int = 0
    """Pictures made from codes, previews included."""
    vision_encodes: int = 0
    """Pictures read by a vision tower."""

    def __add__(self, other: "Work") -> "Work":
        return Work(**{name: value + getattr(other, name) for name, value in asdict(self).items()})

    def __sub__(self, other: "Work") -> "Work":
        return Work(**{name: value - getattr(other, name) for name, value in asdict(self).items()})

    def include(self, other: "Work") -> None:
        """Adds what was spent elsewhere."""
        for name, value in asdict(other).items():
            setattr(self, name, getattr(self, name) + value)

    def beside(self, plain: "Work") -> dict[str, tuple[int, int]]:
        """Each count as (spent, what plain sampling of the same images would have spent)."""
        return {name: (value, getattr(plain, name)) for name, value in asdict(self).items()}


class Cache(Protocol):
    """What a generator remembers about a canvas so as not to compute it again; its contents are its own affair."""

    def fork(self, k: int) -> "Cache":
        """A copy in which every image stands k times, side by side."""

    def select(self, indices: Sequence[int]) -> "Cache":
        """Only these images. May reuse (and so spoil) the storage of the cache it is called on."""


@dataclass
class Canvas:
    """N images, all painted up to the same step. Treat it as a value: every verb returns a new canvas.

    The cache moves along to the new canvas where it can; the old one stays valid and computes its cache again if it
    is ever advanced.
    """

    conditions: Conditions
    seeds: tuple[int, ...]
    tokens: Tensor
    """(N, L) codes; the generator's fill code where nothing is painted yet."""
    uniforms: Tensor
    """(N, L) float64 in [0, 1): the random number of each position."""
    step: int = 0
    """How many tokens of each image are painted."""
    given: tuple[int, ...] = ()
    """For each image, how many of its painted tokens entered the cache many at once, behind a changed prompt. They are
    rounded a little differently from those that entered one by one, so a resumed run must know."""
    forks: int = 0
    """How often this canvas and its ancestors were forked; keeps the seeds of later copies apart from earlier ones."""
    work: Work = field(default_factory=Work)
    """The account of the run: shared by all canvases that descend from one `start`."""
    cache: Any = None
    """A `Cache`, or None where it has to be computed again."""

    def __post_init__(self):
        self.given = tuple(self.given) or (0,) * len(self.seeds)
        if not len(self.conditions) == len(self.seeds) == len(self.tokens) == len(self.given):
            raise ValueError(
                f"A canvas needs one prompt and one seed for each image; got {len(self.conditions)} prompts, "
                f"{len(self.seeds)} seeds and {len(self.tokens)} rows of tokens."
            )

    @classmethod
    def blank(cls, conditions: Conditions, seeds: Sequence[int], length: int, fill: int) -> "Canvas":
        """Nothing painted yet, on the CPU."""
        if len(conditions) != len(seeds):
            raise ValueError(f"Got {len(seeds)} seeds for {len(conditions)} prompts; give one seed for each image.")
        tokens = torch.full((len(seeds), length), fill, dtype=torch.long)
        return cls(conditions, tuple(seeds), tokens, draw_uniforms(seeds, length))

    def __len__(self) -> int:
        return len(self.seeds)

    def fork(self, k: int, first: int = 0) -> "Canvas":
        """Every image k times, side by side. Copy 0 keeps its random stream, the others go on differently.

        first: the number of the first copy, for making many copies a few at a time."""
        if k < 1:
            raise ValueError(f"A canvas can be forked into 1 or more copies of each image, not {k}.")
        copies = range(first, first + k)
        seeds = tuple(copy_seed(seed, self.forks, copy) for seed in self.seeds for copy in copies)
        return replace(
            self,
            conditions=self.conditions.repeat(k),
            seeds=seeds,
            tokens=self.tokens.repeat_interleave(k, 0),
            uniforms=draw_uniforms(seeds, self.tokens.shape[1]).to(self.uniforms.device),
            given=tuple(count for count in self.given for _ in range(k)),
            forks=self.forks + 1,
            cache=self.cache and self.cache.fork(k),
        )

    def reseed(self, seeds: Sequence[int]) -> "Canvas":
        """What is painted stays; what is painted from now on takes the random numbers of these seeds."""
        uniforms = draw_uniforms(seeds, self.tokens.shape[1]).to(self.uniforms.device)
        return replace(self, seeds=tuple(seeds), uniforms=uniforms, cache=self.release())

    def select(self, indices: Sequence[int] | Tensor) -> "Canvas":
        """Only these images, in this order. The cache is compacted in place and moves to the new canvas."""
        indices = [int(i) for i in indices]
        if any(not 0 <= i < len(self) for i in indices):
            raise ValueError(f"Cannot select the images {indices} of a canvas that holds 0..{len(self) - 1}.")
        return replace(
            self,
            conditions=self.conditions.select(indices),
            seeds=tuple(self.seeds[i] for i in indices),
            tokens=self.tokens[indices],
            uniforms=self.uniforms[indices],
            given=tuple(self.given[i] for i in indices),
            cache=(cache := self.release()) and cache.select(indices),
        )

    def release(self) -> Any:
        """Hands the cache over to whoever makes the next canvas from this one."""
        cache, self.cache = self.cache, None
        return cache

    def save(self, path: str | Path) -> None:
        """One safetensors file, whole or not at all. Uniforms follow from the seeds, the cache from the rest."""
        path = Path(path)
        if self.conditions.pictures or self.conditions.contexts:
            raise ValueError("A canvas whose painter looks at pictures cannot be saved; finish it first.")
        header = {
            "format": FORMAT,
            "prompts": self.conditions.prompts,
            "guidance": self.conditions.guidance,
            "seeds": self.seeds,
            "step": self.step,
            "given": self.given,
            "forks": self.forks,
            "work": asdict(self.work),
        }
        partial = path.with_name(path.name + ".partial")
        save_file(
            {"tokens": self.tokens.cpu().to(torch.int32).contiguous()}, partial, metadata={"canvas": json.dumps(header)}
        )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | Path) -> "Canvas":
        """A saved canvas, on the CPU and without cache; the generator moves and rebuilds it when it is advanced."""
        try:
            with safe_open(path, framework="pt") as file:
                header, tokens = json.loads((file.metadata() or {}).get("canvas", "{}")), file.get_tensor("tokens")
        except SafetensorError as error:
            raise ValueError(f"{path} is not a saved canvas ({error}); give a file written by Canvas.save.") from error
        if header.get("format") != FORMAT:
            raise ValueError(f"{path} is not a saved canvas of this version; paint it again from its prompt and seed.")
        return cls(
            Conditions(header["prompts"], header["guidance"]),
            tuple(header["seeds"]),
            tokens.long(),
            draw_uniforms(header["seeds"], tokens.shape[1]),
            header["step"],
            tuple(header["given"]),
            header["forks"],
            Work(**header["work"]),
        )


class Generator(Protocol):
    """Whatever paints. All verbs return a new canvas and leave the old one valid.

    More is used where a generator has it: `row`, the steps that paint one row of the picture (1 if it does not say);
    `advance_together(canvases, to)`, which does what the function of that name below does, in one batch; and, False if
    it does not say, what it takes beside a prompt:

    - `sees`: it looks at a picture that stands beside the prompt (`Conditions.pictures`), for what the prompt says;
    - `edits`: it paints the pictures beside the prompt anew, as the prompt tells it to, and nothing without them unless
      it says that it `paints` as well;
    - `takes_context`: it reads pictures and words before the prompt (`Conditions.contexts`), with a prompt that asks
      for what they lead up to. Families whose generators do are listed in `refusals.TAKES_CONTEXT`.

    What a generator does not take is put into words for it before it starts (relay.py).
    """

    @property
    def steps(self) -> int:
        """How many steps a finished image takes."""

    def start(self, conditions: Conditions, seeds: Sequence[int]) -> Canvas:
        """Blank canvases, one for each prompt."""

    def advance(self, canvas: Canvas, to: int | None = None) -> Canvas:
        """Paints up to step `to`, the last one if left out."""

    def preview(self, canvas: Canvas) -> list[Any]:
        """What the images look like now: uint8 arrays (H, W, 3)."""

    def recondition(self, canvas: Canvas, conditions: Conditions) -> Canvas:
        """New prompts for the same images; what is painted stays."""

    def rewind(self, canvas: Canvas, to: int) -> Canvas:
        """Unpaints back to step `to`."""

    def plain_work(self, conditions: Conditions) -> Work:
        """What sampling one image for each prompt costs without any reasoning."""


def advance_together(generator: Generator, canvases: Sequence[Canvas], to: Sequence[int]) -> list[Canvas]:
    """Advances canvases that stand at different steps, each to a step of its own; in one batch where the generator
    can. The images are the same either way."""
    own = getattr(generator, "advance_together", None)
    if own is not None:
        return own(canvases, to)
    return [generator.advance(canvas, step) for canvas, step in zip(canvases, to, strict=True)]


def draw_uniforms(seeds: Sequence[int], length: int) -> Tensor:
    """(N, length) float64, each row from a CPU generator of its own, so that devices agree."""
    rows = [torch.rand(length, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
    return torch.stack(rows) if rows else torch.empty(0, length, dtype=torch.float64)


def copy_seed(seed: int, forks: int, copy: int) -> int:
    """The seed of a copy: a 63-bit hash; copy 0 keeps the seed itself."""
    if copy == 0:
        return seed
    digest = hashlib.sha256(f"{seed}/{forks}/{copy}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def pick(logits: Tensor, uniforms: Tensor, temperature: float = 1.0) -> Tensor:
    """Inverse-CDF draw from softmax(logits / temperature): (N, V) and (N,) to (N,) ids. Temperature 0 takes the best.

    In float64 (float32 on devices without it): the tail of a cumulative sum over 16384 codes is lost in float32.
    """
    if temperature == 0:
        return logits.argmax(-1)
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = (logits / temperature).softmax(-1, dtype=wide).cumsum(-1)
    # The sum ends at 1 only up to rounding; right=True never picks a code of probability 0.
    target = uniforms.to(cumulative.dtype)[:, None] * cumulative[:, -1:]
    return torch.searchsorted(cumulative, target, right=True).squeeze(1).clamp_(max=logits.shape[-1] - 1)


def agreed(fed: Sequence[int], drawn: Sequence[int]) -> int:
    """How many of what was drawn behind each of `fed`, a known token and guesses, counts: all up to the first guess
    that is not what was drawn in its place."""
    return next((n for n in range(1, len(fed)) if fed[n] != drawn[n - 1]), len(fed))
