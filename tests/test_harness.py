"""The harness with stand-ins: a painter that draws the truth, one that draws nonsense, and a detector that knows."""

from __future__ import annotations

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny import tiny_folder

import reverie
from reverie.atelier.draw import colour_of, draw
from reverie.atelier.inspector import Seen, Sighting
from reverie.atelier.language_parse import Demand, parse
from reverie.atelier.sample import compose
from reverie.atelier.scene import Scene
from reverie.benchmarks import atelier_geneval, atelier_wise, stats
from reverie.benchmarks.harness import evaluate, load_benchmark, read_rows
from reverie.benchmarks.paired import compare
from reverie.benchmarks.protocol import Painted, checksum
from reverie.png import picture_hash
from reverie.reason import make_plan


class Honest:
    """Draws what is demanded, and lets the detector know the scene behind each picture."""

    name = "honest"
    wrong = staticmethod(lambda scene: scene)

    def __init__(self):
        self.scenes: dict[str, Scene] = {}
        demands = {s.prompt: Demand.from_record(s.record["demand"]) for s in load_benchmark("atelier-wise").samples}
        self.demands = demands

    def paint(self, prompts, seeds, plan):
        painted = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            demand = self.demands.get(prompt) or parse(prompt)
            scene = self.wrong(compose(demand, random.Random(seed)))
            image = draw(scene)
            self.scenes[picture_hash(image)] = scene
            painted.append(Painted(image, work={"drawn": 1}))
        return painted


class Bare(Honest):
    """Draws the first thing only."""

    name = "bare"
    wrong = staticmethod(lambda scene: scene.with_things(scene.things[:1]))


class Knowing:
    """A detector that is told the scenes."""

    name = "truth"

    def __init__(self, painter):
        self.painter = painter

    def look(self, images):
        return [self._sighting(self.painter.scenes[picture_hash(image)]) for image in images]

    def _sighting(self, scene):
        seen = [Seen(**{**vars(thing), "colour": colour_of(thing)}, score=0.9) for thing in scene.things]
        return Sighting(tuple(seen), scene.background, scene.style)


def test_the_list_of_geneval_is_fixed():
    samples = atelier_geneval.samples()
    tags = [sample.tag for sample in samples]
    assert {tag: tags.count(tag) for tag in tags} == atelier_geneval.PROMPTS
    assert len({sample.prompt for sample in samples}) == len(samples) == 553
    for sample in samples:
        assert parse(sample.prompt).include == Demand.from_record({"include": sample.record["include"]}).include
    fixed = ("v1", "a4fbdb220b699db8f79e91035c3d2525247640b22be6a05c088b499e6cd8559f")
    assert (atelier_geneval.VERSION, checksum(samples)) == fixed, "a changed list is a new version"


def test_truth_scores_one_and_nonsense_less(tmp_path):
    for name, count in (("atelier-geneval", 120), ("atelier-wise", None)):
        honest, bare = Honest(), Bare()
        scores = evaluate(name, honest, tmp_path / name, images_per_prompt=1, limit=count, judge=Knowing(honest))
        wrong = [row for row in read_rows(tmp_path / name) if not row.score]
        assert not wrong, wrong[0]
        assert scores["overall"]["mean"] == 1
        assert ("all images" in scores["scores"]) == (name == "atelier-geneval"), "there overall is a mean of tasks"
        assert scores["overall"]["low"] < 1
        assert scores["spent"]["work"] == {"drawn": scores["images_scored"]}
        folder = tmp_path / f"{name}-bare"
        fallen = evaluate(name, bare, folder, images_per_prompt=1, limit=count, judge=Knowing(bare))
        for row in read_rows(folder):
            many = len(compose(bare.demands.get(row.prompt) or parse(row.prompt), random.Random(0)).things) > 1
            assert row.score != many
            assert bool(row.reason) == many
        gap = compare(tmp_path / name, folder)
        assert gap["overall"].mean == pytest.approx(fallen["overall"]["mean"] - 1)
        assert gap["overall"].low <= gap["overall"].mean <= gap["overall"].high < 0


