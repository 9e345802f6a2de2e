"""Prefilling the prompts of many images: every token goes through the matrix products once, whoever shares it.

Prompts enter in chunks counted from position 0. Chunk by chunk, the tokens of all prompts are packed one behind the
other into the model's blocks of rows, so that short prompts leave no holes; tokens with the same past (the blank twins
of guidance, equal beginnings) stand there once. Attention stays each prompt's own, in chunks of the same shape as if
the prompt were alone: so a token is rounded the same whoever enters beside it (docs/determinism.md). Parts of a chunk
that share nothing go on cores of their own.
"""

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

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
    computed = 0
    for first in range(0, len(entries), TOGETHER):
        group = entries[first : first + TOGETHER]
        identities = list(_identities(group))
        for start in range(min(e.start for e in group), max(len(e.embeds) for e in group), chunk):
            chosen = [i for i, e in enumerate(group) if e.start <= start < len(e.embeds)]
            if not chosen:  # some prompts are over, and the others are known up to a later chunk
                continue
            tokens = [identities[i][start : start + chunk] for i in chosen]
            apart = _strangers(tokens, kv.keys.device)
            parts = [([group[i] for i in chosen[rows]], tokens[rows]) for rows in apart]
            enter = partial(_chunk, kv=kv, slots=slice(start, start + chunk), hidden=hidden, last=last)
            computed += sum(side_by_side(enter, parts))
    return computed


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


def _chunk(
    part: tuple[Sequence[Entry], Sequence[Sequence[int]]],
    kv: KVCache,
    slots: slice,
    hidden: Callable[..., Tensor],
    last: Tensor,
) -> int:
    """Enters the tokens in `slots` of entries, whose identities stand beside them, into the cache, the hidden states of
    prompts that end there into `last`. Returns how many tokens were computed."""
    entries, tokens = part
    chunk = slots.stop - slots.start
    whole = entries[0].embeds.new_zeros(chunk, entries[0].embeds.shape[1])  # so that padding reaches a full chunk
    embeds = pad_sequence([*(e.embeds[slots] for e in entries), whole], batch_first=True)[:-1]
    lengths = torch.tensor([[e.length] for e in entries], device=embeds.device)
    positions = torch.arange(slots.start, slots.stop, device=embeds.device)[None]
    rows = [e.row for e in entries]
    adjacent = rows == list(range(rows[0], rows[0] + len(rows)))
    # A view where that is possible; else a copy, of which the new slots go back.
    own = kv.narrow(rows[0], rows[-1] + 1) if adjacent else kv.take(rows, slots.stop)
    over = [i for i, e in enumerate(entries) if slots.start < e.length <= slots.stop]
    ends = torch.tensor([i * chunk + entries[i].length - 1 - slots.start for i in over], dtype=torch.long)
    once = _once(tokens, chunk, kv.keys.device)
    # Where all are different, nothing has to be gathered.
    shared = None if len(once[0]) == len(once[1]) else once
    states = hidden(
        embeds, own, lengths, positions, span=slots.stop, slots=slots, once=shared, wanted=ends.to(last.device)
    )
    last[[rows[i] for i in over]] = states
    if not adjacent:
        kv.keys[:, rows, :, slots], kv.values[:, rows, :, slots] = own.keys[..., slots, :], own.values[..., slots, :]
    return len(once[0])
