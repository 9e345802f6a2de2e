"""Training the Atelier's small Qwen2-VL: eyes first, then questions about pictures, then episodes in context as text.

Three kinds of rows, each answered in words (the loss is on answers alone):

    look      a picture, and a request for a caption or a question about it
    told      an episode whose pictures are told as captions; every caption after the first is a question too
    episode   CoBSAT's tasks as the model will meet them: words and pictures, and the caption of the next picture

Beside the captions, plain heads read the kinds and looks in a picture from the mean of its tokens. They teach the eyes
what a caption says in few of its words, and are left out of the checkpoint. Episodes are learnt once the eyes are good
and stay as they are, so that each picture is seen once and its tokens are kept. No diffusion model is anywhere near.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..atelier.draw import draw
from ..atelier.episode_pictures import EpisodePictures
from ..atelier.episodes import Episode, episode
from ..atelier.language import demand_of, say
from ..atelier.lessons import lesson
from ..atelier.sample import compose, random_demand
from ..atelier.scene import Scene
from ..data.build_features import REQUESTS
from ..models.thinkdiff import in_context
from ..vlms import IMAGE
from .cross_entropy import cross_entropy
from .janus import in_working_type, pad, stack
from .vlm_build import END, INSTRUCTION, PICTURE, VISION_END, VISION_START, VlmSizes
from .vlm_facts import GROUPS, facts
from .vlm_forward import patches_of, places_of, quicken_qwen, read, see

Segment = tuple[str, bool]
"""Text, and whether it is to be learnt."""


@dataclass
class VlmTraining:
    """What a step is made of: pictures that the heads read, those of them with a question, told episodes, episodes.

    eyes: whether the vision tower learns; episodes need it to stay as it is. shots: most examples of an episode.
    single: share of pictures that show one thing as episodes do. variants: see `EpisodePictures`.
    """

    pictures: int = 48
    look: int = 24
    told: int = 0
    episodes: int = 0
    eyes: bool = True
    shots: int = 5
    single: float = 0.75
    facts_weight: float = 1.0
    variants: int = 24

    def __post_init__(self) -> None:
        if self.eyes and self.episodes:
            raise ValueError("Episodes are learnt with eyes that stay as they are; set mix.eyes to false.")
        if self.look > self.pictures or min(self.look, self.told, self.episodes) < 0:
            raise ValueError(f"look={self.look}: at most pictures={self.pictures}, and nothing below 0.")
        if not self.pictures + self.told + self.episodes:
            raise ValueError("There is nothing to learn: give pictures, told or episodes.")


class VlmTask:
    """`training.loop.Task` of the small Qwen2-VL."""

    def __init__(self, vlm: Any, tokenizer: Any, sizes: VlmSizes, mix: VlmTraining, seed: int = 0):
        self.vlm, self.words, self.sizes, self.mix, self.seed = quicken_qwen(vlm), tokenizer, sizes, mix, seed
        self.picture = tokenizer.convert_tokens_to_ids(PICTURE)
        self.span = VISION_START + PICTURE * sizes.tokens + VISION_END
        heads = nn.Linear(sizes.width, sum(map(len, GROUPS.values())))
        vlm.model.visual.requires_grad_(mix.eyes)
        heads.requires_grad_(mix.eyes)
        self.model = nn.ModuleDict({"vlm": vlm, "heads": heads}).train()
        self.pictures = EpisodePictures(mix.variants)
        self.seen: Tensor | None = None
        self.known = torch.zeros(len(self.pictures), dtype=torch.bool)

    # Data.

    def batch(self, step: int) -> dict[str, dict[str, Tensor]]:
        rng, mix = random.Random(f"{self.seed}/{step}"), self.mix
        found = {}
        if mix.pictures:
            found["look"] = self._look(rng)
        if mix.told:
            shots = rng.randint(2, mix.shots)
            found["told"] = self._rows([told_row(_episode(rng, shots), rng) for _ in range(mix.told)])
        if mix.episodes:
            shots = rng.randint(1, mix.shots)
            drawn = [_episode(rng, shots) for _ in range(mix.episodes)]
            numbers = [number for one in drawn for number in self.pictures.numbers(one, rng)]
            found["episode"] = self._rows([episode_row(one, rng) for one in drawn]) | {"numbers": torch.tensor(numbers)}
        return found

    def _look(self, rng: random.Random) -> dict[str, Tensor]:
        """Pictures, what the heads are to read in each, and the first few with a question."""
        rows, scenes, pixels = [], [], []
        for number in range(self.mix.pictures):
            if rng.random() < self.mix.single:
                chosen = rng.randrange(len(self.pictures))
                scene, drawn = self.pictures.scene(chosen), self.pictures.pixels(chosen, self.sizes.side)
                row = caption_row(scene, rng)
            else:
                scene, row = _any_row(rng)
                drawn = draw(scene, self.sizes.side)
            scenes.append(scene)
            pixels.append(drawn)
            if number < self.mix.look:
                rows.append(row)
        found = {"pixels": stack(pixels), "facts": torch.tensor([facts(scene) for scene in scenes])}
        return found | (self._rows(rows) if rows else {})

    def _rows(self, rows: Sequence[Sequence[Segment]]) -> dict[str, Tensor]:
        """Conversations of one question and one answer as ids (B, T), their places (3, B, T), and which positions
        carry the loss of the token behind them (B, T)."""
        ids, learnt, places = [], [], []
        for row in rows:
            *question, (answer, _) = row
            parts = [("<|im_start|>user\n", False), *question, (f"{END}\n<|im_start|>assistant\n", False)]
            parts += [(answer + END, True)]
            tokens: list[int] = []
            marks: list[int] = []
            for text, learns in merged(parts):
                found = self.words.encode(text.replace(IMAGE, self.span), add_special_tokens=False)
                tokens += found
                marks += [int(learns)] * len(found)
            ids.append(tokens)
            learnt.append([*marks[1:], 0])
            places.append(places_of(tokens, self.picture, int(self.sizes.tokens**0.5)))
        axes = [pad([[place[axis] for place in row] for row in places], 0) for axis in range(3)]
        filled = pad(ids, self.words.pad_token_id)
        return {"ids": filled, "places": torch.stack(axes, 1), "carries": pad(learnt, 0).bool()}

    # Losses.

    def loss(self, batch: dict[str, dict[str, Tensor]]) -> tuple[Tensor, dict[str, Any]]:
        losses: dict[str, Tensor] = {}
        if (look := batch.get("look")) is not None:
            tokens = self._see(look["pixels"])
            if self.mix.eyes:
                losses["facts"] = self.mix.facts_weight * self._facts_loss(tokens, look["facts"])
            if self.mix.look:
                losses["look"] = self._answer_loss(look, tokens[: self.mix.look])
        if (told := batch.get("told")) is not None:
            losses["told"] = self._answer_loss(told, None)
        if (asked := batch.get("episode")) is not None:
            losses["episode"] = self._answer_loss(asked, self._kept(asked["numbers"]))
        return torch.stack(list(losses.values())).sum(), {name: loss.detach() for name, loss in losses.items()}

    def _see(self, pixels: Tensor) -> Tensor:
        """Pictures (N, 3, S, S) uint8 to tokens (N, tokens, width)."""
        with torch.set_grad_enabled(self.mix.eyes and torch.is_grad_enabled()):
            return see(self.vlm.model.visual, patches_of(pixels, self.sizes.patch))

    def _kept(self, numbers: Tensor) -> Tensor:
        """Tokens of numbered pictures; those never met before are drawn and seen."""
        fresh = numbers.unique()
        fresh = fresh[~self.known[fresh.cpu()]]
        if self.seen is None:
            shape = (len(self.pictures), self.sizes.tokens, self.sizes.width)
            self.seen = torch.zeros(shape, dtype=torch.bfloat16, device=numbers.device)
        if len(fresh):
            drawn = [draw(self.pictures.scene(int(n)), self.sizes.side) for n in fresh]
            self.seen[fresh] = self._see(stack(drawn).to(numbers.device)).to(self.seen.dtype)
            self.known[fresh.cpu()] = True
        return self.seen[numbers]

    def _facts_loss(self, tokens: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of every group of names; a group with several right names wants them in equal shares."""
        told = self.model["heads"](tokens.mean(1)).float()
        sizes = [len(names) for names in GROUPS.values()]
        pairs = zip(told.split(sizes, 1), wanted.split(sizes, 1), strict=True)
        return torch.stack([F.cross_entropy(logits, right) for logits, right in pairs]).sum()

    def _answer_loss(self, rows: dict[str, Tensor], pictures: Tensor | None) -> Tensor:
        ids = rows["ids"]
        embeds = self.vlm.model.language_model.embed_tokens(ids)
        if pictures is not None:
            embeds = embeds.masked_scatter((ids == self.picture)[..., None], pictures.to(embeds.dtype))
        hidden = read(self.vlm, in_working_type(embeds), rows["places"].transpose(0, 1))
        carries = rows["carries"]
        return cross_entropy(self.vlm.lm_head(hidden[carries]), ids.roll(-1, 1)[carries])


