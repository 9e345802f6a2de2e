"""One Janus with random weights, twice: as ours and as the class of transformers, over the same tensors."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import JanusConfig as TheirConfig
from transformers import JanusForConditionalGeneration
from transformers import LlamaConfig as TheirLlama
from transformers.utils import logging

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

PROMPTS = (
    "three blue cats at night",
    "a red fish below a boat",
    "a lighthouse beside two sheep",
    "a striped yellow umbrella",
    "four small green apples on a table",
    "a penguin left of a snowman's hat",
    "the moon above a castle",
    "a black clock showing 9",
    "two bees and a sunflower",
    "a rotten banana in a purple bowl",
    "a train under a rainbow",
    "a white rabbit behind a tree in winter",
    "a melted candle on a cake",
    "an orange bus right of a house",
    "five dotted mushrooms",
    "a turtle with a flag of Japan",
)


@dataclass(frozen=True)
class Shape:
    """Sizes of a Janus. `image_tokens` is the side of the code grid squared."""

    width: int
    layers: int
    heads: int
    ffn: int
    codes: int
    grid: int
    channels: int = 128
    vocabulary: int = 2048

    @property
    def image_tokens(self) -> int:
        return self.grid**2


SHAPES = {
    "toy": Shape(width=64, layers=2, heads=4, ffn=96, codes=64, grid=4, channels=32, vocabulary=300),
    "shipped": Shape(width=256, layers=8, heads=4, ffn=768, codes=2048, grid=12),
    "100m": Shape(width=768, layers=14, heads=12, ffn=2048, codes=16384, grid=24),
    "pro-1b": Shape(width=2048, layers=24, heads=16, ffn=5632, codes=16384, grid=24, vocabulary=102400),
    "pro-7b": Shape(width=4096, layers=30, heads=32, ffn=11008, codes=16384, grid=24, vocabulary=102400),
}
"""The last two have the language models and heads of the published Janus-Pro, but a tiny tower and decoder."""


def config_of(shape: Shape) -> JanusConfig:
    """The configuration in the authors' layout; the vision tower, which painting never touches, stays tiny."""

    def projector(size: int) -> dict:
        params = {"depth": 2, "input_dim": size, "n_embed": shape.width, "projector_type": "mlp_gelu"}
        return {"cls": "MlpProjector", "params": params}

    tower = {"model_name": "tiny", "width": 32, "layers": 1, "heads": 2, "patch_size": 8, "mlp_ratio": 2.0}
    tower |= {"image_size": 8 * shape.grid, "select_layer": -1}
    vq = {"image_token_size": shape.codes, "n_embed": 8, "ch": shape.channels, "z_channels": shape.channels}
    vq |= {"ch_mult": [1, 1], "num_res_blocks": 1, "patch": 4}
    language = {"hidden_size": shape.width, "intermediate_size": shape.ffn, "num_hidden_layers": shape.layers}
    language |= {"vocab_size": shape.vocabulary, "num_attention_heads": shape.heads}
    head = {"n_embed": shape.width, "image_token_embed": shape.width, "image_token_size": shape.codes}
    return JanusConfig.from_dict(
        {
            "model_type": "multi_modality",
            "language_config": language,
            "vision_config": {"cls": "CLIPVisionTower", "params": tower},
            "aligner_config": projector(32),
            "gen_vision_config": {"cls": "VQ-16", "params": vq},
            "gen_aligner_config": projector(8),
            "gen_head_config": {"params": head},
        }
    )


def our_model(shape: Shape, dtype: torch.dtype, seed: int = 0, device: str = "cpu") -> Janus:
    torch.manual_seed(seed)
    with torch.device(device):
        model = Janus(config_of(shape))
    # Large enough that every code matters to the next: greedy runs do not get stuck, ties are rare.
    model.initialise(std=0.15 if shape.width < 128 else 0.06 if shape.width < 2048 else 0.02)
    return model.to(dtype).eval()


def byte_tokenizer(shape: Shape) -> JanusTokenizer:
    """Bytes and special tokens, no merges."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = (BOS, EOS, PAD, IMAGE_START, IMAGE_END, PLACEHOLDER, USER, ASSISTANT)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in special])
    return JanusTokenizer(tokenizer, ImageRules(size=8 * shape.grid))


def their_model(ours: Janus, tokenizer: JanusTokenizer) -> JanusForConditionalGeneration:
    """The transformers class over the tensors of `ours`. Its VQ network lacks the folding of pixels, so codes can be
    compared and pixels cannot."""
    logging.set_verbosity_error()
    config = ours.config
    language = config.language
    text = TheirLlama(
        vocab_size=language.vocab_size,
        hidden_size=language.hidden_size,
        intermediate_size=language.intermediate_size,
        num_hidden_layers=language.num_hidden_layers,
        num_attention_heads=language.num_attention_heads,
        num_key_value_heads=language.num_key_value_heads,
        rms_norm_eps=language.rms_norm_eps,
        max_position_embeddings=2048,
        pad_token_id=tokenizer.pad,
        bos_token_id=tokenizer.bos,
        eos_token_id=tokenizer.eos,
        tie_word_embeddings=False,
    )
    vision, vq = asdict(config.vision), asdict(config.vq)
    their_config = TheirConfig(
        text_config=text, vision_config=vision, vq_config=vq, image_token_id=tokenizer.placeholder
    )
    their_config.tie_word_embeddings = False
    model = JanusForConditionalGeneration(their_config).to(ours.dtype).eval()
    renamed = {}
    for name, tensor in ours.state_dict().items():
        renamed["lm_head.weight" if name == "language_model.lm_head.weight" else _theirs(name)] = tensor
    model.load_state_dict(renamed, assign=True)
    settings = model.generation_config
    settings.pad_token_id, settings.bos_token_id, settings.eos_token_id = tokenizer.pad, tokenizer.bos, tokenizer.eos
    settings.generation_kwargs = {"boi_token_id": tokenizer.image_start}
    return model


def _theirs(name: str) -> str:
    return "model." + name.replace("language_model.model.", "language_model.", 1)


@torch.no_grad()
def their_codes(
    model: JanusForConditionalGeneration,
    tokenizer: JanusTokenizer,
    prompts: Sequence[str],
    *,
    greedy: bool,
    tokens: int | None = None,
    guidance: float = 5.0,
) -> Tensor:
    """(N, tokens) codes by `generate`, prompts padded on the left. The static cache always has room for the whole
    image; `tokens` stops earlier."""
    ids = [tokenizer.painting_ids(prompt) for prompt in prompts]
    longest = max(map(len, ids))
    padded = torch.tensor([[tokenizer.pad] * (longest - len(row)) + row for row in ids])
    mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in ids])
    vision = model.model.vision_model.config
    whole = vision.num_image_tokens
    vision.num_image_tokens = tokens or whole
    # Earlier calls with longer prompts would otherwise enlarge this call's cache.
    model._previous_max_cache_length = -1
    try:
        return model.generate(
            input_ids=padded,
            attention_mask=mask,
            generation_mode="image",
            guidance_scale=guidance,
            do_sample=not greedy,
            top_k=0,  # the default of 50 would cut the distribution silently
            max_length=longest + whole,
            use_cache=True,
        )
    finally:
        vision.num_image_tokens = whole


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())