def test_a_stopped_run_goes_on_to_the_same_rows(tmp_path):
    def stop(row, done, total):
        if done == 11:
            raise KeyboardInterrupt

    def go(folder, **more):
        honest = Honest()
        return evaluate(
            "atelier-geneval", honest, tmp_path / folder, images_per_prompt=2, limit=10, batch=4,
            judge=Knowing(honest), **more,
        )  # fmt: skip

    with pytest.raises(KeyboardInterrupt):
        go("stopped", on_row=stop)
    assert 0 < len(read_rows(tmp_path / "stopped")) < 20
    with (tmp_path / "stopped" / "rows.jsonl").open("a") as file:
        file.write('{"id": "torn')
    again, whole = go("stopped"), go("whole")
    rows = [(tmp_path / name / "rows.jsonl").read_bytes() for name in ("stopped", "whole")]
    assert rows[0] == rows[1]
    assert len(rows[0].splitlines()) == 20
    assert again["overall"] == whole["overall"]
    assert again["spent"]["images"] == 20
    assert go("whole")["spent"] == whole["spent"]  # nothing left to do


def test_layout_and_judging_pictures_made_elsewhere(tmp_path):
    honest = Honest()
    asked = {"images_per_prompt": 2, "limit": 6, "judge": Knowing(honest)}
    made = evaluate("atelier-geneval", honest, tmp_path / "made", **asked)
    sample = atelier_geneval.samples()[0]
    folder = tmp_path / "made" / "images" / "00000"
    assert json.loads((folder / "metadata.jsonl").read_text()) == sample.record
    assert sorted(path.name for path in (folder / "samples").iterdir()) == ["0000.png", "0001.png"]
    for name in ("scores.json", "table.md", "report.html"):
        assert (tmp_path / "made" / name).stat().st_size
    assert not list((tmp_path / "made").rglob("*.partial"))
    page = (tmp_path / "made" / "report.html").read_text()
    assert page.count("<article") == 12
    assert "http" not in page
    assert page.count('src="') == page.count('src="data:image/webp;base64,')
    (folder / "samples" / "0001.png").unlink()
    judged = evaluate("atelier-geneval", None, tmp_path / "judged", images=tmp_path / "made" / "images", **asked)
    assert judged["images_scored"] == made["images_scored"] - 1
    assert not judged["complete"]
    assert judged["overall"]["mean"] == 1


def test_bad_requests_are_refused(tmp_path):
    honest = Honest()
    detector = Knowing(honest)
    for error, name, more in (
        ("did you mean atelier-wise", "atelier-wize", {}),
        ("batch=0", "atelier-wise", {"batch": 0}),
        ("seed=-1", "atelier-wise", {"seed": -1}),
        ("Give either", "atelier-wise", {"images": tmp_path}),
        ("There is no .*inspector.safetensors", "atelier-wise", {"judge": tmp_path}),
        ("preset", "atelier-wise", {"plan": "t2gg"}),
    ):
        with pytest.raises(ValueError, match=error):
            evaluate(name, honest, tmp_path / "out", **{"judge": detector} | more)
    with pytest.raises(ValueError, match="unknown model"):
        evaluate("atelier-wise", "atelier-janis", tmp_path / "out", judge=detector)
    assert not (tmp_path / "out").exists()
    evaluate("atelier-wise", honest, tmp_path / "out", limit=2, judge=detector)
    with pytest.raises(ValueError, match="holds seed 0, not 1"):
        evaluate("atelier-wise", honest, tmp_path / "out", limit=2, seed=1, judge=detector)


class Blind:
    """A detector that sees nothing."""

    name = "blind"

    def look(self, images):
        return [Sighting((), "plain", "plain") for _ in images]


def test_a_loaded_model_goes_through_the_same_door(tmp_path):
    folder = tiny_folder(tmp_path / "tiny")
    plan = make_plan("t2g", thought_tokens=4)
    asked = {"limit": 3, "batch": 2, "judge": Blind()}
    scores = evaluate("atelier-wise", folder, tmp_path / "out", plan, **asked)
    assert scores["overall"]["mean"] == 0
    assert scores["model"] == str(folder)
    assert scores["plan"]["think"] == "before"
    assert scores["about"]["fingerprint"]
    assert scores["spent"]["work"]["decoded"] > 0
    rows = read_rows(tmp_path / "out")
    assert all(row.thought is not None and "found 0" in row.reason for row in rows)
    model = reverie.load(folder)
    assert evaluate("atelier-wise", model, tmp_path / "out", plan, **asked)["overall"] == scores["overall"]
    with pytest.raises(ValueError, match="holds plan"):
        evaluate("atelier-wise", model, tmp_path / "out", make_plan(), **asked)
    (tmp_path / "out" / "model.json").write_text('{"fingerprint": "of other weights"}')
    with pytest.raises(ValueError, match="holds fingerprint"):
        evaluate("atelier-wise", model, tmp_path / "out", plan, **asked | {"limit": 4})


