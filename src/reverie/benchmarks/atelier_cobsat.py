"""`atelier-cobsat`: learning from examples, the ten tasks of CoBSAT (arXiv:2402.01293) with two and with four of them.

Each sample shows pairs of a word and a drawn picture that share something unsaid, and asks for the picture of one more
word (`atelier.episodes.benchmark`, the first 20 records of CoBSAT's list for each task and number of examples). The
rule is CoBSAT's with the inspector as judge: of what stands out most, the largest thing, the object must be right
(its kind) and the attribute (colour, background, style, action or texture; the last two by `atelier.second_look`);
correct is both. Also reported, as there: whether the given word was honoured (textual), and whether what was never
said was inferred (visual).

What is held out: colours of a kind, in training streams. CoBSAT's list asks for any values, so about one in ten answers
of the colour tasks shows such a colour; whoever trains on episodes keeps the lists apart (`episodes.episode`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from ..atelier.draw import draw
from ..atelier.episodes import DETAILS, Episode, theme_of
from ..atelier.episodes import benchmark as episodes
from ..atelier.second_look import Field, look_again
from .atelier_geneval import seen
from .cobsat import NAMES, Check
from .outcome import Outcome, of_prompts, of_strata
from .protocol import Benchmark, Inputs, Judgement, Row, Sample

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..atelier.inspector import Sighting
    from .eyes import Inspected

NAME, VERSION = "atelier-cobsat", "v2"
"""v2: the lists of v1; textures and actions of things that were seen too small, and actions in paintings, are read
rightly."""
SHOTS, EPISODES = (2, 4), 20
TRUST = 1.1
"""See `second_look.look_again`."""
PARTS = {"object": "thing", "attribute": "detail", "textual": "textual", "visual": "visual"}


def samples() -> tuple[Sample, ...]:
    """In the order of shots, tasks and CoBSAT's list; the prompt alone is the last word."""
    return tuple(
        Sample(
            f"{shots}-{task}-{number}", one.query, f"{shots}-shot {NAMES[task]}",
            {"shots": shots, "task": task, "number": number, "theta": one.theta, "answer": one.answer.to_json()},
            repr((shots, task, [word for word, _ in one.examples], one.query, one.theta)),
        )
        for shots in SHOTS
        for task in NAMES
        for number, one in enumerate(episodes(task, shots, EPISODES))
    )  # fmt: skip


def episode(sample: Sample) -> Episode:
    return _episodes(sample.record["task"], sample.record["shots"])[sample.record["number"]]


@cache
def _episodes(task: int, shots: int) -> list[Episode]:
    return episodes(task, shots, EPISODES)


def inputs(sample: Sample) -> Inputs:
    """The examples, each picture followed by its word, at the size of the Atelier."""
    return Inputs(context=[part for word, scene in episode(sample).examples for part in (draw(scene), word)])


def check(one: Episode, sighting: Sighting) -> Check:
    """What a picture got right, of the largest thing that is seen; nothing where nothing is."""
    theme = theme_of(one.task)
    wanted = one.answer.things[0]
    main = max(sighting.objects, key=lambda thing: thing.scale, default=None)
    holder = sighting if theme in ("background", "style") else main
    right = one.answer if theme in ("background", "style") else wanted
    detail = main is not None and getattr(holder, theme) == getattr(right, theme)
    thing = main is not None and main.kind == wanted.kind
    return Check(detail, thing, *((detail, thing) if one.task % 2 else (thing, detail)))


def look_closely(one: Episode, picture: Image, sighting: Sighting) -> Sighting:
    """The sighting, with a second look at what the episode is about where the inspector needs one."""
    theme = theme_of(one.task)
    fields: list[Field] = ["texture"] if theme == "texture" else ["action"] if theme == "action" else []
    return look_again(picture, sighting, fields, {one.answer.things[0].kind}, TRUST)


def judge(sample: Sample, shown: Inspected) -> Judgement:
    one = episode(sample)
    theme = theme_of(one.task)
    sighting = look_closely(one, shown.picture, shown.sighting)
    found = check(one, sighting)
    wanted = {"object": one.answer.things[0].kind, "attribute": f"{theme} {_value(one)}"}
    wrong = [f"expected the {name} {wanted[name]}" for name in wanted if not getattr(found, PARTS[name])]
    about = "; ".join(text for text in (seen(sighting), sighting.background, sighting.style) if text != "plain")
    return Judgement(float(found.correct), "\n".join(wrong), about, vars(found))


def _value(one: Episode) -> str:
    return one.theta if one.theta in DETAILS[theme_of(one.task)] else one.query


def outcome(rows: Sequence[Row]) -> Outcome:
    """For each number of examples the mean over tasks, of both and of each part; then every task."""
    scores = {}
    for shots in SHOTS:
        tasks = [f"{shots}-shot {name}" for name in NAMES.values()]
        there = {tag: [row for row in rows if row.tag == tag] for tag in tasks}
        if any(there.values()):
            scores[f"{shots}-shot"] = of_strata({tag: _values(group, "") for tag, group in there.items() if group})
            for name, field in PARTS.items():
                parts = {tag: _values(group, field) for tag, group in there.items() if group}
                scores[f"{shots}-shot, {name}"] = of_strata(parts)
    for tag in dict.fromkeys(row.tag for row in rows):
        scores[tag] = of_prompts(_values([row for row in rows if row.tag == tag], ""))
    return Outcome(NAME, scores)


def _values(rows: Sequence[Row], part: str) -> dict[str, list[float | None]]:
    """Cluster to the values of its images: whether a part is right, or all of it."""
    found: dict[str, list[float | None]] = {}
    for row in rows:
        value = row.score if not part or row.value is None else float(row.value[part])
        found.setdefault(row.cluster, []).append(value)
    return found


def benchmark() -> Benchmark:
    def file(sample: Sample, index: int) -> str:
        record = sample.record
        stem = f"{record['number']}_{record['theta']}_{sample.prompt.replace(' ', '-')}"
        return f"shot_{record['shots']}/task_{record['task']}/{stem}{f'_{index}' if index else ''}.png"

    wrong = dict.fromkeys(("detail", "thing", "textual", "visual"), False)
    return Benchmark(
        NAME, VERSION, samples(), 1, judge, file, lambda sample: None, "strata", inputs=inputs, outcome=outcome,
        pixels=True,
        missing=Judgement(0.0, "", "", wrong, "missing"),
    )  # fmt: skip
