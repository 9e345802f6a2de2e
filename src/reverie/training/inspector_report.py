"""How well the inspector sees: accuracies on held-out scenes, as drawn and as a tokenizer gives them back.

    report(folder, n=1000, tokenizer="runs/atelier/tokenizer")      # writes report.json and report.md into the folder

Held-out scenes come from seeds that training never uses. "asked" are scenes of the sort that prompts ask for
(`sample.random_demand`) in plain style: one or two kinds, counts to 6, colours, positions, states, actions, textures,
sizes, containers, backgrounds. "anything" are scenes of `layout.random_scene` in plain style: harder, since attributes
and kinds mix freely. "styled" are such scenes in the six other styles in turn, "relations" asked scenes of two things
in one of the six relations. A missed thing counts as wrong in everything asked of it. Colours are asked where the
picture tells them (`inspector.colour_shows`): not in sketches, futuristic or old pictures, nor on national flags.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from ..atelier.draw import colour_of, draw
from ..atelier.inspector import Inspector, Seen, Sighting, colour_shows, relation_between
from ..atelier.kinds import KINDS
from ..atelier.layout import random_scene
from ..atelier.sample import compose, random_demand
from ..atelier.scene import STYLES, Scene, Thing
from ..benchmarks.stats import wilson
from .damage import Rebuilder, empty_picture

Tally = dict[str, list[int]]  # name -> [right, asked]


def asked_scenes(n: int) -> list[Scene]:
    """`n` scenes of the sort that prompts ask for, in plain style."""
    scenes = []
    for i in range(n):
        rng = random.Random(f"inspector-asked/{i}")
        scenes.append(replace(compose(random_demand(rng), rng, loose=rng.random() < 0.25), style="plain"))
    return scenes


def any_scenes(n: int, styled: bool = False) -> list[Scene]:
    """`n` scenes of anything in plain style, or in the other styles in turn."""
    scenes = []
    for i in range(n):
        scene = random_scene(random.Random(f"inspector-held-out/{styled}/{i}"))
        scenes.append(replace(scene, style=STYLES[1 + i % (len(STYLES) - 1)] if styled else "plain"))
    return scenes


def related_scenes(n: int) -> list[tuple[Scene, str]]:
    """`n` scenes of two things, and how the second stands to the first."""
    found = []
    for i in range(n):
        rng = random.Random(f"inspector-relations/{i}")
        demand = random_demand(rng, "contain" if i % 3 == 0 else "position")
        position = demand.include[1].position
        assert position
        found.append((compose(demand, rng, loose=rng.random() < 0.25), position[0]))
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
    related: Sequence[tuple[Scene, str]], sightings: Sequence[Sighting]
) -> tuple[Tally, Counter[tuple[str, str, str]]]:
    """As `tally_scenes`, of relations: right if both things are found, of the right kinds, and so related."""
    tally: Tally = {"relation": [0, 0]}
    wrong: Counter[tuple[str, str, str]] = Counter()
    for (scene, truth), sighting in zip(related, sightings, strict=True):
        a, b = match(scene.things, sighting.objects)
        answer: str | None = "nothing"
        if a and b and [a.kind, b.kind] == [thing.kind for thing in scene.things]:
            answer = relation_between(b, a)
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
    bounds = [round(bound, 5) for bound in wilson(right, asked)]
    return {"right": right, "asked": asked, "share": round(right / asked, 5), "interval": bounds}


def report(
    folder: str | Path,
    n: int = 1000,
    tokenizer: str | Path | None = None,
    out: str | Path | None = None,
    threshold: float = 0.3,
    device: str = "cpu",
    fast: bool = True,
) -> dict[str, Any]:
    """Measure the inspector in `folder` on `n` scenes of each sort; with `tokenizer` (folder of a run of
    `training/tokenizer.py`) on reconstructions too. Writes report.json and report.md into `out` (default: `folder`)."""
    inspector = Inspector.load(folder, device, fast)
    rebuild = Rebuilder(tokenizer) if tokenizer else None
    result: dict[str, Any] = {"scenes": n, "threshold": threshold, "accuracy": {}, "wrong": {}}

    def measure(name: str, scenes: Sequence[Scene], tally: Callable[[Sequence[Sighting]], Any]) -> list[Sighting]:
        """Look at the scenes and count; returns what was seen."""
        sightings: list[Sighting] = []
        for start in range(0, len(scenes), 64):
            pictures = [draw(scene, inspector.net.sizes.side) for scene in scenes[start : start + 64]]
            pictures = rebuild(pictures) if rebuild and name.endswith("rebuilt") else pictures
            sightings += inspector.look(pictures, threshold)
        note(name, tally(sightings))
        return sightings

    def note(name: str, counted: tuple[Tally, Counter[tuple[str, str, str]]]) -> None:
        tally, wrong = counted
        result["accuracy"][name] = {question: share(*counts) for question, counts in tally.items()}
        result["wrong"][name] = [[*what, times] for what, times in wrong.most_common()]

    asked, plain, styled, related = asked_scenes(n), any_scenes(n), any_scenes(n, styled=True), related_scenes(n)
    for tail in ("", ", rebuilt") if rebuild else ("",):
        measure("asked" + tail, asked, lambda seen: tally_scenes(asked, seen))
        measure("anything" + tail, plain, lambda seen: tally_scenes(plain, seen))
        seen = measure("styled" + tail, styled, lambda seen: tally_scenes(styled, seen))
        for style in STYLES[1:]:
            of_style = [(scene, s) for scene, s in zip(styled, seen, strict=True) if scene.style == style]
            note(style + tail, tally_scenes([scene for scene, _ in of_style], [s for _, s in of_style]))
        measure("relations" + tail, [scene for scene, _ in related], lambda seen: tally_relations(related, seen))
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
        if not wrong or view.split(",")[0] in STYLES:
            continue
        rows += ["", f"## Worst confusions: {view}", "", "| asked | truth | answer | times |", "|---|---|---|---|"]
        rows += [f"| {asked} | {truth} | {answer} | {times} |" for asked, truth, answer, times in wrong[:worst]]
    return "\n".join(rows) + "\n"


def main() -> None:
    """`python -m reverie.training.inspector_report`: measures the shipped inspector, or the one in --inspector."""
    weights = files("reverie.atelier") / "weights"
    parser = argparse.ArgumentParser(description="Measure an inspector of the Atelier on held-out scenes.")
    parser.add_argument("--inspector", default=str(weights / "inspector"), help="folder of its weights")
    parser.add_argument("--tokenizer", default=str(weights / "janus"), help="tokenizer run or Janus checkpoint")
    parser.add_argument("--out", default="runs/inspector-report", help="folder for report.json and report.md")
    parser.add_argument("-n", type=int, default=1000, help="scenes of each sort")
    given = parser.parse_args()
    report(given.inspector, given.n, given.tokenizer, given.out)
    print(Path(given.out) / "report.md")


if __name__ == "__main__":
    main()
