"""Training the transformer of atelier-qwen by flow matching: from captions to pictures, and from pictures and
instructions to other pictures, as Qwen-Image and its editor paint (arXiv 2508.02324).

x_s = (1 - s) x + s e, and the transformer predicts e - x, through the function that painting calls
(`models.diffusion_qwen.QwenImage.flow`); s is logit-normal (arXiv 2403.03206, section 3.1). Autoencoder and
language model are frozen. A step is one of painting or one of editing; then the latents of the picture before stand
behind the noisy ones, and the language model has seen it. A share of the texts is the blank prompt of guidance.

Scenes come from a pool, each made from its number. A step draws a few new ones until all are there, and learns from old
ones besides, whose latents are kept where the model is: so one picture drawn serves many times, with other noise and
other words, and a GPU need not wait for drawing.
"""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from ..models.diffusion_family import pack
from ..models.diffusion_qwen import QwenImage
from .captions import pictured, worded
from .janus import pad, stack
from .qwen_build import DROPPED, QwenSizes, templates
from .qwen_edits import plain_change
from .qwen_vae import raw_latents
from .qwen_vlm import states_of
from .vlm_build import PICTURE, VISION_END, VISION_START
from .vlm_forward import patches_of, see

if TYPE_CHECKING:
    from ..canvas import Generator

BLANK = " "
"""The negative prompt of Qwen-Image's authors."""


@dataclass
class QwenTraining:
    """batch: rows of a step of painting; edits: of one of editing, whose share of steps is `editing`; fresh, changes:
    new pictures and new edits of a step, until there are `pool` pictures and `changed` edits; blank: share of blank
    prompts; rich: share of captions of several sentences; episodes: see `captions.pictured`; centre: mean of the logit
    of s."""

    batch: int = 48
    edits: int = 32
    editing: float = 0.25
    fresh: int = 16
    changes: int = 8
    pool: int = 10000
    changed: int = 4000
    side: int = 96
    blank: float = 0.1
    rich: float = 0.05
    episodes: float = 0.2
    centre: float = 0.3

    def __post_init__(self) -> None:
        if not (1 <= self.fresh <= self.batch and 1 <= self.changes <= self.edits):
            raise ValueError("mix.fresh and mix.changes: at least 1, and no more than rows of a step (batch, edits).")


