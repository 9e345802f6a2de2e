"""Chat models with eyes of a few thousand random weights, with their processors: stand-ins that run everywhere.

Of several families, because each places, numbers and reads pictures in its own way.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from reverie.vlms.transformers import TransformersVLM, without_videos

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
           "<|video_pad|>", "<image>")  # fmt: skip
IDS = dict(zip(SPECIAL, range(256, 256 + len(SPECIAL)), strict=True))
WIDTH = 32
FAMILIES = ("Qwen2VL", "Qwen2_5_VL", "Qwen3VL", "Llava")
TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}{% if part['type'] == 'image' %}{% set count.value = count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ count.value }}: {% endif %}PICTURE"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = {
    "vocab_size": 272, "hidden_size": WIDTH, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "initializer_range": 0.3, "bos_token_id": None,
    "eos_token_id": IDS["<|im_end|>"], "pad_token_id": IDS["<|endoftext|>"],
}  # fmt: skip


def toy_tokenizer() -> PreTrainedTokenizerFast:
    """Bytes and special tokens, no merges."""
    vocabulary = {letter: index for index, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=SPECIAL[2], pad_token=SPECIAL[0])


def toy_vlm(family: str = "Qwen2VL", **settings: Any) -> TransformersVLM:
    """Weights are large enough that every token, and every picture, matters to the next."""
    torch.manual_seed(0)
    config, processor = _llava() if family == "Llava" else _qwen(family)
    model = getattr(transformers, f"{family}ForConditionalGeneration")(config)
    model.generation_config.eos_token_id = IDS["<|im_end|>"]
    return TransformersVLM(model, processor, **settings)


def _qwen(family: str) -> tuple[Any, Any]:
    vision = {
        "depth": 1, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2,
        "initializer_range": 0.3, "intermediate_size": 32, "hidden_size": 16, "out_hidden_size": WIDTH,
    }  # fmt: skip
    if family == "Qwen2VL":
        vision |= {"embed_dim": 16, "hidden_size": WIDTH, "mlp_ratio": 2}
    if family == "Qwen2_5_VL":
        vision |= {"window_size": 16, "fullatt_block_indexes": [0]}
    if family == "Qwen3VL":
        vision |= {"num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    turns = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
    config = getattr(transformers, f"{family}Config")(
        text_config=TEXT | {"rope_parameters": turns, "head_dim": 8}, vision_config=vision, tie_word_embeddings=False,
        image_token_id=IDS["<|image_pad|>"], video_token_id=IDS["<|video_pad|>"],
        vision_start_token_id=IDS["<|vision_start|>"], vision_end_token_id=IDS["<|vision_end|>"],
    )  # fmt: skip
    eyes = Qwen2VLImageProcessorPil(patch_size=4, merge_size=2, min_pixels=64, max_pixels=16 * 16)
    kind = without_videos(getattr(transformers, f"{family}Processor"))
    template = TEMPLATE.replace("PICTURE", "<|vision_start|><|image_pad|><|vision_end|>")
    return config, kind(eyes, toy_tokenizer(), chat_template=template)


def _llava() -> tuple[Any, Any]:
    vision = {"model_type": "clip_vision_model", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
              "num_attention_heads": 2, "image_size": 16, "patch_size": 4, "initializer_range": 1.0}  # fmt: skip
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=TEXT | {"model_type": "llama"}, image_token_id=IDS["<image>"],
        vision_feature_layer=-1, tie_word_embeddings=False,
    )  # fmt: skip
    side = {"height": 16, "width": 16}
    eyes = CLIPImageProcessorPil(size=side, crop_size=side)
    processor = transformers.LlavaProcessor(
        eyes, toy_tokenizer(), patch_size=4, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=TEMPLATE.replace("PICTURE", "<image>"),
    )  # fmt: skip
    return config, processor


def save_toy(folder: Path, family: str = "Qwen2VL") -> Path:
    """The same as a checkpoint folder."""
    vlm = toy_vlm(family)
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    return folder


def picture(seed: int, side: int = 16) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    image.paste(tuple(rng.randrange(256) for _ in range(3)), (0, 0, side // 2, side // 2))
    return image
