"""Prefilling the prompts of many images: every token goes through the matrix products once, whoever shares it.

Prompts enter in chunks counted from position 0. Chunk by chunk, the tokens of all prompts are packed one behind the
other into the model's blocks of rows, so that short prompts leave no holes; tokens with the same past (the blank twins
of guidance, equal beginnings) stand there once. Attention stays each prompt's own, in chunks of the same shape as if
the prompt were alone: so a token is rounded the same whoever enters beside it (docs/determinism.md).

Several cores work at once: at parts of a chunk that share nothing, and at later chunks, a layer of which waits for that
layer of the chunks before (`Turns`). So a single long prompt has all cores, too.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from reverie.models.cores import shares, side_by_side
from reverie.models.llama import KVCache

TOGETHER = 64
"""Prompts that enter side by side, at most; it bounds the memory and changes no rounding."""


@dataclass(frozen=True)
class Entry:
    """What enters into one row of a cache."""

    row: int
    embeds: Tensor
    """(T, D) of the prompt and whatever follows it."""
    names: Sequence[Hashable]
    """(T,) Two tokens are the same if all names up to their own are."""
    length: int
    """Tokens of the prompt, at most T; the last one's hidden state is asked for."""
    start: int = 0
    """Tokens before it are in the cache already; a multiple of the chunk."""


def prefill(entries: Sequence[Entry], kv: KVCache, chunk: int, hidden: Callable[..., Tensor], last: Tensor) -> int:
    """Fills the rows of `kv` chunk by chunk, and `last` (rows, D) with the hidden states of the prompts' last tokens.
    Returns how many tokens were computed.

    hidden: (embeds (B, chunk, D), kv of B rows, prompt lengths (B, 1), positions (1, chunk), **keywords of `Llama`) to
    hidden states (W, D) of the tokens that are `wanted`.
    """
    groups = [entries[first : first + TOGETHER] for first in range(0, len(entries), TOGETHER)]
    return sum(_prefill(group, kv, chunk, hidden, last) for group in groups)


def _prefill(entries: Sequence[Entry], kv: KVCache, chunk: int, hidden: Callable[..., Tensor], last: Tensor) -> int:
    identities, units, before = list(_identities(entries)), list[_Unit](), list[int]()
    for start in range(min(e.start for e in entries), max(len(e.embeds) for e in entries), chunk):
        chosen = [i for i, e in enumerate(entries) if e.start <= start < len(e.embeds)]
        if not chosen:  # some prompts are over, and the others are known up to a later chunk
            continue
        tokens, ahead = [identities[i][start : start + chunk] for i in chosen], len(units)
        for rows in _strangers(tokens, kv.keys.device):
            units.append(_Unit([entries[i] for i in chosen[rows]], tokens[rows], slice(start, start + chunk)))
            before.append(ahead)
    turns = Turns(before, len(kv.keys))

    def core(_: slice) -> int:
        try:
            return sum(_chunk(units[number], number, turns, kv, hidden, last) for number in turns.units())
        except BaseException as error:
            turns.fail(error)
            raise

    return sum(side_by_side(core, shares(len(units), kv.keys.device)))


class Turns:
    """Who does what next, and who waits for whom: each unit takes its turn in a layer when all units before its chunk
    have written their keys and values of that layer. Units are handed out in order, so that the first that is not done
    never waits, however many cores there are."""

    def __init__(self, before: Sequence[int], layers: int):
        """before: for each unit, how many of those at the front it stands behind."""
        self.before, self.layers, self.written = before, layers, [0] * len(before)
        self.next, self.changed = iter(range(len(before))), threading.Condition()
        self.failed: BaseException | None = None

    def units(self) -> Iterator[int]:
        """The numbers of the units that the core that asks is to do."""
        while True:
            with self.changed:
                number = None if self.failed is not None else next(self.next, None)
            if number is None:
                return
            yield number

    def reached(self, number: int, layers: int) -> None:
        """A unit has written so many layers."""
        with self.changed:
            self.written[number] = layers
            self.changed.notify_all()

    def wait(self, number: int, layers: int) -> None:
        """Until all before a unit have written so many layers; raises what one of them has failed with."""
        ahead = self.before[number]

        def free() -> bool:
            return self.failed is not None or all(done >= layers for done in self.written[:ahead])

        with self.changed:
            self.changed.wait_for(free)
        if self.failed is not None:
            raise self.failed

    def fail(self, error: BaseException) -> None:
        """Nobody waits any longer, and nothing more is handed out."""
        with self.changed:
            self.failed = error
            self.changed.notify_all()


