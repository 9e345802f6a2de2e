"""`atelier-compbench`, `atelier-cobsat` and `atelier-rise`: fixed lists, held-out contents, and rules that drawn truths
pass and other pictures fail."""

import random
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from reverie.atelier.claims import seen_in
from reverie.atelier.draw import draw
from reverie.atelier.edits import edit, fair
from reverie.atelier.inspector import Inspector, Sighting
from reverie.atelier.language import held_out_colour, held_out_pair
from reverie.atelier.language_parse import Demand, parse
from reverie.atelier.scene import ACTIONS, TEXTURES, Scene, Thing
from reverie.atelier.second_look import look_again
from reverie.benchmarks import atelier_cobsat, atelier_compbench, atelier_rise
from reverie.benchmarks.drawn import truths, write
from reverie.benchmarks.eyes import Inspected, inspector_folder
from reverie.benchmarks.harness import evaluate
from reverie.benchmarks.protocol import Painted, Row
from reverie.benchmarks.registry import load
from reverie.models.registry import entries

SHIPPED = entries()["atelier-inspector"].folder
needs_inspector = pytest.mark.skipif(
    SHIPPED is None or not (SHIPPED / "inspector.safetensors").is_file(), reason="needs the shipped inspector"
)
CHECKSUMS = {
    "atelier-compbench": "fe69f64c3ced818e",
    "atelier-cobsat": "cba86cecf7499452",
    "atelier-rise": "bd61549596e32280",
}


def inspected(scene: Scene) -> Inspected:
    return Inspected(seen_in(scene), draw(scene))


@pytest.mark.parametrize("name", CHECKSUMS)
def test_lists_are_fixed_and_even(name):
    one = load(name)
    assert one.checksum[:16] == CHECKSUMS[name]
    assert len({sample.id for sample in one.samples}) == len(one.samples)
    assert len({one.file(sample, 0) for sample in one.samples}) == len(one.samples)
    tags = [sample.tag for sample in one.samples]
    assert len({tags.count(tag) for tag in tags}) == 1


def test_compbench_asks_for_what_training_never_showed():
    for sample in atelier_compbench.samples():
        demand = Demand.from_record(sample.record["demand"])
        assert parse(sample.prompt) == demand
        a, b = demand.include
        assert held_out_pair(a.kind, b.kind)
        if sample.tag == "color":
            assert [held_out_colour(c.colour, c.kind) for c in (a, b)] == [sample.record["unseen"]] * 2


def test_edits_of_the_benchmark_are_held_out_and_of_training_are_not():
    for sample in atelier_rise.samples():
        scenes = [Scene.from_json(sample.record[name]) for name in ("before", "after")]
        assert not all(map(fair, scenes))
    for seed in range(20):
        one = edit(random.Random(seed))
        assert fair(one.before)
        assert fair(one.after)


