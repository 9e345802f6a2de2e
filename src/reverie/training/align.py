"""Training of ThinkDiff's aligner (arXiv 2502.10458): a frozen T5 decoder must say what the aligned vectors mean.

LVLM: features of a VLM's answer, cut at random. The features before the cut go through the aligner, and the decoder
has to say the words behind it; a decoder that saw the features of its own target could copy token by token, and the
vectors would carry no meaning. The CLIP variant is in align_clip.py.

Only the aligner is trained, saved and averaged; the T5 stays outside `model`.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..data.features import Order
from ..models.aligner import Aligner
from ..models.t5 import IGNORED, reading_loss
from .pull import encode_so_far, pull_of_words, same_words

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, T5ForConditionalGeneration

    from ..data.features import FeatureSource, Sample


@dataclass
class Masking:
    """How much of an answer is fed, and what is left to say.

    longest: the longest prefix that is kept; the cut is uniform in 1 .. min(n - 1, longest).
    whole: the share of answers that are fed whole and said whole. 0 is the paper's method, 1 its ablation "without
    masking"; a mixture keeps both what the vectors stand for and what follows from them.
    limit: longest answer that is fed whole; what is longer is cut, features and target alike.
    """

    longest: int = 128
    whole: float = 0.0
    limit: int = 256

    def __post_init__(self) -> None:
        if self.longest < 1 or self.limit < 1:
            raise ValueError(f"longest={self.longest}, limit={self.limit}: both must be at least 1.")
        if not 0 <= self.whole <= 1:
            raise ValueError(f"whole={self.whole}: must be a share between 0 and 1.")

    def cut(self, tokens: int, rng: random.Random) -> tuple[slice, slice]:
        """(which features are fed, which tokens are to be said) of an answer of this many tokens.

        An answer of one token has no inside to cut, so it is fed and said whole.
        """
        if tokens < 1:
            raise ValueError("An answer without tokens has no features; leave it out of the data.")
        if tokens == 1 or (self.whole and rng.random() < self.whole):
            return slice(0, self.limit), slice(0, self.limit)
        at = rng.randint(1, min(tokens - 1, self.longest))
        return slice(0, at), slice(at, None)


class Words:
    """Texts to what a T5 takes: ids with the end token, cut at `longest`, padded on the right."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, longest: int = 128):
        self.tokenizer, self.longest = tokenizer, longest

    def ids(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) ids and their 0/1 mask. An empty text is the end token alone."""
        found = self.tokenizer(
            list(texts), padding="longest", truncation=True, max_length=self.longest, return_tensors="pt"
        )
        return found["input_ids"], found["attention_mask"]

    def labels(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(B, T) with `IGNORED` for padding, and the mask of the target."""
        ids, mask = self.ids(texts)
        return ids.masked_fill(mask == 0, IGNORED), mask


