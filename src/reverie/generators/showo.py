"""Show-o as a painter: all slots are guessed at once, the surest are kept, and the rest is guessed again.

The procedure is the authors' (showlab/Show-o, t2i_generate; mask schedule of MaskGIT, arXiv 2202.04200): at each step
every slot gets a code drawn from the guided logits; by the cosine schedule so many of the least confident unknown
slots are masked again, confidence being log p(code) + T * Gumbel noise; T shrinks by (1 - r) at every step
r = t / steps, cumulatively. A code that was kept never changes. Beyond it: several prompts at once, previews, new
prompts in front of what is painted, rewinding, interruption; and the promise that none of this changes what an image
becomes.

A canvas keeps the whole record: `tokens` (N, (steps + 1) * L) are L slots after step 0, after step 1, and so on.
A slot holds its code where it is kept, and ~code (a negative number) where it is masked again, so that the guess can be
shown; ~(number of codes) stands for no guess yet. The stream of an image has one number for each slot of each step.

What is promised: on one machine and with one build of torch, the same prompt and seed give the same codes bit by bit,
whatever else is in the batch (tests/test_showo_canvas.py). Every matrix product has exactly `rows` rows
(models/rows.py), prompts enter alone, and attention always runs over L + 2 places against the same number of keys.
Other `rows`, devices or builds agree up to rounding. On GPUs the same rules are followed, but bits were not compared
there.
"""

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from reverie.canvas import Canvas, Conditions, Work
from reverie.generators.janus import to_uint8
from reverie.generators.showo_texts import Read, ShowoCache, digest, read
from reverie.models.cores import shares, side_by_side
from reverie.models.rows import at_once, in_fixed_parts, usual_rows
from reverie.models.showo import Showo
from reverie.models.showo_text import ShowoTokenizer

Drawer = Callable[[Tensor, Tensor, float], tuple[Tensor, Tensor, Tensor]]

DRAWN_AT_ONCE = {"cpu": 128}
"""Slots whose probabilities stand in memory in float64 at the same time, by device; 16384 on others."""
CPU_ROWS, ACCELERATOR_ROWS, LARGEST_BLOCK = 64, 1024, 320
LEAST = 1e-20
"""Below this, logarithms are cut off, as in the official code."""


