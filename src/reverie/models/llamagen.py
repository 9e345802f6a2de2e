"""LlamaGen, text-conditional: a Llama over image codes with a caption's features in front (arXiv 2406.06525, 3.2-3.3).

The body is the same Llama as elsewhere (`models/llama.py`); what is LlamaGen's own are the positions and the caption.
A sequence is the caption's n feature vectors (n up to 120), each through a two-layer projection, then the codes of the
picture row by row; the last caption slot tells code 0. Two habits of the authors' code decide the numbers:

* A code turns by its row with one half of its rotary pairs and by its column with the other half. Caption slots have
  tables of zeros, so their queries and keys vanish: every query gives each caption slot the score 0.
* The authors pad captions on the left and mask the padding, which nobody then sees. Here it is simply left out, so a
  short caption costs less; the unconditional twin likewise keeps only its last n vectors.

Loading and saving live in `models/llamagen_checkpoint.py`, the text encoder in `models/llamagen_text.py`.
"""

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from reverie.models.coded_pictures import CodedPictures, vq_config
from reverie.models.llama import KVCache, Llama, LlamaConfig
from reverie.models.rows import padded_rows
from reverie.models.vq16 import VQ16, VQConfig

CAPTION_SLOTS = 120
"""Caption vectors at most; also the rows of the unconditional caption in every checkpoint."""


@dataclass(frozen=True)
class LlamagenConfig:
    language: LlamaConfig
    vq: VQConfig
    caption_dim: int
    """Width of the text encoder's output."""
    grid: int
    """Image codes a side."""
    patch: int = 1
    """Pixel-unshuffle factor in front of the VQ network."""
    cells: bool = False
    """Whether the VQ encoder sees the pixels of each code alone."""
    raw: dict[str, Any] = field(default_factory=dict, repr=False, compare=False)
    """The configuration as it is saved."""

    @property
    def image_length(self) -> int:
        return self.grid**2

    @property
    def own(self) -> dict[str, Any]:
        """What Reverie itself wrote beside: guidance and so on, and whose image tokenizer this is."""
        return self.raw.get("reverie") or {}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "LlamagenConfig":
        """From the contents of our config.json, whose section `gpt` has the authors' names; ValueError if one lacks."""
        try:
            gpt, vq = data["gpt"], data["vq"]
            width, heads, codes = gpt["dim"], gpt["n_head"], vq["image_token_size"]
            language = LlamaConfig(
                vocab_size=codes,
                hidden_size=width,
                intermediate_size=gpt["ffn_dim"],
                num_hidden_layers=gpt["n_layer"],
                num_attention_heads=heads,
                num_key_value_heads=gpt.get("n_kv_head") or heads,
                head_dim=width // heads,
                rms_norm_eps=gpt.get("norm_eps", 1e-5),
                rope_theta=gpt.get("rope_base", 10000.0),
                max_position_embeddings=CAPTION_SLOTS + gpt["block_size"],
            )
            side = round(gpt["block_size"] ** 0.5)
            caption = gpt["caption_dim"]
        except KeyError as error:
            raise ValueError(
                f"config.json lacks the field {error.args[0]!r} of a LlamaGen model; complete it."
            ) from error
        if side**2 != gpt["block_size"] or width % heads or language.head_dim % 4:
            raise ValueError(
                f"config.json asks for {gpt['block_size']} codes and {heads} heads of a width of {width}; the "
                f"codes must fill a square and the width of a head must be a multiple of 4."
            )
        patch, cells = vq.get("patch", 1), bool(vq.get("cells"))
        return cls(language, vq_config(vq), caption, side, patch, cells, copy.deepcopy(data))

    def to_dict(self) -> dict[str, Any]:
        return copy.deepcopy(self.raw)


class CaptionProjection(nn.Module):
    """Text features to the width of the network: two layers without biases, tanh GELU between."""

    def __init__(self, source: int, width: int):
        super().__init__()
        self.fc1 = nn.Linear(source, width, bias=False)
        self.fc2 = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


