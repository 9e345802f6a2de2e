"""How well the inspector sees: accuracies on held-out scenes, as drawn and as a tokenizer gives them back.

    report(folder, n=1000, tokenizer="runs/vq/state.pt")       # writes report.json and report.md into the folder

Held-out scenes come from seeds that training never uses. "drawn" has plain style (all kinds, colours, textures,
actions, states and backgrounds; 1 to 6 things), "styled" the six other styles in turn, "relations" two things in one of
the six relations. A missed thing counts as wrong in everything asked of it. Colours are asked where the picture tells
them (`inspector.colour_shows`): not in sketches, futuristic or old pictures, nor on national flags.
"""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image

from ..atelier.draw import colour_of, draw
from ..atelier.inspector import Inspector, Seen, Sighting, colour_shows, relation_between
from ..atelier.kinds import KINDS
from ..atelier.layout import arrange, random_scene, random_thing
from ..atelier.scene import RELATIONS, STYLES, Scene, Thing
from .damage import Rebuilder, empty_picture

Tally = dict[str, list[int]]  # name -> [right, asked]


def held_out_scenes(n: int, styled: bool = False) -> list[Scene]:
    """`n` scenes of plain style, or of the other styles in turn."""
    scenes = []
    for i in range(n):
        scene = random_scene(random.Random(f"inspector-held-out/{styled}/{i}"))
        scenes.append(replace(scene, style=STYLES[1 + i % (len(STYLES) - 1)] if styled else "plain"))
    return scenes


def related_scenes(n: int) -> list[tuple[Scene, int, int, str]]:
    """`n` scenes of two things with (scene, index of the first, index of the second, relation)."""
    found = []
    for i in range(n):
        rng = random.Random(f"inspector-relations/{i}")
        relation = RELATIONS[i % len(RELATIONS)]
        things = [random_thing(rng, 0.8), random_thing(rng, 0.8)]
        first, second = (1, 0) if relation in ("inside", "on") else (0, 1)  # containers are drawn first
        found.append((Scene(arrange(things, rng, relation)), first, second, relation))
    return found


def match(things: Sequence[Thing], seen: Sequence[Seen]) -> list[Seen | None]:
    """For each true thing the sighting of about its place and size, nearest pairs first; None where there is none."""

    def apart(thing: Thing, one: Seen) -> float:
        far = math.hypot(thing.x - one.x, thing.y - one.y) / thing.scale
        return far + abs(math.log(one.scale / thing.scale))

    pairs = sorted((apart(t, s), i, j) for i, t in enumerate(things) for j, s in enumerate(seen))
    partner: dict[int, int] = {}
    for distance, i, j in pairs:
        if distance < 0.7 and i not in partner and j not in partner.values():
            partner[i] = j
    return [seen[partner[i]] if i in partner else None for i in range(len(things))]


def tally_scenes(scenes: Sequence[Scene], sightings: Sequence[Sighting]) -> tuple[Tally, Counter[tuple[str, str, str]]]:
    """(right and asked of every question, how often (question, truth, answer) went wrong)."""
    tally: Tally = {}
    wrong: Counter[tuple[str, str, str]] = Counter()

    def ask(question: str, truth: str | None, answer: str | None, about: str = "") -> bool:
        right, asked = tally.setdefault(question, [0, 0])
        tally[question] = [right + (truth == answer), asked + 1]
        if truth != answer:
            wrong[question, about + str(truth), about + str(answer)] += 1
        return truth == answer

    for scene, sighting in zip(scenes, sightings, strict=True):
        whole = ask("count", str(len(scene.things)), str(len(sighting.objects)))
        for thing, one in zip(scene.things, match(scene.things, sighting.objects), strict=True):
            for question, truth, answer in questions(thing, one, scene.style):
                about = f"{thing.kind}: " if question == "state" else ""
                right = ask(question, truth, answer, about)
                whole &= right or question not in ("kind", "colour")
        ask("whole scene", "right", "right" if whole else "wrong")
        ask("background", scene.background, sighting.background)
        ask("style", scene.style, sighting.style)
    return tally, wrong


def questions(thing: Thing, one: Seen | None, style: str) -> Iterable[tuple[str, str | None, str | None]]:
    """(question, truth, answer) of one true thing; the answer to what was missed is "nothing"."""

    def answer(name: str) -> str | None:
        return getattr(one, name) if one else "nothing"

    yield "kind", thing.kind, answer("kind")
    if colour_shows(thing, style):
        yield "colour", colour_of(thing), answer("colour")
    yield "texture", thing.texture, answer("texture")
    if KINDS[thing.kind].family == "animals":
        yield "action", thing.action, answer("action")
    if states := KINDS[thing.kind].states:
        state = "nothing" if one is None or one.kind != thing.kind else one.state or states[0]
        yield "state", thing.state or states[0], state


