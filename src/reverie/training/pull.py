"""Pulling aligned vectors towards what the T5's own encoder writes: an addition to ThinkDiff's training.

The paper trains the aligner by the decoder alone. A small decoder reads much that no encoder writes, and a diffusion
model takes that for noise (docs/results.md measures it). But the words that an answer's features stand for are known,
and the frozen encoder can read them; nothing of the diffusion model is needed. So beside the decoder's loss, each
vector is drawn towards the encoder's vector of the same word: as the encoder writes it with the words so far in view,
since a feature of a language model knows what was said and not what will be.

A picture's tokens have no words of their own. They are drawn towards the caption's vectors as a set: each to the
nearest of them, and each of these to the nearest token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from .align import Words


def same_words(ids: Sequence[int], answers: PreTrainedTokenizerBase, words: Words) -> tuple[list[int], Tensor]:
    """(T5 ids (m) of an answer's text, (n, m) shares): of which T5 tokens each of the answer's n tokens is made, by the
    letters they have in common; rows sum to 1, or to 0 where a token has no letters. The end tokens belong together."""
    ends = [len(answers.decode(list(ids[:count]), skip_special_tokens=True)) for count in range(1, len(ids) + 1)]
    text = answers.decode(list(ids), skip_special_tokens=True)
    told: Any = words.tokenizer(text, return_offsets_mapping=True, truncation=True, max_length=words.longest)
    shares = torch.zeros(len(ids), len(told["input_ids"]))
    begin = 0
    for row, end in enumerate(ends):
        for column, (left, right) in enumerate(told["offset_mapping"]):
            shares[row, column] = max(0, min(end, right) - max(begin, left))
        begin = end
    if ends[-1] == (ends[-2] if len(ends) > 1 else 0):
        shares[-1, -1] = 1
    return told["input_ids"], shares / shares.sum(1, keepdim=True).clamp(min=1)


def encode_so_far(t5: Any, ids: Tensor, mask: Tensor) -> Tensor:
    """(B, S) ids and 0/1 mask to the encoder's output (B, S, D), each vector written with only the words up to it."""
    return encode_seen(t5, ids, mask[:, None].bool() & so_far(ids.shape[1], ids.device))


def so_far(length: int, device: torch.device) -> Tensor:
    """(1, L, L), True where the second place is not behind the first."""
    return torch.ones(1, length, length, dtype=torch.bool, device=device).tril()


@torch.no_grad()
def encode_seen(t5: Any, ids: Tensor, seen: Tensor) -> Tensor:
    """(B, S) ids and (B, S, S), True where a vector may see another, to the encoder's output (B, S, D)."""
    hidden = torch.zeros(seen.shape, dtype=t5.dtype, device=ids.device).masked_fill(~seen, torch.finfo(t5.dtype).min)
    return t5.encoder(input_ids=ids, attention_mask=hidden[:, None]).last_hidden_state


def pull_of_words(memory: Tensor, shares: Tensor, states: Tensor) -> Tensor:
    """Mean squared distance, relative to the states' size, of vectors (B, L, D) to the states (B, S, D) of the words
    that they stand for, by shares (B, L, S). Vectors that stand for none are left alone."""
    wanted, real = shares @ states, shares.sum(-1) > 0
    apart = (memory - wanted).square().mean(-1)
    return apart[real].mean() / states.square().mean(-1)[shares.sum(1) > 0].mean()


def pull_of_sets(memory: Tensor, states: Tensor, mask: Tensor) -> Tensor:
    """The same where nothing says which belongs to which: from each vector (B, L, D) to the nearest state (B, S, D)
    with 0/1 mask (B, S), and from each such state to the nearest vector."""
    size = states.square().mean(-1)[mask.bool()].mean()
    apart = (memory[:, :, None] - states[:, None]).square().mean(-1)
    there = apart.masked_fill(mask[:, None] == 0, torch.inf).amin(2).mean()
    back = apart.amin(1)[mask.bool()].mean()
    return (there + back) / (2 * size)
