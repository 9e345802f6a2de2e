"""Painting one image code after the other, row by row, with classifier-free guidance: what all next-token models share.

Beside each prompt stands its unconditional twin, logits are uncond + w (cond - uncond), one code is drawn from their
softmax and fed to both. Beyond what the authors of such models published: several prompts at once, any number of
previews, new prompts behind painted codes, rewinding, interruption; and the promise that none of this changes what an
image becomes (docs/determinism.md tells how that is kept).

When the canvas is at step s, the first max(s - 1, 0) codes have been fed to the cache; the latest one is fed just
before the next is drawn, so that nothing is computed that may not be needed.

A painter of a family says how its prompts become tokens and vectors; see the methods at the head of `NextTokenPainter`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.canvas import Canvas, Conditions, Work
from reverie.generators.next_token_cache import NextTokenCache
from reverie.generators.next_token_draws import advance_joined, draw_by_guesses, may_guess
from reverie.generators.prefill import Entry, prefill
from reverie.models.cores import shares, side_by_side
from reverie.models.llama import KVCache
from reverie.models.rows import in_fixed_parts, round_up

Picker = Callable[[Tensor, Tensor, float], Tensor]

VECTOR = 64
"""Slots of the cache are read in multiples of so many bytes' worth of numbers: a vector register of AVX-512."""


