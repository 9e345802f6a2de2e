"""A Llama decoder small enough to read: RMSNorm, rotary positions, grouped-query attention, SwiGLU (arXiv 2302.13971).

Parameter names are those of the transformers library (`model.layers.0.self_attn.q_proj.weight`, `lm_head.weight`), so
public weights load without renaming. `forward` returns hidden states; the head is a separate call, because most
positions of a unified model need either the text head or the image head, and usually only at one position.

Two paths share every weight and every function:

* without a cache: the whole sequence at once, causal, differentiable (training, scoring);
* with a `KVCache`: new tokens against what is stored. A row's token number p always lives in slot p, so rows of
  different lengths share a batch without padding between them, and nothing a row computes depends on its neighbours:
  matrix products run in blocks of a fixed number of rows (see docs/determinism.md for why).

Left out on purpose: dropout, biases, rope scaling, sliding windows, tied heads.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.attention import additive, attend, bias_alone, each_alone, fused
from reverie.models.rows import Blocks, Cutting, Packed, in_blocks, packed, pad_rows, padded_rows


@dataclass(frozen=True)
class LlamaConfig:
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    max_position_embeddings: int = 2048
    """Only a description: rotary positions go on beyond it."""

    def __post_init__(self):
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_attention_heads {self.num_attention_heads} must be a multiple of num_key_value_heads "
                f"{self.num_key_value_heads}; correct the language section of config.json."
            )


class KVCache:
    """Keys and values of every layer, allocated once: two tensors (layers, B, kv heads, capacity, head size).

    `rows` is the fixed number of rows of every matrix product that fills or reads this cache.
    """

    def __init__(self, keys: Tensor, values: Tensor, rows: int = 32, like: "KVCache | None" = None):
        self.keys, self.values, self.rows = keys, values, rows
        # A part of a cache is read with the weights that filled it; to look them up takes as long as a layer.
        self.layers: PackedLayers | None = like.layers if like else None
        self.looked_up: bool = like is not None and like.looked_up

    @classmethod
    def empty(
        cls, config: LlamaConfig, batch: int, capacity: int, like: Tensor, rows: int = 32, zeros: bool = True
    ) -> "KVCache":
        """Zeros, on the device and in the type of `like` (unwritten slots are masked, but 0 times NaN is still NaN).
        Without `zeros` anything, for who writes all slots that are read, or clears them (`clear`)."""
        shape = (config.num_hidden_layers, batch, config.num_key_value_heads, capacity, config.head_dim)
        make = like.new_zeros if zeros else like.new_empty
        return cls(make(shape), make(shape), rows)

    @property
    def capacity(self) -> int:
        return self.keys.shape[3]

    def clear(self, row: int, first: int) -> None:
        """Zeros in the slots of a row from `first` on."""
        self.keys[:, row, :, first:], self.values[:, row, :, first:] = 0, 0

    def narrow(self, start: int, end: int) -> "KVCache":
        """Rows start..end as a view: what is written there is written here."""
        return KVCache(self.keys[:, start:end], self.values[:, start:end], self.rows, self)

    def take(self, rows: Sequence[int], span: int | None = None) -> "KVCache":
        """A copy of these rows, of their first `span` slots only if it is given."""
        return KVCache(self.keys[:, rows, :, :span], self.values[:, rows, :, :span], self.rows, self)

    def closed_up(self, rows: Sequence[int], span: int) -> tuple["KVCache", list[int]]:
        """Of these rows (ascending) alone, in place: the last of them move to where others stood before, with their
        first `span` slots. Also which row stands where."""
        order = [row for row in rows if row < len(rows)]
        holes, movers = sorted({*range(len(rows))} - {*order}), rows[len(order) :]
        for hole, mover in zip(holes, movers, strict=True):
            self.keys[:, hole, :, :span] = self.keys[:, mover, :, :span]
            self.values[:, hole, :, :span] = self.values[:, mover, :, :span]
        stands = dict(zip(order, order, strict=True)) | dict(zip(holes, movers, strict=True))
        return self.narrow(0, len(rows)), [stands[place] for place in range(len(rows))]

    def places(self, positions: Tensor) -> Tensor:
        """Rows of a layer, read as (B * kv heads * capacity, d), where tokens at (B, T) go: (B * kv heads * T,)."""
        batch, heads = self.keys.shape[1:3]
        firsts = torch.arange(batch * heads, device=positions.device).view(batch, heads, 1) * self.capacity
        return (firsts + positions[:, None]).flatten()

    def layers_of(self, body: "Body") -> "PackedLayers | None":
        """The layers ready for fast products, where that is possible. Looked up once: keys and values are good for the
        weights they were made with and for no others."""
        if torch.is_grad_enabled():
            return None
        if not self.looked_up:
            self.layers = packed(body.layers, self.rows, PackedLayers)
            self.looked_up = True
        return self.layers

    def ready(self, body: "Body", *rows: int) -> "KVCache":
        """The same, its layers looked up, and into which blocks so many rows are cut: that is to be found out before
        several cores are at work."""
        layers = self.layers_of(body)
        if layers is not None:
            for number in (self.rows, *(max(self.rows, more) for more in rows)):
                layers.cut(number)
        return self


class RMSNorm(nn.Module):
    def __init__(self, size: int, eps: float):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.weight.shape, self.weight.to(x.dtype), self.eps)


class Attention(nn.Module):
    """The four projections; the attention itself is `attend`, shared by both paths."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        query, key = config.num_attention_heads * config.head_dim, config.num_key_value_heads * config.head_dim
        self.q_proj = nn.Linear(config.hidden_size, query, bias=False)
        self.k_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.v_proj = nn.Linear(config.hidden_size, key, bias=False)
        self.o_proj = nn.Linear(query, config.hidden_size, bias=False)
        self.size = config.head_dim