class Llamagen(CodedPictures):
    """Everything with weights but the text encoder. `language_model`'s vocabulary is the codes."""

    unconditional: Tensor

    def __init__(self, config: LlamagenConfig):
        super().__init__()
        self.config = config
        self.language_model = Llama(config.language)
        self.caption = CaptionProjection(config.caption_dim, config.language.hidden_size)
        self.vqmodel = VQ16(config.vq)
        # A buffer: the authors never train it.
        self.register_buffer("unconditional", torch.randn(CAPTION_SLOTS, config.caption_dim) / config.caption_dim**0.5)

    def initialise(self, std: float = 0.02) -> None:
        """Fresh weights for training from scratch, as the authors: N(0, std) and a head of zeros; beyond them, residual
        outputs smaller with depth (as in GPT-2)."""
        for name, module in nn.ModuleList([self.language_model, self.caption]).named_modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                depth = 2 * self.config.language.num_hidden_layers if name.endswith(("o_proj", "down_proj")) else 1
                nn.init.normal_(module.weight, std=std / depth**0.5)
        nn.init.zeros_(self.language_model.lm_head.weight)

    @property
    def device(self) -> torch.device:
        return self.language_model.lm_head.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.language_model.lm_head.weight.dtype

    def embed_captions(self, states: Tensor) -> Tensor:
        """(..., caption_dim) text features to (..., D)."""
        return self.caption(states)

    def embed_codes(self, codes: Tensor) -> Tensor:
        """(...) image codes to (..., D)."""
        return self.language_model.embed(codes)

    def code_logits(self, hidden: Tensor) -> Tensor:
        """(..., D) to (..., number of codes): what the next image code is."""
        return self.language_model.lm_head(hidden)

    def code_logits_of_rows(self, hidden: Tensor, rows: int) -> Tensor:
        """The same for (N, D), in blocks of exactly `rows` rows."""
        return padded_rows(self.code_logits, rows, hidden)

    def unconditional_states(self, length: int) -> Tensor:
        """(length, caption_dim): the twin of a caption of `length` vectors. Its mask is the caption's own, so of the
        120 rows the last ones are seen."""
        return self.unconditional[CAPTION_SLOTS - length :]

    def hidden(self, embeds: Tensor, places: Tensor, cache: KVCache | None = None, **keywords) -> Tensor:
        """(B, T, D) to hidden states of the same shape; `places` (1 or B, T) is the number of each token's code in the
        picture, negative for caption slots. Other arguments as `Llama.forward`."""
        config = self.config
        rotary = grid_tables(places, config.grid, config.language.head_dim, config.language.rope_theta, embeds.dtype)
        return self.language_model(embeds, cache=cache, rotary=rotary, **keywords)

    def forward(self, states: Tensor, lengths: Tensor, codes: Tensor) -> Tensor:
        """Logits (B, K + 1, number of codes) of codes 0..K given the first K, in one differentiable pass.

        states: (B, T, caption_dim) text features, padded on the right. lengths: (B,) how many of them are real, at
        least 1. codes: (B, K).
        """
        text, painted = self.embed_captions(states), self.embed_codes(codes)
        both = torch.cat((text, painted.to(text.dtype)), 1)
        # Row by row: its own caption, then its codes, then whatever, which a causal row never looks at.
        width = text.shape[1] + codes.shape[1]
        place = torch.arange(width, device=codes.device).expand(len(codes), -1)
        number = place - lengths[:, None]
        source = torch.where(number < 0, place, number + text.shape[1]).clamp(max=width - 1)
        embeds = both.gather(1, source[..., None].expand(-1, -1, both.shape[-1]))
        hidden = self.hidden(embeds, number)
        told = lengths[:, None] - 1 + torch.arange(codes.shape[1] + 1, device=codes.device)
        return self.code_logits(hidden.gather(1, told[..., None].expand(-1, -1, hidden.shape[-1])))


def grid_tables(places: Tensor, grid: int, size: int, theta: float, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """cos and signed sin, (1 or B, T, 1, size), in the rotate-half order of `llama.rotate`; zeros where `places` < 0.

    The authors turn neighbouring elements (2j, 2j + 1); the checkpoint loader reorders the rows of the query and key
    weights once, so that pair j is (j, j + size / 2) here. The first half of the pairs turns by the row, the second
    by the column, both at frequencies theta^(-2j / (size / 2)).
    """
    half = size // 2
    frequencies = theta ** (-torch.arange(0, half, 2, device=places.device, dtype=torch.float32) / half)
    row, column = places.div(grid, rounding_mode="floor"), places.remainder(grid)
    angles = torch.cat([x[:, :, None, None].float() * frequencies for x in (row, column)], -1)
    is_code = (places >= 0)[:, :, None, None]
    cos, sin = angles.cos() * is_code, angles.sin() * is_code
    return torch.cat((cos, cos), -1).to(dtype), torch.cat((-sin, sin), -1).to(dtype)
