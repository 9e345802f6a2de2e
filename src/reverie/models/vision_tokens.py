"""Pictures as the tokens that ThinkDiff-CLIP feeds its aligner: BLIP-2's vision tower, without the Q-Former.

EVA-CLIP ViT-g/14 at 224 pixels gives a class token and 16 x 16 patches; the patches are pooled to 8 x 8, so a picture
is 65 tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from .pretrained import frozen, read_config
from .quiet import unless_large

if TYPE_CHECKING:
    from transformers import Blip2VisionModel, PreTrainedTokenizerBase, T5ForConditionalGeneration

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def clip_pixels(picture: Image.Image, size: int) -> Tensor:
    """(3, size, size) as CLIP towers take pictures: squeezed to a square (bicubic), mean and deviation taken out."""
    values = np.asarray(picture.convert("RGB").resize((size, size), Image.Resampling.BICUBIC), np.float32) / 255
    scaled = (values - np.array(CLIP_MEAN, np.float32)) / np.array(CLIP_STD, np.float32)
    return torch.from_numpy(scaled.transpose(2, 0, 1).copy())


@torch.no_grad()
def image_tokens(tower: Blip2VisionModel, pixels: Tensor, factor: int | None = 2) -> Tensor:
    """(B, 3, S, S) to (B, 1 + (side // factor) squared, D): the tower's last states, its patches pooled."""
    return pool_patches(tower(pixel_values=pixels.to(tower.dtype)).last_hidden_state, factor)


def pool_patches(hidden: Tensor, factor: int | None = 2) -> Tensor:
    """Tokens of a vision tower, (B, 1 + side * side, D), with the patches resized to (side // factor) squared.

    The class token stays first; the grid is resized bilinearly, corners not aligned. None or 1 changes nothing.
    """
    if factor in (None, 1):
        return hidden
    assert factor is not None
    first, patches = hidden[:, :1], hidden[:, 1:]
    side = round(patches.shape[1] ** 0.5)
    if side * side != patches.shape[1] or not 1 <= factor <= side:
        raise ValueError(f"{patches.shape[1]} patches are no square that can be made {factor} times smaller.")
    grid = patches.transpose(1, 2).unflatten(2, (side, side))
    grid = F.interpolate(grid, size=(side // factor, side // factor), mode="bilinear", align_corners=False)
    return torch.cat((first, grid.flatten(2).transpose(1, 2)), 1)


def load_blip2(
    source: str | Path, dtype: torch.dtype = torch.float32
) -> tuple[Blip2VisionModel, T5ForConditionalGeneration, PreTrainedTokenizerBase]:
    """The frozen vision tower, the frozen T5 and its tokenizer of a BLIP-2 in the transformers layout."""
    from transformers import AutoTokenizer, Blip2ForConditionalGeneration

    config = read_config(source)
    if config.model_type != "blip-2" or config.text_config.model_type != "t5":
        raise ValueError(f"{source} is no BLIP-2 around a T5; give one, such as Salesforce/blip2-flan-t5-xxl.")
    try:
        whole = frozen(Blip2ForConditionalGeneration.from_pretrained(source, config=config, dtype=dtype))
        return whole.vision_model, whole.language_model, AutoTokenizer.from_pretrained(source)
    except OSError as error:
        raise ValueError(f"{source} lacks weights or tokenizer ({str(error).splitlines()[0]}).") from error


def load_tower(source: str | Path, dtype: torch.dtype | None = None) -> Blip2VisionModel:
    """A frozen vision tower alone: that of a BLIP-2, whose language model is not read, or of a CLIP."""
    from transformers import Blip2VisionModel, CLIPVisionModel
    from transformers.utils import logging

    config = read_config(source)
    kinds: dict[str, Any] = {
        "blip-2": Blip2VisionModel, "blip_2_vision_model": Blip2VisionModel,
        "clip": CLIPVisionModel, "clip_vision_model": CLIPVisionModel,
    }  # fmt: skip
    if config.model_type not in kinds:
        raise ValueError(f"{source} is a {config.model_type} model and no vision tower; give a BLIP-2 or a CLIP.")
    try:
        # A tower inside a whole model keeps its name in front of its weights.
        with unless_large(source, logging):
            tower = kinds[config.model_type].from_pretrained(
                source,
                config=getattr(config, "vision_config", config),
                dtype=dtype or torch.float32,
                key_mapping={r"^vision_model\.": ""} if config.model_type == "blip-2" else None,
            )
        return frozen(tower)
    except OSError as error:
        raise ValueError(f"{source} lacks weights ({str(error).splitlines()[0]}).") from error
