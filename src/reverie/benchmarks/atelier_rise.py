"""`atelier-rise`: edits that must be reasoned about, in the four categories of RISEBench (arXiv:2504.02826).

200 samples, 50 each of temporal, causal, spatial and logical edits (`atelier.edits`, split `held-out`); a drawn
picture and an instruction are given. Two of RISEBench's three questions are answered, by the inspector and by pixels
instead of a language model:

- reasoning: everything that the edit changes looks afterwards as it should: as many of each kind that it touches, with
  the right looks and size, in its place, on the right background;
- consistency: everything else is as before: the things are where they were, and outside the boxes of what changes at
  most `ALLOWED` of the pixels are visibly other ones. Where the background changes, only the things are compared.

A sample passes if both are right; accuracy is the headline. Plausibility is not asked: nobody here could judge it.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ..atelier.draw import SIDE, draw
from ..atelier.edits import FAMILIES, edit
from ..atelier.language_parse import Clause
from ..atelier.scene import Scene, Thing
from ..atelier.second_look import look_again
from .atelier_geneval import seen
from .atelier_wise import differences
from .outcome import Outcome, of_prompts
from .protocol import Benchmark, Inputs, Judgement, Row, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..atelier.inspector import Seen, Sighting
    from .eyes import Inspected

NAME, VERSION, LISTS = "atelier-rise", "v2", "v1"
"""v2: the lists of v1; textures and actions of things that were seen too small are read rightly."""
SAMPLES = 50
NEAR = 0.12
"""How far a thing may be from its place, as a share of the picture's side: about one image token and a half."""
VISIBLE = 48
"""Of 255: by how much a pixel must change in one of its channels to be another one."""
ALLOWED = 0.02
"""Share of pixels outside of what changes that may be other ones."""
MARGIN = 0.06
"""By which the boxes of what changes are larger: props of actions and soft edges belong to it."""


def samples() -> tuple[Sample, ...]:
    """The same on every machine; `record` holds both scenes and the reasoning that leads from one to the other."""
    found = []
    for family in FAMILIES:
        rng, there = random.Random(f"{NAME}-{LISTS}-{family}"), set[str]()
        while len(there) < SAMPLES:
            one = edit(rng, family, "held-out")
            scenes = {"before": one.before.to_json(), "after": one.after.to_json()}
            name = repr((one.instruction, scenes))
            if name in there or one.before == one.after:
                continue
            record = {"family": family, "reasoning": one.reasoning, **scenes}
            key = f"{family}_{len(there) + 1}"
            found.append(Sample(key, one.instruction, f"{family}_reasoning", record, one.instruction))
            there.add(name)
    return tuple(found)


def inputs(sample: Sample) -> Inputs:
    return Inputs(picture=draw(Scene.from_json(sample.record["before"])))


# ------------------------------------------------------------------------------------------------------ rules


def judge(sample: Sample, shown: Inspected) -> Judgement:
    before, after = (Scene.from_json(sample.record[name]) for name in ("before", "after"))
    acting = {thing.kind for thing in parted(before, after)[1] if thing.action}
    sighting = look_again(shown.picture, shown.sighting, ["action"] if acting else [], acting)
    wrong, astray = unreasoned(before, after, sighting), strayed(before, after, sighting)
    changed = otherwise(before, after, shown.picture)
    consistent = not astray and changed <= ALLOWED
    reasons = [*wrong, *astray]
    if changed > ALLOWED:
        reasons.append(f"{changed:.0%} of what was to stay looks different")
    value = {"reasoning": not wrong, "consistency": consistent, "outside": round(changed, 4)}
    return Judgement(float(not wrong and consistent), "\n".join(reasons), seen(sighting), value)


def parted(before: Scene, after: Scene) -> tuple[list[Thing], list[Thing], list[Thing]]:
    """Things that go, things that come (or change), and things that stay exactly as they are."""
    gone, come = Counter(before.things), Counter(after.things)
    stay = gone & come
    return list((gone - stay).elements()), list((come - stay).elements()), list(stay.elements())


def unreasoned(before: Scene, after: Scene, sighting: Sighting) -> list[str]:
    """What of a change is not seen, one line each."""
    gone, come, _ = parted(before, after)
    reasons = []
    if after.background not in (before.background, sighting.background):
        reasons.append(f"expected the background {after.background}, found {sighting.background}")
    for kind in dict.fromkeys(thing.kind for thing in (*gone, *come)):
        wanted = sum(thing.kind == kind for thing in after.things)
        found = sum(thing.kind == kind for thing in sighting.objects)
        if wanted != found:
            reasons.append(f"expected {wanted} {kind}, found {found}")
    for thing in come:
        reasons += _missing(thing, before, sighting)
    return list(dict.fromkeys(reasons))