def _strangers(rows: Sequence[Sequence[int]], device: torch.device) -> list[slice]:
    """Rows as parts for several cores, of which no two share a token; one part where they would."""
    parts = shares(len(rows), device)
    tokens = [{token for row in rows[part] for token in row} for part in parts]
    return parts if sum(map(len, tokens)) == len(set().union(*tokens)) else [slice(0, len(rows))]


def _identities(entries: Sequence[Entry]) -> Iterator[list[int]]:
    """For each entry a number for each token; equal numbers are equal tokens with equal pasts."""
    known: dict[tuple[int, Hashable], int] = {}
    for entry in entries:
        past, row = -1, []
        for name in entry.names:
            past = known.setdefault((past, name), len(known))
            row.append(past)
        yield row


def _once(rows: Sequence[Sequence[int]], chunk: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(U,) where in (B * chunk) each different token stands first, and (B * chunk,) which of these U each token is;
    the places behind a row's end are as good as any."""
    places: dict[int, int] = {}
    index: dict[int, int] = {}
    which = [0] * (len(rows) * chunk)
    for i, row in enumerate(rows):
        for j, identity in enumerate(row):
            places.setdefault(identity, i * chunk + j)
            which[i * chunk + j] = index.setdefault(identity, len(index))
    return torch.tensor(list(places.values()), device=device), torch.tensor(which, device=device)


@dataclass(frozen=True)
class _Unit:
    """A chunk of some entries, whose identities stand beside them: what enters at once."""

    entries: Sequence[Entry]
    tokens: Sequence[Sequence[int]]
    slots: slice


def _chunk(unit: _Unit, number: int, turns: Turns, kv: KVCache, hidden: Callable[..., Tensor], last: Tensor) -> int:
    """Enters the tokens of a unit into the cache, the hidden states of prompts that end there into `last`. Returns how
    many tokens were computed."""
    entries, slots = unit.entries, unit.slots
    chunk = slots.stop - slots.start
    whole = entries[0].embeds.new_zeros(chunk, entries[0].embeds.shape[1])  # so that padding reaches a full chunk
    embeds = pad_sequence([*(e.embeds[slots] for e in entries), whole], batch_first=True)[:-1]
    lengths = torch.tensor([[e.length] for e in entries], device=embeds.device)
    positions = torch.arange(slots.start, slots.stop, device=embeds.device)[None]
    rows = [e.row for e in entries]
    adjacent = rows == list(range(rows[0], rows[0] + len(rows)))
    over = [i for i, e in enumerate(entries) if slots.start < e.length <= slots.stop]
    ends = torch.tensor([i * chunk + entries[i].length - 1 - slots.start for i in over], dtype=torch.long)
    once = _once(unit.tokens, chunk, kv.keys.device)

    def turn(layer: int) -> None:
        turns.reached(number, layer + 1)
        turns.wait(number, layer + 1)

    # A view where that is possible; else a copy, made when all before is done, of which the new slots go back.
    if not adjacent:
        turns.wait(number, turns.layers)
    own = kv.narrow(rows[0], rows[-1] + 1) if adjacent else kv.take(rows, slots.stop)
    states = hidden(
        embeds, own, lengths, positions, span=slots.stop, slots=slots, wanted=ends.to(last.device),
        once=None if len(once[0]) == len(once[1]) else once,  # where all are different, nothing has to be gathered
        turn=turn if adjacent else None,
    )  # fmt: skip
    last[[rows[i] for i in over]] = states
    if not adjacent:
        kv.keys[:, rows, :, slots], kv.values[:, rows, :, slots] = own.keys[..., slots, :], own.values[..., slots, :]
        turns.reached(number, turns.layers)
    return len(once[0])
