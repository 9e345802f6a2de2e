"""Training a small FLUX in the Atelier by flow matching: from captions, as a T5 encoder writes them, to pictures.

x_s = (1 - s) x + s e, and the transformer predicts e - x (arXiv 2210.02747; s is logit-normal, as in arXiv 2403.03206,
section 3.1), through the function that painting calls (`models.diffusion_families.Flux.predict`). Autoencoder and T5
are frozen. The T5 is read as the pipeline of FLUX reads it, padded and without a mask; or, as an aligner's vectors
come, without any padding, some vectors noisy, some missing, and with the pooled vector of the empty text.

Every step brings a few scenes that are drawn for it; the others are those of earlier steps, whose latents and wordings
are kept where the network is. So a step costs the same on any device, and none waits for drawing.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..models.diffusion_families import Flux
from ..models.diffusion_family import Text, pack
from .autoencoder import latents_of, save_autoencoder
from .captions import pictured, worded
from .janus import stack
from .pool import Pool
from .pull import encode_seen, so_far

if TYPE_CHECKING:
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
    """batch: pictures a step; fresh: of them, scenes that are new; pool: different scenes after which none is new;
    wordings: of each scene; side: of pictures, in pixels.

    blank: share of captions left blank, which is what guidance needs; noise: largest deviation of noise on the T5's
    vectors, relative to their size, on half of the rows; left_out: share of these rows' vectors that are missing;
    pieces, so_far: share of captions that are read piece by piece, the pieces side by side, and of those where each
    vector is written with only the words up to it in view; rich: share of wordings of several sentences; centre: mean
    of the logit of s; again: share of captions behind whose vectors no padding comes, but the same once more in any
    order, as many tokens of a picture say one thing; episodes, fine, pairs: of scenes, see `captions.pictured`."""

    batch: int = 48
    fresh: int = 12
    pool: int = 10000
    wordings: int = 4
    side: int = 96
    blank: float = 0.1
    noise: float = 0.4
    left_out: float = 0.1
    pieces: float = 0.2
    so_far: float = 0.25
    rich: float = 0.06
    centre: float = 0.3
    again: float = 0.0
    episodes: float = 0.35
    fine: float = 0.0
    pairs: float = 0.0

    def __post_init__(self) -> None:
        if min(self.batch, self.fresh, self.pool, self.wordings) < 1:
            raise ValueError(
                f"batch={self.batch}, fresh={self.fresh}, pool={self.pool}, wordings={self.wordings}: all must be at "
                "least 1."
            )
        if not 0 <= self.left_out < 1:
            raise ValueError(f"left_out={self.left_out}: must be a share below 1.")


def fresh_flux(sizes: FluxSizes, vae: Any, t5: Any, words: Any) -> Any:
    """The whole pipeline around a trained autoencoder and T5; what is left to train has random weights."""
    import diffusers
    from transformers import T5EncoderModel

    from ..models.folded_kl import fold_pipeline

    if sizes.head % 16:
        raise ValueError(f"model.head={sizes.head}: must be a multiple of 16.")
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


@torch.no_grad()
def go_on(pipeline: Any, folder: str | Path) -> None:
    """Takes over transformer and CLIP, its words too, of a saved pipeline. If its autoencoder wrote other latents, the
    two layers that read and write latents begin anew. ValueError for a transformer of other sizes."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, CLIPTokenizer

    folder = Path(folder)
    if not (folder / "transformer").is_dir():
        raise ValueError(f"{folder} holds no transformer to go on from; give the checkpoint of a FLUX.")
    old: Any = FluxTransformer2DModel.from_pretrained(folder / "transformer", torch_dtype=torch.float32)
    vae: Any = AutoencoderKL.from_pretrained(folder / "vae", torch_dtype=torch.float32)
    state, mine = old.state_dict(), pipeline.transformer.state_dict()
    if not same_weights(vae.encoder, pipeline.vae.encoder):
        ends = ("x_embedder.", "proj_out.")
        state |= {name: weight for name, weight in mine.items() if name.startswith(ends)}
    try:
        pipeline.transformer.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(f"{folder} has a transformer of other sizes; use the recipe it was trained with.") from error
    clip: Any = CLIPTextModel.from_pretrained(folder / "text_encoder", torch_dtype=torch.float32)
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    pipeline.register_modules(text_encoder=clip, tokenizer=words)
    pipeline.tokenizer_max_length = words.model_max_length


