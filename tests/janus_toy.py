"""A Janus of a few thousand weights with random values, and its tokenizer: a stand-in that runs everywhere."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from reverie.models.janus import Janus, JanusConfig
from reverie.models.janus_text import (
    ASSISTANT,
    BOS,
    EOS,
    IMAGE_END,
    IMAGE_START,
    PAD,
    PLACEHOLDER,
    USER,
    ImageRules,
    JanusTokenizer,
)

WIDTH = 32


def toy_config() -> dict:
    def projector(size: int) -> dict:
        params = {"depth": 2, "input_dim": size, "n_embed": WIDTH, "projector_type": "mlp_gelu"}
        return {"cls": "MlpProjector", "params": params}

    tower = {
        "width": 32,
        "layers": 2,
        "heads": 2,
        "patch_size": 8,
        "mlp_ratio": 2.0,
        "image_size": 32,
        "model_name": "toy",
    }
    codes = {"image_token_size": 48, "n_embed": 8, "ch": 32, "ch_mult": [1, 1], "z_channels": 32, "patch": 4}
    language = {"vocab_size": 272, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2}
    return {
        "model_type": "multi_modality",
        "language_config": language | {"num_attention_heads": 4, "num_key_value_heads": 2},
        "vision_config": {"cls": "CLIPVisionTower", "params": tower | {"select_layer": -1}},
        "aligner_config": projector(32),
        "gen_vision_config": {"cls": "VQ-16", "params": codes},
        "gen_aligner_config": projector(8),
        "gen_head_config": {"params": {"n_embed": WIDTH, "image_token_embed": WIDTH, "image_token_size": 48}},
    }


def toy_tokenizer() -> JanusTokenizer:
    """Bytes and special tokens, no merges."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = (BOS, EOS, PAD, IMAGE_START, IMAGE_END, PLACEHOLDER, USER, ASSISTANT)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return JanusTokenizer(tokenizer, ImageRules(size=32))


def toy_janus(dtype: torch.dtype = torch.float32) -> tuple[Janus, JanusTokenizer]:
    """4 x 4 codes out of 48; weights large enough that every token matters to the next."""
    torch.manual_seed(0)
    model = Janus(JanusConfig.from_dict(toy_config()))
    model.initialise(std=0.15)
    return model.to(dtype).eval(), toy_tokenizer()