def _missing(thing: Thing, before: Scene, sighting: Sighting) -> list[str]:
    """Why nothing that is seen is this thing, in its place and with all its looks; empty if something is."""
    sized = any(one.kind == thing.kind and one.size != thing.size for one in before.things)
    clause = Clause(
        thing.kind, 1, thing.colour, texture=thing.texture, size=thing.size if sized else None, action=thing.action,
        state=thing.state,
    )  # fmt: skip
    wrong = []
    for other in sighting.objects:
        if other.kind == thing.kind:
            away = [] if near(thing, other) else ["in its place, found it elsewhere"]
            wrong.append(differences(clause, other, sighting.style) + away)
    if not wrong:
        return [f"expected {thing.kind}, found none"]
    nearest = min(wrong, key=len)
    return [f"expected {thing.kind} {', '.join(nearest)}"] if nearest else []


def near(thing: Thing, other: Thing) -> bool:
    return max(abs(thing.x - other.x), abs(thing.y - other.y)) <= NEAR


def strayed(before: Scene, after: Scene, sighting: Sighting) -> list[str]:
    """Things that were to stay and are not seen where they were."""
    reasons = []
    for thing in parted(before, after)[2]:
        found: list[Seen] = [other for other in sighting.objects if other.kind == thing.kind and near(thing, other)]
        if not found:
            reasons.append(f"expected the {thing.kind} to stay where it was")
    return reasons


def otherwise(before: Scene, after: Scene, picture: Image) -> float:
    """Share of pixels outside of what changes that are visibly other ones than before; 0 where all of it changes."""
    from PIL.Image import Resampling

    mask = outside(before, after)
    if not mask.any():
        return 0.0
    was = np.asarray(draw(before), np.int16)
    now = np.asarray(picture.convert("RGB").resize((SIDE, SIDE), Resampling.BOX), np.int16)
    return float((np.abs(now - was).max(-1) > VISIBLE)[mask].mean())


def outside(before: Scene, after: Scene) -> np.ndarray:
    """(SIDE, SIDE) bool: pixels that nothing of the change touches."""
    mask = np.full((SIDE, SIDE), (before.background, before.style) == (after.background, after.style))
    for thing in [*parted(before, after)[0], *parted(before, after)[1]]:
        # The frame is the square that a thing is drawn into; actions reach beyond its sides.
        reach = thing.scale * (0.7 if thing.action else 0.5) + MARGIN
        edges = (thing.x - reach, thing.y - reach, thing.x + reach, thing.y + reach)
        x0, y0, x1, y1 = (min(max(round(edge * SIDE), 0), SIDE) for edge in edges)
        mask[y0:y1, x0:x1] = False
    return mask


def outcome(rows: Sequence[Row]) -> Outcome:
    """Accuracy, each question, and accuracy by category, with intervals over instructions."""
    scores = {"accuracy": of_prompts(_grouped(rows, None))}
    for name in ("reasoning", "consistency"):
        scores[name] = of_prompts(_grouped(rows, name))
    for family in FAMILIES:
        group = [row for row in rows if row.tag == f"{family}_reasoning"]
        if group:
            scores[family] = of_prompts(_grouped(group, None))
            scores[f"{family}, reasoning"] = of_prompts(_grouped(group, "reasoning"))
    return Outcome(NAME, scores)


def _grouped(rows: Sequence[Row], part: str | None) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {}
    for row in rows:
        value = row.score if part is None or row.value is None else float(row.value[part])
        found.setdefault(row.cluster, []).append(value)
    return found


def benchmark() -> Benchmark:
    def file(sample: Sample, index: int) -> str:
        return f"images/{sample.tag}/{sample.id}{f'_{index}' if index else ''}.png"

    wrong = {"reasoning": False, "consistency": False, "outside": 1.0}
    return Benchmark(
        NAME, VERSION, samples(), 1, judge, file, lambda sample: None, "items", inputs=inputs, outcome=outcome,
        pixels=True, missing=Judgement(0.0, "", "", wrong, "missing"),
    )  # fmt: skip