class ShowoPainter:
    """A `Generator` (see canvas.py) over a loaded Show-o."""

    def __init__(
        self,
        model: Showo,
        tokenizer: ShowoTokenizer,
        *,
        guidance: float = 2.75,
        temperature: float = 1.0,
        steps: int = 18,
        schedule: str = "cosine",
        fill: int = 0,
        rows: int | None = None,
        drawer: Drawer | None = None,
        sees: bool = False,
        blank_sees: bool = True,
        official: bool = False,
    ):
        """guidance: weight s of uncond + s (cond - uncond) where the conditions name none; the authors' w is s - 1.
        temperature: that of the choice which slots are kept, at the start; codes themselves are drawn at 1, as by the
            authors. 0 takes the likeliest code and the surest slots, without any randomness.
        steps: how often all slots are guessed.
        schedule: cosine, linear, sigmoid, or pow and a number.
        fill: the code that previews show where nothing was guessed yet.
        rows: every matrix product has exactly so many rows; by default those of one image on CPUs, or 64 where that is
            more than LARGEST_BLOCK, and 1024 or more elsewhere.
        drawer: in place of `draw`, for replaying draws made elsewhere.
        sees: whether it learned to correct a picture that stands beside the prompt (training/self_correction.py).
        blank_sees: whether the unconditional twin of such a prompt sees the picture, too.
        official: the noise of the published loop, whose temperature is never set back: only the first image that this
            painter starts, and of its candidates the first, has any.
        """
        if steps < 1:
            raise ValueError(f"steps={steps}: an image takes at least 1 step.")
        self.model, self.tokenizer, self.steps, self.fill = model, tokenizer, steps, fill
        self.guidance, self.temperature, self.drawer = guidance, temperature, drawer or draw
        self.sees, self.blank_sees, self.official = sees, blank_sees, official
        self.first: int | None = None
        """The seed of the first image, where the official noise is wanted."""
        block = self.length + 2 if self.length <= LARGEST_BLOCK else CPU_ROWS
        self.rows = rows or usual_rows(model.showo.lm_head.weight, block, ACCELERATOR_ROWS)
        self.counts = masked_counts(steps, self.length, schedule)

    @property
    def length(self) -> int:
        """Codes of an image."""
        return self.model.config.image_length

    def start(self, conditions: Conditions, seeds: Sequence[int], known: Tensor | None = None) -> Canvas:
        """Blank canvases; with `known` (N, L), canvases in which its codes stand and only its -1 are painted."""
        if self.official and self.first is None and seeds:
            self.first = seeds[0]
        nothing = ~self.model.config.num_codes
        canvas = Canvas.blank(conditions, seeds, (self.steps + 1) * self.length, nothing)
        if known is not None:
            if known.shape != (len(canvas), self.length) or known.max() >= self.model.config.num_codes:
                raise ValueError(
                    f"Known codes must be {len(canvas)} x {self.length} numbers below {self.model.config.num_codes}, "
                    f"-1 where something is to be painted."
                )
            canvas.tokens[:, : self.length] = torch.where(known < 0, nothing, known)
        return canvas

    @torch.no_grad()
    def advance(self, canvas: Canvas, to: int | None = None) -> Canvas:
        to = self.steps if to is None else to
        if not canvas.step <= to <= self.steps:
            raise ValueError(f"Cannot advance from step {canvas.step} to {to}; the last step is {self.steps}.")
        slots = self.record(canvas).to(self.model.device, copy=True)
        if to == canvas.step or not len(canvas):
            return replace(canvas, step=to, cache=canvas.release())
        uniforms = canvas.uniforms.to(self.model.device)
        weight = self._weight(canvas.conditions)
        cache, texts = self._read(canvas)

        def go(rows: slice, first: int, last: int) -> int:
            """These images from step `first` to `last`; how many rows went through the model."""
            ways, computed = (texts[way : way + len(canvas)] for way in range(0, len(texts), len(canvas))), 0
            mine = [text for way in ways for text in way[rows]]
            for step in range(first, last):
                numbers, noise = uniforms.view(slots.shape)[rows, step], self._noise(canvas, step)[rows]
                slots[rows, step + 1], more = self._step(slots[rows, step], numbers, step, noise, cache, mine, weight)
                computed += more
            return computed

        # All of a prompt are alike at the first step, which they share. After it each core goes its own way; but few
        # images that cannot be dealt out evenly go together, and the rows of a step are (`_states`).
        split, parts = max(canvas.step, 1), shares(len(canvas), slots.device)
        if len(canvas) % len(parts) and len(canvas) < 16 * len(parts):
            parts = [slice(len(canvas))]
        computed = go(slice(len(canvas)), canvas.step, split)
        computed += sum(side_by_side(lambda rows: go(rows, split, to), parts))
        canvas.work.decoded += computed * (self.length + 2)
        return replace(canvas, tokens=slots.flatten(1), uniforms=uniforms, step=to, cache=cache)

    def record(self, canvas: Canvas) -> Tensor:
        """(N, steps + 1, L): the slots after each step; `unpack` tells codes from guesses."""
        if canvas.tokens.shape[1] != (self.steps + 1) * self.length:
            raise ValueError(
                f"The canvas holds {canvas.tokens.shape[1] // self.length - 1} steps of {self.length} codes, but this "
                f"painter takes {self.steps}; go on with the number of steps that it was started with."
            )
        return canvas.tokens.unflatten(1, (self.steps + 1, self.length))

    def codes(self, canvas: Canvas) -> Tensor:
        """(N, L) codes as they would be if painting stopped now: those kept, and the last guesses for the others."""
        codes, _ = unpack(self.record(canvas)[:, canvas.step])
        return torch.where(codes == self.model.config.num_codes, self.fill, codes)

    @torch.no_grad()
    def preview(self, canvas: Canvas) -> list[np.ndarray]:
        """uint8 (H, W, 3) each, never with holes."""
        canvas.work.vq_decodes += len(canvas)
        return self.decoded(self.codes(canvas))

    @torch.no_grad()
    def decoded(self, codes: Tensor) -> list[np.ndarray]:
        """(N, L) codes to uint8 (H, W, 3) each, in parts of fixed size (see models/rows.py)."""
        size = at_once(self.model.device)

        def painted(rows: slice) -> list[np.ndarray]:
            parts = in_fixed_parts(self.model.pictures.decode, size, codes[rows])
            return [picture for part in parts for picture in to_uint8(part)]

        return [picture for part in side_by_side(painted, shares(len(codes), codes.device)) for picture in part]

    def recondition(self, canvas: Canvas, conditions: Conditions) -> Canvas:
        """New prompts in front of what is painted; only prompts that are new are read."""
        if len(conditions) != len(canvas):
            raise ValueError(f"Got {len(conditions)} prompts for a canvas of {len(canvas)} images; give one for each.")
        return replace(canvas, conditions=conditions, cache=canvas.release())

    def rewind(self, canvas: Canvas, to: int) -> Canvas:
        """Back to what the canvas was at step `to`, its guesses included."""
        if not 0 <= to <= canvas.step:
            raise ValueError(
                f"Cannot rewind a canvas at step {canvas.step} to {to}; give a step between 0 and {canvas.step}."
            )
        tokens = canvas.tokens.clone()
        tokens[:, (to + 1) * self.length :] = ~self.model.config.num_codes
        return replace(canvas, tokens=tokens, step=to, cache=canvas.release())

    def row_bytes(self, conditions: Conditions) -> int:
        """Memory of one image while it is painted: both ways through a layer, keys of text and image, states of both
        and guided ones, the record of all steps."""
        model, phi = self.model, self.model.config.phi
        size, place = model.showo.lm_head.weight.itemsize, self.length + 2
        keys = 2 * (model.config.block + 2 * place) * phi.num_key_value_heads * phi.head_dim
        layer = place * 9 * phi.hidden_size + keys
        guided = self.length * phi.hidden_size * 4
        return self._ways(conditions) * (layer * size + guided) + guided + 16 * (self.steps + 1) * self.length

    def plain_work(self, conditions: Conditions) -> Work:
        """Each different prompt read once, the image block of every row at every step (at the first, when nothing tells
        images apart, of every prompt), one picture."""
        count, ways = len(conditions), self._ways(conditions)
        different = {*conditions.prompts, *[""] * (ways - 1)}
        prompts = sum(len(self.tokenizer.painting_ids(text)) for text in different)
        decoded = (len(different) + ways * count * (self.steps - 1)) * (self.length + 2)
        return Work(prefilled=prompts, decoded=decoded, vq_decodes=count)

    # How the numbers come about.

    def _weight(self, conditions: Conditions) -> float:
        return self.guidance if conditions.guidance is None else conditions.guidance

    def _ways(self, conditions: Conditions) -> int:
        return 1 if self._weight(conditions) == 1 else 2

    def _noise(self, canvas: Canvas, step: int) -> Tensor:
        """(N, 1): the temperature of each image's choice which slots to keep."""
        usual = temperature_at(self.temperature, step, self.steps)
        each = [usual if self.first in (None, seed) else 0.0 for seed in canvas.seeds]
        return torch.tensor(each, dtype=torch.float64)[:, None]

    def _step(
        self,
        slots: Tensor,
        uniforms: Tensor,
        step: int,
        noise: Tensor,
        cache: ShowoCache,
        texts: Sequence[Read],
        weight: float,
    ) -> tuple[Tensor, int]:
        """(N, L) slots after step `step` to those after the next; and how many rows went through the model."""
        codes, masked = unpack(slots)
        guided, computed = self._guided(codes, masked, cache, texts, weight)
        found = self._drawn(guided, uniforms[masked])
        drawn = codes.masked_scatter(masked, found[0])
        sure = confidence(found[1], found[2], noise.to(found[1]).expand(masked.shape)[masked])
        sure = sure.new_full(masked.shape, torch.inf).masked_scatter(masked, sure)
        return torch.where(least_sure(sure, masked, self.counts[step]), ~drawn, drawn), computed

    def _guided(
        self, codes: Tensor, masked: Tensor, cache: ShowoCache, texts: Sequence[Read], weight: float
    ) -> tuple[Tensor, int]:
        """Guided states (M, D) below the head of the M masked slots, image by image; and how many rows were computed.
        `texts` are those of all images, then their blank twins.

        Rows that are alike, such as all candidates of a prompt before anything is painted, are computed once. The head
        is linear, so guidance stands in front of it: it runs once for each slot, not once for each way."""
        ways = len(texts) // len(codes)
        numbers = {text: number for number, text in enumerate(dict.fromkeys(texts))}
        which = torch.tensor([[numbers[text]] for text in texts], device=codes.device)
        rows = torch.cat((which, codes.masked_fill(masked, -1).repeat(ways, 1)), 1)
        rows, inverse = rows.unique(dim=0, return_inverse=True)
        known, hidden = list(numbers), rows[:, 1:] < 0
        states = self._states(rows[:, 1:], hidden, cache, [known[i] for i in rows[:, 0].tolist()])
        # The rows of an image, its own and the blank one.
        places = _places(hidden)
        found = [states[places[side][masked]].float() for side in inverse.view(ways, -1)]
        guided = found[0] if ways == 1 else (found[0] * weight).sub_(found[1] * (weight - 1))
        return guided.to(states.dtype), len(rows)

    def _drawn(self, guided: Tensor, uniforms: Tensor) -> tuple[Tensor, ...]:
        """What `draw` finds from guided states (M, D) and (M,) numbers. Block by block, so that logits are drawn from
        while they are in the core's cache, and never stand in memory together."""
        if self.drawer is not draw:
            return self.drawer(self._head(guided), uniforms, self.temperature)
        size = self.rows * max(1, drawn_at_once(guided.device) // self.rows)

        def part(rows: slice) -> list[tuple[Tensor, ...]]:
            blocks = zip(guided[rows].split(size), uniforms[rows].split(size), strict=True)
            return [draw(self._head(states), numbers, self.temperature) for states, numbers in blocks]

        # Of few slots the products and draws themselves go on several cores.
        few = len(guided) < 4 * size
        parts = side_by_side(part, [slice(len(guided))] if few else shares(len(guided), guided.device))
        return tuple(torch.cat(found) for found in zip(*itertools.chain.from_iterable(parts), strict=True))

    def _head(self, states: Tensor) -> Tensor:
        """(M, D) to (M, number of codes) in float32."""
        return self.model.code_logits(states, self.rows).float()

    def _states(self, codes: Tensor, masked: Tensor, cache: ShowoCache, texts: Sequence[Read]) -> Tensor:
        """(M, D) of the masked slots, row by row, below the head; texts of different kinds go in batches of their
        own."""
        kinds = dict.fromkeys(text.kind for text in texts)
        if len(kinds) == 1:
            shelf = cache.shelves[texts[0].kind]

            def part(rows: slice) -> Tensor:
                return self.model.paint(codes[rows], masked[rows], shelf.rows(texts[rows]), self.rows, masked[rows])

            return torch.cat(side_by_side(part, shares(len(codes), codes.device)))
        like = self.model.showo.lm_head.weight
        found = like.new_empty(int(masked.sum()), like.shape[1])
        owner = torch.arange(len(codes), device=codes.device)[:, None].expand(codes.shape)[masked]
        for kind in kinds:
            mine = [i for i, text in enumerate(texts) if text.kind == kind]
            rows = torch.tensor(mine, device=codes.device)
            states = cache.shelves[kind].rows([texts[i] for i in mine])
            found[torch.isin(owner, rows)] = self.model.paint(
                codes[rows], masked[rows], states, self.rows, masked[rows]
            )
        return found

    def _read(self, canvas: Canvas) -> tuple[ShowoCache, list[Read]]:
        """What the rows of a batch look at: the prompts of all images with their pictures, then their blank twins, in
        which a picture stays or not as `blank_sees` says; and the states of exactly these, of which those that are
        known already are kept."""
        conditions = canvas.conditions
        shown = [conditions.picture(image) if self.sees else None for image in range(len(canvas))]
        names = [digest(picture) for picture in shown]
        pictures = {name: picture for name, picture in zip(names, shown, strict=True) if picture is not None}
        texts = [
            Read(tuple(self.tokenizer.painting_ids(prompt)), name)
            for prompt, name in zip(conditions.prompts, names, strict=True)
        ]
        if self._ways(conditions) == 2:
            blank = tuple(self.tokenizer.painting_ids(""))
            texts += [Read(blank, name if self.blank_sees else None) for name in names]
        needed, old = list(dict.fromkeys(texts)), canvas.release()
        if old is not None and old.known == set(needed):
            return old, texts

        def spent(tokens: int, looked: int) -> None:
            canvas.work.prefilled += tokens
            canvas.work.vision_encodes += looked

        return read(self.model, needed, pictures, old, self.rows, spent), texts


def unpack(slots: Tensor) -> tuple[Tensor, Tensor]:
    """Slots of a record to (codes, masked); the code of a masked slot is its last guess."""
    masked = slots < 0
    return torch.where(masked, ~slots, slots), masked


def _places(asked: Tensor) -> Tensor:
    """(N, L): where in the list of all slots that are True each of them stands."""
    return (asked.flatten().cumsum(0) - 1).view(asked.shape)


def drawn_at_once(device: torch.device) -> int:
    return DRAWN_AT_ONCE.get(device.type, 16384)


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """One code for each slot from softmax(logits): (M, V) and (M,) to codes, their probabilities, and numbers.

    The draw is the inverse of the cumulative distribution at the slot's number. Where within the code's interval that
    number lies is again uniform in [0, 1) and independent of the code: this is the third result, (M,), and serves the
    Gumbel noise. `temperature` 0 takes the likeliest code. In float64 (float32 on devices without it).
    """
    wide = torch.float32 if logits.device.type == "mps" else torch.float64
    results, size = [], drawn_at_once(logits.device)
    for block, numbers in zip(logits.split(size), uniforms.to(wide).split(size), strict=True):
        probabilities = block.softmax(-1, dtype=wide)
        if temperature == 0:
            codes = block.argmax(-1, keepdim=True)
            results.append((codes[:, 0], probabilities.gather(1, codes)[:, 0], numbers))
            continue
        cumulative = probabilities.cumsum(-1)
        # The sum ends at 1 only up to rounding; right=True never picks a code of probability 0.
        target = numbers[:, None] * cumulative[:, -1:]
        codes = torch.searchsorted(cumulative, target, right=True).clamp_(max=block.shape[-1] - 1)
        chosen = probabilities.gather(1, codes)
        rest = (target - (cumulative.gather(1, codes) - chosen)) / chosen
        results.append((codes[:, 0], chosen[:, 0], rest[:, 0].clamp(0, 1)))
    codes, chosen, rest = (torch.cat(parts) for parts in zip(*results, strict=True))
    return codes, chosen, rest


def confidence(probabilities: Tensor, uniforms: Tensor, temperature: float | Tensor) -> Tensor:
    """log p + temperature * Gumbel noise, the noise from numbers in [0, 1)."""
    noise = -uniforms.clamp(min=LEAST).log().neg().clamp(min=LEAST).log()
    return probabilities.clamp(min=LEAST).log() + temperature * noise


def least_sure(sure: Tensor, masked: Tensor, count: int) -> Tensor:
    """(N, L) True for the `count` masked slots of least confidence; at least one of an image's slots, and at most all
    but one of those that are masked. Slots that tie at the cut are kept, as in the official code."""
    unknown = masked.sum(1, keepdim=True)
    index = unknown.sub(1).clamp(max=count).clamp(min=1).clamp(max=masked.shape[1] - 1)
    return sure < sure.sort(-1).values.gather(1, index)


def mask_ratio(progress: Tensor, schedule: str = "cosine") -> Tensor:
    """The share of slots that stays masked at `progress` in [0, 1], in float32 as the official code has it."""
    progress = progress.float()
    if schedule == "cosine":
        return torch.cos(progress * (math.pi * 0.5))
    if schedule == "linear":
        ratio = 1 - progress
    elif schedule == "sigmoid":
        first, last = torch.tensor([-3.0, 3.0]).sigmoid()
        ratio = (last - (progress * 6 - 3).sigmoid()) / (last - first)
    elif re.fullmatch(r"pow\d+(\.\d+)?", schedule):
        ratio = 1 - progress ** float(schedule[3:])
    else:
        raise ValueError(f"schedule={schedule!r}: must be cosine, linear, sigmoid, or pow and a number.")
    return ratio.clamp(1e-6, 1.0)


def masked_counts(steps: int, length: int, schedule: str = "cosine") -> list[int]:
    """For each step, how many of `length` slots the schedule leaves masked after it, before anything is clamped."""
    progress = torch.tensor([(step + 1) / steps for step in range(steps)])
    return (length * mask_ratio(progress, schedule)).floor().int().tolist()


def temperature_at(start: float, step: int, steps: int) -> float:
    """The noise temperature of step 0, 1, ...: it shrinks by 1 - (step + 1) / steps each time, cumulatively."""
    return start * math.prod(1 - (past + 1) / steps for past in range(step + 1))
