"""The Atelier's small Qwen2-VL: sizes, tokenizer, processor, fresh weights, and its checkpoint in transformers' layout.

Pictures of 96 pixels a side enter as 8x8 patches of 12 pixels and reach the language model as 4x4 tokens.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..data.build_features import REQUESTS
from ..files import write_atomically
from .words import train_words

PAD, USER, END, VISION_START, VISION_END, PICTURE, VIDEO = SPECIAL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
    "<|video_pad|>",
)  # fmt: skip
# That of Qwen2-VL without its sentence about a helpful assistant, which would only cost tokens here.
TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{% set count.value = count.value + 1 %}"
    "{% if add_vision_id %}Picture {{ count.value }}: {% endif %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
INSTRUCTION = "Which picture belongs to the last word?"
"""How the small model is asked in context; the long request for large models would be most of what it reads."""


@dataclass
class VlmSizes:
    """Sizes of the small Qwen2-VL. Pictures are `side` pixels wide, patches `patch`, and 2x2 patches make a token."""

    width: int = 192
    layers: int = 4
    heads: int = 6
    ffn: int = 512
    vision_width: int = 128
    vision_layers: int = 4
    vision_heads: int = 4
    side: int = 96
    patch: int = 12
    vocabulary: int = 1024
    texts: int = 20000
    """Rounds of texts that the tokenizer is learnt from."""

    def __post_init__(self) -> None:
        if self.side % (2 * self.patch):
            raise ValueError(f"side={self.side}: must be a multiple of two patches of {self.patch} pixels.")

    @property
    def tokens(self) -> int:
        """Of a picture, for the language model."""
        return (self.side // (2 * self.patch)) ** 2


def control_ids(tokenizer: Any) -> dict[str, int]:
    """The number of each of SPECIAL."""
    return dict(zip(SPECIAL, tokenizer.convert_tokens_to_ids(list(SPECIAL)), strict=True))


def language_config(sizes: Any, tokenizer: Any) -> dict[str, Any]:
    """`text_config` of a Qwen2-VL or Qwen2.5-VL of these sizes (width, ffn, layers, heads)."""
    ids, head = control_ids(tokenizer), sizes.width // sizes.heads
    turns = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": mrope_sections(head)}
    return {
        "vocab_size": len(tokenizer), "hidden_size": sizes.width, "intermediate_size": sizes.ffn,
        "num_hidden_layers": sizes.layers, "num_attention_heads": sizes.heads, "num_key_value_heads": sizes.heads,
        "max_position_embeddings": 2048, "rope_parameters": turns, "tie_word_embeddings": True, "bos_token_id": None,
        "eos_token_id": ids[END], "pad_token_id": ids[PAD],
    }  # fmt: skip


def fresh(model_class: Any, config_class: Any, sizes: Any, tokenizer: Any, vision: dict[str, Any]) -> Any:
    """A fresh model of either class whose control tokens are those of the tokenizer."""
    ids = control_ids(tokenizer)
    config = config_class(
        text_config=language_config(sizes, tokenizer), vision_config=vision, tie_word_embeddings=True,
        image_token_id=ids[PICTURE], video_token_id=ids[VIDEO], vision_start_token_id=ids[VISION_START],
        vision_end_token_id=ids[VISION_END],
    )  # fmt: skip
    model = model_class(config)
    model.generation_config.eos_token_id = ids[END]
    model.generation_config.pad_token_id = ids[PAD]
    return model


def build_vlm(sizes: VlmSizes, tokenizer: Any) -> Any:
    """A fresh transformers Qwen2VLForConditionalGeneration whose control tokens are those of the tokenizer."""
    from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

    vision = {
        "depth": sizes.vision_layers, "embed_dim": sizes.vision_width, "hidden_size": sizes.width, "mlp_ratio": 3,
        "num_heads": sizes.vision_heads, "patch_size": sizes.patch, "spatial_merge_size": 2, "temporal_patch_size": 2,
    }  # fmt: skip
    return fresh(Qwen2VLForConditionalGeneration, Qwen2VLConfig, sizes, tokenizer, vision)


def mrope_sections(head: int) -> list[int]:
    """How many of a head's rotations turn by time, row and column: about as Qwen2-VL shares them out, 16, 24, 24."""
    half = head // 2
    side = half * 3 // 8
    return [half - 2 * side, side, side]


def build_tokenizer(sizes: VlmSizes) -> Any:
    """A fast tokenizer of transformers, its commonest words learnt from what the model will be asked and answer."""
    from transformers import PreTrainedTokenizerFast

    words = train_words(_texts(sizes.texts), sizes.vocabulary, SPECIAL)
    return PreTrainedTokenizerFast(tokenizer_object=words, eos_token=END, pad_token=PAD, padding_side="left")


def build_processor(sizes: Any, tokenizer: Any, template: str = TEMPLATE) -> Any:
    """Qwen2-VL's processor for pictures and text; every picture enters with about `side` x `side` pixels."""
    from transformers import Qwen2VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    from ..vlms.transformers import without_videos

    area = sizes.side**2
    eyes = Qwen2VLImageProcessorPil(patch_size=sizes.patch, merge_size=2, min_pixels=area, max_pixels=area)
    return without_videos(Qwen2VLProcessor)(eyes, tokenizer, chat_template=template)


def save_vlm(model: Any, processor: Any, folder: str | Path) -> None:
    """The checkpoint in bf16 in transformers' layout, and the instruction that it was taught in `reverie.json`."""
    import torch

    folder = Path(folder)
    copy.deepcopy(model).to(torch.bfloat16).save_pretrained(folder)
    processor.save_pretrained(folder)
    told = json.dumps({"instruction": INSTRUCTION}, indent=1)
    write_atomically(folder / "reverie.json", lambda path: path.write_text(told + "\n", "utf-8"))


def _texts(count: int) -> Iterator[str]:
    from ..atelier.episodes import episode
    from ..atelier.language import demand_of, say
    from ..atelier.lessons import lesson
    from ..atelier.sample import random_demand

    rng = random.Random("vlm/words")
    for number in range(count):
        found = lesson(rng, "question")
        yield found.question
        yield found.answer
        yield say(random_demand(rng), rng, split="train")
        drawn = episode(rng, rng.randint(1, 10), 3)
        yield say(demand_of(drawn.answer), rng, split="train")
        yield f"\n\nWord {rng.randint(1, 6)}: {drawn.query}, "
        yield INSTRUCTION if number % 2 else REQUESTS[number // 2 % len(REQUESTS)]
        yield rng.choice(("user\n", "assistant\n", "system\n"))