def wise_failures(text, scene):
    return atelier_wise.failures(parse(text), Knowing(None)._sighting(scene))


def test_wise_looks_at_every_attribute():
    scene = compose(parse("a red cat left of two rotten bananas"), random.Random(1))
    assert not wise_failures("a red cat and two rotten bananas", scene)
    scene = compose(parse("a red cat sleeping left of a rotten banana at night"), random.Random(1))
    assert not wise_failures("a red cat sleeping left of a rotten banana at night", scene)
    for text, reason in (
        ("a blue cat", "colour blue, found red"),
        ("two cats", "expected 2 cat, found 1"),
        ("a cat running", "action run, found sleep"),
        ("an unripe banana", "state unripe, found rotten"),
        ("a cat right of a banana", "right of"),
        ("a cat in a cave", "background cave, found night"),
        ("a dog", "expected 1 dog, found 0"),
        ("a wooden cat", "texture wood, found plain"),
    ):
        (failure,) = wise_failures(text, scene)
        assert reason in failure
    pair = compose(parse("a red cat and a blue cat"), random.Random(1))
    assert not wise_failures("a blue cat and a red cat", pair)
    assert wise_failures("a blue cat and a green cat", pair)
    assert wise_failures("two blue cats", replace(pair, things=(pair.things[0],) * 2))


# --------------------------------------------------------------------------------------------------- statistics


@given(st.integers(1, 400), st.data())
def test_wilson_holds_the_share_and_narrows(n, data):
    right = data.draw(st.integers(0, n))
    low, high = stats.wilson(right, n)
    assert 0 <= low <= right / n <= high <= 1
    assert low < high
    closer = stats.wilson(right * 4, n * 4)
    assert closer[1] - closer[0] < high - low


def test_wilson_against_known_values():
    assert stats.wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=1e-4)  # Newcombe 1998, table I
    assert stats.wilson(0, 20) == pytest.approx((0, 0.1611), abs=1e-4)


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 9), st.booleans()), min_size=1, max_size=60))
def test_an_interval_holds_its_mean(rows):
    values, clusters = [float(v) for _, _, v in rows], [f"{t}{c}" for t, c, _ in rows]
    for weighting in ("items", "strata"):
        found = stats.estimate(values, clusters, [t for t, _, _ in rows], weighting)
        assert 0 <= found.low <= found.mean <= found.high <= 1
        assert found.low < found.high
    assert stats.estimate(values, clusters).mean == pytest.approx(sum(values) / len(values))


def test_prompts_that_agree_count_as_one_try_each():
    rng = random.Random(0)
    shared = [float(rng.random() < 0.6) for _ in range(100)]
    agreeing = stats.estimate([v for v in shared for _ in range(4)], [c for c in range(100) for _ in range(4)])
    apart = stats.estimate([float(rng.random() < 0.6) for _ in range(400)], [c for c in range(100) for _ in range(4)])
    assert agreeing.high - agreeing.low > 1.6 * (apart.high - apart.low)
    low, high = stats.wilson(sum(shared), 100)
    assert (agreeing.low, agreeing.high) == pytest.approx((low, high), abs=0.02)


def test_a_difference_is_paired():
    rng = random.Random(0)
    first = [(i, i, "t", float(rng.random() < 0.5)) for i in range(300)]
    second = [(i, i, "t", 1.0 if i % 10 == 0 else value) for i, _, _, value in first]
    gap = stats.compare(first, second)
    assert 0 < gap.low < gap.mean < gap.high < 0.1
    assert stats.compare(first, first).mean == 0
    together = stats.compare(
        [(i, i // 10, t, v) for i, _, t, v in first], [(i, i // 10, t, v) for i, _, t, v in second]
    )
    assert together.mean == pytest.approx(gap.mean)
    assert (together.items, together.clusters) == (300, 30)
    with pytest.raises(ValueError, match="no prompt in common"):
        stats.compare(first, [("other", "other", "t", 1.0)])
