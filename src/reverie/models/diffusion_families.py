"""What differs between the flow-matching pipelines of diffusers: how a prompt becomes states, how latents are packed,
what the transformer is called with, how two predictions become a guided one, and how latents become a picture.

Each adapter holds a loaded pipeline and calls the pipeline's own parts, so offloading hooks, LoRA and quantised weights
work as diffusers made them. Nothing here remembers anything between calls. The conventions are those of the pipelines
of diffusers 0.42, whose `__call__` is the reference: equal noise gives equal pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from PIL.Image import Image

EDIT_AREA, EDIT_CONDITION_AREA = 1024**2, 384**2
"""Pixels to which the editing pipelines scale a source picture, and what Edit-Plus shows its language model."""


@dataclass(frozen=True)
class Text:
    """What the transformer reads of one prompt."""

    states: Tensor
    """(1, T, D)."""
    pooled: Tensor | None = None
    """(1, P), where the family has such a vector."""
    source: Tensor | None = None
    """(1, S, C) packed latents of the pictures to be edited."""
    shapes: tuple[tuple[int, int, int], ...] = ()
    """Of these pictures: frames, rows, columns of tokens."""


class Family:
    """Packed latents of 2 x 2 patches and a dynamic shift, as Qwen-Image and FLUX have them; others overrule."""

    steps, guidance, negative, limit = 50, 4.0, " ", 512
    """What the pipeline's `__call__` takes if nothing is said; `limit` is that of prompt tokens."""
    embedded = False
    """Whether the guidance weight is an input of the transformer, so that there is one way only."""
    edits = False
    shift = 1.15
    """`max_shift` where the scheduler does not name one."""

    def __init__(self, pipeline: Any, limit: int | None = None, area: int | None = None):
        """area: pixels to which a source picture is scaled, where that is not `EDIT_AREA`."""
        self.pipeline = pipeline
        self.limit, self.area = limit or self.limit, area or EDIT_AREA

    @property
    def device(self) -> torch.device:
        """Where tensors must lie; with offloading, weights may be elsewhere until they are called."""
        return self.pipeline._execution_device

    @property
    def dtype(self) -> torch.dtype:
        """Of latents: that of the prompt's states."""
        encoder = self.pipeline.text_encoder
        return (encoder if encoder is not None else self.pipeline.transformer).dtype

    @property
    def multiple(self) -> int:
        """Heights and widths are multiples of this, in pixels."""
        return 2 * self.pipeline.vae_scale_factor

    @property
    def side(self) -> int:
        """Height and width that the model was made for, in pixels."""
        return self.pipeline.default_sample_size * self.pipeline.vae_scale_factor

    def tokens(self, size: tuple[int, int]) -> int:
        """Image tokens of a picture of (height, width) pixels."""
        return (size[0] // self.multiple) * (size[1] // self.multiple)

    def sigmas(self, steps: int, size: tuple[int, int]) -> Tensor:
        """(steps + 1,) noise levels from the pipeline's scheduler, down to 0; float32 on the CPU."""
        scheduler = type(self.pipeline.scheduler).from_config(self.pipeline.scheduler.config)
        scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps), mu=self._mu(size))
        return scheduler.sigmas

    def noise(self, generators: Sequence[torch.Generator], size: tuple[int, int]) -> Tensor:
        """(N, S, C) for N CPU generators: the numbers that the pipeline draws from the same generators."""
        channels = self.pipeline.transformer.config.in_channels // 4
        rows, columns = 2 * (size[0] // self.multiple), 2 * (size[1] // self.multiple)
        drawn = [torch.randn(1, channels, rows, columns, generator=g, dtype=self.dtype) for g in generators]
        return pack(torch.cat(drawn)).to(self.device)

    def count(self, prompt: str) -> tuple[int, int]:
        """Tokens that the prompt has, and how many of them the model reads. Needs the tokenizer only."""
        raise NotImplementedError

    def encode(self, prompt: str, pictures: Sequence[Image] = ()) -> Text:
        """One prompt, read alone, so that it is rounded the same whoever else is in the batch."""
        raise NotImplementedError

    def swap(self, vectors: Tensor, pooled_text: str) -> Text:
        """Vectors (1, L, D) in the place of the T5 encoder's output, with the pooled vector of `pooled_text`: what
        ThinkDiff paints from (arXiv 2502.10458). The T5 need not be loaded."""
        raise ValueError(f"{type(self.pipeline).__name__} does not read its prompt through a T5 encoder.")

    def opposite(self, negative: str, text: Text) -> Text:
        """What guides away from `text` where T5's vectors have no mask: the negative prompt, as long as it is."""
        raise ValueError(f"{type(self.pipeline).__name__} does not read its prompt through a T5 encoder.")

    def predict(self, x: Tensor, sigma: Tensor, texts: Sequence[Text], weight: float, size: tuple[int, int]) -> Tensor:
        """Velocities of latents x (B, ...) at noise levels (B,), one text for each row; no guidance by two ways."""
        raise NotImplementedError

    def guided(self, cond: Tensor, blank: Tensor, weight: float) -> Tensor:
        """Classifier-free guidance."""
        return blank + weight * (cond - blank)

    def decode(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        """Latents (B, ...) to pixels (B, 3, H, W) in about [-1, 1]."""
        vae = self.pipeline.vae
        latents = unpack(x, size[0] // self.multiple, size[1] // self.multiple)
        return vae.decode((latents / vae.config.scaling_factor + vae.config.shift_factor), return_dict=False)[0]

    def _mu(self, size: tuple[int, int]) -> float:
        """The resolution's shift of the schedule: linear in image tokens."""
        config = self.pipeline.scheduler.config
        low, high = config.get("base_image_seq_len", 256), config.get("max_image_seq_len", 4096)
        base, most = config.get("base_shift", 0.5), config.get("max_shift", self.shift)
        slope = (most - base) / (high - low)
        return self.tokens(size) * slope + (base - slope * low)

    def _times(self, sigma: Tensor) -> Tensor:
        """The scheduler's timesteps (B,), of which these transformers take the thousandth part."""
        return sigma.to(self.device) * self.pipeline.scheduler.config.num_train_timesteps


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


def in_words_alone(pipeline: Any, limit: int | None = None) -> Family:
    """The adapter for painting from words with the parts of an editing pipeline."""
    from diffusers import QwenImagePipeline

    parts = {name: part for name, part in pipeline.components.items() if name != "processor"}
    return QwenImage(QwenImagePipeline(**parts), limit)


def pack(latents: Tensor) -> Tensor:
    """(N, C, 2H, 2W) to (N, H * W, 4C): patches of 2 x 2."""
    return F.pixel_unshuffle(latents, 2).flatten(2).transpose(1, 2)


def unpack(packed: Tensor, rows: int, columns: int) -> Tensor:
    """(N, H * W, 4C) to (N, C, 2H, 2W)."""
    return F.pixel_shuffle(packed.transpose(1, 2).unflatten(2, (rows, columns)), 2)


def check_width(vectors: Tensor, wanted: int) -> None:
    """ValueError for vectors (1, L, D) that the transformer cannot read, or none at all."""
    if vectors.ndim != 3 or not vectors.shape[1] or vectors.shape[-1] != wanted:
        raise ValueError(
            f"Got vectors {list(vectors.shape)}; this diffusion model reads {wanted} wide ones, (1, L, {wanted})."
        )


def padded(states: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Texts (1, T, D) one below the other, zeros behind the shorter ones, and a mask (B, T) where there are such."""
    longest = max(part.shape[1] for part in states)
    whole = torch.cat([F.pad(part, (0, 0, 0, longest - part.shape[1])) for part in states])
    if all(part.shape[1] == longest for part in states):
        return whole, None
    lengths = torch.tensor([part.shape[1] for part in states], device=whole.device)
    return whole, torch.arange(longest, device=whole.device) < lengths[:, None]


def together(texts: Sequence[Text]) -> Tensor:
    """The pooled vectors (B, P)."""
    return torch.cat([text.pooled for text in texts if text.pooled is not None])


def near_area(picture: Image, area: int) -> tuple[int, int]:
    """(height, width) of about `area` pixels in the picture's proportions, multiples of 32."""
    ratio = picture.width / picture.height
    width = math.sqrt(area * ratio)
    return round(width / ratio / 32) * 32, round(width / 32) * 32