def stack_features(rows: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Features (n, D) of uneven lengths to (B, L, D), padded on the right with zeros, and 0/1 (B, L)."""
    mask = torch.nn.utils.rnn.pad_sequence([torch.ones(len(row), dtype=torch.long) for row in rows], True)
    return torch.nn.utils.rnn.pad_sequence(list(rows), True), mask


@dataclass
class AlignConfig:
    """batch: samples of a step and process. text: longest text in T5 tokens.
    bucket: so many batches are drawn together and dealt by the length of their targets, which saves padding; 1: off.
    dropout: the T5's own, while the aligner learns (the authors leave it on).
    noise: largest deviation of noise on the aligned vectors, relative to the size of the T5 encoder's, another for each
    sample; 0 is the paper's method. What the norm lets out is limited, so noise leaves no room for directions that the
    decoder does not read: these carry nothing in the encoder's vectors, and a diffusion model has never met them.
    pull: weight of the distance to what the encoder itself writes (see pull.py); 0 is the paper's method.
    read: weight of the decoder's loss, which is the paper's method; 0 leaves it out.
    """

    batch: int = 32
    text: int = 128
    bucket: int = 1
    dropout: bool = True
    noise: float = 0.0
    pull: float = 0.0
    read: float = 1.0

    def __post_init__(self) -> None:
        if min(self.noise, self.pull, self.read) < 0 or not self.pull + self.read:
            raise ValueError(
                f"noise={self.noise}, pull={self.pull}, read={self.read}: none may be negative, nor both of the last 0."
            )
        if min(self.batch, self.text, self.bucket) < 1:
            raise ValueError(f"batch={self.batch}, text={self.text}, bucket={self.bucket}: all must be at least 1.")


def fed_and_said(sample: Sample, kind: str, masking: Masking, rng: random.Random) -> tuple[Tensor, Sequence[int]]:
    """(features that enter the aligner, token ids of the answer that the T5 has to say).

    kind: `generated` features are those of the answer's own tokens; `input` features, those of the question, are fed
    as they are, and the whole answer is said.
    """
    if kind == "input":
        return sample.features[: masking.limit], sample.ids
    fed, said = masking.cut(len(sample.ids), rng)
    return sample.features[fed], sample.ids[said]


class AlignTask:
    """`training.loop.Task` of ThinkDiff-LVLM over stored features."""

    def __init__(
        self,
        aligner: Aligner,
        t5: T5ForConditionalGeneration,
        words: PreTrainedTokenizerBase,
        source: FeatureSource,
        answers: PreTrainedTokenizerBase,
        config: AlignConfig,
        masking: Masking,
        seed: int = 0,
    ):
        """words: the T5's tokenizer; answers: that of the VLM which wrote the answers."""
        if (source.width, source.states) != (aligner.config.source, aligner.config.states):
            raise ValueError(
                f"The features are {source.width} wide ({source.states}), and the aligner takes "
                f"{aligner.config.source} ({aligner.config.states}); make them equal."
            )
        self.model, self.t5, self.source, self.answers = aligner, attached(aligner, t5), source, answers
        self.t5.train(config.dropout)
        self.words, self.config, self.masking, self.seed = Words(words, config.text), config, masking, seed
        self.order = Order(source.shards, seed)
        self.told: dict[int, tuple[list[int], Tensor]] = {}
        if config.pull and source.kind != "generated":
            raise ValueError("data.pull needs features of an answer's own words; those of a question have none.")

    def batch(self, step: int) -> dict[str, Tensor]:
        numbers = {place: self.order[place] for place in self._places(step)}
        whole = [self.source[number] for number in numbers.values()]
        samples = [
            fed_and_said(sample, self.source.kind, self.masking, self._rng(place))
            for place, sample in zip(numbers, whole, strict=True)
        ]
        found = self.collate(samples)
        if self.config.pull:
            found |= stack_words([self._words_of(number) for number in numbers.values()], found["mask"])
        if self.config.noise:
            shape = (*found["mask"].shape, self.t5.config.d_model)
            found["noise"] = uneven_noise(shape, self.config.noise, f"{self.seed}/{step}/noise")
        return found

    def _words_of(self, number: int) -> tuple[list[int], Tensor]:
        """See `same_words`; kept, since every epoch asks for them."""
        if number not in self.told:
            self.told[number] = same_words(self.source[number].ids, self.answers, self.words)
        return self.told[number]

    def collate(self, samples: Sequence[tuple[Tensor, Sequence[int]]]) -> dict[str, Tensor]:
        """Pairs (features fed, token ids to be said) as a batch."""
        features, mask = stack_features([features for features, _ in samples])
        texts = self.answers.batch_decode([list(ids) for _, ids in samples], skip_special_tokens=True)
        labels, label_mask = self.words.labels(texts)
        return {"features": features, "mask": mask, "labels": labels, "label_mask": label_mask}

    def loss(self, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float | Tensor]]:
        self.place(batch["features"].device)
        memory = self.model(batch["features"].float())
        row: dict[str, float | Tensor] = {"scale": relative_scale(memory, batch["mask"], self.t5)}
        loss = memory.new_zeros(())
        if self.config.read:
            read = shaken(memory, batch.get("noise"), self.t5)
            row["read"] = reading_loss(self.t5, read, batch["mask"], batch["labels"], batch["label_mask"])
            loss = loss + self.config.read * row["read"]
        if self.config.pull:
            states = encode_so_far(self.t5, batch["words"], batch["words_mask"]).float()
            row["pull"] = pull_of_words(memory, batch["shares"], states)
            loss = loss + self.config.pull * row["pull"]
        return loss, {name: value.detach() if isinstance(value, Tensor) else value for name, value in row.items()}

    def place(self, device: torch.device | str) -> None:
        """Moves what is frozen; the loop knows only the aligner."""
        self.t5.to(device)

    def _rng(self, place: int) -> random.Random:
        """A draw depends on the place in the stream alone: not on the batch, the worker or the machine."""
        return random.Random(f"{self.seed}/{place}")

    def _places(self, step: int) -> Sequence[int]:
        """Places in the stream of samples that make up the batch of this step."""
        size, bucket = self.config.batch, self.config.bucket
        first = step // bucket * bucket * size
        if bucket == 1:
            return range(first, first + size)
        left = {}
        for place in range(first, first + bucket * size):
            tokens = self.source.tokens(self.order[place])
            left[place] = len(range(tokens)[self.masking.cut(tokens, self._rng(place))[1]])
        ranked = sorted(left, key=lambda place: left[place])
        batches = list(range(bucket))
        random.Random(f"{self.seed}/{first}/batches").shuffle(batches)
        chosen = batches[step % bucket]
        return ranked[chosen * size : (chosen + 1) * size]


