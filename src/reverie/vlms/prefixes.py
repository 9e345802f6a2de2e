"""Reading conversations with a chat model of transformers: many at once, and what two have in common only once.

Two questions about one picture begin alike: template, picture, often words. What is kept of the first is its keys and
values, a row of each layer; the second goes on behind the longest common beginning, if that holds all its pictures.
Models whose layers keep less than everything (sliding windows, state spaces) keep nothing, and read anew.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from reverie.vlms import Messages, Reading

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.vlms.transformers import TransformersVLM


@dataclass(frozen=True)
class Memory:
    """What was read of one conversation."""

    ids: list[int]
    pictures: tuple[Image, ...]
    layers: list[tuple[Tensor, Tensor]]
    """Keys and values of each layer, (heads, length, size)."""
    shift: int
    """How far the position of a token behind the pictures is from its place: rotary positions of pictures are few."""

    @property
    def nbytes(self) -> int:
        return sum(keys.nbytes + values.nbytes for keys, values in self.layers)


@dataclass(frozen=True)
class Asked:
    """A conversation that is to be read."""

    ids: list[int]
    pictures: tuple[Image, ...]
    memory: Memory | None
    known: int
    """Tokens of it that the memory holds."""


def read(vlm: TransformersVLM, conversations: Sequence[Messages], before: Sequence[Reading | None], remember: bool):
    """See `Reader.read`."""
    memories: list[Memory | None] = [one.memory if one else None for one in before] or [None] * len(conversations)
    found: dict[int, Reading] = {}
    asked = {i: _asked(vlm, conversations[i], memory) for i, memory in enumerate(memories) if memory is not None}
    again = [i for i in asked if asked[i].known]
    fresh = [i for i in range(len(conversations)) if i not in again]
    for start in range(0, len(again), vlm.batch):
        rows = again[start : start + vlm.batch]
        found |= zip(rows, _behind(vlm, [asked[i] for i in rows]), strict=True)
    for start in range(0, len(fresh), vlm.batch):
        rows = fresh[start : start + vlm.batch]
        found |= zip(rows, _anew(vlm, [conversations[i] for i in rows], remember), strict=True)
    return [found[i] for i in range(len(conversations))]


def _pictures(messages: Messages) -> tuple[Image, ...]:
    return tuple(picture for message in messages for picture in message.images)


def _asked(vlm: TransformersVLM, messages: Messages, memory: Memory) -> Asked:
    pictures = _pictures(messages)
    ids = vlm.processed([messages])["input_ids"][0].tolist()
    known = 0
    if len(pictures) == len(memory.pictures) and all(a is b for a, b in zip(pictures, memory.pictures, strict=True)):
        alike = (i for i, (a, b) in enumerate(zip(ids, memory.ids, strict=False)) if a != b)
        known = min(next(alike, min(len(ids), len(memory.ids))), len(ids) - 1)
        if vlm.picture_token in ids[known:] or vlm.picture_token is None:
            known = 0
    return Asked(ids, pictures, memory, known)


def _few(model: Any) -> dict[str, int]:
    """Only the last position's logits, where the model can be asked for so little."""
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}


def _anew(vlm: TransformersVLM, conversations: Sequence[Messages], remember: bool) -> list[Reading]:
    inputs = vlm.inputs(conversations)
    out = vlm.model(**inputs, use_cache=remember, **_few(vlm.model))
    logits, mask = out.logits[:, -1].float().cpu(), inputs["attention_mask"].bool()
    layers = _whole_layers(out.past_key_values, mask.shape[1]) if remember else None
    if layers is None:
        return [Reading(row) for row in logits]
    deltas = getattr(vlm.model.base_model, "rope_deltas", None)
    shifts = [0] * len(logits) if deltas is None else deltas.flatten().tolist()
    found = []
    for row, messages in enumerate(conversations):
        if not _pictures(messages):  # nothing in it is dear, and what models keep of positions is about pictures
            found.append(Reading(logits[row]))
            continue
        here = mask[row]
        kept = [(keys[row][:, here], values[row][:, here]) for keys, values in layers]
        ids = inputs["input_ids"][row][here].tolist()
        found.append(Reading(logits[row], Memory(ids, _pictures(messages), kept, int(shifts[row]))))
    return found


def _whole_layers(cache: Any, length: int) -> list[tuple[Tensor, Tensor]] | None:
    """Keys and values of all layers (B, heads, T, size), or None where a layer does not keep every token."""
    layers = getattr(cache, "layers", None) or []
    kept = [(getattr(layer, "keys", None), getattr(layer, "values", None)) for layer in layers]
    whole = [pair for pair in kept if pair[0] is not None and pair[1] is not None and pair[0].shape[2] == length]
    return whole if kept and len(whole) == len(kept) else None  # type: ignore[return-value]


def _behind(vlm: TransformersVLM, asked: Sequence[Asked]) -> list[Reading]:
    """Reads what follows the known beginnings; rows are padded on the left, in the cache and in what is new."""
    from transformers import DynamicCache

    device = vlm.model.device
    past = torch.tensor([one.known for one in asked], device=device)
    new = [one.ids[one.known :] for one in asked]
    count = torch.tensor([len(ids) for ids in new], device=device)
    behind, ahead = int(past.max()), int(count.max())
    cache = DynamicCache(config=vlm.model.config.get_text_config(decoder=True))
    for layer in range(len(asked[0].memory.layers)):  # type: ignore[union-attr]
        keys, values = (
            torch.stack([
                F.pad(one.memory.layers[layer][side][:, : one.known], (0, 0, behind - one.known, 0))  # type: ignore[union-attr]
                for one in asked
            ])
            for side in (0, 1)
        )  # fmt: skip
        cache.update(keys, values, layer)
    ids = torch.tensor([[0] * (ahead - len(row)) + row for row in new], device=device)
    mask = torch.cat((_ones_at_the_end(past, behind), _ones_at_the_end(count, ahead)), 1)
    shifts = torch.tensor([one.memory.shift for one in asked], device=device)  # type: ignore[union-attr]
    places = past[:, None] + torch.arange(ahead, device=device) - (ahead - count)[:, None]
    positions = (places + shifts[:, None]).clamp(min=0)
    vlm.work.prefilled += int(count.sum())
    out = vlm.model(
        input_ids=ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True,
        **_few(vlm.model),
    )  # fmt: skip
    return [Reading(row) for row in out.logits[:, -1].float().cpu()]


def _ones_at_the_end(counts: Tensor, width: int) -> Tensor:
    """(N,) to (N, width): so many ones behind zeros."""
    return (torch.arange(width, device=counts.device) >= width - counts[:, None]).long()