class MLP(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


class Layer(nn.Module):
    """One block, cut where rows meet: `before` and `after` treat every token alone, attention stands between them."""

    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.self_attn = Attention(config)
        self.mlp = MLP(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = self.input_layernorm(x)
        return self.self_attn.q_proj(x), self.self_attn.k_proj(x), self.self_attn.v_proj(x)

    def forward(self, x: Tensor, rotary: tuple[Tensor, Tensor], bias: Tensor | None) -> Tensor:
        """(B, T, D) to the same, without a cache; see `attend` for the bias."""
        query, key, value = heads_of(self.before(x), rotary, x.shape[0], self.self_attn.size)
        return self.after(x, attend(query, key, value, bias))

    def joined(self, x: Tensor) -> Tensor:
        """The three results of `before`, side by side."""
        return torch.cat(self.before(x), -1)

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        x = x + self.self_attn.o_proj(attended)
        return x + self.mlp(self.post_attention_layernorm(x))


class PackedNorm:
    """RMSNorm in few operations instead of six: x / hypot(|x|, sqrt(D eps)), and its gain sqrt(D) w, which float32
    weights behind it hold already (`before`); in bfloat16 they would be rounded once more. Between reads of the cache
    every operation starts with cold memory, so their number counts more than their size."""

    def __init__(self, norm: RMSNorm):
        size = norm.weight.numel()
        self.gain = norm.weight.detach().float() * size**0.5
        self.told = norm.weight.dtype == torch.float32
        """Whether the weights behind it hold the gain."""
        self.floor = torch.tensor((size * norm.eps) ** 0.5)

    def before(self, layer: nn.Linear) -> Tensor:
        """The weights of a layer that reads what this returns."""
        return layer.weight.detach() * self.gain if self.told else layer.weight

    def __call__(self, x: Tensor) -> Tensor:
        length = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
        normed = x / torch.hypot(length, self.floor)
        return normed if self.told else normed.mul_(self.gain).to(x.dtype)


class PackedLayer:
    """`joined` and `after` of a layer in five products instead of seven, on weights packed for the CPU."""

    def __init__(self, layer: Layer, rows: int):
        attention, mlp = layer.self_attn, layer.mlp
        self.first_norm, self.second_norm = first, second = (
            PackedNorm(layer.input_layernorm),
            PackedNorm(layer.post_attention_layernorm),
        )
        self.qkv = Packed([first.before(part) for part in (attention.q_proj, attention.k_proj, attention.v_proj)], rows)
        self.gate, self.up = (Packed([second.before(part)], rows) for part in (mlp.gate_proj, mlp.up_proj))
        self.o, self.down = Packed([attention.o_proj.weight], rows), Packed([mlp.down_proj.weight], rows)

    def joined(self, x: Tensor) -> Tensor:
        return self.qkv(self.first_norm(x))

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        x = self.o.added(x, attended)
        normed = self.second_norm(x)
        return self.down.added(x, self.up.times(self.gate(normed, "swish"), normed))


class PackedLayers:
    """All layers of a body, for products of `rows` rows, or of what others there are blocks for."""

    def __init__(self, layers: nn.ModuleList, rows: int):
        self.layers = [PackedLayer(cast(Layer, layer), rows) for layer in layers]
        first, like = self.layers[0], cast(Layer, layers[0]).self_attn.o_proj.weight

        def everything(x: Tensor, attended: Tensor) -> Tensor:
            return torch.cat((first.joined(x), first.after(x, attended)), 1)

        self.cut = Cutting(everything, like.shape, like)
        """How products that usually have so many rows are cut; all layers have one shape."""


class Body(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class Llama(nn.Module):
    def __init__(self, config: LlamaConfig):
        super().__init__()
        self.config = config
        self.model = Body(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)

    def embed(self, ids: Tensor) -> Tensor:
        """(B, T) token ids to (B, T, D)."""
        return self.model.embed_tokens(ids)

    def forward(
        self,
        inputs_embeds: Tensor,
        *,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
        cache: KVCache | None = None,
        span: int | Sequence[int] | None = None,
        slots: slice | None = None,
        once: tuple[Tensor, Tensor] | None = None,
        wanted: Tensor | None = None,
        rotary: tuple[Tensor, Tensor] | None = None,
        alone: bool = False,
        turn: Callable[[int], None] | None = None,
    ) -> Tensor:
        """Hidden states after the final norm, (B, T, D), of `inputs_embeds` (B, T, D).

        positions: (B, T) rotary positions; 0..T-1 if left out. With a cache they are also the slots written, and a
            token attends to every slot up to its own.
        mask: (B, T) True where a key may be seen (padding is False). Only without a cache.
        span: with a cache, an upper bound on positions + 1 that the caller knows, so that later slots are not read; or
            one for each row.
        slots: with a cache, the slots written, if all rows share them and the caller knows; saves a scatter.
        once: with a cache, places (U,) among the B * T tokens, and (B * T,) which of these U each token is. Only the U
            go through the matrix products; attention is everybody's own.
        wanted: with a cache, places (W,) among the B * T tokens. Only their hidden states are asked for, (W, D), so of
            the last layer the others need keys and values alone.
        rotary: cos and sin to turn by, where they are not those of `positions` (see `rotary_tables`).
        alone: with a cache, every token is rounded as if it had come after those before it and not beside them.
        turn: with a cache, called with the number of a layer when its keys and values are written; comes back when
            those of all tokens before are (see generators/prefill.py).
        """
        if positions is None:
            positions = torch.arange(inputs_embeds.shape[1], device=inputs_embeds.device)[None]
        if rotary is None:
            rotary = rotary_tables(positions, self.config.head_dim, self.config.rope_theta, inputs_embeds.dtype)
        if cache is None:
            return self._whole(inputs_embeds, rotary, mask)
        spans = list(span) if isinstance(span, Sequence) else [span or cache.capacity]
        spans = [min(one, cache.capacity) for one in spans]
        return self._cached(inputs_embeds, rotary, positions, cache, spans, slots, once, wanted, alone, turn)

    def _whole(self, x: Tensor, rotary: tuple[Tensor, Tensor], mask: Tensor | None) -> Tensor:
        length = x.shape[1]
        bias = None
        if mask is not None or x.device.type == "cpu":
            seen = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            seen = seen[None, None] if mask is None else seen & mask[:, None, None, :].bool()
            bias = additive(seen, x.dtype)
        for layer in self._layers():
            x = layer(x, rotary, bias)
        return self.model.norm(x)

    def _cached(
        self,
        x: Tensor,
        rotary: tuple[Tensor, Tensor],
        positions: Tensor,
        cache: KVCache,
        spans: Sequence[int],
        slots: slice | None,
        once: tuple[Tensor, Tensor] | None,
        wanted: Tensor | None,
        alone: bool,
        turn: Callable[[int], None] | None,
    ) -> Tensor:
        batch, length, width = x.shape
        chosen, which = once or (None, None)
        fast = cache.layers_of(self.model)
        layers: Iterable[Layer | PackedLayer] = fast.layers if fast else self._layers()
        rows = cache.rows if alone or length == 1 else max(cache.rows, length)  # where many tokens enter at once
        few, many = (fast.cut(number) if fast else Blocks.fixed(number) for number in (cache.rows, rows))

        def gathered(tokens: Tensor) -> Tensor:
            """(B * T, D), or what of it goes through the products, filled up once for all of them."""
            return pad_rows(tokens if chosen is None else tokens[chosen], many.grain)

        def spread(tokens: Tensor) -> Tensor:
            """The way back: (B, T, D)."""
            return (tokens[: batch * length] if which is None else tokens[which]).view(batch, length, -1)

        heads, groups, size = self.config.num_attention_heads, self.config.num_key_value_heads, self.config.head_dim
        flat = gathered(x.reshape(-1, width))
        positions = positions.expand(batch, length)
        span = max(spans)
        bias = additive(torch.arange(span, device=x.device) <= positions[:, None, :, None], x.dtype)
        attention = each_alone if alone else fused
        # Whatever is the same for all layers is made once: of few rows, small operations are a good part of a step.
        parts = [(own, upto, bias[own, ..., :upto]) for own, upto in neighbours(spans)]
        if alone:
            parts = [(own, upto, bias_alone(seen, heads, groups)) for own, upto, seen in parts]
        places = cache.places(positions) if slots is None else None
        for index, layer in enumerate(layers):
            projected = spread(in_blocks(layer.joined, many, flat)).unflatten(-1, (-1, size))
            # Queries and keys turn together, before transposing, while memory is in order.
            turned = rotate(projected[:, :, : heads + groups], rotary)
            query, key = turned.transpose(1, 2).split((heads, groups), 1)
            value = projected[:, :, heads + groups :].transpose(1, 2)
            for store, new in ((cache.keys[index], key), (cache.values[index], value)):
                if places is None:
                    store[:, :, slots] = new
                else:
                    store.view(-1, size).index_copy_(0, places, new.reshape(-1, size))
            if turn is not None:
                turn(index)
            keys, values = cache.keys[index, :, :, :span], cache.values[index, :, :, :span]
            if wanted is not None and index == len(self.model.layers) - 1:
                if not len(wanted):
                    break
                row, flat = wanted // length, flat[wanted if which is None else which[wanted]]
                query, bias = (part.transpose(1, 2).flatten(0, 1)[wanted, :, None] for part in (query, bias))
                beside = fused(query, keys[row], values[row], bias)[:, 0]
                return padded_rows(self.model.norm, cache.rows, in_blocks(layer.after, few, flat, beside))
            if len(parts) == 1:
                beside = attention(query, keys, values, parts[0][2])
            else:
                beside = torch.cat(
                    [attention(query[r], keys[r, :, :n], values[r, :, :n], seen) for r, n, seen in parts]
                )
            flat = in_blocks(layer.after, many, flat, gathered(beside.flatten(0, 1)))
        return spread(padded_rows(self.model.norm, rows, flat)) if wanted is None else x.new_empty(0, width)

    def _layers(self) -> Iterable[Layer]:
        return cast(Iterable[Layer], self.model.layers)


def neighbours(spans: Sequence[int]) -> list[tuple[slice, int]]:
    """Rows that see `spans` slots each as one part or two neighbouring ones, with the most that a row of it sees: two
    where a tenth less is read so, as beside short conversations that were put behind long ones."""
    count, most = len(spans), max(spans)

    def read(cut: int) -> int:
        return cut * max(spans[:cut]) + (count - cut) * max(spans[cut:])

    cut = min(range(1, count), key=read, default=0)
    if not cut or read(cut) > 0.9 * count * most:
        return [(slice(None), most)]
    return [(slice(cut), max(spans[:cut])), (slice(cut, count), max(spans[cut:]))]


def heads_of(
    projected: tuple[Tensor, Tensor, Tensor], rotary: tuple[Tensor, Tensor], batch: int, size: int
) -> tuple[Tensor, Tensor, Tensor]:
    """(..., heads * size) to (B, heads, T, size), rotated by position (values are not)."""
    query, key, value = (p.reshape(batch, -1, p.shape[-1] // size, size) for p in projected)
    query, key = rotate(query, rotary), rotate(key, rotary)  # before transposing, while memory is in order
    return query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2)


def rotary_tables(positions: Tensor, size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and signed sin, (1 or B, T, 1, head size), of the rotate-half convention; computed in float32.

    The sine of the first half is negated here once, so that `rotate` needs no negation.
    """
    frequencies = theta ** (-torch.arange(0, size, 2, device=positions.device, dtype=torch.float32) / size)
    angles = positions[:, :, None, None].float() * frequencies
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)


def rotate(x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
    """Turns pairs (j, j + d/2) of (B, T, H, d) by the angle of their position."""
    cos, sin = rotary
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)
