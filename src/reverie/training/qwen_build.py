"""atelier-qwen as it begins: sizes, tokenizer, processor, a small Qwen2.5-VL, autoencoder, transformer, and how the
whole is written in diffusers' layout.

The pipelines of Qwen-Image drop the first 34 positions of their template, those of its editor the first 64, whatever
the tokenizer. So every word of these templates is one token here too, as in Qwen's own tokenizer, whose class and way
of splitting text this one has.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..thinkers import WORDINGS
from . import vlm_build
from .vlm_build import END, PAD, PICTURE, SPECIAL, TEMPLATE, VISION_END, VISION_START, fresh

SYSTEM = "You are a helpful assistant."
"""The stock system turn of Qwen2.5-VL, which chats are taught under."""
CHAT = "{% if messages[0]['role'] != 'system' %}<|im_start|>system\n" + SYSTEM + "<|im_end|>\n{% endif %}" + TEMPLATE
SPAN = VISION_START + PICTURE + VISION_END
DROPPED = {"paint": 34, "edit": 64}
"""Positions of the templates that the transformer never reads."""


@dataclass
class QwenVlmSizes:
    """Sizes of the small Qwen2.5-VL. Pictures are `side` pixels wide, patches `patch`, and 2x2 patches make a token."""

    width: int = 192
    layers: int = 5
    heads: int = 6
    ffn: int = 448
    vision_width: int = 96
    vision_layers: int = 3
    vision_heads: int = 4
    side: int = 96
    patch: int = 12
    vocabulary: int = 2048
    texts: int = 6000
    """Rounds of texts that the tokenizer is learnt from."""

    def __post_init__(self) -> None:
        if self.side % (2 * self.patch):
            raise ValueError(f"side={self.side}: must be a multiple of two patches of {self.patch} pixels.")

    @property
    def tokens(self) -> int:
        """Of a picture, for the language model."""
        return (self.side // (2 * self.patch)) ** 2


@dataclass
class QwenSizes:
    """Sizes of the transformer; steps, guidance and limit (tokens of a prompt) with which the model is to be used."""

    heads: int = 3
    head: int = 48
    layers: int = 5
    steps: int = 20
    guidance: float = 3.0
    limit: int = 160

    def __post_init__(self) -> None:
        if self.head % 8:
            raise ValueError(f"model.head={self.head}: must be a multiple of 8.")


def templates() -> dict[str, str]:
    """The texts in which diffusers' pipelines put a prompt, in the place of {}."""
    import diffusers

    paint: Any = diffusers.QwenImagePipeline(None, None, None, None, None)
    edit: Any = diffusers.QwenImageEditPipeline(None, None, None, None, None, None)
    return {"paint": paint.prompt_template_encode, "edit": edit.prompt_template_encode}


def build_words(sizes: QwenVlmSizes) -> Any:
    """A Qwen2Tokenizer whose words are learnt from what the model will be asked and answer. ValueError where the
    vocabulary is too small for the templates."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    plain = Qwen2Tokenizer(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = plain.backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=sizes.vocabulary - len(SPECIAL), initial_alphabet=letters, show_progress=False
    )
    # The templates so often that each of their words becomes one token.
    fixed = [text for text in (*templates().values(), CHAT) for _ in range(sizes.texts)]
    learner.train_from_iterator([*fixed, *_texts(sizes.texts)], trainer)
    learnt = json.loads(learner.to_str())["model"]
    merges: Any = [tuple(pair) for pair in learnt["merges"]]
    words = Qwen2Tokenizer(vocab=learnt["vocab"], merges=merges, eos_token=END, pad_token=PAD, padding_side="right")
    words.add_special_tokens({"additional_special_tokens": list(SPECIAL)})
    words.chat_template = CHAT
    for name, text in templates().items():
        found = len(words(text.partition("{}")[0].removesuffix(SPAN)).input_ids)
        if found != DROPPED[name]:
            raise ValueError(f"the template of {name} has {found} tokens, not {DROPPED[name]}; raise model.vocabulary.")
    return words


def build_vlm(sizes: QwenVlmSizes, words: Any) -> Any:
    """A fresh transformers Qwen2_5_VLForConditionalGeneration whose control tokens are those of the tokenizer."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    vision = {
        "depth": sizes.vision_layers, "hidden_size": sizes.vision_width, "intermediate_size": 3 * sizes.vision_width,
        "num_heads": sizes.vision_heads, "out_hidden_size": sizes.width, "patch_size": sizes.patch,
        "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": sizes.side,
        "fullatt_block_indexes": list(range(sizes.vision_layers)),
    }  # fmt: skip
    return fresh(Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLConfig, sizes, words, vision)


def build_processor(sizes: QwenVlmSizes, words: Any) -> Any:
    """The processor that Qwen-Image's editor names; every picture enters with about `side` x `side` pixels."""
    return vlm_build.build_processor(sizes, words, CHAT)


def save_parts(vlm: Any, words: Any, folder: str | Path) -> None:
    """`text_encoder` and `tokenizer` of the pipelines in `folder`; weights in bfloat16."""
    import torch

    folder = Path(folder)
    copy.deepcopy(vlm).to(torch.bfloat16).save_pretrained(folder / "text_encoder")
    words.save_pretrained(folder / "tokenizer")


def _texts(count: int) -> Iterator[str]:
    """What the tokenizer is learnt from."""
    from ..atelier.edits import edit
    from ..atelier.knowledge import facts, riddle, wordings
    from ..atelier.language import canonical, say
    from ..atelier.lessons import lesson, spelled_out
    from ..atelier.sample import random_demand
    from .qwen_edits import plain_edit

    rng = random.Random("qwen/words")
    known = facts()
    for number in range(count):
        asked = lesson(rng, "question")
        demand, change = random_demand(rng), edit(rng)
        yield asked.question
        yield asked.answer
        yield say(demand, rng, split="train")
        yield canonical(demand)
        yield spelled_out(demand)
        yield change.instruction
        yield change.reasoning
        yield plain_edit(change.before, change.after, rng)
        told = riddle(rng, "train")
        yield told.prompt
        yield told.thought
        for fact in rng.sample(known, 4):
            yield f"{QUESTIONS[0].format(rng.choice(wordings(fact, 'train')))} {fact.thought} {fact.answer}"
        if number % 50 == 0:
            yield WORDINGS["t2g"].request
            yield WORDINGS["t2g"].edit or ""
            yield from QUESTIONS
        yield rng.choice(("user\n", "assistant\n", "system\n", "Revised Prompt:\n"))


QUESTIONS = (
    "What is {}?", "What does this mean: {}?", "Say it plainly: {}", "Describe this picture.",
    "What is in this picture?",
)  # fmt: skip
"""How the model is asked for facts, for plain words, and about pictures."""