def same_weights(one: nn.Module, other: nn.Module) -> bool:
    """Whether two modules hold the same, but for what bfloat16 rounds."""
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        tensor.shape == second[name].shape and torch.allclose(tensor, second[name], rtol=1e-2, atol=1e-5)
        for name, tensor in first.items()
    )


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


class NarrowNorm(nn.RMSNorm):
    """The same norm with its weight in the type of what comes in: only then is it one kernel under autocast."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.eps)


class FluxTask:
    """`training.loop.Task`: `model` holds the transformer and the CLIP that makes its pooled vector."""

    def __init__(self, pipeline: Any, sizes: FluxSizes, mix: FluxTraining, seed: int = 0):
        self.pipeline, self.sizes, self.mix, self.seed = pipeline, sizes, mix, seed
        self.family = Flux(pipeline, sizes.limit)
        self.model = nn.ModuleDict({"transformer": pipeline.transformer, "clip": pipeline.text_encoder}).train()
        for part in pipeline.transformer.modules():
            part.__class__ = NarrowNorm if type(part) is nn.RMSNorm else part.__class__
        for part in (pipeline.vae, pipeline.text_encoder_2):
            part.eval().requires_grad_(False)
        self.pool = Pool(mix.pool)
        self.blank = self._ids([""])

    def painter(self) -> Generator:
        """The model as it paints by now."""
        from .samples import small_painter

        return small_painter(self.pipeline, self.sizes, self.mix.side)

    def scene(self, number: int) -> tuple[Any, list[str]]:
        """What picture `number` of the pool looks like, and its wordings."""
        from ..atelier.draw import draw
        from ..atelier.sample import compose

        rng = random.Random(f"{self.seed}/scene {number}")
        demand, known = pictured(rng, self.mix.episodes, fine=self.mix.fine, pairs=self.mix.pairs)
        texts = [worded(demand, rng, float(rng.random() < self.mix.rich)) for _ in range(self.mix.wordings)]
        return draw(known or compose(demand, rng), self.mix.side), texts

    def batch(self, step: int) -> dict[str, Any]:
        """first: the number of the first scene that is new; pixels (n, 3, side, side) uint8, ids and clip (n, wordings,
        limit): of the new ones; seed: of all else."""
        first, end = self._met(step), self._met(step + 1)
        seed = random.Random(f"{self.seed}/{step}").getrandbits(63)
        return {"first": first, "seed": seed, **self._drawn(first, end)}

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        device = self.pipeline.transformer.device
        self.place(device)
        new: dict[str, Any] = {name: batch[name] for name in ("pixels", "ids", "clip") if name in batch}
        self.pool.meet(batch["first"], new, self._drawn, self._rows)
        generator = torch.Generator(device).manual_seed(batch["seed"])
        latents, ids, clip = self._chosen(generator, self._room(batch["seed"]))
        noise = torch.randn(latents.shape, generator=generator, device=device)
        there = self._lengths(ids, generator)
        states = encode_seen(self.pipeline.text_encoder_2, ids, self._seen(there, generator)).float()
        states = self._repeated(states, ids, generator) if self.mix.again else states
        states, there = self._disturbed(states, there, generator)
        pooled = self.pipeline.text_encoder(clip).pooler_output
        sigma = (torch.randn(len(ids), generator=generator, device=device) + self.mix.centre).sigmoid()
        mixed = torch.lerp(latents, noise, sigma[:, None, None])
        side = (self.mix.side, self.mix.side)
        # For so few tokens plain products cost next to nothing: on a CPU they beat the blocks of flash attention,
        # backwards above all, and on a GPU they spare its special kernels rows of odd lengths with a mask.
        with sdpa_kernel(SDPBackend.MATH):
            velocity = self.family.predict(mixed, sigma, [Text(states, pooled)], 1.0, side, there).float()
        return F.mse_loss(velocity, noise - latents), {"seen": float(self.pool.count)}

    def place(self, device: torch.device) -> None:
        """Moves what is frozen; the loop knows only what learns."""
        if device.type == "cuda":
            torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)  # plain attention stays in bfloat16
        self.pipeline.vae.to(device)
        self.pipeline.text_encoder_2.to(device)

    def _met(self, step: int) -> int:
        """Scenes of the pool that were drawn before this step."""
        return min(self.mix.pool, step * self.mix.fresh)

    def _drawn(self, first: int, end: int) -> dict[str, Any]:
        if first == end:
            return {}
        scenes = [self.scene(number) for number in range(first, end)]
        told = [self._ids(texts) for _, texts in scenes]
        return {
            "pixels": stack([picture for picture, _ in scenes]),
            "ids": torch.stack([ids for ids, _ in told]), "clip": torch.stack([clip for _, clip in told]),
        }  # fmt: skip

    def _ids(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(n, limit) of the T5, (n, longest) of the CLIP; padded and cut as the pipeline does it."""
        pipeline = self.pipeline
        both = ((pipeline.tokenizer_2, self.sizes.limit), (pipeline.tokenizer, pipeline.tokenizer_max_length))
        first, second = (
            words(texts, padding="max_length", truncation=True, max_length=longest, return_tensors="pt")["input_ids"]
            for words, longest in both
        )
        return first, second

    @torch.no_grad()
    def _rows(self, drawn: Mapping[str, Any]) -> tuple[Tensor, ...]:
        """What the pool keeps of scenes: latents, ids, ids of the CLIP."""
        vae = self.pipeline.vae
        found = latents_of(vae, drawn["pixels"].to(vae.device).float() / 127.5 - 1)
        found = pack((found - vae.config.shift_factor) * vae.config.scaling_factor)
        return tuple(part.to(vae.device) for part in (found.bfloat16(), drawn["ids"].short(), drawn["clip"].short()))

    def _room(self, seed: int) -> int:
        """Text vectors in this step: most captions are short, so most steps have little room and cost less. There are
        two sizes only, as each is compiled."""
        limit = self.sizes.limit
        return random.Random(seed).choices([max(2, limit // 2), limit], (8, 2))[0]

    def _chosen(self, generator: torch.Generator, room: int) -> tuple[Tensor, Tensor, Tensor]:
        """Latents (B, S, C) packed, ids (B, room), ids of the CLIP (B, longest); some captions left blank."""
        mix, device = self.mix, generator.device

        def some(share: float) -> Tensor:
            return torch.rand(mix.batch, 1, generator=generator, device=device) < share

        # Captions with room come first among four times as many as are needed; where they do not suffice, blanks stand
        # for the others.
        rows = torch.randint(self.pool.count, (4 * mix.batch,), generator=generator, device=device)
        which = torch.randint(mix.wordings, (4 * mix.batch,), generator=generator, device=device)
        long = self.pool.kept[1][rows, which, room:].any(-1)
        first = long.int().argsort(stable=True)[: mix.batch]
        rows, which, long = rows[first], which[first], long[first]
        latents, ids, clip = self.pool.kept[0][rows], self.pool.kept[1][rows, which], self.pool.kept[2][rows, which]
        blank = some(mix.blank) | long[:, None]
        ids = torch.where(blank, self.blank[0].to(device), ids.long())[:, :room]
        clip = torch.where(blank | some(0.5), self.blank[1].to(device), clip.long())
        return latents.float(), ids, clip

    def _lengths(self, ids: Tensor, generator: torch.Generator) -> Tensor:
        """(B, limit), True for vectors that the transformer gets: four tenths of the captions as long as they are, a
        tenth padded to the limit, the others in between; blank ones of any length, as what guides away has."""
        limit = ids.shape[1]
        draws = torch.rand(len(ids), 2, generator=generator, device=ids.device)
        own = (ids != self.pipeline.tokenizer_2.pad_token_id).sum(1)
        own = torch.where(own > 1, own, 1 + (draws[:, 1] * (limit - 1)).long())
        lengths = own + ((limit - own) * (2 * draws[:, 0] - 0.8).clamp(0, 1)).round()
        return torch.arange(limit, device=ids.device) < lengths[:, None]

    def _seen(self, there: Tensor, generator: torch.Generator) -> Tensor:
        """(B, L, L), True where the encoder's vector at the one place may see the other. Vectors of an answer know what
        was said and not what follows, and those of several pictures or of a picture and a text know nothing of each
        other: what is to be painted from them must not hang on what only a whole caption's encoding has."""
        rows, length = there.shape
        kind = torch.rand(rows, 1, 1, generator=generator, device=there.device)
        cuts = torch.rand(there.shape, generator=generator, device=there.device) < 0.2
        piece = cuts.cumsum(1)
        alone = piece[:, :, None] == piece[:, None]
        whole = kind >= self.mix.pieces + self.mix.so_far
        seen = whole | torch.where(kind < self.mix.pieces, alone, so_far(length, there.device))
        # A place sees itself, so that none is left with nothing to see.
        return (seen & there[:, None]) | torch.eye(length, dtype=torch.bool, device=there.device)

    def _repeated(self, states: Tensor, ids: Tensor, generator: torch.Generator) -> Tensor:
        """Vectors (B, L, D); of some rows, those of padding (ids, (B, L)) become others of the row's own. Blank rows
        are left alone."""
        own = (ids != self.pipeline.tokenizer_2.pad_token_id).sum(1, keepdim=True)
        draws = torch.rand(ids.shape[0], 1 + ids.shape[1], generator=generator, device=ids.device)
        places = torch.arange(ids.shape[1], device=ids.device)
        behind = (places >= own) & (own > 1) & (draws[:, :1] < self.mix.again)
        return states.gather(1, torch.where(behind, (draws[:, 1:] * own).long(), places)[..., None].expand_as(states))

    def _disturbed(self, states: Tensor, there: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Half of the rows with noise, and with vectors missing."""
        device = states.device
        draws = torch.rand(len(states), 2, 1, generator=generator, device=device)
        loud = (self.mix.noise * draws[:, 0]) * (draws[:, 1] < 0.5)
        size = states.square().mean(-1, keepdim=True).sqrt()
        noise = torch.randn(states.shape, generator=generator, device=device)
        out = torch.rand(there.shape, generator=generator, device=device) < self.mix.left_out * (loud > 0)
        out[:, 0] = False  # something must be left to look at
        return states + loud[:, None] * size * noise, there & ~out


def save_flux(pipeline: Any, t5: Any, sizes: FluxSizes, side: int, folder: str | Path) -> None:
    """The diffusers layout, in bfloat16. `text_encoder_2` holds the whole T5: its decoder teaches aligners."""
    from ..files import write_atomically

    folder = Path(folder)
    pipeline.to(torch.bfloat16).save_pretrained(folder)
    save_autoencoder(pipeline.vae, folder / "vae")
    t5.to(torch.bfloat16).save_pretrained(folder / "text_encoder_2")
    index = json.loads((folder / "model_index.json").read_text("utf-8"))
    own = {"steps": sizes.steps, "guidance": sizes.guidance, "limit": sizes.limit, "height": side, "width": side}
    index |= {"vae": ["diffusers", "AutoencoderKL"], "_reverie": own}
    write_atomically(folder / "model_index.json", lambda path: path.write_text(json.dumps(index, indent=2)))
