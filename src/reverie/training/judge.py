"""Training judges: a VLM learns the answers of records (data/records.py), be they of an ORM, PRM, PARM or PARM++.

The published training (arXiv 2501.13926) is a fine-tuning of LLaVA-OneVision on all tokens of the assistant's turns and
on the chat's markers, of which yes or no is one in fifteen; here the loss is on the answer alone. Any of our VLM
families can learn: Janus, whose painting side stays as it is, and LLaVA-OneVision.

A student says two things: how an example becomes rows, and the loss of a batch of them.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from ..data.records import Record, read_records
from ..png import open_picture
from ..vlms import Message
from .cross_entropy import cross_entropy
from .janus import answer_loss, lengths, pad

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..models.janus import Janus
    from ..models.janus_text import JanusTokenizer
    from ..vlms.llava import LlavaEyes


@dataclass
class JudgeTraining:
    """batch: examples of a step, for each process. balance: draw yes and no of every task equally often."""

    batch: int = 16
    balance: bool = True
    vision: bool = True
    """Whether the vision tower learns, too."""

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise ValueError(f"batch={self.batch}: at least one example a step.")


@dataclass(frozen=True)
class Example:
    """A conversation that ends with a question, and its answer."""

    messages: tuple[Message, ...]
    answer: str


class Student(Protocol):
    """A VLM that learns."""

    model: nn.Module

    def rows(self, examples: Sequence[Example]) -> Any:
        """A batch, on the CPU."""

    def loss(self, rows: Any) -> Tensor:
        """Mean cross entropy of the answers' tokens."""


@dataclass
class JudgeTask:
    """`training.loop.Task`. `sources` are folders (or LLaVA files) with the share of each that is taken."""

    student: Student
    sources: Mapping[str, float]
    config: JudgeTraining
    seed: int = 0

    def __post_init__(self) -> None:
        self.model = self.student.model
        self.found: list[tuple[Path, Record]] = []
        for source, share in self.sources.items():
            if not 0 < share <= 1:
                raise ValueError(f"data: {source} has the share {share}; it must be above 0 and at most 1.")
            records = read_records(source)
            kept = random.Random(f"{self.seed}/{source}").sample(records, max(1, round(share * len(records))))
            place = Path(source) if Path(source).is_dir() else Path(source).parent
            self.found += [(place, record) for record in kept]
        groups: dict[tuple[str, str], list[int]] = {}
        for index, (_, record) in enumerate(self.found):
            groups.setdefault((record.task, record.answer.split(".")[0].strip().lower()), []).append(index)
        self.groups = list(groups.values())
        self.tasks: dict[str, list[list[int]]] = {}
        for (task, _), members in groups.items():
            self.tasks.setdefault(task, []).append(members)

    def batch(self, step: int) -> Any:
        """From (seed, step) alone. Tasks as often as they have records; with `balance` yes and no alike."""
        rng = random.Random(f"{self.seed}/{step}")
        picked = [rng.randrange(len(self.found)) for _ in range(self.config.batch)]
        if self.config.balance:
            answers = [self.tasks[self.found[index][1].task] for index in picked]
            picked = [rng.choice(rng.choice(of_task)) for of_task in answers]
        return self.student.rows([self.example(index) for index in picked])

    def example(self, index: int) -> Example:
        folder, record = self.found[index]
        picture = open_picture(folder / record.image).convert("RGB")
        return example_of(record, picture)

    def loss(self, batch: Any) -> tuple[Tensor, dict[str, Any]]:
        return self.student.loss(batch), {}


def example_of(record: Record, picture: Image) -> Example:
    """A record as a conversation."""
    *asked, answer = record.turns
    turns = [
        Message("assistant" if place % 2 else "user", text, () if place else (picture,))
        for place, text in enumerate(asked)
    ]
    return Example(tuple(turns), answer)


class JanusStudent:
    """The understanding side of a Janus. What it paints with stays as it is."""

    def __init__(self, model: Janus, words: JanusTokenizer, vision: bool = True):
        from ..vlms.janus import JanusEyes

        self.model, self.eyes = model, JanusEyes(model, words)
        model.vision_model.requires_grad_(vision)
        for part in (model.vqmodel, model.generation_embeddings, model.generation_aligner, model.generation_head):
            part.requires_grad_(False)

    def rows(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        from ..models.janus_text import EOS
        from ..vlms.janus import prepare

        words, ids, starts, pixels = self.eyes.tokenizer, [], [], []
        for one in examples:
            asked = self.eyes.ids(one.messages)
            ids.append(asked + words.tokenizer.encode(f" {one.answer}{EOS}", add_special_tokens=False).ids)
            starts.append(len(asked) - 1)
            pixels += [prepare(picture, words.rules) for message in one.messages for picture in message.images]
        about = {"ids": pad(ids, words.pad), "length": lengths(ids), "start": torch.tensor(starts)}
        return about | {"pixels": torch.stack(pixels)}

    def loss(self, rows: dict[str, Tensor]) -> Tensor:
        features = self.model.image_features(rows["pixels"])
        return answer_loss(self.model, rows, features, self.eyes.tokenizer.placeholder)


class LlavaStudent:
    """A LLaVA-OneVision. `look` says how pictures enter, as at inference (vlms/llava_views.py)."""

    def __init__(self, eyes: LlavaEyes, vision: bool = True):
        self.model, self.eyes = eyes.model, eyes
        eyes.model.model.vision_tower.requires_grad_(vision)

    def rows(self, examples: Sequence[Example]) -> dict[str, Any]:
        asked = [self.eyes.ids(one.messages) for one in examples]
        ends = self.eyes.encode("<|im_end|>")
        answers = [[*self.eyes.encode(one.answer), *ends] for one in examples]
        pictures = [picture for one in examples for message in one.messages for picture in message.images]
        return {"asked": asked, "answers": answers, "pictures": pictures}

    def loss(self, rows: dict[str, Any]) -> Tensor:
        seen = iter(self.eyes.seen(rows["pictures"]))
        both = [self.eyes.spliced([*a, *b], seen) for a, b in zip(rows["asked"], rows["answers"], strict=True)]
        mask = pad_sequence([torch.ones(len(row), dtype=torch.long, device=row.device) for row in both], True)
        hidden = self.model.model.language_model(
            inputs_embeds=pad_sequence(both, True), attention_mask=mask, use_cache=False
        ).last_hidden_state
        told, targets = [], []
        for row, (embeds, answer) in enumerate(zip(both, rows["answers"], strict=True)):
            first = len(embeds) - len(answer) - 1
            told.append(hidden[row, first : len(embeds) - 1])
            targets.append(torch.tensor(answer, device=hidden.device))
        return cross_entropy(self.eyes.logits(torch.cat(told)), torch.cat(targets))
