"""How far aligned vectors are from what the T5's encoder writes of the same words, and how much of what is yet to be
said they tell: what masking and the pull (pull.py) do to an aligner.

    python -m reverie.training.align_distance --features FOLDER --t5 T5 --aligner split=FILE --aligner whole=FILE

A row for the encoder itself, each vector with only the words so far in view, then one for each aligner, on stored
answers, which may hold more states than an aligner takes. `distance` is `pull.pull_of_words`: 0 for the encoder's own
vectors, 2 for strangers of the same size. `rest` is the decoder's mean cross-entropy on the second half of an answer
when it is given the vectors of the first half.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..data.features import FeatureSource, Sample
from ..data.webdataset import open_features
from ..models.aligner import load_aligner
from ..models.t5 import load_t5, reading_loss
from .align import Words, stack_features, stack_words
from .pull import encode_so_far, pull_of_words, same_words


def some_of(source: FeatureSource, every: int) -> list[Sample]:
    """Each so-manieth answer; ValueError where that is less than one."""
    if every < 1:
        raise ValueError(f"every={every}: must be at least 1.")
    return [source[number] for number in range(0, sum(source.shards), every)]


class Distances:
    """What is asked of vectors (B, L, D) that stand for the tokens of the same answers."""

    def __init__(self, t5: Any, words: Words, answers: Any, samples: Sequence[Sample]):
        self.t5, self.samples = t5, samples
        self.features, mask = stack_features([sample.features.float() for sample in samples])
        told = stack_words([same_words(sample.ids, answers, words) for sample in samples], mask)
        self.shares = told["shares"]
        self.states = encode_so_far(t5, told["words"], told["words_mask"]).float()
        self.halves = [max(1, len(sample.ids) // 2) for sample in samples]
        rest = [list(sample.ids)[half:] for sample, half in zip(samples, self.halves, strict=True)]
        self.labels = words.labels(answers.batch_decode(rest, skip_special_tokens=True))

    def own(self) -> Tensor:
        """The encoder's vectors in the places of the answers' tokens."""
        return self.shares @ self.states

    @torch.no_grad()
    def __call__(self, vectors: Tensor) -> dict[str, float]:
        halves = [row[:half] for row, half in zip(vectors, self.halves, strict=True)]
        rest = reading_loss(self.t5, *stack_features(halves), *self.labels)
        return {"distance": pull_of_words(vectors, self.shares, self.states).item(), "rest": rest.item()}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.align_distance`."""
    parser = argparse.ArgumentParser(
        description="Distance of aligned vectors to the encoder's, and what they foretell."
    )
    parser.add_argument("--features", required=True, help="folder of stored answers")
    parser.add_argument("--t5", required=True, help="folder of the T5, decoder included")
    parser.add_argument("--aligner", action="append", default=[], metavar="NAME=FILE", help="repeatable")
    parser.add_argument("--every", type=int, default=30, help="of so many answers one is looked at")
    given = parser.parse_args(arguments)
    from transformers import AutoTokenizer

    source = open_features(given.features, "generated")
    samples = some_of(source, given.every)
    answers = AutoTokenizer.from_pretrained(Path(given.features) / "tokenizer")
    t5, tokenizer = load_t5(given.t5)
    ask = Distances(t5, Words(tokenizer, 64), answers, samples)
    print("encoder", json.dumps(ask(ask.own())), flush=True)
    for told in given.aligner:
        name, _, path = told.partition("=")
        width = source.width // source.states.parts
        aligner = load_aligner(path, source=width, target=t5.config.d_model)
        columns = aligner.config.states.within(source.states, width)
        with torch.no_grad():
            print(name, json.dumps(ask(aligner(ask.features[..., columns]))), flush=True)


if __name__ == "__main__":
    main()