def fresh_transformer(sizes: QwenSizes, vae: Any, vlm: Any) -> Any:
    """A transformer for these parts; it begins by predicting zero."""
    import diffusers

    rows, columns = (sizes.head * 3 // 8 // 2 * 2,) * 2
    found: Any = diffusers.QwenImageTransformer2DModel(
        in_channels=4 * vae.config.z_dim, out_channels=vae.config.z_dim, num_layers=sizes.layers,
        attention_head_dim=sizes.head, num_attention_heads=sizes.heads,
        joint_attention_dim=vlm.config.text_config.hidden_size,
        axes_dims_rope=(sizes.head - rows - columns, rows, columns),
    )  # fmt: skip
    for name, part in found.named_modules():
        # Blocks begin as the identity, the prediction as zero (arXiv 2212.09748).
        if isinstance(part, nn.Linear) and (name.endswith(("_mod.1", "norm_out.linear")) or name == "proj_out"):
            nn.init.zeros_(part.weight)
            nn.init.zeros_(part.bias)
    return found


def assemble(vae: Any, vlm: Any, words: Any, transformer: Any) -> Any:
    """The parts as a pipeline that paints, with the noise levels of the released Qwen-Image."""
    import diffusers

    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(
        use_dynamic_shifting=True, base_shift=0.5, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02
    )
    pipeline: Any = diffusers.QwenImagePipeline(
        scheduler=scheduler, vae=vae, text_encoder=vlm, tokenizer=words, transformer=transformer
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


class QwenTask:
    """`training.loop.Task` of the transformer."""

    def __init__(self, pipeline: Any, sizes: QwenSizes, mix: QwenTraining, seed: int = 0):
        self.pipeline, self.sizes, self.mix, self.seed = pipeline, sizes, mix, seed
        self.family, self.size = QwenImage(pipeline, sizes.limit), (mix.side, mix.side)
        self.reader = Encoder(pipeline.text_encoder, pipeline.tokenizer, mix.side)
        self.model = nn.ModuleDict({"transformer": pipeline.transformer}).train()
        self.vae = pipeline.vae.eval().requires_grad_(False)
        pipeline.text_encoder.eval().requires_grad_(False)
        self.told: dict[int, Any] = {}
        self.kept: dict[str, Tensor] = {}

    def painter(self) -> Generator:
        """The model as it paints by now."""
        from .samples import small_painter

        return small_painter(self.pipeline, self.sizes, self.mix.side)

    # Data.

    def scene(self, number: int) -> Any:
        """Picture `number` of the pool."""
        from ..atelier.draw import draw
        from ..atelier.sample import compose

        rng = random.Random(f"{self.seed}/scene {number}")
        demand, known = pictured(rng, self.mix.episodes)
        return draw(known or compose(demand, rng), self.mix.side)

    def change(self, number: int) -> tuple[Any, str, Any]:
        """Edit `number` of the pool: picture before, instruction, picture afterwards."""
        from ..atelier.draw import draw

        before, words, after = plain_change(random.Random(f"{self.seed}/change {number}"))
        return draw(before, self.mix.side), words, draw(after, self.mix.side)

    def batch(self, step: int) -> dict[str, Any]:
        """Of painting or editing: `new` pictures from the pool's number `first` on, the numbers of all rows, and their
        texts' ids. A batch says by numbers alone what was drawn in earlier steps."""
        mix = self.mix
        rng = random.Random(f"{self.seed}/{step}")
        editing = int((step + 1) * mix.editing) > int(step * mix.editing)
        before = int(step * mix.editing)  # steps of editing so far
        if editing:
            rows, fresh, most, turn = mix.edits, mix.changes, mix.changed, before
        else:
            rows, fresh, most, turn = mix.batch, mix.fresh, mix.pool, step - before
        first, last = min(fresh * turn, most), min(fresh * (turn + 1), most)
        numbers = [*range(first, last), *(rng.randrange(last) for _ in range(rows - (last - first)))]
        found = self._edits(numbers, first, last, rng) if editing else self._paints(numbers, first, last, rng)
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        moments = torch.randn(rows, generator=generator) + mix.centre
        return found | {
            "editing": editing, "first": first, "numbers": torch.tensor(numbers), "sigma": moments.sigmoid(),
            "seed": rng.getrandbits(63),
        }  # fmt: skip

    def _paints(self, numbers: list[int], first: int, last: int, rng: random.Random) -> dict[str, Any]:
        texts = []
        for number in numbers:
            if number not in self.told:
                self.told[number] = pictured(random.Random(f"{self.seed}/scene {number}"), self.mix.episodes)[0]
            rich = float(rng.random() < self.mix.rich)
            texts.append(BLANK if rng.random() < self.mix.blank else worded(self.told[number], rng, rich, 0.05))
        new = [self.scene(number) for number in range(first, last)]
        return self.reader.rows("paint", texts) | {"new": stack(new) if new else torch.empty(0)}

    def _edits(self, numbers: list[int], first: int, last: int, rng: random.Random) -> dict[str, Any]:
        drawn = [self.change(number) for number in range(first, last)]
        texts = []
        for number in numbers:
            if first <= number < last:
                words = drawn[number - first][1]
            else:
                words = plain_change(random.Random(f"{self.seed}/change {number}"))[1]
            texts.append(BLANK if rng.random() < self.mix.blank else words)
        pictures = [picture for before, _, after in drawn for picture in (before, after)]
        return self.reader.rows("edit", texts) | {"new": stack(pictures) if pictures else torch.empty(0)}

    # Losses.

    def loss(self, batch: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        source, seen = None, None
        shapes: tuple[tuple[int, int, int], ...] = ()
        if batch["editing"]:
            both, looked = self._changed(batch)
            source, latents, seen = *both.float().unbind(1), looked
            shapes = ((1, self.mix.side // 16, self.mix.side // 16),)
        else:
            latents = self._painted(batch).float()
        with torch.no_grad():
            states, mask = self.reader(batch, seen)
        generator = torch.Generator(latents.device).manual_seed(batch["seed"])
        noise = torch.randn(latents.shape, generator=generator, device=latents.device)
        sigma = batch["sigma"]
        mixed = torch.lerp(latents, noise, sigma[:, None, None])
        # On a CPU, for so few tokens, plain products beat the blocks of flash attention, backwards above all.
        with sdpa_kernel(SDPBackend.MATH) if latents.device.type == "cpu" else nullcontext():
            velocity = self.family.flow(mixed, sigma, states.float(), mask, self.size, source, shapes).float()
        loss = F.mse_loss(velocity, noise - latents)
        return loss, {"edit" if batch["editing"] else "paint": loss.detach()}

    def _painted(self, batch: dict[str, Any]) -> Tensor:
        """(B, S, C) packed latents, kept in bfloat16."""
        if "paint" not in self.kept:
            self._begin("paint", batch["numbers"].device)
            for first in range(0, batch["first"], 64):  # a stopped run: those from before are drawn again
                numbers = range(first, min(first + 64, batch["first"]))
                self._keep("paint", first, stack([self.scene(number) for number in numbers]))
        self._keep("paint", batch["first"], batch["new"])
        return self.kept["paint"][batch["numbers"]]

    def _changed(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """Latents before and after (B, 2, S, C), and the tokens (B, P, D) of what the language model saw before."""
        if "edit" not in self.kept:
            self._begin("edit", batch["numbers"].device)
            for first in range(0, batch["first"], 64):
                drawn = [self.change(number) for number in range(first, min(first + 64, batch["first"]))]
                self._keep("edit", first, stack([picture for before, _, after in drawn for picture in (before, after)]))
        self._keep("edit", batch["first"], batch["new"])
        return self.kept["edit"][batch["numbers"]], self.kept["seen"][batch["numbers"]]

    def _begin(self, kind: str, device: torch.device) -> None:
        side, channels = self.mix.side // 16, 4 * self.vae.config.z_dim
        self.vae.to(device)
        self.reader.vlm.to(device)
        if kind == "paint":
            shape: tuple[int, ...] = (self.mix.pool, side**2, channels)
        else:
            shape = (self.mix.changed, 2, side**2, channels)
            seen = (self.mix.changed, self.reader.tokens, self.reader.vlm.config.text_config.hidden_size)
            self.kept["seen"] = torch.zeros(seen, dtype=torch.bfloat16, device=device)
        self.kept[kind] = torch.zeros(shape, dtype=torch.bfloat16, device=device)

    @torch.no_grad()
    def _keep(self, kind: str, first: int, pictures: Tensor) -> None:
        if not len(pictures):
            return
        kept = self.kept[kind]
        pictures = pictures.to(kept.device)
        latents = pack(latents_of(self.vae, pictures.float() / 127.5 - 1)[:, :, 0]).to(kept.dtype)
        latents = latents.unflatten(0, (-1, *kept.shape[1:-2]))
        kept[first : first + len(latents)] = latents
        if kind == "edit":
            self.kept["seen"][first : first + len(latents)] = self.reader.see(pictures[::2]).to(kept.dtype)


def latents_of(vae: Any, pixels: Tensor) -> Tensor:
    """(B, C, 1, H / 8, W / 8), normalised, of pictures (B, 3, H, W) in [-1, 1]."""
    mean, deviation = (
        torch.tensor(values, device=pixels.device).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return (raw_latents(vae, pixels) - mean) / deviation


class Encoder:
    """The language model as the pipelines read a prompt with it, many at a time."""

    def __init__(self, vlm: Any, words: Any, side: int):
        self.vlm, self.words = vlm, words
        self.picture, self.pad = words.convert_tokens_to_ids(PICTURE), words.pad_token_id
        self.patch = vlm.config.vision_config.patch_size
        self.tokens = (side // (2 * self.patch)) ** 2
        self.templates = {
            name: text.replace(VISION_START + PICTURE + VISION_END, VISION_START + PICTURE * self.tokens + VISION_END)
            for name, text in templates().items()
        }

    def rows(self, kind: str, texts: list[str]) -> dict[str, Any]:
        """`paint` or `edit` prompts in their template: ids (B, T), lengths (B,), and the positions to drop."""
        ids = self.words([self.templates[kind].format(text) for text in texts], add_special_tokens=False).input_ids
        return {"ids": pad(ids, self.pad), "length": torch.tensor([len(row) for row in ids]), "dropped": DROPPED[kind]}

    def __call__(self, rows: dict[str, Any], seen: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """States (B, T, D), zero where there is padding, and which are none (B, T)."""
        ids, dropped = rows["ids"], rows["dropped"]
        places = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), 3, -1)
        states = states_of(self.vlm, self.picture, {"ids": ids, "places": places}, seen)[:, dropped:]
        real = torch.arange(states.shape[1], device=ids.device) < (rows["length"] - dropped)[:, None]
        return states * real[..., None], real

    def see(self, pictures: Tensor) -> Tensor:
        """Tokens (B, P, D) of pictures (B, 3, H, W) uint8."""
        return see(self.vlm.model.visual, patches_of(pictures, self.patch))