def stack_words(told: Sequence[tuple[list[int], Tensor]], mask: Tensor) -> dict[str, Tensor]:
    """Words of `same_words` as a batch; shares only of the features that are fed, whose 0/1 mask is (B, L)."""
    longest = max(len(ids) for ids, _ in told)
    ids, shares = torch.zeros(len(told), longest, dtype=torch.long), torch.zeros(*mask.shape, longest)
    words_mask = torch.zeros_like(ids)
    for row, (own, parts) in enumerate(told):
        ids[row, : len(own)] = torch.tensor(own)
        words_mask[row, : len(own)] = 1
        fed = parts[: int(mask[row].sum())]
        shares[row, : len(fed), : len(own)] = fed
    return {"words": ids, "words_mask": words_mask, "shares": shares}


def attached(aligner: Aligner, t5: T5ForConditionalGeneration) -> Any:
    """The T5, if the aligner writes vectors of its width."""
    if aligner.config.target != t5.config.d_model:
        raise ValueError(
            f"The T5 is {t5.config.d_model} wide and the aligner writes {aligner.config.target}; make them equal."
        )
    return t5


def uneven_noise(shape: Sequence[int], most: float, seed: str) -> Tensor:
    """(B, L, D) normal noise whose deviation is uniform in 0 .. `most`, another for each row."""
    generator = torch.Generator().manual_seed(random.Random(seed).getrandbits(63))
    deviation = torch.rand(shape[0], 1, 1, generator=generator) * most
    return torch.randn(*shape, generator=generator) * deviation


def shaken(memory: Tensor, noise: Tensor | None, t5: T5ForConditionalGeneration) -> Tensor:
    """Vectors with noise, which is told in units of the encoder's vectors."""
    if noise is None:
        return memory
    return memory + noise.to(memory) * t5.encoder.final_layer_norm.weight.detach().square().mean().sqrt()


@torch.no_grad()
def relative_scale(memory: Tensor, mask: Tensor, t5: T5ForConditionalGeneration) -> Tensor:
    """Root mean square of the aligned vectors over that of the encoder's final norm; runs that drift from 1 read badly.

    What leaves a norm with weight w has about the root mean square of w.
    """
    real = memory[mask.bool()].float()
    return (real.square().mean() / t5.encoder.final_layer_norm.weight.float().square().mean()).sqrt()
