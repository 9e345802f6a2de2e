"""Supervised fine-tuning of a Janus that thinks while it paints (TWIG-SFT, arXiv 2511.16671).

Each step draws rows of three kinds from stories (data/stories.py): THINK, a thought behind a request and the canvas so
far; GENERATE, the codes of one region behind all thoughts and the codes above it; REFLECT, a critique behind the canvas
with its region. PLAIN rows, a kind of our own, are whole pictures behind the bare prompt: so the model still paints
directly, and alone they are the control that learns from the same pictures without a thought. Only the thought, the
region or the critique carries loss. Canvases are shown as at inference: codes
beyond the region are the fill code, and all of them are decoded. The published best mixture is as many THINK as
GENERATE rows and no REFLECT; a share of captions is blanked, which is what guidance needs.

The language model learns, as in T2I-R1; vision tower, aligner and everything about codes stay, unless `all` says so.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from ..data.stories import DrawnStories, Stories, Taken
from ..during import plainly
from ..models.janus import Janus
from ..models.janus_text import EOS, JanusTokenizer
from ..vlms import Message
from ..vlms.janus import JanusEyes
from .janus import Rows, answer_loss, code_loss, lengths, pad

FILL = 0
"""The code that stands where nothing is painted, as in generators/janus.py."""


Places = Sequence[tuple[Taken, int]]
"""Stories, and a region of each from 1."""
Chosen = Tensor | slice
"""Which rows of a batch."""


@dataclass
class StoryTraining:
    """Rows of a step by kind, and what they weigh. blank: share of captions blanked for guidance. whole: GENERATE rows
    teach the regions above theirs, too, which costs nothing more. unheard: share of drawn stories whose prompt stands
    behind made-up words, so that thoughts keep to the things that are named (teachers.AtelierTeacher). parts: rows of a
    kind go through the network in so many parts, short ones first: the same loss with less padding, for CPUs. all:
    everything but the image tokenizer learns."""

    think: int = 8
    generate: int = 8
    reflect: int = 0
    plain: int = 0
    blank: float = 0.1
    think_weight: float = 1.0
    generate_weight: float = 1.0
    reflect_weight: float = 1.0
    plain_weight: float = 1.0
    whole: bool = False
    unheard: float = 0.0
    parts: int = 1
    all: bool = False

    def __post_init__(self) -> None:
        rows = (self.think, self.generate, self.reflect, self.plain)
        if min(rows) < 0 or sum(rows) < 1:
            raise ValueError("mix: think, generate, reflect and plain are rows of a step; give one of them some.")
        if not 0 <= self.blank < 1 or not 0 <= self.unheard <= 1:
            raise ValueError(f"blank={self.blank}, unheard={self.unheard}: must be in [0, 1), and in [0, 1].")
        if self.parts < 1:
            raise ValueError(f"parts={self.parts}: at least 1.")


class StoryTask:
    """`training.loop.Task`."""

    def __init__(
        self, model: Janus, words: JanusTokenizer, stories: Stories | DrawnStories, mix: StoryTraining, seed: int = 0
    ):
        if stories.length != model.config.image_length:
            raise ValueError(
                f"{stories.folder} holds pictures of {stories.length} codes, but the model paints "
                f"{model.config.image_length}; build stories with this model."
            )
        self.model: nn.Module = model
        """What learns: the network, or peft's wrapping of it."""
        self.janus, self.words, self.stories, self.mix, self.seed = model, words, stories, mix, seed
        self.eyes = JanusEyes(model, words)
        model.requires_grad_(mix.all)
        model.language_model.requires_grad_(True)
        model.vqmodel.requires_grad_(False)

    def batch(self, step: int) -> dict[str, Rows]:
        """From (seed, step) alone: `think`, `reflect` (questions, answers, canvases), `generate` and `plain`. All kinds
        take their rows from the same few stories, so that as few as possible have to be drawn."""
        rng = random.Random(f"{self.seed}/{step}")
        makers = {"think": self._think, "reflect": self._reflect, "generate": self._generate, "plain": self._plain}
        counts = {kind: getattr(self.mix, kind) for kind in makers}
        chosen = [self.stories.take(rng) for _ in range(max(counts.values()))]
        made: dict[str, Rows] = {}
        for kind, make in makers.items():
            places = [(story, rng.randint(1, len(story.told.ends))) for story in rng.sample(chosen, counts[kind])]
            if places:
                made[kind] = make(places, rng)
        return made

    # Rows.

    def _think(self, places: Places, rng: random.Random) -> Rows:
        asked, answers, shown = [], [], []
        for held, number in places:
            told = held.told
            story = told.story(self.stories.wording, number - 1)
            looks = number > 1 or story.words.look_first
            asked.append(plainly(story.think(number, looks)))
            answers.append(told.thoughts[number - 1])
            shown.append((told.ends[number - 2] if number > 1 else 0) if looks else -1)
        return self._answers(asked, answers, [held.shown for held, _ in places], shown)

    def _reflect(self, places: Places, rng: random.Random) -> Rows:
        asked, answers, shown = [], [], []
        for held, number in places:
            told = held.told
            story = told.story(self.stories.wording, number - 1)
            asked.append(plainly(story.judge(told.thoughts[number - 1], number == len(told.ends))))
            answers.append(told.critiques[number - 1].answer)
            shown.append(told.ends[number - 1])
        return self._answers(asked, answers, [held.judged for held, _ in places], shown)

    def _answers(
        self, asked: Sequence[str], answers: Sequence[str], codes: Sequence[Tensor], shown: Sequence[int]
    ) -> Rows:
        """Rows of [question, answer, end]; `shown` is how many codes of the canvas are painted, -1 where none is
        looked at."""
        from PIL import Image

        blank = Image.new("RGB", (8, 8))  # only its place counts: the canvas is decoded on the device
        rows, starts = [], []
        for question, answer, painted in zip(asked, answers, shown, strict=True):
            message = Message("user", question, (blank,) if painted >= 0 else ())
            ids = self.eyes.ids([message])
            rows.append(ids + self.words.tokenizer.encode(f" {answer}{EOS}", add_special_tokens=False).ids)
            starts.append(len(ids) - 1)
        looked = [i for i, painted in enumerate(shown) if painted >= 0]
        batch = {"ids": pad(rows, self.words.pad), "length": lengths(rows), "start": torch.tensor(starts)}
        if looked:
            batch[self.stories.kind] = torch.stack([codes[i] for i in looked])
            batch["painted"] = torch.tensor([shown[i] for i in looked])
        return batch

    def _generate(self, places: Places, rng: random.Random) -> Rows:
        texts, spans = [], []
        for held, number in places:
            told = held.told
            story = told.story(self.stories.wording, number - 1)
            texts.append(story.painting(told.thoughts[number - 1], again=False))
            spans.append((told.ends[number - 2] if number > 1 and not self.mix.whole else 0, told.ends[number - 1]))
        return self._painted(places, texts, spans, rng)

    def _plain(self, places: Places, rng: random.Random) -> Rows:
        whole = (0, self.stories.length)
        texts = [held.told.prompt for held, _ in places]
        return self._painted(places, texts, [whole] * len(places), rng)

    def _painted(
        self,
        places: Places,
        texts: Sequence[str],
        spans: Sequence[tuple[int, int]],
        rng: random.Random,
    ) -> Rows:
        """Rows of [text, codes]; those in `spans` are learned."""
        rows = [self.words.painting_ids(text) for text in texts]
        ids = [self.words.blank_ids(row) if rng.random() < self.mix.blank else row for row in rows]
        shown = torch.stack([held.shown for held, _ in places])
        about = {"ids": pad(ids, self.words.pad), "length": lengths(ids), "span": torch.tensor(spans)}
        return about | {self.stories.kind: shown}

    # Losses.

    def loss(self, batch: dict[str, Rows]) -> tuple[Tensor, dict[str, Any]]:
        weights = {kind: getattr(self.mix, f"{kind}_weight") for kind in batch}
        with parametrize.cached():  # weights with folded adapters are made once, for all kinds of rows
            losses = {
                kind: self._region_loss(rows) if kind in ("generate", "plain") else self._answer_loss(rows)
                for kind, rows in batch.items()
            }
        total = torch.stack([weights[kind] * loss for kind, loss in losses.items()]).sum()
        return total, {kind: loss.detach() for kind, loss in losses.items()}

    def _region_loss(self, rows: Rows) -> Tensor:
        """Codes below the lowest region of a part are left out; not on accelerators, where asking for it waits."""
        codes, span = self._codes(rows), rows["span"]
        place = torch.arange(codes.shape[1], device=codes.device)
        learned = (place >= span[:, :1]) & (place < span[:, 1:])

        def part(chosen: Chosen) -> Tensor:
            last = int(span[chosen, 1].max()) if codes.device.type == "cpu" else codes.shape[1]
            return code_loss(self.janus, _some(rows, chosen), codes[chosen, :last], learned[chosen, :last])

        return self._by_length(rows["length"] + span[:, 1], learned.sum(1), part)

    def _answer_loss(self, rows: Rows) -> Tensor:
        features, looks = None, (rows["ids"] == self.words.placeholder).any(1)
        if "painted" in rows:
            features = self.janus.image_features(self.canvases(self._codes(rows), rows["painted"]))
        number = looks.cumsum(0) - 1  # of a row's picture among those that are looked at

        def part(chosen: Chosen) -> Tensor:
            seen = features
            if seen is not None and isinstance(chosen, Tensor):
                seen = seen[number[chosen][looks[chosen]]]
            return answer_loss(self.janus, _some(rows, chosen), seen, self.words.placeholder)

        return self._by_length(rows["length"], rows["length"] - 1 - rows["start"], part)

    def _by_length(self, length: Tensor, counted: Tensor, part: Callable[[Chosen], Tensor]) -> Tensor:
        """Mean over all `counted` (B,) tokens of rows that go through in parts, by `length` (B,); `part` gives the mean
        over those of some."""
        if self.mix.parts == 1:
            return part(slice(None))
        chosen = [one for one in length.argsort().tensor_split(self.mix.parts) if len(one)]
        return torch.stack([part(one) * counted[one].sum() for one in chosen]).sum() / counted.sum()

    @torch.no_grad()
    def _codes(self, rows: Rows) -> Tensor:
        """(B, L), as they were stored, or of pictures that were just drawn."""
        if "codes" in rows:
            return rows["codes"]
        with torch.autocast(rows["pixels"].device.type, enabled=False):
            return self.janus.encode_image(rows["pixels"].float() / 127.5 - 1)

    @torch.no_grad()
    def canvases(self, codes: Tensor, painted: Tensor) -> Tensor:
        """(B, 3, S, S), as the vision tower wants it: what the canvases look like when so many codes are painted."""
        from ..generators.janus import bytes_of
        from ..vlms.janus import prepare_tensor

        place = torch.arange(codes.shape[1], device=codes.device)
        pixels = self.janus.decode_codes(codes.masked_fill(place >= painted[:, None], FILL))
        return prepare_tensor(bytes_of(pixels), self.words.rules)


def _some(rows: Rows, chosen: Chosen) -> Rows:
    """Texts of some rows, without padding that none of them needs (CPUs alone know that without waiting)."""
    some: Rows = {name: rows[name][chosen] for name in ("ids", "length", "start") if name in rows}
    if some["ids"].device.type == "cpu":
        some["ids"] = some["ids"][:, : int(some["length"].max())]
    return some