@pytest.mark.parametrize("name", CHECKSUMS)
def test_what_is_right_passes_and_what_is_not_fails(name):
    """By a perfect inspector, so that only the rules are tested."""
    one = load(name)
    samples = one.samples[:: len(one.samples) // 24]
    scenes = truths(name, samples)
    right = [one.judge(sample, inspected(scene)) for sample, scene in zip(samples, scenes, strict=True)]
    assert np.mean([verdict.score for verdict in right]) >= 0.95, [v.reason for v in right if v.score < 1]
    others = [*scenes[7:], *scenes[:7]]
    wrong = [one.judge(sample, inspected(scene)) for sample, scene in zip(samples, others, strict=True)]
    assert np.mean([verdict.score for verdict in wrong]) <= 0.05
    assert all(verdict.reason for verdict in wrong if not verdict.score)
    blank = Inspected(Sighting((), "plain", "plain"), Image.new("RGB", (96, 96)))
    assert not any(one.judge(sample, blank).score for sample in samples)


@needs_inspector
@pytest.mark.parametrize("name", CHECKSUMS)
def test_drawn_truths_pass_by_the_shipped_inspector(name):
    one, inspector = load(name), Inspector.load(inspector_folder(None))
    samples = one.samples[:: len(one.samples) // 24]
    pictures = [draw(scene) for scene in truths(name, samples)]
    seen = [Inspected(s, p) for s, p in zip(inspector.look(pictures), pictures, strict=True)]
    scores = [one.judge(sample, shown).score for sample, shown in zip(samples, seen, strict=True)]
    assert np.mean(scores) >= 0.88
    turned = [one.judge(sample, shown).score for sample, shown in zip(samples, [*seen[7:], *seen[:7]], strict=True)]
    assert np.mean(turned) <= 0.05


# --- The rules.


def by_id(module, key):
    return next(sample for sample in module.samples() if sample.id == key)


def test_compbench_scores_in_parts():
    spatial = by_id(atelier_compbench, "spatial-000000")
    scene = truths("atelier-compbench", [spatial])[0]
    first, second = scene.things
    turned = scene.with_things([replace(first, x=second.x, y=second.y), replace(second, x=first.x, y=first.y)])
    assert atelier_compbench.judge(spatial, inspected(scene)).score == 1
    assert atelier_compbench.judge(spatial, inspected(turned)).score == 0
    number = by_id(atelier_compbench, "numeracy-000002")  # two of each
    scene = truths("atelier-compbench", [number])[0]
    assert atelier_compbench.judge(number, inspected(scene.with_things(scene.things[:-1]))).score == 0.75
    assert atelier_compbench.judge(number, inspected(scene.with_things(scene.things[:2]))).score in (0.5, 0.75)
    mixed = by_id(atelier_compbench, "complex-000000")
    scene = truths("atelier-compbench", [mixed])[0]
    grey = scene.with_things(replace(thing, colour="white", texture="plain") for thing in scene.things)
    assert atelier_compbench.judge(mixed, inspected(grey)).score == 0.5


def test_cobsat_tells_object_and_attribute_apart():
    sample = by_id(atelier_cobsat, "2-1-0")
    one = atelier_cobsat.episode(sample)
    (thing,) = one.answer.things
    wrong = one.answer.with_things([replace(thing, kind="boat")])
    value = atelier_cobsat.judge(sample, inspected(wrong)).value
    assert value == {"detail": True, "thing": False, "textual": True, "visual": False}
    context = atelier_cobsat.inputs(sample).context
    assert [isinstance(part, str) for part in context] == [False, True] * 2
    assert context[1] == one.examples[0][0]


def test_rise_wants_the_change_and_nothing_else():
    for key in ("spatial_1", "logical_1", "temporal_1", "causal_1"):
        sample = by_id(atelier_rise, key)
        before, after = (Scene.from_json(sample.record[name]) for name in ("before", "after"))
        undone = atelier_rise.judge(sample, inspected(before)).value
        assert undone["reasoning"] is False
        assert undone["consistency"] is True
        done = inspected(after)
        assert atelier_rise.judge(sample, done).score == 1, key
        dirty = np.asarray(done.picture).copy()
        mask = atelier_rise.outside(before, after)
        dirty[mask] = 255 - dirty[mask]
        spoilt = atelier_rise.judge(sample, Inspected(done.sighting, Image.fromarray(dirty)))
        assert (spoilt.score, spoilt.value["reasoning"]) == (0.0 if mask.any() else 1.0, True)
        assert np.asarray(atelier_rise.inputs(sample).picture).tobytes() == np.asarray(draw(before)).tobytes()


def test_outcomes_have_the_parts():
    row = Row("2-1-0", 0, "2-shot color-I", "c", "x", None, None, 1, None, None, "scored", 0.0, "", "", None, ())
    value = {"detail": True, "thing": False, "textual": True, "visual": False}
    scores = atelier_cobsat.outcome([replace(row, value=value)]).scores
    assert (scores["2-shot"].mean, scores["2-shot, attribute"].mean, scores["2-shot, object"].mean) == (0, 1, 0)
    edited = replace(
        row, id="causal_1", tag="causal_reasoning", score=1.0, value={"reasoning": True, "consistency": True}
    )
    assert atelier_rise.outcome([edited]).scores["causal"].mean == 1
    assert (
        atelier_compbench.outcome([replace(row, tag="color", id="color-000002", score=1.0)]).scores["overall"].mean == 1
    )


def test_a_second_look_reads_textures_and_actions():
    rng = random.Random(0)
    for value in (*TEXTURES, *ACTIONS, None):
        thing = Thing("sheep", "brown", x=0.3, y=0.55, scale=0.4)
        field = "texture" if value in TEXTURES else "action"
        scene = Scene((replace(thing, **{field: value}), Thing("box", x=0.75, y=0.5, scale=0.35)))
        told = seen_in(Scene((thing, scene.things[1])))
        for size in (1.02, 1 / 1.13):  # the inspector sees most things smaller than they were drawn
            off = [replace(one, x=one.x + rng.uniform(-0.015, 0.015), scale=one.scale * size) for one in told.objects]
            found = look_again(draw(scene), replace(told, objects=tuple(off)), [field], ("sheep",))
            assert getattr(found.objects[0], field) == value


def test_where_no_look_fits_what_was_seen_first_stands():
    """Of a painting, whose strokes lie where no drawing has them; never of a drawing, which shows that it is wrong."""

    def read(shown: Thing, first: Thing, trust: float) -> str | None:
        seen = seen_in(Scene((first,)))
        return look_again(draw(Scene((shown,))), seen, ["action"], ("sheep",), trust).objects[0].action

    plain = Thing("sheep", "white", x=0.5, y=0.55, scale=0.45)
    flying = replace(plain, action="fly")
    askew = replace(flying, x=plain.x + 0.04)
    assert read(askew, flying, 0) is None
    assert read(askew, flying, 1.1) == "fly"
    assert read(plain, flying, 1.1) is None
    assert read(flying, plain, 1.1) == "fly"


class Drawing:
    """A painter that draws what is asked, given what stands beside the prompt."""

    name = "drawing"

    def __init__(self, scenes):
        self.scenes, self.given = scenes, []

    def paint(self, prompts, seeds, plan, inputs=()):
        self.given += inputs
        return [Painted(draw(self.scenes.pop(0))) for _ in prompts]


@needs_inspector
def test_the_harness_gives_inputs_and_writes_a_table(tmp_path):
    one = load("atelier-rise")
    chosen = [one.samples[i * len(one.samples) // 4] for i in range(4)]
    painter = Drawing(truths("atelier-rise", chosen))
    scores = evaluate("atelier-rise", painter, tmp_path, limit=4)
    assert all(given.picture is not None for given in painter.given)
    assert scores["scores"]["accuracy"]["mean"] >= 0.75
    assert "accuracy" in (tmp_path / "table.md").read_text()


@needs_inspector
def test_drawn_truths_are_judged_like_painted_pictures(tmp_path):
    assert write("atelier-rise", tmp_path / "drawn") == 200
    scores = evaluate("atelier-rise", None, tmp_path / "out", images=tmp_path / "drawn", limit=12)
    assert scores["scores"]["accuracy"]["mean"] >= 0.75
    with pytest.raises(ValueError, match="could be drawn"):
        write("atelier-geneval", tmp_path / "none")


@needs_inspector
def test_what_a_painter_could_show_at_best_is_judged_too(tmp_path):
    assert write("atelier-compbench", tmp_path / "through", through="atelier-janus") == 360
    scores = evaluate("atelier-compbench", None, tmp_path / "out", images=tmp_path / "through", limit=40)["scores"]
    assert scores["spatial"]["mean"] >= 0.8
    assert 0.5 < scores["overall"]["mean"] < 0.95, "codes keep less than the drawing has"
