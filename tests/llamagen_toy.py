"""A LlamaGen of a few thousand weights with random values, and a small T5: a stand-in that runs everywhere."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import T5Config, T5EncoderModel

from reverie.models.llamagen import Llamagen, LlamagenConfig
from reverie.models.llamagen_text import CaptionEncoder

CAPTION = 16


def toy_config() -> dict:
    return {
        "model_type": "llamagen",
        "gpt": {"dim": 32, "n_layer": 2, "n_head": 4, "n_kv_head": 2, "ffn_dim": 64, "block_size": 16}
        | {"caption_dim": CAPTION},
        "vq": {"image_token_size": 48, "n_embed": 8, "ch": 32, "ch_mult": [1, 1], "z_channels": 32, "patch": 4},
    }


def toy_captions() -> CaptionEncoder:
    """Bytes behind padding, end and unknown, as in T5."""
    letters = ["<pad>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokenizer = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    sizes = {"d_model": CAPTION, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=len(letters), feed_forward_proj="gated-gelu", is_encoder_decoder=False, **sizes)
    torch.manual_seed(1)
    return CaptionEncoder(tokenizer, T5EncoderModel(config).eval(), 1)


def toy_llamagen(dtype: torch.dtype = torch.float32) -> tuple[Llamagen, CaptionEncoder]:
    """4 x 4 codes out of 48; weights large enough that every token matters to the next."""
    torch.manual_seed(0)
    model = Llamagen(LlamagenConfig.from_dict(toy_config()))
    model.initialise(std=0.15)
    torch.nn.init.normal_(model.language_model.lm_head.weight, std=0.15)
    return model.to(dtype).eval(), toy_captions()
