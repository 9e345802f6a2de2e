"""`atelier-geneval`: the six tasks of GenEval over the kinds of the Atelier, scored by GenEval's rule.

553 prompts as in the namesake, four images each, in its phrasing, record form and folder layout. Nothing that is
asked was trained on: pairs of kinds (two_object, position, color_attr), colours of a kind (colors) and numbers of a
kind (counting) come from the held-out side of `atelier.language`; single_object, for which the split holds no
composition out, uses the held-out wordings. Where there are fewer held-out compositions than prompts, they come again
in another wording, and the intervals treat those prompts as one cluster.

The rule is `geneval.judge`. Left out on purpose: its score thresholds, which belong to Mask2Former. The inspector has
its own, and whatever it reports counts.
"""

from __future__ import annotations

import itertools
import json
import random
from typing import TYPE_CHECKING, Any

from ..atelier.kinds import KINDS
from ..atelier.language import canonical, held_out_colour, held_out_count, held_out_pair
from ..atelier.language_parse import HELD_OUT_HEADS, Clause, Demand
from ..atelier.scene import COLOURS
from . import geneval
from .protocol import Benchmark, Judgement, Sample

if TYPE_CHECKING:
    from ..atelier.inspector import Sighting

NAME, VERSION = "atelier-geneval", "v1"
PROMPTS = dict(zip(geneval.TAGS, (80, 99, 80, 94, 100, 100), strict=True))
HEADS = ("a photo of", *HELD_OUT_HEADS, "a picture of")
SIDES = ("left of", "right of", "above", "below")
# Whatever the detector reports counts: its scores are above 0.
RULE = geneval.Options(threshold=0.0, counting_threshold=0.0)


def records() -> list[dict[str, Any]]:
    """The prompts in GenEval's form: tag, include, exclude (counting only), prompt. The same on every machine."""
    rng = random.Random(f"{NAME}-{VERSION}")  # seeding with a string does not depend on Python's hashes
    kinds = sorted(KINDS)
    pairs = [pair for pair in itertools.combinations(kinds, 2) if held_out_pair(*pair)]
    demands = {
        "single_object": [Demand((Clause(kind),)) for kind in kinds],
        "two_object": [Demand((Clause(a), Clause(b))) for a, b in _turned(pairs, rng, PROMPTS["two_object"])],
        "counting": [_counting(n, kind) for kind in kinds for n in (2, 3, 4) if held_out_count(n, kind)],
        "colors": [Demand((Clause(k, 1, c),)) for k in kinds for c in COLOURS if held_out_colour(c, k)],
        "position": [
            Demand((Clause(a), Clause(b, position=(SIDES[i % 4], 0))))
            for i, (a, b) in enumerate(_turned(pairs, rng, PROMPTS["position"]))
        ],
        "color_attr": [_coloured(a, b, rng) for a, b in _turned(pairs, rng, PROMPTS["color_attr"])],
    }
    found = []
    for tag, number in PROMPTS.items():
        rng.shuffle(demands[tag])
        heads = HELD_OUT_HEADS if tag == "single_object" else HEADS
        found += [_record(tag, demand, head) for head, demand in _worded(heads, demands[tag])[:number]]
    return found


def _turned(pairs: list[tuple[str, str]], rng: random.Random, number: int) -> list[tuple[str, str]]:
    """So many different pairs, each in an order by chance."""
    return [pair if rng.random() < 0.5 else pair[::-1] for pair in rng.sample(pairs, number)]


def _counting(n: int, kind: str) -> Demand:
    return Demand((Clause(kind, n),), (Clause(kind, n + 1),))


def _coloured(a: str, b: str, rng: random.Random) -> Demand:
    first, second = rng.sample(list(COLOURS), 2)
    return Demand((Clause(a, 1, first), Clause(b, 1, second)))


def _worded(heads: tuple[str, ...], demands: list[Demand]) -> list[tuple[str, Demand]]:
    """All demands in the first wording, then all again in the second, and so on."""
    return [(head, demand) for head in heads for demand in demands]


def _record(tag: str, demand: Demand, head: str) -> dict[str, Any]:
    plain = demand.to_record()
    record = {"tag": tag, "include": plain["include"], "exclude": plain["exclude"]}
    if not demand.exclude:
        del record["exclude"]
    # "fewer than four" is how the rule counts, not part of the prompt
    return record | {"prompt": f"{head} {canonical(Demand(demand.include))}"}


def samples() -> tuple[Sample, ...]:
    """The list with the folder numbers of GenEval's layout as ids."""
    found = []
    for number, record in enumerate(records()):
        asked = json.dumps([record["tag"], record["include"]])
        found.append(Sample(f"{number:05d}", record["prompt"], record["tag"], record, asked))
    return tuple(found)


def judge(sample: Sample, sighting: Sighting) -> Judgement:
    """GenEval's verdict on what the inspector saw."""
    boxes, colours = sighting.to_detections()
    verdict = geneval.judge(sample.record, boxes, lambda name, ranks: [str(colours[name][i]) for i in ranks], RULE)
    return Judgement(float(verdict.correct), verdict.reason, seen(sighting))


def seen(sighting: Sighting) -> str:
    """What was seen, in few words: "red apple, sheep running"."""
    words = []
    for thing in sighting.objects:
        texture = None if thing.texture == "plain" else thing.texture
        look = (thing.colour, texture, thing.state, thing.kind, thing.action)
        words.append(" ".join(str(word) for word in look if word))
    return ", ".join(words) or "nothing"


def benchmark() -> Benchmark:
    return Benchmark(
        NAME,
        VERSION,
        samples(),
        4,
        judge,
        lambda sample, index: f"{sample.id}/samples/{index:04d}.png",
        lambda sample: (f"{sample.id}/metadata.jsonl", json.dumps(sample.record) + "\n"),
        "strata",
    )
