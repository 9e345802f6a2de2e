"""Codes that follow the first: of several canvases at once, and several of an image at once where rows are free.

A matrix product always has `rows` rows (models/rows.py), of which a single picture fills two. Guesses of the codes that
follow go into the others. With its random number, a code is a function of the codes before it: so a guess that equals
what is drawn in its place IS that code, and all up to the first wrong guess, whose place is drawn rightly, are done in
one step. The guesses are what was drawn in these places a step before, behind guesses that were partly wrong, and
beyond them the same code again. This is Jacobi's iteration with fixed random numbers (arXiv 2002.09928; 2410.01699 has
it for image codes, equal in distribution). Every token is rounded as if it had come alone, so nothing about a picture
changes, to the last bit of its keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from reverie.canvas import Canvas, agreed, pick
from reverie.generators.next_token_cache import NextTokenCache

if TYPE_CHECKING:
    from reverie.generators.next_token import NextTokenPainter

MOST = 8
"""Codes of an image that are drawn at once: with more, attention costs what fewer steps save."""


def may_guess(painter: NextTokenPainter, rows: int) -> bool:
    """Whether so many rows of the cache leave room for a guess each. Accelerators need no guesses, since they have room
    for more pictures; and a picker of somebody's own may count its calls."""
    return painter.model.device.type == "cpu" and painter.picker is pick and 2 * rows <= painter.rows


def draw_by_guesses(
    painter: NextTokenPainter,
    cache: NextTokenCache,
    tokens: Tensor,
    uniforms: Tensor,
    places: Sequence[int],
    ends: Sequence[int],
    weight: float,
) -> None:
    """Draws the codes from places[i], at least 1, up to ends[i] of each image into `tokens` (N, L), in place."""
    known = [row[:place] for row, place in zip(tokens.tolist(), places, strict=True)]
    ahead: list[list[int]] = [[] for _ in known]
    lengths = [len(prompt) for prompt in cache.prompts]
    while moving := max((i + 1 for i, end in enumerate(ends) if len(known[i]) < end), default=0):
        at = [len(codes) for codes in known[:moving]]
        reach = max(map(sum, zip(lengths, at, strict=False)))
        # Guesses behind the end of an image are idle, but they, too, need a slot.
        left = max(end - place for end, place in zip(ends, at, strict=False))
        count = min(MOST, painter.rows // (moving * cache.ways), left, cache.kv.capacity + 1 - reach)
        fed = [
            [codes[-1], *foreseen(codes, guesses, count - 1)]
            for codes, guesses in zip(known, ahead[:moving], strict=False)
        ]
        part = cache.narrow(0, moving)
        drawn = _drawn(painter, part, torch.tensor(fed), uniforms[:moving], torch.tensor(at), reach + count - 1, weight)
        for i, (said, found) in enumerate(zip(fed, drawn, strict=True)):
            right = agreed(said, found)
            known[i] += found[: min(right, ends[i] - at[i])]
            ahead[i] = found[right:]
    for row, codes, place, end in zip(tokens, known, places, ends, strict=True):
        row[place:end] = torch.tensor(codes[place:end])


def foreseen(known: Sequence[int], drawn: Sequence[int], count: int) -> list[int]:
    """So many codes that may follow those known: what was drawn for their places before, and then the same again."""
    last = (drawn or known)[-1]
    return [*drawn[:count], *[last] * (count - len(drawn))]


def _drawn(
    painter: NextTokenPainter,
    cache: NextTokenCache,
    fed: Tensor,
    uniforms: Tensor,
    places: Tensor,
    reach: int,
    weight: float,
) -> list[list[int]]:
    """Feeds (N, T) codes, of which the last known one stands first, and draws what follows each. places: (N,) of the
    code that follows the first of them."""
    count = fed.shape[1]
    at = places[:, None] + torch.arange(count)
    positions = cache.lengths[:, None] + at - 1
    hidden = painter._fed_rows(cache, fed, positions, reach, alone=True)
    # (N * ways, T, D) to all ways of one code beside each other.
    hidden = hidden.unflatten(0, (-1, cache.ways)).transpose(1, 2).flatten(0, 2)
    at = at.clamp(max=uniforms.shape[1] - 1)
    logits = painter._guided(hidden, weight, cache.ways, at.flatten())
    return painter._draw(logits, uniforms.gather(1, at).flatten()).view(-1, count).tolist()


def advance_joined(painter: NextTokenPainter, canvases: Sequence[Canvas], to: Sequence[int]) -> list[Canvas]:
    """The loop of `advance_together`, over canvases that have a first code and descending ways to go."""
    cache = NextTokenCache.join([canvas.release() or painter._rebuilt(canvas) for canvas in canvases])
    device, weight = painter.model.device, painter._weight(canvases[0].conditions)
    tokens = torch.cat([canvas.tokens.to(device) for canvas in canvases])
    uniforms = torch.cat([canvas.uniforms.to(device) for canvas in canvases])
    ends = [step for canvas, step in zip(canvases, to, strict=True) for _ in canvas.seeds]
    steps = [canvas.step for canvas in canvases for _ in canvas.seeds]
    lengths = [len(prompt) + step for prompt, step in zip(cache.prompts, steps, strict=True)]
    place = torch.tensor(steps, device=device)[:, None]  # (N, 1): the code that each image draws next
    moving = len(steps)
    for turn in range(ends[0] - steps[0]):
        moving = next((i for i in range(moving) if ends[i] - steps[i] <= turn), moving)
        part = cache.narrow(0, moving)
        if may_guess(painter, moving * cache.ways):
            now = [step + turn for step in steps[:moving]]
            draw_by_guesses(painter, part, tokens[:moving], uniforms[:moving], now, ends[:moving], weight)
            break
        at = place[:moving] + turn
        codes = tokens[:moving].gather(1, at - 1)[:, 0]
        hidden = painter._fed(part, codes, part.lengths + at[:, 0] - 1, max(lengths[:moving]) + turn)
        logits = painter._guided(hidden, weight, cache.ways, at[:, 0])
        drawn = painter._draw(logits, uniforms[:moving].gather(1, at)[:, 0])
        tokens[:moving].scatter_(1, at, drawn[:, None])
    arrived, first = [], 0
    for canvas, step in zip(canvases, to, strict=True):
        rows = slice(first, first := first + len(canvas))
        canvas.work.decoded += len(canvas) * cache.ways * (step - canvas.step)
        kept = cache.narrow(rows.start, rows.stop)
        arrived.append(replace(canvas, tokens=tokens[rows], uniforms=uniforms[rows], step=step, cache=kept))
    return arrived
