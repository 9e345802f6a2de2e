"""The forward pass of Qwen2-VL and Qwen2.5-VL for training on pictures of one size, in whole batches: transformers'
modules, called otherwise.

transformers' tower goes through attention picture by picture, patches enter as a 3-D convolution, and torch's fused
attention takes four times as long as three plain products where sequences and heads are as short as here; a CPU waits
for all three. Here a batch of pictures is one tensor and every step a matrix product. Same weights, same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .quick_norm import _Rms

M = TypeVar("M", bound=nn.Module)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)  # of CLIP


def patches_of(pictures: Tensor, patch: int, merge: int = 2) -> Tensor:
    """(N, 3, S, S) uint8 to (N, patches, 3 * patch * patch), normalised, in the tower's order: the patches that become
    one token are neighbours."""
    n, side = len(pictures), pictures.shape[-1] // (patch * merge)
    mean, std = (torch.tensor(t, device=pictures.device).view(3, 1, 1) for t in (MEAN, STD))
    pixels = (pictures.float() / 255 - mean) / std
    parts = pixels.view(n, 3, side, merge, patch, side, merge, patch)
    return parts.permute(0, 2, 5, 3, 6, 1, 4, 7).reshape(n, (side * merge) ** 2, 3 * patch * patch)


def see(visual: Any, patches: Tensor) -> Tensor:
    """Patches (N, P, 3 * patch * patch) to the tokens (N, P / 4, width) that the language model reads."""
    kernel = visual.patch_embed.proj.weight  # (D, 3, 2, patch, patch): a still picture is two equal frames
    x = F.linear(patches.to(kernel.dtype), kernel.sum(2).flatten(1))
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    cos, sin = _turns(visual, patches.shape[1], x)
    for block in visual.blocks:
        x = x + _attend(block.attn, block.norm1(x), cos, sin)
        x = x + block.mlp(block.norm2(x))
    merger = visual.merger
    return merger.mlp(merger.ln_q(x).reshape(len(x), -1, merger.hidden_size))


def _attend(attention: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    n, p, _ = x.shape
    q, k, v = attention.qkv(x).view(n, p, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)  # each (N, H, P, head)
    return attention.proj(_mix(_turned(q, cos, sin), _turned(k, cos, sin), v))


def _mix(q: Tensor, k: Tensor, v: Tensor, causal: bool = False) -> Tensor:
    """Attention of (B, H, T, head) as three products, on a GPU as its fused kernel: (B, T, H * head). Of more keys than
    queries the last are those of the queries, and all before are seen by every one."""
    if q.is_cuda and (not causal or q.shape[2] == k.shape[2]):
        return F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        rows, columns = scores.shape[-2:]
        scores = scores + scores.new_full((rows, columns), -torch.inf).triu(1 + columns - rows)
    return (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)


def _turned(t: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    return t * cos + _half_turned(t) * sin


def _half_turned(t: Tensor) -> Tensor:
    first, second = t.chunk(2, -1)
    return torch.cat((-second, first), -1)


def _turns(visual: Any, patches: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (P, head) of each patch's place: row and column turn a quarter of the head each, twice."""
    side, merge = int(patches**0.5), visual.spatial_merge_size
    numbers = torch.arange(side, device=x.device, dtype=torch.float32)
    grid = torch.stack(torch.meshgrid(numbers, numbers, indexing="ij"), -1)  # (rows, columns, 2)
    parts = grid.view(side // merge, merge, side // merge, merge, 2)
    places = parts.transpose(1, 2).reshape(patches, 2)
    quarter = visual.blocks[0].attn.qkv.in_features // visual.blocks[0].attn.num_heads // 4
    rates = 10000.0 ** (-torch.arange(quarter, device=x.device, dtype=torch.float32) / quarter)
    angles = (places[:, :, None] * rates).flatten(1).repeat(1, 2)
    return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def _text_turns(network: Any, places: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
    """cos and sin (B, 1, T, head) of places (3, B, T): of a head's rotations, some turn by time, row or column."""
    sections = network.config.rope_parameters["mrope_section"]
    angles = places[..., None].float() * network.rotary_emb.inv_freq.float().to(x.device)  # (3, B, T, head / 2)
    chosen = torch.cat([part[axis] for axis, part in enumerate(angles.split(sections, -1))], -1)
    chosen = torch.cat([chosen, chosen], -1)[:, None]
    return chosen.cos().to(x.dtype), chosen.sin().to(x.dtype)


@lru_cache(maxsize=64)
def _picture_places(side: int) -> tuple[tuple[int, int, int], ...]:
    return tuple((0, row, column) for row in range(side) for column in range(side))


def places_of(ids: Sequence[int], picture: int, side: int) -> list[tuple[int, int, int]]:
    """(time, row, column) of each token for Qwen2-VL's rotations; a run of side * side `picture` tokens is a grid."""
    places: list[tuple[int, int, int]] = []
    now = index = 0
    while index < len(ids):
        if ids[index] != picture:
            places.append((now, now, now))
            index, now = index + 1, now + 1
            continue
        places += [(now + t, now + row, now + column) for t, row, column in _picture_places(side)]
        index, now = index + side * side, now + side
    return places


Held = list[tuple[Tensor, Tensor]]
"""Keys and values (B, H, T, head) of each layer."""


def read(
    model: Any,
    embeds: Tensor,
    places: Tensor,
    before: Held | None = None,
    kept: Held | None = None,
    queries: list[Tensor] | None = None,
) -> Tensor:
    """Embeddings (B, T, D) at places (3, B, T) to the states behind the final norm. Padding stands on the right, where
    a causal model never looks. As many heads for keys as for queries. before: what rows go on from, B or fewer; row i
    of them is the beginning of as many rows in a row as B is larger. kept: takes the keys and values of all that is
    read, `before` not among them. queries: takes each layer's, as they meet the keys (B, H, T, head)."""
    network, x = model.model.language_model, embeds
    cos, sin = _text_turns(network, places, x)
    for number, layer in enumerate(network.layers):
        attention, h = layer.self_attn, layer.input_layernorm(x)
        q, k, v = (
            project(h).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
            for project in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        k = _turned(k, cos, sin)
        if kept is not None:
            kept.append((k, v))
        if before is not None:
            k, v = (torch.cat((_each(old, len(k)), new), 2) for old, new in zip(before[number], (k, v), strict=True))
        q = _turned(q, cos, sin)
        if queries is not None:
            queries.append(q)
        x = x + attention.o_proj(_mix(q, k, v, causal=True))
        x = x + layer.mlp(layer.post_attention_layernorm(x))
    return network.norm(x)


def _each(held: Tensor, rows: int) -> Tensor:
    return held if len(held) == rows else held.repeat_interleave(rows // len(held), 0)


def quicken_qwen(model: M) -> M:
    """Its RMS norms become the fast ones of `quick_norm.py`, in place; weights and names stay."""
    from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLRMSNorm
    from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLRMSNorm

    def quick(kind: Any) -> Any:
        class QuickNorm(kind):
            def forward(self, hidden_states: Tensor) -> Tensor:
                return _Rms.apply(hidden_states, self.weight.to(hidden_states.dtype), self.variance_epsilon)

        return QuickNorm

    kinds: dict[Any, Any] = {kind: quick(kind) for kind in (Qwen2VLRMSNorm, Qwen2_5_VLRMSNorm)}
    for module in model.modules():
        module.__class__ = kinds.get(type(module), type(module))
    return model
