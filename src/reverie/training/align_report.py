"""What aligned vectors say and paint: in-context episodes answered by a VLM, read in two ways, and drawn.

    python -m reverie.training.align_report --vlm VLM --t5 T5 --aligner full=runs/full/aligner.safetensors \\
        --aligner input=runs/input/aligner.safetensors:input --out runs/align-report [--pipeline FLUX]

Rows: the oracle (the T5 encoder's vectors of a right caption), the VLM's own text, the relay (the T5 encoder's vectors
of that text), the same with each vector written before the words behind it were known, and every aligner, all on the
same answers to the same episodes of `atelier-cobsat`. Two readers: the T5's own decoder, whose greedy text is parsed,
and a small classifier that knows encoder vectors alone (`text_reader.py`).
With a pipeline, its pictures are judged as well (`drawn_report.py`).
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..atelier.episode_answers import said
from ..atelier.episodes import Episode, benchmark
from ..atelier.language import canonical, demand_of
from ..files import write_atomically
from ..models.aligner import Aligner, load_aligner
from ..models.t5 import encode_text, load_t5, read_back
from ..vlms.states import LAST, FeatureStates, all_of
from ..vlms.transformers import TransformersVLM
from .align import Words, stack_features
from .drawn_report import Drawing, by_task, training
from .pull import encode_so_far
from .recipes import shipped
from .text_reader import TextReader, learn_to_read, read_scene
from .vlm_report import TASKS, question


@dataclass(frozen=True)
class Answered:
    """An episode, what the VLM wrote, and its features: of the answer's tokens, and of the question's. states: of
    which the former are made; aligners may take some of them."""

    episode: Episode
    text: str
    features: Tensor
    asked: Tensor
    states: FeatureStates = LAST


def answer_all(
    vlm: TransformersVLM,
    shots: int,
    count: int,
    batch: int = 20,
    limit: int = 40,
    own: bool = False,
    asked: bool = True,
) -> list[Answered]:
    """Greedy answers to so many episodes of each task, of the benchmark's list or (own) of training ones. asked: with
    the questions' features."""
    drawn = (training(task, count, shots) if own else benchmark(task, shots, count) for task in TASKS)
    episodes = [one for some in drawn for one in some]
    found = []
    for first in range(0, len(episodes), batch):
        some = episodes[first : first + batch]
        talks = [question(one) for one in some]
        answers = vlm.answers(talks, limit)
        read = [rows.cpu() for rows in vlm.features_batch(talks)] if asked else [a.features[:0] for a in answers]
        found += [Answered(e, a.text, a.features, q, vlm.states) for e, a, q in zip(some, answers, read, strict=True)]
    return found


