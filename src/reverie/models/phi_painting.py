"""Image blocks through a Phi without gradient, as fast as the rules of models/rows.py allow.

The same numbers as `Phi.paint` up to rounding, with less work:

- Below the first attention a token knows nothing but itself, so the first layer's projections and MLP run once for each
  different token of a batch: most slots hold the mask.
- Only tokens whose hidden states somebody asks for pass the last layer's MLP and what follows its attention.
- Attention and MLP stand side by side in Phi, so queries, keys and values are one product, on weights laid out
  beforehand where that is possible; keys and values go straight behind those of the text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.attention import additive, fused
from reverie.models.llama import rotary_tables
from reverie.models.phi import Layer, Phi, TextStates
from reverie.models.rows import Blocks, Cutting, Packed, in_blocks, packed


class Halves:
    """A layer, cut around its attention into products over rows; the layer norm stands before the first two."""

    cut: Callable[[int], Blocks] = staticmethod(Blocks.fixed)
    """How products that usually have so many rows are cut."""

    def __init__(self, layer: Layer):
        self.layer = layer

    def qkv(self, normed: Tensor) -> Tensor:
        """(M, D) to queries, keys and values side by side."""
        attention = self.layer.self_attn
        return torch.cat([product(normed) for product in (attention.q_proj, attention.k_proj, attention.v_proj)], -1)

    def mlp(self, flat: Tensor, normed: Tensor) -> Tensor:
        """What comes in, and what the MLP makes of it."""
        return flat + self.layer.mlp(normed)

    def after(self, base: Tensor, attended: Tensor) -> Tensor:
        return base + self.layer.self_attn.dense(attended)

    def rest(self, flat: Tensor, normed: Tensor, attended: Tensor) -> Tensor:
        """All that stands beside and behind attention."""
        return self.after(self.mlp(flat, normed), attended)


class PackedHalves(Halves):
    """The same in four products, on weights packed for the CPU, sums taken along."""

    def __init__(self, layer: Layer, rows: int):
        super().__init__(layer)
        attention, mlp = layer.self_attn, layer.mlp
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        self.joined = Packed([part.weight for part in parts], rows, torch.cat([part.bias.detach() for part in parts]))
        self.fc1, self.fc2 = (Packed([part.weight], rows, part.bias) for part in (mlp.fc1, mlp.fc2))
        self.dense = Packed([attention.dense.weight], rows, attention.dense.bias)

    def qkv(self, normed: Tensor) -> Tensor:
        return self.joined(normed)

    def mlp(self, flat: Tensor, normed: Tensor) -> Tensor:
        return self.fc2.added(flat, self.fc1(normed, "gelu_tanh"))

    def after(self, base: Tensor, attended: Tensor) -> Tensor:
        return self.dense.added(base, attended)


def halves(phi: Phi, rows: int) -> list[Halves]:
    layers = cast(nn.ModuleList, phi.model.layers)
    return packed(layers, rows, _packed) or [Halves(cast(Layer, layer)) for layer in layers]


def _packed(layers: nn.ModuleList, rows: int) -> list[PackedHalves]:
    found = [PackedHalves(cast(Layer, layer), rows) for layer in layers]
    first, like = found[0], found[0].layer.self_attn.dense.weight

    def everything(x: Tensor, attended: Tensor) -> Tensor:
        return torch.cat((first.qkv(x), first.rest(x, x, attended)), 1)

    cut = Cutting(everything, like.shape, like)
    for one in found:  # all of one shape
        one.cut = cut
    return found


@torch.no_grad()
def paint(phi: Phi, ids: Tensor, text: TextStates, start: int, rows: int, wanted: Tensor | None = None) -> Tensor:
    """Hidden states after the final norm of image blocks (B, T) of tokens, in which every token sees its text and the
    whole block: (B, T, D); or (M, D) of the M places where `wanted` (B, T) is True."""
    batch, length = ids.shape
    layers, shapes = halves(phi, rows), Shapes(phi, text, start, ids)
    blocks = layers[0].cut(rows)
    seen = F.pad(text.visible(), (0, length), value=True)[:, None, None, :]
    tokens, places = ids.unique(return_inverse=True)
    flat = phi.model.embed_tokens(tokens)
    bias: Tensor | None = None
    for index, layer in enumerate(layers):
        normed = layer.layer.input_layernorm(flat)
        qkv = in_blocks(layer.qkv, blocks, normed)
        if index == 0:
            # Below the first attention equal tokens are equal.
            flat, qkv = (x[places.flatten()] for x in (in_blocks(layer.mlp, blocks, flat, normed), qkv))
        query = shapes.enter(index, layer.layer, qkv.view(batch, length, -1))
        bias = additive(seen, query.dtype) if bias is None else bias
        attended = fused(query, shapes.keys, shapes.values, bias).flatten(0, 1)
        if wanted is not None and index == len(layers) - 1:
            asked = wanted.flatten()
            flat, attended, normed = flat[asked], attended[asked], normed[asked] if index else normed
        if index:
            flat = in_blocks(layer.rest, blocks, flat, normed, attended)
        else:
            flat = in_blocks(layer.after, blocks, flat, attended)
    flat = phi.model.final_layernorm(flat)
    return flat if wanted is not None else flat.view(batch, length, -1)


class Shapes:
    """Queries, keys and values of one batch, in memory that all layers share."""

    def __init__(self, phi: Phi, text: TextStates, start: int, ids: Tensor):
        config, like = phi.config, text.keys[0]
        self.phi, self.text = phi, text
        batch, length = ids.shape
        self.sizes = (config.num_attention_heads, config.num_key_value_heads, config.num_key_value_heads)
        self.before = like.shape[2]
        whole = (batch, self.before + length, config.num_key_value_heads, config.head_dim)
        # Heads of a token side by side, as products give them, so that copies are long.
        self.keys, self.values = like.new_empty(whole).transpose(1, 2), like.new_empty(whole).transpose(1, 2)
        positions = torch.arange(start, start + length, device=ids.device)[None]
        self.rotary = rotary_tables(positions, config.turned, config.rope_theta, like.dtype)

    def enter(self, index: int, layer: Layer, qkv: Tensor) -> Tensor:
        """Puts keys and values (B, T, ...) of a layer behind those of its text; returns queries (B, heads, T, size)."""
        config, attention = self.phi.config, layer.self_attn
        query, key, value = qkv.unflatten(-1, (-1, config.head_dim)).split(self.sizes, 2)
        keys, values = self.text.layer(index)
        self.keys[:, :, : self.before], self.values[:, :, : self.before] = keys, values
        self._turn(attention.k_layernorm(key), self.keys[:, :, self.before :].transpose(1, 2))
        self.values[:, :, self.before :] = value.transpose(1, 2)
        query = attention.q_layernorm(query)
        self._turn(query, query)
        return query.transpose(1, 2)

    def _turn(self, x: Tensor, out: Tensor) -> None:
        """(B, T, heads, size): a part of each head turns by position."""
        turned = self.phi.config.turned
        part, (cos, sin) = x[..., :turned], self.rotary
        torch.addcmul(part * cos, part.roll(turned // 2, -1), sin, out=out[..., :turned])  # `llama.rotate`, in place
        if out is not x:
            out[..., turned:] = x[..., turned:]