class NextTokenPainter(ABC):
    """A `Generator` (see canvas.py) over a model with `embed_codes`, `code_logits_of_rows` and `decode_codes`, a
    `language_model` that is a `models.llama.Llama`, and a config with `language`, `grid` and `image_length`."""

    model: Any
    guidance: float
    temperature: float
    fill: int
    """The code that stands for unpainted places in previews."""
    rows: int = 32
    """Every matrix product has exactly so many rows; on a large GPU more rows serve more images at once."""
    chunk: int = 64
    """Prompts enter so many tokens at a time. Other `rows` or `chunk` may round differently."""
    together: int = 64
    """Pictures that an accelerator decodes in one batch."""
    picker: Picker

    # What differs between families.

    @abstractmethod
    def _ids(self, prompt: str) -> list[int]:
        """The prompt's tokens, at least one; equal tokens mean equal images."""

    @abstractmethod
    def _embed_prompt(self, ids: list[int], ways: int) -> Tensor:
        """(ways, tokens, D): what stands before the codes, then, with two ways, its unconditional twin."""

    @abstractmethod
    def _names(self, ids: list[int], ways: int) -> list[list[Hashable]]:
        """A name for each token of `_embed_prompt`. Tokens whose names agree up to and including their own are equal,
        and enter once."""

    def _prompt_ids(self, conditions: Conditions, image: int) -> list[int]:
        """The tokens of one image's prompt, with all that stands in it besides text."""
        return self._ids(conditions.prompts[image])

    def _embed_condition(self, ids: list[int], ways: int, canvas: Canvas, image: int) -> Tensor:
        """`_embed_prompt` of what `_prompt_ids` gave for one image of a canvas."""
        return self._embed_prompt(ids, ways)

    def _hidden(self, embeds: Tensor, kv: KVCache, lengths: Tensor | int, positions: Tensor, **keywords) -> Tensor:
        """(B, T, D) to hidden states at `positions`, behind prompts of `lengths` (B, 1)."""
        return self.model.hidden(embeds, kv, positions=positions, **keywords)

    def _kept(self, old: list[int], new: list[int]) -> int:
        """How many tokens of a prompt keep their place in the cache when `new` takes the place of `old`."""
        return common_prefix(old, new)

    def _ways(self, conditions: Conditions) -> int:
        """2 where an unconditional twin is needed."""
        return 1 if self._weight(conditions) == 1 else 2

    def _draw(self, logits: Tensor, uniforms: Tensor) -> Tensor:
        """Guided logits (N, V) and (N,) random numbers to codes (N,)."""
        return self.picker(logits, uniforms, self.temperature)

    @abstractmethod
    def _bytes(self, pixels: Tensor) -> np.ndarray:
        """(B, 3, H, W) in about [-1, 1] to (B, H, W, 3) uint8."""

    # The verbs.

    @property
    def steps(self) -> int:
        return self.model.config.image_length

    @property
    def row(self) -> int:
        """Steps that paint one row of the picture."""
        return self.model.config.grid

    def start(self, conditions: Conditions, seeds: Sequence[int]) -> Canvas:
        return Canvas.blank(conditions, seeds, self.steps, self.fill)

    @torch.no_grad()
    def advance(self, canvas: Canvas, to: int | None = None) -> Canvas:
        to = self.steps if to is None else to
        self._check_step(canvas, to)
        if to == canvas.step or not len(canvas):
            return replace(canvas, step=to, cache=canvas.release())
        cache = canvas.release() or self._rebuilt(canvas)
        tokens = canvas.tokens.to(self.model.device, copy=True)
        uniforms = canvas.uniforms.to(self.model.device)
        weight = self._weight(canvas.conditions)
        if canvas.step == 0:
            tokens[:, 0] = self._draw(self._guided(cache.first, weight, cache.ways, 0), uniforms[:, 0])
        start = max(canvas.step, 1)
        if may_guess(self, len(canvas) * cache.ways):
            ends = [to] * len(canvas)
            draw_by_guesses(self, cache, tokens, uniforms, [start] * len(canvas), ends, weight)
            canvas.work.decoded += len(canvas) * cache.ways * (to - start)
            return replace(canvas, tokens=tokens, uniforms=uniforms, step=to, cache=cache)
        for step in range(start, to):
            hidden = self._feed(cache, tokens, step - 1, canvas.work)
            logits = self._guided(hidden, weight, cache.ways, step)
            tokens[:, step] = self._draw(logits, uniforms[:, step])
        return replace(canvas, tokens=tokens, uniforms=uniforms, step=to, cache=cache)

    @torch.no_grad()
    def advance_together(self, canvases: Sequence[Canvas], to: Sequence[int]) -> list[Canvas]:
        """Every canvas to a step of its own, in one batch wherever they stand; all of one guidance weight. Their caches
        move into one store, which costs about as much as two steps; those that arrive first leave the batch."""
        if len({self._weight(canvas.conditions) for canvas in canvases}) > 1:
            raise ValueError("Canvases are painted together with one guidance weight; advance these one by one.")
        for canvas, step in zip(canvases, to, strict=True):
            self._check_step(canvas, step)
        # The first code follows from the prompt alone; the others from the code before.
        result = [
            self.advance(canvas, min(step, max(canvas.step, 1))) for canvas, step in zip(canvases, to, strict=True)
        ]
        # Those with the longest way stand first, so that whoever still moves is at the front of the store.
        order = sorted(range(len(result)), key=lambda i: result[i].step - to[i])
        order = [i for i in order if result[i].step < to[i] and len(result[i])]
        if len(order) == 1:
            result[order[0]] = self.advance(result[order[0]], to[order[0]])
        elif order:
            arrived = advance_joined(self, [result[i] for i in order], [to[i] for i in order])
            for i, canvas in zip(order, arrived, strict=True):
                result[i] = canvas
        return result

    @torch.no_grad()
    def preview(self, canvas: Canvas) -> list[np.ndarray]:
        """uint8 (H, W, 3) each."""
        canvas.work.vq_decodes += len(canvas)
        return self.decoded(canvas.tokens.to(self.model.device))

    @torch.no_grad()
    def decoded(self, tokens: Tensor) -> list[np.ndarray]:
        """(N, L) to pictures, in parts of fixed size (see models/rows.py): on a CPU one at a time, on accelerators
        `together`."""
        side, size = (self.model.config.grid,) * 2, 1 if tokens.device.type == "cpu" else self.together

        def decoded(rows: slice) -> list[np.ndarray]:
            parts = in_fixed_parts(lambda part: self.model.decode_codes(part, side), size, tokens[rows])
            return [picture for part in parts for picture in self._bytes(part)]

        return [one for part in side_by_side(decoded, shares(len(tokens), tokens.device)) for one in part]

    @torch.no_grad()
    def recondition(self, canvas: Canvas, conditions: Conditions) -> Canvas:
        """New prompts in front of the painted codes. Only what stands behind the longest unchanged prefix is computed
        again; an image whose prompt is the same keeps its whole cache."""
        if len(conditions) != len(canvas):
            raise ValueError(f"Got {len(conditions)} prompts for a canvas of {len(canvas)} images; give one for each.")
        old, cache = canvas.conditions, canvas.release()
        given = max(canvas.step - 1, 0)
        changed = [
            i
            for i, prompt in enumerate(conditions.prompts)
            if prompt != old.prompts[i] or conditions.picture(i) is not old.picture(i)
        ]
        if self._ways(conditions) != self._ways(old):
            # What was fed together with other rows cannot be kept; everything enters again.
            cache, changed = None, list(range(len(canvas)))
        counts = list(canvas.given)
        for i in changed:
            counts[i] = given
        new = replace(canvas, conditions=conditions, given=tuple(counts), cache=None)
        if cache is not None and changed:
            cache = self._refilled(cache, new, changed)
        new.cache = cache
        return new

    def rewind(self, canvas: Canvas, to: int) -> Canvas:
        """Unpaints from step `to` on. The cache stays: later slots are written again before they are read."""
        if not 0 <= to <= canvas.step:
            raise ValueError(
                f"Cannot rewind a canvas at step {canvas.step} to {to}; give a step between 0 and {canvas.step}."
            )
        tokens = canvas.tokens.clone()
        tokens[:, to:] = self.fill
        given = tuple(min(count, max(to - 1, 0)) for count in canvas.given)
        return replace(canvas, tokens=tokens, step=to, given=given, cache=canvas.release())

    def join(self, canvases: Sequence[Canvas]) -> Canvas:
        """One canvas of several at the same step and of one guidance weight, all with a cache or all without. Their
        caches move into one store; what is spent goes on the account of the first."""
        caches = [canvas.release() for canvas in canvases]
        device = canvases[0].tokens.device
        return replace(
            canvases[0],
            conditions=Conditions.join([canvas.conditions for canvas in canvases]),
            seeds=tuple(seed for canvas in canvases for seed in canvas.seeds),
            tokens=torch.cat([canvas.tokens.to(device) for canvas in canvases]),
            uniforms=torch.cat([canvas.uniforms.to(device) for canvas in canvases]),
            given=tuple(count for canvas in canvases for count in canvas.given),
            cache=NextTokenCache.join(caches) if all(caches) else None,
        )

    def split(self, canvas: Canvas) -> list[Canvas]:
        """The way back: one canvas for each image, with a view of the cache."""
        cache = canvas.release()
        return [
            replace(
                canvas, conditions=canvas.conditions.select([i]), seeds=(canvas.seeds[i],), given=(canvas.given[i],),
                tokens=canvas.tokens[i : i + 1], uniforms=canvas.uniforms[i : i + 1],
                cache=cache and cache.narrow(i, i + 1),
            )
            for i in range(len(canvas))
        ]  # fmt: skip

    @torch.no_grad()
    def previews(self, canvases: Sequence[Canvas]) -> list[np.ndarray]:
        """`preview` of canvases of one image each, wherever they stand."""
        for canvas in canvases:
            canvas.work.vq_decodes += len(canvas)
        return self.decoded(torch.cat([canvas.tokens.to(self.model.device) for canvas in canvases]))

    def row_bytes(self, conditions: Conditions) -> int:
        """Memory of one image while it is painted: keys and values of prompt and image, both ways and, where candidates
        are dropped, once more; logits."""
        config = self.model.config.language
        prompt = max((len(self._prompt_ids(conditions, i)) for i in range(len(conditions))), default=0)
        slots = round_up(prompt + self.steps, self.chunk)
        keys = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * slots
        return self._ways(conditions) * (2 * keys * self.model.dtype.itemsize + 8 * self.model.config.vq.num_embeddings)

    def plain_work(self, conditions: Conditions) -> Work:
        """One prefill of each prompt, all codes but the last fed once, one picture."""
        prompt = sum(len(self._ids(text)) for text in conditions.prompts)
        count, ways = len(conditions), self._ways(conditions)
        return Work(prefilled=ways * prompt, decoded=ways * count * (self.steps - 1), vq_decodes=count)

    # How the numbers come about.

    def _weight(self, conditions: Conditions) -> float:
        return self.guidance if conditions.guidance is None else conditions.guidance

    def _guided(self, hidden: Tensor, weight: float, ways: int, step: int | Tensor) -> Tensor:
        """(N * ways, D) to guided logits (N, V) of code `step`, or of codes (N,) of their own, in float32."""
        logits = self.model.code_logits_of_rows(hidden, self.rows).float()
        if ways == 1:
            return logits
        conditional, blank = logits.unflatten(0, (-1, 2)).unbind(1)
        return guide(conditional, blank, weight)

    def _embed(self, codes: Tensor) -> Tensor:
        """(N,) codes to (N, D), through blocks of fixed size like everything else."""
        codes = F.pad(codes, (0, -len(codes) % self.rows))
        return torch.cat([self.model.embed_codes(block) for block in codes.split(self.rows)])

    def _check_step(self, canvas: Canvas, to: int) -> None:
        if not canvas.step <= to <= self.steps:
            raise ValueError(f"Cannot advance from step {canvas.step} to {to}; the last step is {self.steps}.")

    def _feed(self, cache: NextTokenCache, tokens: Tensor, step: int, work: Work) -> Tensor:
        """Feeds code `step` of every image to all its rows; hidden states (N * ways, D)."""
        longest = max(map(len, cache.prompts))
        shared = min(map(len, cache.prompts)) == longest
        slots = slice(longest + step, longest + step + 1) if shared else None
        work.decoded += len(tokens) * cache.ways
        return self._fed(cache, tokens[:, step], cache.lengths + step, longest + step + 1, slots)

    def _fed(
        self, cache: NextTokenCache, codes: Tensor, positions: Tensor, reach: int, slots: slice | None = None
    ) -> Tensor:
        """Feeds (N,) codes at (N,) positions, all below `reach`; `slots` if they share one. (N * ways, D)"""
        return self._fed_rows(cache, codes[:, None], positions[:, None], reach, slots=slots)[:, 0]

    def _fed_rows(self, cache: NextTokenCache, codes: Tensor, positions: Tensor, reach: int, **keywords: Any) -> Tensor:
        """Feeds (N, T) codes at (N, T) positions; (N * ways, T, D)."""
        embeds = self._embed(codes.flatten())[: codes.numel()].view(*codes.shape, -1).repeat_interleave(cache.ways, 0)
        lengths, positions = (each.repeat_interleave(cache.ways, 0) for each in (cache.lengths[:, None], positions))
        # Reading the cache is the larger part of a step, so few slots beyond the last; whole vectors keep the rounding.
        span = round_up(reach, VECTOR // cache.kv.keys.itemsize)
        return self._hidden(embeds, cache.kv, lengths, positions, span=span, **keywords)

    def _rebuilt(self, canvas: Canvas) -> NextTokenCache:
        """A cache for a canvas without one: what entered at once before enters at once again, the rest one by one."""
        prompts = [self._prompt_ids(canvas.conditions, i) for i in range(len(canvas))]
        ways = self._ways(canvas.conditions)
        cache = self._empty(prompts, ways)
        tokens = canvas.tokens.to(self.model.device)
        fed = max(canvas.step - 1, 0)
        for step in range(min(canvas.given), fed + 1):
            self._enter(cache, canvas, [i for i, count in enumerate(canvas.given) if count == step])
            # Images that enter later are fed along; their prefill overwrites what this leaves behind.
            if step < fed:
                self._feed(cache, tokens, step, canvas.work)
        return cache

    def _empty(self, prompts: list[list[int]], ways: int) -> NextTokenCache:
        capacity = round_up(max(map(len, prompts)) + self.steps, self.chunk)
        like = self.model.language_model.lm_head.weight
        kv = KVCache.empty(self.model.config.language, len(prompts) * ways, capacity, like, self.rows)
        kv.ready(self.model.language_model.model, self.chunk)
        first = like.new_zeros(len(prompts) * ways, like.shape[1])
        return NextTokenCache(kv, first, prompts, torch.tensor(list(map(len, prompts)), device=like.device), ways)

    def _refilled(self, cache: NextTokenCache, canvas: Canvas, changed: list[int]) -> NextTokenCache:
        """The cache after the prompts of `changed` images changed; the rest is kept, in a larger one if need be."""
        prompts, kept = list(cache.prompts), {}
        for i in changed:
            prompts[i] = self._prompt_ids(canvas.conditions, i)
            kept[i] = self._kept(cache.prompts[i], prompts[i])
        new = self._empty(prompts, cache.ways) if max(map(len, prompts)) + self.steps > cache.kv.capacity else cache
        if new is not cache:
            new.kv.keys[:, :, :, : cache.kv.capacity] = cache.kv.keys
            new.kv.values[:, :, :, : cache.kv.capacity] = cache.kv.values
            new.first.copy_(cache.first)
        new.prompts, new.lengths = prompts, torch.tensor(list(map(len, prompts)), device=cache.lengths.device)
        self._enter(new, canvas, changed, kept)
        return new

    def _enter(
        self, cache: NextTokenCache, canvas: Canvas, images: list[int], kept: dict[int, int] | None = None
    ) -> None:
        """Prefills prompts and given codes of `images`, behind the first `kept` tokens of each. Equal ones go once."""
        entered: dict[tuple, int] = {}
        entries: list[Entry] = []
        targets: list[int] = []
        sources: list[int] = []
        span = 0
        for i in images:
            codes = canvas.tokens[i, : canvas.given[i]]
            twin = entered.setdefault((tuple(cache.prompts[i]), tuple(codes.tolist())), i)
            if twin == i:
                entries += self._entries(cache, canvas, i, codes.to(self.model.device), (kept or {}).get(i, 0))
                span = max(span, len(entries[-1].embeds))
            else:
                targets += range(i * cache.ways, (i + 1) * cache.ways)
                sources += range(twin * cache.ways, (twin + 1) * cache.ways)
        canvas.work.prefilled += prefill(entries, cache.kv, self.chunk, self._hidden, cache.first)
        if targets:
            for store in (cache.kv.keys, cache.kv.values):
                store[:, targets, :, :span] = store[:, sources, :, :span]
            cache.first[targets] = cache.first[sources]

    def _entries(self, cache: NextTokenCache, canvas: Canvas, image: int, codes: Tensor, kept: int) -> list[Entry]:
        """Prompt and codes of one image, a row for each way. Chunks are counted from position 0 and always full, so a
        token is rounded the same whatever follows it, and the same whether or not the chunks before it were kept."""
        ids = cache.prompts[image]
        text = self._embed_condition(ids, cache.ways, canvas, image)
        painted = self._embed(codes)[: len(codes)] if len(codes) else text.new_zeros(0, text.shape[-1])
        start = min(kept, len(ids) - 1) // self.chunk * self.chunk
        after = [("code", code) for code in codes.tolist()]
        return [
            Entry(image * cache.ways + way, torch.cat((text[way], painted)), [*names, *after], len(ids), start)
            for way, names in enumerate(self._names(ids, cache.ways))
        ]


def guide(conditional: Tensor, blank: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance of logits (arXiv 2207.12598): weight 1 is the conditional ones."""
    return blank + weight * (conditional - blank)


def common_prefix(a: Sequence[int], b: Sequence[int]) -> int:
    """How many leading items agree."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