def tally_relations(
    related: Sequence[tuple[Scene, int, int, str]], sightings: Sequence[Sighting]
) -> tuple[Tally, Counter[tuple[str, str, str]]]:
    """As `tally_scenes`, of relations: right if both things are found, of the right kinds, and so related."""
    tally: Tally = {"relation": [0, 0]}
    wrong: Counter[tuple[str, str, str]] = Counter()
    for (scene, first, second, truth), sighting in zip(related, sightings, strict=True):
        found = match(scene.things, sighting.objects)
        a, b = found[first], found[second]
        answer: str | None = "nothing"
        if a and b and (a.kind, b.kind) == (scene.things[first].kind, scene.things[second].kind):
            answer = relation_between(a, b)
        tally["relation"][0] += answer == truth
        tally["relation"][1] += 1
        if answer != truth:
            wrong["relation", truth, str(answer)] += 1
    return tally, wrong


def false_alarms(inspector: Inspector, pictures: Sequence[Image.Image], threshold: float) -> dict[str, Any]:
    """How many of the pictures without things seem to have some, and which kinds these are."""
    sightings = inspector.look(pictures, threshold)
    kinds = Counter(seen.kind for sighting in sightings for seen in sighting.objects)
    return {"pictures": len(pictures), "with alarms": sum(bool(s.objects) for s in sightings), "kinds": dict(kinds)}


def share(right: int, asked: int) -> dict[str, Any]:
    """The share with its 95% interval of Wilson's score."""
    if not asked:
        return {"right": 0, "asked": 0}
    z, p = 1.96, right / asked
    middle, scale = p + z * z / (2 * asked), 1 + z * z / asked
    half = z * math.sqrt(p * (1 - p) / asked + z * z / (4 * asked * asked))
    bounds = [round((middle - half) / scale, 5), round((middle + half) / scale, 5)]
    return {"right": right, "asked": asked, "share": round(p, 5), "interval": bounds}


def report(
    folder: str | Path,
    n: int = 1000,
    tokenizer: str | Path | None = None,
    out: str | Path | None = None,
    threshold: float = 0.3,
    device: str = "cpu",
    fast: bool = True,
) -> dict[str, Any]:
    """Measure the inspector in `folder` on `n` scenes of each sort; with `tokenizer` (a training state of
    `training/tokenizer.py`) on reconstructions too. Writes report.json and report.md into `out` (default: `folder`)."""
    inspector = Inspector.load(folder, device, fast)
    rebuild = Rebuilder(Path(tokenizer)) if tokenizer else None
    result: dict[str, Any] = {"scenes": n, "threshold": threshold, "accuracy": {}, "wrong": {}}

    def measure(name: str, scenes: Sequence[Scene], count: Callable[[Sequence[Sighting]], Any]) -> None:
        views = {name: lambda part: part}
        if rebuild:
            views[f"{name}, rebuilt"] = lambda part: rebuild(part)
        for view, change in views.items():
            sightings: list[Sighting] = []
            for start in range(0, len(scenes), 64):
                pictures = [draw(scene, inspector.net.sizes.side) for scene in scenes[start : start + 64]]
                sightings += inspector.look(change(pictures), threshold)
            tally, wrong = count(sightings)
            result["accuracy"][view] = {question: share(*counts) for question, counts in tally.items()}
            result["wrong"][view] = [[*what, times] for what, times in wrong.most_common()]

    for name, scenes in {"drawn": held_out_scenes(n), "styled": held_out_scenes(n, True)}.items():
        measure(name, scenes, lambda sightings, scenes=scenes: tally_scenes(scenes, sightings))
    for style in STYLES[1:]:
        scenes = [scene for scene in held_out_scenes(n, True) if scene.style == style]
        measure(style, scenes, lambda sightings, scenes=scenes: tally_scenes(scenes, sightings))
    related = related_scenes(n)
    measure("relations", [scene for scene, *_ in related], lambda sightings: tally_relations(related, sightings))
    rng = random.Random("inspector-empty")
    empty = [empty_picture(rng, inspector.net.sizes.side)[1] for _ in range(n)]
    result["false alarms"] = {"empty": false_alarms(inspector, empty, threshold)}
    if rebuild:
        result["false alarms"]["random codes"] = false_alarms(inspector, rebuild.dreams(n // 4, rng), threshold)
    out = Path(out or folder)
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(result, indent=1))
    (out / "report.md").write_text(as_markdown(result))
    return result


def as_markdown(result: dict[str, Any], worst: int = 12) -> str:
    """Tables of accuracies and of the worst confusions."""
    sets = result["accuracy"]
    names = list(dict.fromkeys(question for tally in sets.values() for question in tally))
    rows = [f"# What the inspector sees ({result['scenes']} held-out scenes a set)", ""]
    rows += ["Percent right; see `training/inspector_report.py` for what each set and question is.", ""]
    rows += ["| set | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for view, tally in sets.items():
        cells = [f"{100 * tally[q]['share']:.2f}" if tally.get(q, {}).get("asked") else "" for q in names]
        rows.append(f"| {view} | " + " | ".join(cells) + " |")
    alarms = [f"{r['with alarms']} of {r['pictures']} ({sort})" for sort, r in result["false alarms"].items()]
    rows += ["", f"Pictures without any thing in which something was found: {'; '.join(alarms)}."]
    for view, wrong in result["wrong"].items():
        if not wrong or view in STYLES:
            continue
        rows += ["", f"## Worst confusions: {view}", "", "| asked | truth | answer | times |", "|---|---|---|---|"]
        rows += [f"| {asked} | {truth} | {answer} | {times} |" for asked, truth, answer, times in wrong[:worst]]
    return "\n".join(rows) + "\n"
