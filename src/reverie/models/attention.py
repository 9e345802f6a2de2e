"""Attention itself, by the kernel that is fastest for what is asked: training, a prompt, a token against a cache."""

import torch
import torch.nn.functional as F
from torch import Tensor

FEW = 8
"""Queries of a row up to which reading keys and values, not products, is what attention costs."""


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """softmax(q k' / sqrt(d) + bias) v: (B, H, T, d), (B, G, S, d) twice, bias (1 or B, 1, T, S) -> (B, T, H * d).

    bias None means causal. Plain matrix products on the CPU: in bf16 with backward they take 0.6 of the time of the
    fused kernel (32 rows, 4 heads, 200 tokens, head size 64). With one query against a cache they take three times it.
    """
    if bias is None or query.device.type != "cpu":
        return fused(query, key, value, bias)
    batch, heads, length, size = query.shape
    groups = key.shape[1]
    # The query heads that share a key head are stacked along time: no key is ever copied.
    query = query.reshape(batch, groups, heads // groups * length, size) * size**-0.5
    scores = (query @ key.transpose(-1, -2)).view(batch, groups, heads // groups, length, -1)
    weights = (scores + bias[:, :, None]).softmax(-1, dtype=query.dtype)
    out = weights.view(batch, groups, heads // groups * length, -1) @ value
    return out.view(batch, heads, length, size).transpose(1, 2).reshape(batch, length, heads * size)


def fused(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
    """The same by torch's own kernel; where that kernel is slow, by what stands in for it."""
    if bias is not None and query.shape[2] <= FEW and slow_kernel(query):
        return widened(query, key, value, bias).transpose(1, 2).flatten(2)
    shared = query.shape[1] != key.shape[1]
    out = F.scaled_dot_product_attention(query, key, value, attn_mask=bias, is_causal=bias is None, enable_gqa=shared)
    return out.transpose(1, 2).flatten(2)


def each_alone(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """`fused`, to the last bit as if each query of a row had come without the others. The queries of a key head stand
    side by side as heads: so its keys come from memory once, and from the core's cache after that. `seen` is what
    `bias_alone` makes of the bias, once for all layers."""
    batch, heads, length, size = query.shape
    wide = slow_kernel(query)
    apart = query.reshape(*seen.shape[:2], 1, size)
    key, value = (part.flatten(0, 1)[:, None] for part in (key, value))
    if wide:
        apart, key, value, seen = (part.float() for part in (apart, key, value, seen))
    key, value = (part.expand(-1, apart.shape[1], -1, -1) for part in (key, value))
    out = F.scaled_dot_product_attention(apart, key, value, attn_mask=seen).to(query.dtype)
    return out.view(batch, heads, length, size).transpose(1, 2).flatten(2)


def bias_alone(bias: Tensor, heads: int, groups: int) -> Tensor:
    """A bias (B, 1, T, S) for `each_alone`: (B * groups, heads / groups * T, 1, S)."""
    batch, _, length, span = bias.shape
    seen = bias[:, :, None].expand(-1, groups, heads // groups, -1, -1)
    return seen.reshape(batch * groups, heads // groups * length, 1, span)


def slow_kernel(query: Tensor) -> bool:
    """Whether torch's bfloat16 kernel multiplies number by number: on CPUs without tiles (AMX), three to five times
    slower for single queries than the float32 one (an AMD EPYC, 2 to 32 rows, 500 to 1,200 keys)."""
    if query.dtype != torch.bfloat16 or query.device.type != "cpu" or torch.is_grad_enabled():
        return False
    return not torch.cpu._is_amx_tile_supported()


def widened(query: Tensor, key: Tensor, value: Tensor, bias: Tensor) -> Tensor:
    """bfloat16 attention computed in float32, two rows at a time, whose keys and values then stay in the core's cache:
    as fast as if all had been stored in float32, in half the memory. (B, H, T, d) as the queries."""
    rows = (query.float(), key, value, bias.float().expand(len(query), -1, -1, -1))
    pairs = zip(*(part.split(2) for part in rows), strict=True) if len(query) > 2 else [rows]
    shared = query.shape[1] != key.shape[1]
    out = [
        F.scaled_dot_product_attention(q, k.float(), v.float(), attn_mask=seen, enable_gqa=shared)
        for q, k, v, seen in pairs
    ]
    return (torch.cat(out) if len(out) > 1 else out[0]).to(query.dtype)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where True, the most negative finite number where False (-inf would turn fully masked rows into NaN)."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, torch.finfo(dtype).min)
