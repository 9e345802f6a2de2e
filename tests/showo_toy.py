"""A Show-o of a few thousand weights with random values, and its tokenizer: a stand-in that runs everywhere."""

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from reverie.models.magvit import MagvitConfig
from reverie.models.showo import Showo, ShowoConfig
from reverie.models.showo_text import END, ShowoTokenizer

MAGVIT = MagvitConfig(32, (1, 1), (1, 1), (1, 1), (1, 1), z_channels=5)


def toy_config() -> dict:
    phi = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    return {
        "model_type": "showo",
        "llm_vocab_size": 260,
        "codebook_size": 32,
        "num_vq_tokens": 16,
        "max_seq_length": 40,
        "phi": phi,
        "vq_model": MAGVIT.to_dict(),
    }


def toy_words() -> Tokenizer:
    """Bytes and the one special token, no merges."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(END, special=True, normalized=False)])
    return tokenizer


def toy_showo(dtype: torch.dtype = torch.float32) -> tuple[Showo, ShowoTokenizer]:
    """4 x 4 codes out of 32; weights large enough that every token matters to every slot."""
    torch.manual_seed(0)
    config = ShowoConfig.from_dict(toy_config())
    model = Showo(config)
    model.initialise(std=0.15)
    return model.to(dtype).eval(), ShowoTokenizer(toy_words(), config.text_tokens, config.longest)
