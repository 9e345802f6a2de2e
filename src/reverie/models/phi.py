"""The Phi decoder of Show-o: one LayerNorm feeds attention and MLP side by side, half of each head turns by position,
queries and keys are normalised per head (whatever the published Phi configuration says about that).

Papers: Phi-1.5 (arXiv 2309.05463), Show-o (arXiv 2408.12528), section 3.3 for the omni-attention: text is read
causally, an image block all at once. Parameter names are those of the transformers library.

Because text never looks at the image, its keys and values are the same at every painting step, and for every image of
the same prompt: `read` makes them once, `paint` runs image blocks against them. So it is with a finished image that a
new one is painted after: it never looks at the new one, and `look` puts it behind the text. `whole` takes any sequence
and any mask. All four are one loop, differentiable, and follow models/rows.py where `rows` is given.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.attention import additive, attend, fused
from reverie.models.llama import rotary_tables, rotate
from reverie.models.rows import fixed_rows, pad_rows


@dataclass(frozen=True)
class PhiConfig:
    hidden_size: int = 2048
    intermediate_size: int = 8192
    num_hidden_layers: int = 24
    num_attention_heads: int = 32
    num_key_value_heads: int = 32
    partial_rotary_factor: float = 0.5
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        return self.hidden_size // self.num_attention_heads

    @property
    def turned(self) -> int:
        """How many numbers of each head turn by position."""
        return int(self.head_dim * self.partial_rotary_factor)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "PhiConfig":
        """From a Phi config.json; what it leaves out is as in Phi-1.5."""
        if data.get("hidden_act", "gelu_new") not in ("gelu_new", "gelu_pytorch_tanh"):
            raise ValueError(f"config.json of Phi asks for {data['hidden_act']!r}; Show-o models use 'gelu_new'.")
        rope = data.get("rope_parameters") or data.get("rope_scaling") or {}
        if rope.get("rope_type", rope.get("type", "default")) != "default":
            raise ValueError("config.json of Phi asks for scaled rotary positions, which Show-o never uses.")
        values = {name: data[name] for name in cls.__dataclass_fields__ if data.get(name) is not None}
        values = {name: rope[name] for name in ("rope_theta", "partial_rotary_factor") if name in rope} | values
        heads = values.get("num_attention_heads", cls.num_attention_heads)
        config = cls(**{"num_key_value_heads": heads} | values)
        if config.hidden_size % heads or heads % config.num_key_value_heads or config.turned % 2:
            raise ValueError(
                f"config.json of Phi gives {heads} heads ({config.num_key_value_heads} for keys) and a width of "
                f"{config.hidden_size}, which do not divide evenly; correct it."
            )
        return config

    def to_dict(self) -> dict[str, Any]:
        return {"model_type": "phi", "hidden_act": "gelu_new", "qk_layernorm": True, **vars(self)}


@dataclass
class TextStates:
    """Keys and values of text, and of images that stand behind it: for each layer (P, kv heads, S, head size). The rows
    of a batch point into the P."""

    keys: Sequence[Tensor]
    values: Sequence[Tensor]
    seen: Tensor
    """(P, S) True where a token stands; elsewhere nobody looks."""
    rows: Tensor | None = None
    """(B,) the text of each row of the batch; None where they are 0..P-1."""

    def layer(self, index: int) -> tuple[Tensor, Tensor]:
        keys, values = self.keys[index], self.values[index]
        return (keys, values) if self.rows is None else (keys[self.rows], values[self.rows])

    def visible(self) -> Tensor:
        """(B, S)"""
        return self.seen if self.rows is None else self.seen[self.rows]


class Attention(nn.Module):
    def __init__(self, config: PhiConfig):
        super().__init__()
        width, keys = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.q_proj, self.dense = nn.Linear(width, width), nn.Linear(width, width)
        self.k_proj, self.v_proj = nn.Linear(width, keys), nn.Linear(width, keys)
        self.q_layernorm = nn.LayerNorm(config.head_dim, config.layer_norm_eps)
        self.k_layernorm = nn.LayerNorm(config.head_dim, config.layer_norm_eps)


class MLP(nn.Module):
    def __init__(self, config: PhiConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Layer(nn.Module):
    """One block, cut where rows meet: `before` and `after` treat every token alone, attention stands between them."""

    parts = ("before", "after")
    """What is called of it, in place of the whole."""

    def __init__(self, config: PhiConfig):
        super().__init__()
        self.self_attn, self.mlp = Attention(config), MLP(config)
        self.input_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)

    def before(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(M, D) to queries, keys and values (M, heads, head size), not yet turned."""
        x, attention = self.input_layernorm(x), self.self_attn
        size = attention.q_layernorm.normalized_shape[0]
        query, key, value = (
            layer(x).unflatten(-1, (-1, size)) for layer in (attention.q_proj, attention.k_proj, attention.v_proj)
        )
        # Autocast widens norms; the three must agree for attention.
        return attention.q_layernorm(query).to(value.dtype), attention.k_layernorm(key).to(value.dtype), value

    def after(self, x: Tensor, attended: Tensor) -> Tensor:
        return self.self_attn.dense(attended) + self.mlp(self.input_layernorm(x)) + x


