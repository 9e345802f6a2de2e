"""Prompts of the training side to choose between weights by, so that no choice looks at the benchmarks."""

import random
from functools import cache

from reverie.atelier.exercises import exercise
from reverie.atelier.faults import score
from reverie.atelier.kinds import KINDS
from reverie.atelier.language import canonical, say
from reverie.atelier.language_parse import Clause, Demand
from reverie.benchmarks.outcome import of_strata
from reverie.benchmarks.protocol import Benchmark, Judgement, Sample
from reverie.benchmarks.registry import load
from reverie.training.atelier_grpo import careful_score

UNHEARD = ("a view of", "a scene with", "please paint", "one print showing", "my card with")
"""Heads that neither training nor benchmarks have."""


@cache
def benchmark_of(name):
    """One of these, or one of the benchmarks."""
    return {"exercises": exercises, "practice": practice}.get(name, lambda: load(name))()


def exercises(count=240, seed=20):
    """Prompts as training has them, scored by the share of what was asked that the inspector finds."""
    asked = _asked(random.Random(f"tables/{seed}"), count)
    samples = tuple(
        Sample(f"{i:03}", text, sort_of(demand), {}, text) for i, (text, demand) in enumerate(asked.items())
    )

    def judge(sample, sighting):
        return Judgement(score(asked[sample.prompt], sighting.to_scene()) / 100, "", "")

    def outcome(rows):
        told = {row.cluster: [row.score] for row in rows}
        return type("Told", (), {"scores": {"overall": of_strata({"all": told})}})

    return Benchmark("exercises", "v1", samples, 1, judge, None, lambda sample: None, "strata", outcome=outcome)


def practice(count=120, heads=40, seed=30):
    """The same without textures, which the codes of `atelier-janus` cannot show, and with actions read by drawing
    (atelier/second_look.py); beside single things behind heads that nobody has taught."""
    rng = random.Random(f"tables/{seed}")
    found = [(text, demand, sort_of(demand)) for text, demand in _asked(rng, count, textures=False).items()]
    for place, kind in enumerate(rng.sample(sorted(KINDS), heads)):
        demand = Demand((Clause(kind),))
        found.append((f"{UNHEARD[place % len(UNHEARD)]} {canonical(demand)}", demand, "unheard"))
    samples = tuple(
        Sample(f"{i:03}", text, tag.partition("+")[0], {"demand": demand.to_record()}, text)
        for i, (text, demand, tag) in enumerate(found)
    )
    return Benchmark("practice", "v1", samples, 1, _practised, None, lambda sample: None, "strata", pixels=True)


def _practised(sample, shown):
    demand = Demand.from_record(sample.record["demand"])
    return Judgement(careful_score(demand, shown.picture, shown.sighting), "", "")


def _asked(rng, count, textures=True):
    """{prompt: demand} of so many."""
    asked = {}
    while len(asked) < count:
        demand = exercise(rng, 1.0)
        text = say(demand, rng, "plain", split="train")
        if textures or all(clause.texture == "plain" for clause in demand.include):
            asked.setdefault(text, demand)
    return asked


def sort_of(demand):
    """What an exercise asks for beside its two kinds."""
    asked = {
        "action": any(clause.action for clause in demand.include),
        "texture": any(clause.texture != "plain" for clause in demand.include),
        "colour": any(clause.colour for clause in demand.include),
        "place": any(clause.position for clause in demand.include),
        "count": any(clause.count > 1 for clause in demand.include),
    }
    return "+".join(name for name, there in asked.items() if there) or "kinds"
