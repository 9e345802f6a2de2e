"""What ThinkDiff-CLIP keeps of each input: pictures, and pictures with words, painted and inspected.

    python -m reverie.training.clip_report --tower TOWER --aligner FILE --pipeline FLUX --out runs/clip-report

Four ways to ask: one picture of a thing with a detail; a picture of a coloured thing and the name of a place; two
pictures of coloured things; two pictures and a place. Of every input it is told how often it is found in what is
painted. The row `words` is the same asked in plain words, through the pipeline's own T5: what this painter can do at
most.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from ..atelier.draw import draw
from ..atelier.episodes import OBJECTS, benchmark
from ..atelier.inspector import Sighting
from ..atelier.language import canonical, demand_of
from ..atelier.language_parse import BACKGROUND_WORDS
from ..atelier.layout import arrange
from ..atelier.scene import BACKGROUNDS, COLOURS, Scene, Thing
from ..benchmarks.stats import wilson
from ..models.aligner import load_aligner
from ..models.t5 import encode_text, load_t5
from ..models.thinkdiff import look
from ..models.vision_tokens import load_tower
from .drawn_report import Drawing, shown_right
from .recipes import shipped
from .vlm_report import TASKS

Checks = dict[str, bool]


@dataclass(frozen=True)
class Asked:
    """pictures and text: what is given; words: the same as one caption; check: what of it a painting shows."""

    pictures: tuple[Image.Image, ...]
    text: str
    words: str
    check: Callable[[Image.Image, Sighting], Checks]


def asked(count: int, seed: int = 0) -> dict[str, list[Asked]]:
    """So many of each way to ask; of one picture, as many of each task of `atelier-cobsat`."""
    each = max(1, count // len(TASKS))
    single = [_single(one) for task in TASKS for one in benchmark(task, 4, each)]
    rng = random.Random(f"clip report/{seed}")
    ways = {"picture and words": (1, True), "two pictures": (2, False), "two pictures and words": (2, True)}
    return {"one picture": single} | {name: [_things(rng, *way) for _ in range(count)] for name, way in ways.items()}


def _single(one: Any) -> Asked:
    def check(picture: Image.Image, seen: Sighting) -> Checks:
        thing, detail = shown_right(one, picture, seen)
        return {"object": thing, "detail": detail, "all": thing and detail}

    return Asked((draw(one.answer),), "", canonical(demand_of(one.answer)), check)


def _things(rng: random.Random, count: int, told: bool) -> Asked:
    kinds, colours = rng.sample(OBJECTS, count), rng.sample(sorted(COLOURS), count)
    things = [Thing(kind, colour) for kind, colour in zip(kinds, colours, strict=True)]
    place = rng.choice([name for name in BACKGROUNDS if name != "plain"]) if told else "plain"
    pictures = tuple(draw(Scene(arrange([thing], rng))) for thing in things)
    text = BACKGROUND_WORDS[place][0] if told else ""
    whole = demand_of(Scene(tuple(things), place), relations=False)

    def check(picture: Image.Image, seen: Sighting) -> Checks:
        found: Checks = {}
        for number, thing in enumerate(things, 1):
            of_kind = [other for other in seen.objects if other.kind == thing.kind]
            found[f"object {number}"] = bool(of_kind)
            found[f"colour {number}"] = any(other.colour == thing.colour for other in of_kind)
        if told:
            found["place"] = seen.background == place
        return found | {"all": all(found.values())}

    return Asked(pictures, text, canonical(whole), check)


def painted(drawing: Drawing, rows: Sequence[Tensor], texts: Sequence[str], some: Sequence[Asked]) -> dict[str, Any]:
    """rows: (L, D) vectors each. For each thing that is checked, its share and 95% interval."""
    pictures = drawing.paint_rows(rows, texts)
    sightings = drawing.inspector.look(pictures)
    found = [one.check(picture, seen) for one, picture, seen in zip(some, pictures, sightings, strict=True)]
    shares = {}
    for name in found[0]:
        right = sum(checks[name] for checks in found)
        shares[name] = {"share": right / len(found), "interval": wilson(right, len(found))}
    return shares | {"n": len(found)}


def main(arguments: Sequence[str] | None = None) -> None:
    """`python -m reverie.training.clip_report`."""
    parser = argparse.ArgumentParser(description="What ThinkDiff-CLIP keeps of pictures and words.")
    parser.add_argument("--tower", required=True, help="folder of the vision tower")
    parser.add_argument("--aligner", action="append", required=True, metavar="[NAME=]FILE", help="repeatable")
    parser.add_argument("--pipeline", required=True, help="folder; its text_encoder_2 holds the T5")
    parser.add_argument("-n", type=int, default=100, help="of each way to ask")
    parser.add_argument("--guidance", type=float, help="the pipeline's own if left out")
    parser.add_argument("--inspector", help="folder of its weights; the shipped ones if left out")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--together", type=int, default=8, help="pictures at once")
    parser.add_argument("--out", required=True, help="folder for report.json and a sheet of paintings")
    given = parser.parse_args(arguments)
    inspector = given.inspector or shipped("atelier-inspector")
    drawing = Drawing(given.pipeline, inspector, given.together, given.device)
    drawing.painter.guidance = given.guidance or drawing.painter.guidance
    tower = load_tower(given.tower)
    t5, words = load_t5(Path(given.pipeline) / "text_encoder_2")
    limit = drawing.painter.family.limit
    aligners = {}
    for told in given.aligner:
        name, _, path = told.rpartition("=")
        aligners[name or "aligned"] = load_aligner(path, source=tower.config.hidden_size, target=t5.config.d_model)
    result: dict[str, dict[str, Any]] = {}
    for way, some in asked(given.n).items():
        texts = [one.text for one in some]
        plain = [one.words for one in some]
        ids = words(plain, padding="max_length", truncation=True, max_length=limit, return_tensors="pt")["input_ids"]
        rows = {"words": list(encode_text(t5, ids, ids.new_ones(ids.shape)).float())}
        for name, aligner in aligners.items():
            rows[name] = [
                look(tower, aligner, one.pictures, one.text, t5, words, text_tokens=limit).vectors[0] for one in some
            ]
        result[way] = {
            name: painted(drawing, own, plain if name == "words" else texts, some) for name, own in rows.items()
        }
        for name, shares in result[way].items():
            print(way, name, {k: round(v["share"], 3) for k, v in shares.items() if k != "n"}, flush=True)
    out = Path(given.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(result, indent=1), "utf-8")


if __name__ == "__main__":
    main()