@torch.no_grad()
def aligned(aligner: Aligner, answered: Sequence[Answered], which: str = "generated") -> tuple[Tensor, Tensor]:
    """Vectors (B, L, D) and their mask, of the answers' features or of the questions' (`input`)."""
    states = aligner.config.states
    columns = states.within(answered[0].states, aligner.config.source // states.parts)
    rows = [(one.features if which == "generated" else one.asked)[:, columns].float() for one in answered]
    features, mask = stack_features(rows)
    return aligner(features), mask


def encoded(t5: Any, words: Words, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
    ids, mask = words.ids(texts)
    return encode_text(t5, ids, mask).float(), mask


class Judges:
    """The T5's decoder, the reader of vectors and, if there is one, the painter."""

    def __init__(self, t5: Any, words: Words, reader: TextReader, drawing: Drawing | None = None):
        self.t5, self.words, self.reader, self.drawing = t5, words, reader, drawing

    def __call__(self, vectors: Tensor, mask: Tensor, answered: Sequence[Answered]) -> dict[str, Any]:
        episodes = [one.episode for one in answered]
        ids = read_back(self.t5, vectors, mask, 40)
        texts = self.words.tokenizer.batch_decode(ids, skip_special_tokens=True)
        decoder = [said(plain(text), one) for text, one in zip(texts, episodes, strict=True)]
        size = (vectors[mask.bool()].square().mean() / self.t5.encoder.final_layer_norm.weight.square().mean()).sqrt()
        reader = read_scene(self.reader, vectors, mask, episodes)
        told = [[one.text, text] for one, text in zip(answered, texts, strict=True)][:: max(1, len(texts) // 10)]
        found = {"decoder": decoder, "reader": reader}
        if self.drawing is not None:
            found["drawn"] = self.drawing(vectors, mask, episodes)
        shares = {way: by_task(results, episodes) for way, results in found.items()}
        return shares | {"scale": size.item(), "examples": told}


def plain(text: str) -> str:
    """Without the words with which a VLM is asked to begin."""
    return text.removeprefix("Create an image of").strip()


def rows_of(
    judges: Judges, answered: Sequence[Answered], aligners: Mapping[str, tuple[Aligner, str]], bare: bool = False
) -> Iterator[tuple[str, dict[str, Any]]]:
    """The table's rows, one by one: see the top of this file. bare: those of aligners alone."""
    if not bare:
        right = [canonical(demand_of(one.episode.answer)) for one in answered]
        own = [said(one.text, one.episode) for one in answered]
        yield "VLM text", {"text": by_task(own, [one.episode for one in answered])}
        yield "oracle", judges(*encoded(judges.t5, judges.words, right), answered)
        texts = [one.text for one in answered]
        yield "relay", judges(*encoded(judges.t5, judges.words, texts), answered)
        ids, mask = judges.words.ids(texts)
        yield "relay, so far", judges(encode_so_far(judges.t5, ids, mask).float(), mask, answered)
    for name, (aligner, which) in aligners.items():
        yield name, judges(*aligned(aligner, answered, which), answered)


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.align_report`."""
    parser = argparse.ArgumentParser(description="Read what aligned vectors of in-context episodes say.")
    parser.add_argument("--vlm", required=True, help="folder of the VLM")
    parser.add_argument("--t5", required=True, help="folder of the T5, decoder included")
    parser.add_argument("--aligner", action="append", default=[], metavar="NAME=FILE[:input]", help="repeatable")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("-n", type=int, default=30, help="episodes of each task")
    parser.add_argument("--steps", type=int, default=400, help="with which the reader of vectors is taught")
    parser.add_argument("--pipeline", help="folder of a diffusion pipeline that paints from the same T5's vectors")
    parser.add_argument("--inspector", help="folder of its weights; the shipped ones if left out")
    parser.add_argument("--out", required=True, help="folder for report.json")
    parser.add_argument("--training", action="store_true", help="training episodes, for choosing settings")
    parser.add_argument("--bare", action="store_true", help="the aligners alone, without oracle and relay")
    parser.add_argument("--guidance", type=float, help="of the pipeline; its own if left out")
    parser.add_argument("--device", default="cpu", help="of the VLM and the pipeline")
    parser.add_argument("--together", type=int, default=8, help="pictures that are painted at once")
    parser.add_argument("--workers", type=int, default=0, help="processes that look at pictures (default: this one)")
    given = parser.parse_args(arguments)
    t5, tokenizer = load_t5(given.t5)
    vlm = TransformersVLM.load(given.vlm, device=given.device, dtype=torch.float32)
    aligners = {}
    for told in given.aligner:
        name, _, path = told.partition("=")
        which = "input" if path.endswith(":input") else "generated"
        loaded = load_aligner(path.removesuffix(":input"), source=vlm.width, target=t5.config.d_model)
        aligners[name] = (loaded, which)
    vlm.states = all_of(loaded.config.states for loaded, _ in aligners.values())
    inspector = given.inspector or shipped("atelier-inspector")
    settings = (inspector, given.together, given.device, given.workers)
    drawing = Drawing(given.pipeline, *settings) if given.pipeline else None
    if drawing and given.guidance:
        drawing.painter.guidance = given.guidance
    judges = Judges(t5, Words(tokenizer, 64), learn_to_read(t5, tokenizer, given.steps), drawing)
    result: dict[str, dict[str, Any]] = {}
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    for shots in given.shots:
        asked = any(which == "input" for _, which in aligners.values())
        answered = answer_all(vlm, shots, given.n, own=given.training, asked=asked)
        found = result[f"{shots}-shot"] = {}
        for name, row in rows_of(judges, answered, aligners, given.bare):
            found[name] = row
            text = json.dumps(result, indent=1, ensure_ascii=False)
            write_atomically(out / "report.json", partial(Path.write_text, data=text, encoding="utf-8"))
            told = {way: [round(row[way][k], 3) for k in ("object", "detail", "both")]
                    for way in ("text", "decoder", "reader", "drawn") if way in row}  # fmt: skip
            print(f"{shots}-shot", name, told, f"scale {row['scale']:.2f}" if "scale" in row else "", flush=True)


if __name__ == "__main__":
    main()
