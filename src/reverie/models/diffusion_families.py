"""The flow-matching pipelines of diffusers that can be painted with, and the adapters of FLUX.1 and Stable Diffusion 3
(see `diffusion_family.py`; those of Qwen-Image are in `diffusion_qwen.py`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from .diffusion_family import Family, Text, check_width, together
from .diffusion_qwen import QwenImage, QwenImageEdit, QwenImageEditPlus

if TYPE_CHECKING:
    from PIL.Image import Image


class Flux(Family):
    """FLUX.1: T5 states, a CLIP vector; the `dev` models take the guidance weight as an input, `schnell` takes none."""

    steps, guidance, negative, limit = 28, 3.5, "", 512

    def __init__(self, pipeline: Any, limit: int | None = None, area: int | None = None):
        super().__init__(pipeline, limit, area)
        self.embedded = bool(pipeline.transformer.config.guidance_embeds)
        if not self.embedded:
            self.steps, self.guidance = 4, 1.0

    def count(self, prompt: str) -> tuple[int, int]:
        count = len(self.pipeline.tokenizer_2(prompt).input_ids)
        return count, min(count, self.limit)

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        return self._encoded(prompt, self.limit)

    def _encoded(self, prompt: str, length: int) -> Text:
        states, pooled, _ = self.pipeline.encode_prompt(prompt=[prompt], device=self.device, max_sequence_length=length)
        return Text(states, pooled)

    def opposite(self, negative: str, text: Text) -> Text:
        return self._encoded(negative, text.states.shape[1])

    def swap(self, vectors: Tensor, pooled_text: str) -> Text:
        wanted = self.pipeline.transformer.config.joint_attention_dim
        check_width(vectors, wanted)
        pooled = self.pipeline._get_clip_prompt_embeds(prompt=[pooled_text], device=self.device)
        return Text(vectors.to(self.device, self.dtype), pooled)

    def predict(
        self,
        x: Tensor,
        sigma: Tensor,
        texts: Sequence[Text],
        weight: float,
        size: tuple[int, int],
        there: Tensor | None = None,
    ) -> Tensor:
        """there: (B, T), False for states that are not to be read: FLUX has no such mask, so rows of a batch are as if
        each had been called alone with the others."""
        states, pooled = torch.cat([text.states for text in texts]), together(texts)
        rows, columns = size[0] // self.multiple, size[1] // self.multiple
        places = self.pipeline._prepare_latent_image_ids(len(x), rows, columns, x.device, x.dtype)
        masked = None
        if there is not None:
            mask = torch.cat((there, there.new_ones(x.shape[:2])), 1)[:, None, None]
            masked = {"attention_mask": mask}
        return self.pipeline.transformer(
            hidden_states=x,
            timestep=self._times(sigma).to(x.dtype) / 1000,
            guidance=torch.full([len(x)], weight, device=x.device) if self.embedded else None,
            pooled_projections=pooled,
            encoder_hidden_states=states,
            txt_ids=torch.zeros(states.shape[1], 3, device=x.device, dtype=x.dtype),
            img_ids=places,
            joint_attention_kwargs=masked,
            return_dict=False,
        )[0]


class StableDiffusion3(Family):
    """Stable Diffusion 3 and 3.5: states of two CLIPs and of T5 behind each other; latents are not packed."""

    steps, guidance, negative, limit, shift = 28, 7.0, "", 256, 1.16

    @property
    def multiple(self) -> int:
        return self.pipeline.vae_scale_factor * self.pipeline.patch_size

    def sigmas(self, steps: int, size: tuple[int, int]) -> Tensor:
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        mu = self._mu(size) if scheduler.config.get("use_dynamic_shifting") else None
        scheduler.set_timesteps(steps, mu=mu)
        return scheduler.sigmas

    def noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """(N, C, H, W)."""
        shape = (1, self.pipeline.transformer.config.in_channels, *(s // self.pipeline.vae_scale_factor for s in size))
        drawn = [torch.randn(shape, generator=generator, dtype=self.dtype) for generator in generators]
        return torch.cat(drawn).to(self.device)

    def count(self, prompt: str) -> tuple[int, int]:
        # The CLIPs never see more than their 77 tokens; what T5 sees counts, where there is one.
        pipe = self.pipeline
        if pipe.text_encoder_3 is None:
            count, limit = len(pipe.tokenizer(prompt).input_ids), pipe.tokenizer_max_length
        else:
            count, limit = len(pipe.tokenizer_3(prompt).input_ids), self.limit
        return count, min(count, limit)

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        return self._encoded(prompt, self.limit)

    def _encoded(self, prompt: str, length: int) -> Text:
        """length: of T5's part; zeros, as the pipeline has them, where no T5 is loaded."""
        states, _, pooled, _ = self.pipeline.encode_prompt(
            prompt=[prompt], prompt_2=None, prompt_3=None, device=self.device,
            do_classifier_free_guidance=False, max_sequence_length=length,
        )  # fmt: skip
        return Text(states, pooled)

    def opposite(self, negative: str, text: Text) -> Text:
        return self._encoded(negative, text.states.shape[1] - self.pipeline.tokenizer_max_length)

    def swap(self, vectors: Tensor, pooled_text: str) -> Text:
        pipe = self.pipeline
        check_width(vectors, pipe.transformer.config.joint_attention_dim)
        parts = [pipe._get_clip_prompt_embeds([pooled_text], device=self.device, clip_model_index=i) for i in (0, 1)]
        clips = torch.cat([states for states, _ in parts], -1)
        clips = F.pad(clips, (0, vectors.shape[-1] - clips.shape[-1]))
        pooled = torch.cat([vector for _, vector in parts], -1)
        return Text(torch.cat([clips, vectors.to(clips)], 1), pooled)

    def predict(self, x: Tensor, sigma: Tensor, texts: Sequence[Text], weight: float, size: tuple[int, int]) -> Tensor:
        return self.pipeline.transformer(
            hidden_states=x,
            timestep=self._times(sigma),
            encoder_hidden_states=torch.cat([text.states for text in texts]),
            pooled_projections=together(texts),
            return_dict=False,
        )[0]

    def decode(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        vae = self.pipeline.vae
        return vae.decode(x / vae.config.scaling_factor + vae.config.shift_factor, return_dict=False)[0]


FAMILIES: dict[str, type[Family]] = {
    "QwenImagePipeline": QwenImage,
    "QwenImageEditPipeline": QwenImageEdit,
    "QwenImageEditPlusPipeline": QwenImageEditPlus,
    "FluxPipeline": Flux,
    "StableDiffusion3Pipeline": StableDiffusion3,
}


def family_of(pipeline: Any, limit: int | None = None, area: int | None = None) -> Family:
    """The adapter of a loaded pipeline. ValueError for one that is not of the flow-matching kind, or not known."""
    name = type(pipeline).__name__
    if name not in FAMILIES:
        raise ValueError(
            f"{name} is not a pipeline that can be painted with step by step; known are {', '.join(FAMILIES)}."
        )
    scheduler = pipeline.scheduler
    if type(scheduler).__name__ != "FlowMatchEulerDiscreteScheduler":
        raise ValueError(
            f"the pipeline's scheduler is {type(scheduler).__name__}; give it a FlowMatchEulerDiscreteScheduler."
        )
    if scheduler.config.get("stochastic_sampling") or scheduler.config.get("invert_sigmas"):
        raise ValueError(
            "the scheduler adds noise or runs backwards; switch stochastic_sampling and invert_sigmas off."
        )
    return FAMILIES[name](pipeline, limit, area)
