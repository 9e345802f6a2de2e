"""A T5 of a few thousand random weights, its tokenizer, and made-up answers with features for it to learn from."""

from __future__ import annotations

import random

import torch
from transformers import T5Config, T5ForConditionalGeneration
from vlm_toy import WIDTH, toy_tokenizer

from reverie.data.features import Sample


def sample(number: int, kind: str = "generated", tokens: int | None = None) -> Sample:
    rng = random.Random(number)
    n = tokens or rng.randint(1, 9)
    rows = n if kind == "generated" else rng.randint(1, 9)
    generator = torch.Generator().manual_seed(number)
    ids = tuple(rng.randrange(97, 120) for _ in range(n))
    return Sample(f"p/{number}", torch.randn(rows, WIDTH, generator=generator), ids, f"text {number} é", "asked")


def tiny_t5(width: int = WIDTH) -> T5ForConditionalGeneration:
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=272, d_model=width, d_kv=8, d_ff=48, num_layers=1, num_decoder_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=256, pad_token_id=256,
        eos_token_id=258, dropout_rate=0.1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    # The class ties its head whatever the config says; public T5 v1.1 has a head of its own.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(272, width) * 0.2)
    torch.nn.init.uniform_(model.encoder.final_layer_norm.weight, 0.05, 0.2)
    return model.eval().requires_grad_(False)


def t5_words():
    """The toy's tokenizer, with T5's habit of an end token behind every text."""
    from tokenizers.processors import TemplateProcessing

    words = toy_tokenizer()
    end = "<|im_end|>"
    words.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 258)])
    return words
