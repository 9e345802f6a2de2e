"""Training a small FLUX in the Atelier by flow matching: from captions, as a T5 encoder writes them, to pictures.

x_s = (1 - s) x + s e, and the transformer predicts e - x (arXiv 2210.02747; s is logit-normal, as in arXiv 2403.03206,
section 3.1), through the function that painting calls (`models.diffusion_families.Flux.predict`). Autoencoder and T5
are frozen. The T5 is read as the pipeline of FLUX reads it: padded, without a mask. How far it is padded varies, a
share of its vectors is noisy, and half of the captions come with the pooled vector of the empty text: an aligner brings
vectors that are never padded, not quite right, and without a pooled vector of their own.

Scenes come from a pool, each made from its number; the latents of one that was drawn once are kept.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..models.diffusion_families import Flux, Text, pack
from ..models.t5 import encode_text
from .align import Words
from .autoencoder import latents_of
from .captions import pictured, worded
from .janus import stack

if TYPE_CHECKING:
    from ..atelier.language import Demand
    from ..canvas import Generator


@dataclass
class FluxSizes:
    """Sizes of the transformer and of the CLIP that makes the pooled vector; steps, guidance and limit (tokens of a
    prompt) with which the model is to be used. What is not said follows from the autoencoder and the T5."""

    heads: int = 4
    head: int = 48
    double: int = 1
    single: int = 5
    pooled: int = 64
    vocabulary: int = 1024
    steps: int = 20
    guidance: float = 3.0
    limit: int = 32


@dataclass
class FluxTraining:
    """batch: pictures a step; pool: different scenes; blank: share of captions left blank, which is what guidance
    needs; noise: largest deviation of noise on the T5's vectors, relative to their size; rich: share of batches with
    captions of several sentences; centre: mean of the logit of s."""

    batch: int = 48
    pool: int = 10000
    side: int = 96
    blank: float = 0.1
    noise: float = 0.4
    rich: float = 0.06
    centre: float = 0.3
    episodes: float = 0.35


def fresh_flux(sizes: FluxSizes, vae: Any, t5: Any, words: Any) -> Any:
    """The whole pipeline around a trained autoencoder and T5; what is left to train has random weights."""
    import diffusers
    from transformers import T5EncoderModel

    from ..models.folded_kl import fold_pipeline

    if sizes.head % 8:
        raise ValueError(f"model.head={sizes.head}: must be a multiple of 8.")
    clip, clip_words = fresh_clip(sizes)
    encoder = T5EncoderModel(t5.config)
    encoder.shared, encoder.encoder = t5.shared, t5.encoder
    transformer: Any = diffusers.FluxTransformer2DModel(
        in_channels=4 * vae.config.latent_channels, num_layers=sizes.double, num_single_layers=sizes.single,
        attention_head_dim=sizes.head, num_attention_heads=sizes.heads, joint_attention_dim=t5.config.d_model,
        pooled_projection_dim=sizes.pooled, axes_dims_rope=(sizes.head // 4, *[sizes.head * 3 // 8] * 2),
    )  # fmt: skip
    for name, part in transformer.named_modules():
        # Blocks begin as the identity, the prediction as zero (arXiv 2212.09748).
        if isinstance(part, nn.Linear) and (name.endswith(".linear") or name == "proj_out"):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    pipeline: Any = diffusers.FluxPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=clip, tokenizer=clip_words,
        text_encoder_2=encoder, tokenizer_2=words, transformer=transformer,
    )  # fmt: skip
    fold_pipeline(pipeline)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def fresh_clip(sizes: FluxSizes) -> tuple[Any, Any]:
    """A CLIP text model of one layer, and its tokenizer, learnt from captions."""
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    from .text_space import caption_texts

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    room = max(sizes.vocabulary - 2, 2 * len(letters))
    trainer = trainers.BpeTrainer(
        vocab_size=room, initial_alphabet=letters, end_of_word_suffix="</w>", show_progress=False
    )
    learner.train_from_iterator((text.lower() for text in caption_texts(4000)), trainer)
    merges: Any = [tuple(pair) for pair in _merges(learner)]
    pieces = dict.fromkeys([*letters, *(letter + "</w>" for letter in letters), *(a + b for a, b in merges)])
    pieces |= dict.fromkeys(("<|startoftext|>", "<|endoftext|>"))
    words = CLIPTokenizer(
        vocab={piece: number for number, piece in enumerate(pieces)}, merges=merges, model_max_length=sizes.limit
    )
    config = CLIPTextConfig(
        vocab_size=len(words), hidden_size=sizes.pooled, intermediate_size=2 * sizes.pooled, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=sizes.pooled, max_position_embeddings=sizes.limit,
        eos_token_id=words.eos_token_id, bos_token_id=words.bos_token_id, pad_token_id=words.pad_token_id,
    )  # fmt: skip
    return CLIPTextModel(config), words


def _merges(learner: Any) -> Iterable[tuple[str, str]]:
    return json.loads(learner.to_str())["model"]["merges"]


class FluxTask:
    """`training.loop.Task`: `model` holds the transformer and the CLIP that makes its pooled vector."""

    def __init__(self, pipeline: Any, sizes: FluxSizes, mix: FluxTraining, seed: int = 0):
        if mix.batch < 1 or mix.pool < 1:
            raise ValueError(f"batch={mix.batch}, pool={mix.pool}: both must be at least 1.")
        self.pipeline, self.sizes, self.mix, self.seed = pipeline, sizes, mix, seed
        self.family = Flux(pipeline, sizes.limit)
        self.words = Words(pipeline.tokenizer_2, sizes.limit)
        self.model = nn.ModuleDict({"transformer": pipeline.transformer, "clip": pipeline.text_encoder}).train()
        for part in (pipeline.vae, pipeline.text_encoder_2):
            part.eval().requires_grad_(False)
        self.known: dict[int, Tensor] = {}

    def painter(self) -> Generator:
        """The model as it paints by now."""
        from ..generators.diffusion import DiffusionPainter

        side, sizes = self.mix.side, self.sizes
        return DiffusionPainter(
            self.pipeline, steps=sizes.steps, guidance=sizes.guidance, limit=sizes.limit, height=side, width=side,
            together=8,
        )  # fmt: skip

    def scene(self, number: int) -> tuple[Demand, Any]:
        """What picture `number` of the pool shows, and the picture, to be drawn when it is wanted."""
        from ..atelier.draw import draw
        from ..atelier.sample import compose

        rng = random.Random(f"{self.seed}/scene {number}")
        demand, known = pictured(rng, self.mix.episodes)
        return demand, lambda: draw(known or compose(demand, rng), self.mix.side)

    def batch(self, step: int) -> dict[str, Any]:
        mix, rng = self.mix, random.Random(f"{self.seed}/{step}")
        rich = float(rng.random() < mix.rich)
        numbers = [rng.randrange(mix.pool) for _ in range(mix.batch)]
        scenes = {number: self.scene(number) for number in numbers}
        new = [number for number in scenes if number not in self.known]
        texts = ["" if rng.random() < mix.blank else worded(scenes[n][0], rng, rich) for n in numbers]
        ids, _ = self.words.ids(texts)
        ids = F.pad(ids, (0, rng.randint(0, min(8, self.sizes.limit - ids.shape[1]))))
        pooled = ["" if rng.random() < 0.5 else text for text in texts]
        longest = self.pipeline.tokenizer_max_length
        told = self.pipeline.tokenizer(
            pooled, padding="max_length", truncation=True, max_length=longest, return_tensors="pt"
        )
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        moments = torch.randn(mix.batch, generator=generator) + mix.centre
        loud = (
            mix.noise * torch.rand(mix.batch, generator=generator) * (torch.rand(mix.batch, generator=generator) < 0.5)
        )
        return {
            "numbers": numbers, "new": new, "ids": ids, "clip": told["input_ids"], "sigma": moments.sigmoid(),
            "pixels": stack([scenes[number][1]() for number in new]) if new else torch.empty(0), "loud": loud,
            "seed": rng.getrandbits(63),
        }  # fmt: skip

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        latents = self._latents(batch)
        generator = torch.Generator().manual_seed(batch["seed"])
        noise = torch.randn(latents.shape, generator=generator).to(latents)
        states = encode_text(self.pipeline.text_encoder_2, batch["ids"], torch.ones_like(batch["ids"])).float()
        size = states.square().mean(-1, keepdim=True).sqrt()
        disturbed = torch.randn(states.shape, generator=generator).to(states)
        states = states + batch["loud"][:, None, None] * size * disturbed
        pooled = self.pipeline.text_encoder(batch["clip"]).pooler_output
        sigma = batch["sigma"]
        mixed = torch.lerp(latents, noise, sigma[:, None, None])
        side = (self.mix.side, self.mix.side)
        # On a CPU, for so few tokens, plain products beat the blocks of flash attention, backwards above all.
        with sdpa_kernel(SDPBackend.MATH) if latents.device.type == "cpu" else nullcontext():
            velocity = self.family.predict(mixed, sigma, [Text(states, pooled)], 1.0, side).float()
        loss = F.mse_loss(velocity, noise - latents)
        return loss, {"seen": float(len(self.known))}

    @torch.no_grad()
    def _latents(self, batch: dict[str, Any]) -> Tensor:
        """(B, S, C) packed; the new ones are encoded and kept, in bfloat16."""
        vae = self.pipeline.vae
        if batch["new"]:
            found = latents_of(vae, batch["pixels"].float() / 127.5 - 1)
            found = pack((found - vae.config.shift_factor) * vae.config.scaling_factor).bfloat16()
            self.known.update(zip(batch["new"], found, strict=True))
        return torch.stack([self.known[number] for number in batch["numbers"]]).float()


def save_flux(pipeline: Any, t5: Any, sizes: FluxSizes, side: int, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16. `text_encoder_2` holds the whole T5: its decoder teaches aligners."""
    from diffusers import AutoencoderKL

    from ..files import write_atomically
    from ..models.folded_kl import FoldedKL

    folder = Path(folder)
    pipeline.to(torch.bfloat16)
    pipeline.vae.__class__ = AutoencoderKL  # its name on disk
    pipeline.save_pretrained(folder)
    pipeline.vae.__class__ = FoldedKL
    t5.to(torch.bfloat16).save_pretrained(folder / "text_encoder_2")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    own = {"steps": sizes.steps, "guidance": sizes.guidance, "limit": sizes.limit, "height": side, "width": side}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "_reverie": own}
    write_atomically(folder / "model_index.json", lambda path: path.write_text(json.dumps(index, indent=2)))
