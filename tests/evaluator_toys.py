"""Evaluator models of a few thousand random weights, saved as folders with all that goes with them: the real classes of
transformers, so that everything but the quality of what they see is as with the real checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

WORDS = "abcdefghijklmnopqrstuvwxyz0123456789-?,. "


def picture(seed: int = 0, wide: int = 64, high: int = 48) -> Image.Image:
    """Coarse coloured patches, different for each seed."""
    rows = np.random.default_rng(seed).integers(0, 255, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(rows).resize((wide, high), Image.Resampling.BICUBIC)


def scaled(model: Any, factor: float) -> Any:
    """Random weights large enough that what goes in matters to what comes out."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.dim() > 1 and "embed" not in name:
                weight.mul_(factor)
    return model


def save_mask2former(folder: Path, classes: int = 80, seed: int = 0, sides: tuple[int, int] = (96, 160)) -> Path:
    """sides: what pictures are scaled to; the official 800 and 1333 take a second each here."""
    torch.manual_seed(seed)
    swin = transformers.SwinConfig(
        image_size=32, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )  # fmt: skip
    size = dict.fromkeys(("feature_size", "mask_feature_size", "hidden_dim"), 32)
    small = {"encoder_feedforward_dim": 16, "dim_feedforward": 16, "encoder_layers": 1, "decoder_layers": 3}
    found = transformers.Mask2FormerConfig(
        backbone_config=swin,
        **size,
        **small,
        num_attention_heads=2,
        num_queries=8,
        num_labels=classes,
        reverie={"sides": list(sides)},
    )
    model = transformers.Mask2FormerForUniversalSegmentation(found)
    with torch.no_grad():
        model.class_predictor.weight.mul_(40)  # sure of its classes, as a trained one is
    model.save_pretrained(folder)
    return folder


def save_clip(folder: Path, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    words = clip_tokenizer()
    text = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "vocab_size": len(words), "max_position_embeddings": 77, "bos_token_id": words.bos_token_id,
        "eos_token_id": words.eos_token_id, "pad_token_id": words.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
    scaled(transformers.CLIPModel(config), 20).save_pretrained(folder)
    words.save_pretrained(folder)
    kind = transformers.models.clip.image_processing_pil_clip.CLIPImageProcessorPil
    kind(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def clip_tokenizer() -> PreTrainedTokenizerFast:
    """Letters between a beginning and an end, as CLIP's has words."""
    names = ["<|startoftext|>", "<|endoftext|>", *WORDS]
    found = Tokenizer(models.WordLevel({name: place for place, name in enumerate(names)}, "<|endoftext|>"))
    found.normalizer = normalizers.Lowercase()
    found.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    found.post_processor = processors.TemplateProcessing(
        single="<|startoftext|> $A <|endoftext|>",
        special_tokens=[(name, place) for place, name in enumerate(names[:2])],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=found, bos_token=names[0], eos_token=names[1], pad_token=names[1], model_max_length=77
    )
