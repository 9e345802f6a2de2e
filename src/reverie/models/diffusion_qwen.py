"""Qwen-Image and its editors as painters (see `diffusion_family.py`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .diffusion_family import Family, Text, near_area, pack, padded, unpack

if TYPE_CHECKING:
    from PIL.Image import Image

EDIT_CONDITION_AREA = 384**2
"""Pixels of what Edit-Plus shows its language model."""


class QwenImage(Family):
    """Qwen-Image (arXiv 2508.02324): states of Qwen2.5-VL under a describing template, whose first positions are
    dropped; guidance rescaled, token by token, to the length of the conditional prediction."""

    def __init__(self, pipeline: Any, limit: int | None = None, area: int | None = None):
        super().__init__(pipeline, limit, area)
        if pipeline.transformer.config.guidance_embeds:
            raise ValueError("this Qwen-Image takes its guidance as an input, as no released one does.")
        if self.limit > pipeline.tokenizer_max_length:
            raise ValueError(f"limit={limit}: {type(pipeline).__name__} reads at most {pipeline.tokenizer_max_length}.")

    def count(self, prompt: str) -> tuple[int, int]:
        pipe = self.pipeline
        words = pipe.tokenizer(pipe.prompt_template_encode.format(prompt)).input_ids
        count = len(words) - pipe.prompt_template_encode_start_idx
        return count, min(count, self.limit)

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        # One prompt alone is never padded, so its mask says nothing.
        states, _ = self.pipeline.encode_prompt(prompt=[prompt], device=self.device, max_sequence_length=self.limit)
        return Text(states)

    def predict(self, x: Tensor, sigma: Tensor, texts: Sequence[Text], weight: float, size: tuple[int, int]) -> Tensor:
        sources = [text.source for text in texts if text.source is not None]
        source = torch.cat(sources) if sources else None
        return self.flow(x, sigma, *padded([text.states for text in texts]), size, source, texts[0].shapes)

    def flow(
        self, x: Tensor, sigma: Tensor, states: Tensor, mask: Tensor | None, size: tuple[int, int],
        source: Tensor | None = None, shapes: Sequence[tuple[int, int, int]] = (),
    ) -> Tensor:  # fmt: skip
        """Velocities from states (B, T, D) of which a mask (B, T) says which are no padding."""
        grid = (1, size[0] // self.multiple, size[1] // self.multiple)
        return self.pipeline.transformer(
            hidden_states=x if source is None else torch.cat([x, source], 1),
            timestep=self._times(sigma).to(x.dtype) / 1000,
            encoder_hidden_states=states,
            encoder_hidden_states_mask=mask,
            img_shapes=[[grid, *shapes]] * len(x),
            return_dict=False,
        )[0][:, : x.shape[1]]

    def guided(self, cond: Tensor, blank: Tensor, weight: float) -> Tensor:
        mixed = super().guided(cond, blank, weight)
        return mixed * (cond.norm(dim=-1, keepdim=True) / mixed.norm(dim=-1, keepdim=True))

    def decode(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        vae = self.pipeline.vae
        latents = unpack(x, size[0] // self.multiple, size[1] // self.multiple)[:, :, None].to(vae.dtype)
        mean, scale = self._statistics(latents)
        return vae.decode(latents / scale + mean, return_dict=False)[0][:, :, 0]

    def _statistics(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of each latent channel and the inverse of its deviation, beside (B, C, 1, H, W)."""
        config = self.pipeline.vae.config
        mean, deviation = (torch.tensor(v).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
        return mean.to(like), 1.0 / deviation.to(like)


class QwenImageEdit(QwenImage):
    """Qwen-Image-Edit: the language model sees the source picture before the instruction, and the transformer reads its
    latents behind the noisy ones. Its pipeline does not cut prompts."""

    edits = True

    def count(self, prompt: str) -> tuple[int, int]:
        count, _ = super().count(prompt)  # without those of the picture
        return count, count

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        if len(pictures) != 1:
            raise ValueError(f"{type(self.pipeline).__name__} edits one picture at a time, not {len(pictures)}.")
        height, width = near_area(pictures[0], self.area)
        seen = self.pipeline.image_processor.resize(pictures[0], height, width)
        return self._encoded(prompt, seen, [self._latents(seen, height, width)])

    def _encoded(self, prompt: str, seen: Any, latents: Sequence[Tensor]) -> Text:
        states, _ = self.pipeline.encode_prompt(prompt=[prompt], image=seen, device=self.device)
        shapes = tuple((1, part.shape[-2] // 2, part.shape[-1] // 2) for part in latents)
        return Text(states, source=torch.cat([pack(part) for part in latents], 1), shapes=shapes)

    def _latents(self, picture: Image, height: int, width: int) -> Tensor:
        """(1, C, H / 8, W / 8) of a picture, by the mode of the encoder and with the decoder's statistics."""
        pixels = self.pipeline.image_processor.preprocess(picture, height, width).unsqueeze(2)
        found = self.pipeline.vae.encode(pixels.to(self.device, self.dtype)).latent_dist.mode()
        config = self.pipeline.vae.config
        mean, deviation = (
            torch.tensor(v).view(1, -1, 1, 1, 1).to(found) for v in (config.latents_mean, config.latents_std)
        )
        return ((found - mean) / deviation)[:, :, 0]


class QwenImageEditPlus(QwenImageEdit):
    """The later Qwen-Image-Edit: several source pictures, of which the language model sees smaller copies."""

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        if not pictures:
            raise ValueError(f"{type(self.pipeline).__name__} needs a picture to edit; give one or several.")
        resize = self.pipeline.image_processor.resize
        seen = [resize(picture, *near_area(picture, EDIT_CONDITION_AREA)) for picture in pictures]
        return self._encoded(
            prompt, seen, [self._latents(picture, *near_area(picture, self.area)) for picture in pictures]
        )


def in_words_alone(pipeline: Any, limit: int | None = None) -> Family:
    """The adapter for painting from words with the parts of an editing pipeline."""
    from diffusers import QwenImagePipeline

    parts = {name: part for name, part in pipeline.components.items() if name != "processor"}
    return QwenImage(QwenImagePipeline(**parts), limit)