def merged(parts: Sequence[Segment]) -> list[Segment]:
    """Neighbours that are both learnt, or both not, become one text, which is how a tokenizer will meet them."""
    joined: list[Segment] = []
    for text, learns in parts:
        if joined and joined[-1][1] == learns:
            joined[-1] = (joined[-1][0] + text, learns)
        else:
            joined.append((text, learns))
    return joined


def _episode(rng: random.Random, shots: int) -> Episode:
    return episode(rng, rng.randint(1, 10), shots)


def caption(scene: Scene, rng: random.Random) -> str:
    """One of many wordings of what a scene shows; details come in any order."""
    return say(demand_of(scene), rng, rng.choice(("terse", "plain", "plain")), split="train")


def caption_row(scene: Scene, rng: random.Random) -> list[Segment]:
    return [(IMAGE + rng.choice(REQUESTS), False), (caption(scene, rng), True)]


def _any_row(rng: random.Random) -> tuple[Scene, list[Segment]]:
    """Any scene of the Atelier, with a question about it or a request for a caption."""
    if rng.random() < 0.5:
        found = lesson(rng, "question")
        assert found.scene is not None
        return found.scene, [(IMAGE + found.question, False), (found.answer, True)]
    scene = compose(random_demand(rng), rng, loose=True)
    return scene, caption_row(scene, rng)


def episode_row(one: Episode, rng: random.Random) -> list[Segment]:
    """The question as `models.thinkdiff.in_context` asks it, and a caption of the picture that is wanted."""
    pairs: list[Any] = [(None, word) for word, _ in one.examples]
    question = in_context(pairs, one.query, INSTRUCTION)[0].text
    return [(question, False), (caption(one.answer, rng), True)]


def told_row(one: Episode, rng: random.Random) -> list[Segment]:
    """The same with a caption in each picture's place; the first cannot be foretold, the others are learnt."""
    row: list[Segment] = []
    pieces = episode_row(one, rng)[0][0].split(IMAGE)
    for number, (piece, (_, scene)) in enumerate(zip(pieces, one.examples, strict=False)):
        row += [(piece, False), (caption(scene, rng), number > 0)]
    return [*row, (pieces[-1], False), (caption(one.answer, rng), True)]
