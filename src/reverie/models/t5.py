"""A frozen T5 as ThinkDiff uses it: its decoder reads vectors that stand where the encoder's output stands.

Half of a T5 is enough for most of it: the LVLM variant needs no encoder block, only the weight of the encoder's final
norm, so the blocks are never read from disk (an encoder of 0 layers is asked for, which transformers allows).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from .pretrained import frozen, read_config

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

IGNORED = -100
"""Label of positions that carry no loss."""


def load_t5(
    source: str | Path,
    *,
    encoder: bool = True,
    dtype: torch.dtype = torch.float32,
) -> tuple[T5ForConditionalGeneration, PreTrainedTokenizerBase]:
    """The frozen model, in evaluation mode, and its tokenizer; from a folder or hub id in the transformers layout.

    encoder: whether its encoder can be used; without it only the weight of its final norm is there. The
    tokenizer of a T5 inside a pipeline is that of the pipeline.
    """
    from transformers import AutoTokenizer, T5ForConditionalGeneration

    class WithoutEncoder(T5ForConditionalGeneration):
        # Known to be left over; transformers need not report a few hundred of them.
        _keys_to_ignore_on_load_unexpected = [r"encoder\.block\.", r"relative_attention_bias"]  # noqa: RUF012

    config = read_config(source)
    if config.model_type != "t5":
        raise ValueError(f"{source} is a {config.model_type} model, but the aligner is trained against a T5.")
    kind = T5ForConditionalGeneration
    if not encoder:
        kind, config.num_layers = WithoutEncoder, 0
    try:
        words = AutoTokenizer.from_pretrained(beside_it(source))
        return frozen(kind.from_pretrained(source, config=config, dtype=dtype)), words
    except OSError as error:
        raise ValueError(f"{source} lacks weights or tokenizer ({str(error).splitlines()[0]}).") from error


def beside_it(source: str | Path) -> str | Path:
    """Where a T5's tokenizer is: for `text_encoder_2` of a pipeline, that is `tokenizer_2`."""
    folder = Path(source)
    there = folder.with_name(folder.name.replace("text_encoder", "tokenizer"))
    return there if there != folder and there.is_dir() else source


@torch.no_grad()
def encode_text(t5: T5ForConditionalGeneration, ids: Tensor, mask: Tensor) -> Tensor:
    """(B, S) ids and 0/1 mask to the encoder's output (B, S, D), after its final norm."""
    return t5.encoder(input_ids=ids, attention_mask=mask).last_hidden_state


def decode_states(
    t5: T5ForConditionalGeneration, memory: Tensor, memory_mask: Tensor, labels: Tensor, label_mask: Tensor
) -> Tensor:
    """(B, T, D): what the decoder's head reads when the labels (B, T) are given one by one behind the start token.

    memory, memory_mask: (B, L, D) vectors in the place of the encoder's output, and 0/1 (B, L).
    """
    hidden = t5.decoder(
        input_ids=t5.prepare_decoder_input_ids_from_labels(labels),
        attention_mask=label_mask,
        encoder_hidden_states=memory.to(t5.dtype),
        encoder_attention_mask=memory_mask,
        use_cache=False,
    ).last_hidden_state
    return hidden * t5.model_dim**-0.5 if t5.config.scale_decoder_outputs else hidden


def reading_loss(
    t5: T5ForConditionalGeneration, memory: Tensor, memory_mask: Tensor, labels: Tensor, label_mask: Tensor
) -> Tensor:
    """Mean cross-entropy over all target tokens of the batch; padding (`IGNORED`) never reaches the large head."""
    states = decode_states(t5, memory, memory_mask, labels, label_mask)
    real = labels != IGNORED
    return F.cross_entropy(t5.lm_head(states[real]).float(), labels[real])


@torch.no_grad()
def read_back(
    t5: T5ForConditionalGeneration, memory: Tensor, memory_mask: Tensor | None = None, limit: int = 128
) -> Tensor:
    """(B, 1 + steps): the decoder's greedy reading of (B, L, D) vectors, start token first, padding behind the end.

    The cheapest health check of an aligner: what it writes must read like what the VLM meant.
    """
    from transformers import DynamicCache, EncoderDecoderCache

    config = t5.config
    mask = memory.new_ones(memory.shape[:2], dtype=torch.long) if memory_mask is None else memory_mask
    # Not `generate`, which counts the decoder's caches by the encoder's layers.
    cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
    pad = config.pad_token_id or 0
    ids = torch.full((len(memory), limit + 1), pad, device=memory.device)
    ids[:, 0] = config.decoder_start_token_id
    ended = torch.zeros(len(memory), dtype=torch.bool, device=memory.device)
    scale = t5.model_dim**-0.5 if config.scale_decoder_outputs else 1.0
    for step in range(limit):
        hidden = t5.decoder(
            input_ids=ids[:, step : step + 1],
            encoder_hidden_states=memory.to(t5.dtype),
            encoder_attention_mask=mask,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state
        ids[:, step + 1] = t5.lm_head(hidden[:, -1] * scale).argmax(-1).masked_fill(ended, pad)
        ended |= ids[:, step + 1] == config.eos_token_id
        if ended.all():
            return ids[:, : step + 2]
    return ids


@torch.no_grad()
def encoder_distance(
    first: T5ForConditionalGeneration, second: T5ForConditionalGeneration, ids: Tensor, mask: Tensor
) -> dict[str, float]:
    """How far apart two encoders write the same texts (B, S): mean relative distance and mean cosine of their vectors.

    The aligner learns from one T5 (Flan) and draws through the encoder of another (v1.1); what lies between them is
    lost in the swap.
    """
    a, b = (encode_text(t5, ids, mask)[mask.bool()].float() for t5 in (first, second))
    relative = ((a - b).norm(dim=-1) / b.norm(dim=-1)).mean()
    return {"relative": relative.item(), "cosine": F.cosine_similarity(a, b, dim=-1).mean().item()}