class Body(nn.Module):
    def __init__(self, config: PhiConfig, vocabulary: int):
        super().__init__()
        self.embed_tokens = nn.Embedding(vocabulary, config.hidden_size)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.final_layernorm = nn.LayerNorm(config.hidden_size, config.layer_norm_eps)


class Phi(nn.Module):
    """x is always (B, T, D) embeddings; its first token stands at position `start`."""

    def __init__(self, config: PhiConfig, vocabulary: int):
        super().__init__()
        self.config = config
        self.model = Body(config, vocabulary)
        self.lm_head = nn.Linear(config.hidden_size, vocabulary)

    def whole(self, x: Tensor, seen: Tensor, rows: int | None = None, positions: Tensor | None = None) -> Tensor:
        """Hidden states after the final norm; `seen` (1 or B, T, T) is True where a row may look. positions: (T,) of
        the tokens, if they do not stand one after another."""
        return self._norm(self._run(x, 0, seen[:, None], rows, positions=positions), rows)

    def read(self, x: Tensor, seen: Tensor | None = None, start: int = 0, rows: int | None = None) -> TextStates:
        """Keys and values of text, each token behind all before it; `seen` (B, T) is False at padding."""
        batch, length, _ = x.shape
        seen = torch.ones(batch, length, dtype=torch.bool, device=x.device) if seen is None else seen
        causal = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
        kept: list[tuple[Tensor, Tensor]] = []
        self._run(x, start, causal & seen[:, None, None, :], rows, kept=kept)
        keys, values = zip(*kept, strict=True)
        return TextStates(keys, values, seen)

    def look(self, x: Tensor, text: TextStates, start: int, rows: int | None = None) -> TextStates:
        """The states of texts with a block behind each, in which every token sees the text and the whole block."""
        seen = F.pad(text.visible(), (0, x.shape[1]), value=True)
        kept: list[tuple[Tensor, Tensor]] = []
        self._run(x, start, seen[:, None, None, :], rows, text=text, kept=kept)
        both = [
            [torch.cat(pair, 2) for pair in zip(text.layer(index), layer, strict=True)]
            for index, layer in enumerate(kept)
        ]
        keys, values = zip(*both, strict=True)
        return TextStates(keys, values, seen)

    def paint(self, x: Tensor, text: TextStates, start: int, rows: int | None = None) -> Tensor:
        """Hidden states after the final norm, of blocks in which every token sees its text and the whole block."""
        visible = F.pad(text.visible(), (0, x.shape[1]), value=True)
        return self._norm(self._run(x, start, visible[:, None, None, :], rows, text=text), rows)

    def _run(
        self,
        x: Tensor,
        start: int,
        seen: Tensor,
        rows: int | None,
        text: TextStates | None = None,
        kept: list[tuple[Tensor, Tensor]] | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """All layers, before the final norm. `seen` is (1 or B, 1, T or 1, all keys). Where `kept` is given, it takes
        the keys and values of every layer, and the rest of the last layer is left out."""
        if torch.is_autocast_enabled(x.device.type):
            # A residual stream in float32 would be twice as wide as the matrix products.
            x = x.to(torch.get_autocast_dtype(x.device.type))
        batch, length, width = x.shape
        positions = (torch.arange(start, start + length, device=x.device) if positions is None else positions)[None]
        # Attention of the training path is that of models/llama.py: faster on CPUs with a gradient.
        attention = attend if rows is None else fused
        rotary, bias = None, None
        flat, layers = x.reshape(-1, width), list(cast(Iterable[Layer], self.model.layers))
        for index, layer in enumerate(layers):
            parts = each_row(layer.before, rows, flat)
            query, key, value = (part.unflatten(0, (batch, length)) for part in parts)
            if rotary is None or bias is None:
                rotary = rotary_tables(positions, self.config.turned, self.config.rope_theta, value.dtype)
                bias = additive(seen, value.dtype)
            query, key, value = (p.transpose(1, 2) for p in (self._turn(query, rotary), self._turn(key, rotary), value))
            if kept is not None:
                kept.append((key, value))
                if layer is layers[-1]:
                    break
            if text is not None:
                before = text.layer(index)
                key, value = torch.cat((before[0], key), 2), torch.cat((before[1], value), 2)
            attended = attention(query, key, value, bias)
            flat = each_row(layer.after, rows, flat, attended.reshape(-1, width))
        return flat.view(batch, length, width)

    def _turn(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        turned, still = x.split((self.config.turned, x.shape[-1] - self.config.turned), -1)
        return torch.cat((rotate(turned, rotary), still), -1)

    def _norm(self, x: Tensor, rows: int | None) -> Tensor:
        return each_row(self.model.final_layernorm, rows, x.flatten(0, 1)).view(x.shape)


def each_row(function: Callable, rows: int | None, *inputs: Tensor) -> Any:
    """`function` over (M, ...) rows; in blocks of exactly `rows`, the last one filled up, where that is a number."""
    if rows is None:
        return function(*inputs)
    count = inputs[0].shape[0]
    out = fixed_rows(function, rows, *(pad_rows(x, rows) for x in inputs))
    return out[:count] if isinstance(out, Tensor) else tuple(part[:count] for part in out)
