"""A judge that learns claim by claim: claims and their verdicts, one reading of a picture for all, what is learnt,
looks of painted pictures, and the judge as an adapter of the model that it began with."""

import json
import random
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from test_verifier_data import ASKED, Toy
from test_vlm_training import vlm  # noqa: F401

from reverie.atelier import claims
from reverie.atelier.draw import draw
from reverie.atelier.inspector import Seen
from reverie.atelier.kinds import KINDS
from reverie.atelier.language import held_out_colour, held_out_count, held_out_pair
from reverie.atelier.language_parse import parse
from reverie.atelier.sample import allowed, compose, random_demand
from reverie.atelier.scene import COLOURS
from reverie.benchmarks import atelier_geneval
from reverie.benchmarks.protocol import Sample
from reverie.data.build_verifier import Build, build
from reverie.data.looks import Look, Looks, surely_right
from reverie.data.paths import Label, PathBuild, Paths
from reverie.data.verifier import VerifierData
from reverie.judges import View
from reverie.judges.load import judge_by_name
from reverie.judges.moved import MOVES, moved
from reverie.judges.vlm import VLMJudge, Wording
from reverie.models.low_rank import difference
from reverie.training import recipes
from reverie.training.claim_recipes import blended
from reverie.training.judge_claims import UNASKED, Asked, ClaimTask, ClaimTraining
from reverie.training.judge_report import cases, report
from reverie.training.qwen_judge import QwenStudent
from reverie.training.vlm_build import save_vlm
from reverie.vlms.transformers import TransformersVLM

WORDING = Wording.of("atelier")


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_a_claim_is_what_the_benchmark_says_of_it_and_nothing_that_it_asks(seed, holds):
    rng = random.Random(seed)
    sighting = claims.seen_in(compose(random_demand(rng), rng, loose=True))
    said = claims.claim(sighting, rng, holds)
    demand = parse(said.text)
    counted = len(demand.include) == 1 and demand.include[0].count > 1
    record = demand.to_record() | {"tag": "counting" if counted else "two_object"}
    if counted:
        record["exclude"] = [record["include"][0] | {"count": demand.include[0].count + 1}]
    sample = Sample("0", said.text, record["tag"], record, "")
    assert said.holds == bool(atelier_geneval.judge(sample, sighting).score)
    assert said.holds == holds or not holds or not sighting.objects
    assert allowed(demand.include)
    assert len(said.steps) == len(said.ends) == len(said.named)
    assert said.ends[-1] == len(said.text)
    for end, (kind, colour) in zip(said.ends, said.named, strict=True):
        assert kind.split()[-1][:3] in said.text[:end]
        assert colour is None or colour in said.text[:end]
    if len(said.steps) == 2:
        part = claims.true_of(parse(said.text[: said.ends[0]]).include, sighting)
        assert said.steps[0] == part
        assert said.steps[0] or not said.steps[1], "the whole holds only if its parts do"


@pytest.fixture
def student(vlm) -> QwenStudent:  # noqa: F811
    found = QwenStudent(vlm)
    found.model.eval()
    return found


def test_questions_behind_one_reading_of_a_picture_are_answered_as_if_asked_alone(student):
    task = ClaimTask(student, WORDING, ClaimTraining(pictures=3, claims=3))
    batch = task.batch(0)
    pictures = student.shown(student.look(batch["pixels"]))
    told = task.verdicts(student.behind_pictures(batch, pictures))[torch.arange(9), batch["last"]]
    rng = random.Random("0/0")
    shown = [task._drawn(rng) if rng.random() < 1 else None for _ in range(3)]
    asked = [one for _, questions, _ in shown for one in questions]
    ids = [student.asked(WORDING.conversation(one.question, one.said.text), 1) for one in asked]
    rows = student.questions(ids)
    hidden = student.hidden(rows, student.look(batch["pixels"]).repeat_interleave(3, 0))
    logits = student.model.lm_head(hidden[torch.arange(9), rows["last"]])
    torch.testing.assert_close(told, logits[:, task.yes] - logits[:, task.no], atol=1e-4, rtol=0)


def test_verdicts_stand_at_the_last_words_of_parts_and_at_the_answer(student):
    said = claims.Claim("a photo of a red cat and a dog", (True, False), (20, 30), (("cat", "red"), ("dog", None)))
    task = ClaimTask(student, WORDING, ClaimTraining())
    asked = [Asked("orm", said), Asked("clarity", claims.Claim("", (True,), (0,)))]
    rows = task.rows(asked, task.ends(asked))
    marked = [(row.nonzero()[:, 0].tolist(), row[row != UNASKED].tolist()) for row in (rows["wanted"] != UNASKED).int()]
    words, ids = student.words, rows["ids"]
    (first, end), _ = marked[0]
    assert words.decode(ids[0, : first + 1]).endswith("Does this picture show a photo of a red cat")
    assert rows["wanted"][0, first] == 1
    assert rows["wanted"][0, end] == 0
    assert end == rows["last"][0]
    assert words.decode(ids[0, : end + 1]).endswith("assistant\n")
    assert marked[1][0] == [int(rows["last"][1])]
    assert not rows["said"].any(), "what is not true is not told"
    asked = [Asked("orm", claims.Claim(said.text, (True, True), said.ends, said.named))]
    true = task.rows(asked, task.ends(asked))
    assert words.decode(true["ids"][0].roll(-1)[true["said"][0]]).strip() == said.text


def test_a_batch_is_learnt_by_heart_with_all_that_stands_beside_the_verdict(student):
    task = ClaimTask(student, WORDING, ClaimTraining(pictures=6, claims=2, where=1.0))
    batch = task.batch(0)
    assert batch["holds"].shape == (len(batch["spots"]), 6)
    opts = torch.optim.Adam(task.model.parameters(), 3e-3)
    first = {name: float(value) for name, value in task.loss(batch)[1].items()}
    for _ in range(60):
        opts.zero_grad()
        loss, about = task.loss(batch)
        loss.backward()
        opts.step()
    assert about["right"] > 0.9
    assert all(about[name] < 0.7 * first[name] for name in ("verdict", "match", "where", "tell"))


def painted(prompt: str, scenes, reason: str = "") -> Looks:
    """Looks at drawn scenes as if they had been painted for this prompt."""
    found = Looks.__new__(Looks)
    found.folder, found.rows = Path("drawn"), []
    for scene in scenes:
        picture, seen = np.asarray(draw(scene).convert("RGB")).transpose(2, 0, 1), claims.seen_in(scene)
        own = claims.said_of(parse(prompt).include, seen, "a photo of")
        why = "" if own.holds else reason
        found.rows.append(Look(np.stack([picture] * 2), (0.5,), (True,), own, seen, 0.8 if own.holds else 0.2, why))
    return found


@pytest.fixture
def cats() -> Looks:
    scenes = [
        compose(parse(f"a photo of a {colour} cat"), random.Random(seed)) for seed, colour in enumerate(("red", "blue"))
    ]
    return painted("a photo of a red cat", scenes, "The cat is blue, not red.")


def test_a_right_and_a_wrong_picture_of_a_prompt_come_together_and_are_ranked(student, cats):
    config = ClaimTraining(pictures=4, claims=2, drawn=0.0, unfinished=0.0, pairs=1.0, rank=1.0)
    task = ClaimTask(student, WORDING, config, painted=[cats])
    batch = task.batch(0)
    assert batch["ranked"].tolist() == [[0, 2], [4, 6]]
    assert batch["sure"][batch["ranked"]].tolist() == [[pytest.approx(0.8), pytest.approx(0.2)]] * 2
    loss, about = task.loss(batch)
    hidden = student.behind_pictures(batch, student.shown(student.look(batch["pixels"])))
    scores = task.verdicts(hidden)[torch.arange(8), batch["last"]]
    better, worse = scores[batch["ranked"]].unbind(1)
    torch.testing.assert_close(about["rank"], -torch.sigmoid(better - worse).log().mean(), atol=1e-5, rtol=0)
    config.rank = 0.0
    torch.testing.assert_close(loss - task.loss(batch)[0], about["rank"], atol=1e-4, rtol=0)
    opts = torch.optim.Adam(task.model.parameters(), 3e-3)
    config.rank = 1.0
    for _ in range(40):
        opts.zero_grad()
        loss, about = task.loss(batch)
        loss.backward()
        opts.step()
    assert about["rank"] < 0.3


def test_pictures_are_shown_from_elsewhere_and_prospects_asked_of_finished_ones_without_moments(student, cats):
    for at, look in enumerate(cats.rows):
        cats.rows[at] = replace(look, pictures=look.pictures[-1:], moments=(), clear=())
    config = ClaimTraining(pictures=4, claims=3, drawn=0.0, unfinished=1.0, moved=1.0)
    task = ClaimTask(student, WORDING, config, painted=[cats])
    rng, whole = random.Random(0), torch.from_numpy(np.stack([look.pictures[-1] for look in cats.rows]))
    elsewhere = torch.cat([moved(whole, *move) for move in MOVES]).numpy()
    for _ in range(8):
        picture, asked, _ = task._painted(rng)
        assert any((picture == one).all() for one in elsewhere)
        assert [one.question for one in asked] == ["potential"] * 3, "whether it is clear is asked of what may change"
        assert asked[0].sure == pytest.approx(0.8 if asked[0].said.holds else 0.2)
    config.moved = 0.0
    picture = task._painted(rng)[0]
    assert any((picture == one).all() for one in whole.numpy())


def test_the_end_of_a_painting_is_a_moment_too_and_clear(student, cats):
    now, end = (look.pictures[-1] for look in cats.rows)
    flickering = replace(cats.rows[0], pictures=np.stack((now, end)), moments=(0.5,), clear=(False,))
    task = ClaimTask(student, WORDING, ClaimTraining(drawn=0.0), painted=[cats])
    told = set()
    for seed in range(20):
        picture, asked, _ = task._asked(flickering, random.Random(seed), unfinished=True)
        assert [one.question for one in asked] == ["potential", "clarity", "potential", "potential"]
        told.add(((picture == end).all(), asked[1].said.holds))
    assert told == {(False, False), (True, True)}


def test_a_verdict_is_learnt_as_surely_as_it_is_so(student, cats):
    task = ClaimTask(student, WORDING, ClaimTraining(drawn=0.0), painted=[cats])
    hidden = torch.randn(3, student.model.config.text_config.hidden_size)
    sure = torch.tensor([1.0, 0.0, 0.3])
    logs = student.model.lm_head(hidden).log_softmax(-1)
    wanted = torch.stack((logs[0, task.yes], logs[1, task.no], 0.3 * logs[2, task.yes] + 0.7 * logs[2, task.no]))
    torch.testing.assert_close(task._answered(hidden, sure), -wanted.mean())


def test_the_judge_learns_to_say_what_is_wrong(student, cats):
    config = ClaimTraining(pictures=2, claims=2, drawn=0.0, unfinished=0.0, pairs=1.0, reasons=1.0, match=0.0)
    task = ClaimTask(student, WORDING, config, painted=[cats])
    batch = task.batch(0)
    words = student.words
    told = [words.decode(row.roll(-1)[why]) for row, why in zip(batch["ids"], batch["why"], strict=True)]
    assert told[2] == ". The cat is blue, not red.<|im_end|>"
    assert not any(told[:2] + told[3:]), "only what is wrong is explained"
    assert words.decode(batch["ids"][2, : batch["last"][2] + 1]).endswith("assistant\n")
    opts = torch.optim.Adam(task.model.parameters(), 3e-3)
    for _ in range(100):
        opts.zero_grad()
        task.loss(batch)[0].backward()
        opts.step()
    student.model.eval()
    wrong = Image.fromarray(cats[1].pictures[-1].transpose(1, 2, 0))
    said = VLMJudge(student.vlm, WORDING).reflect([View("a photo of a red cat", wrong)])[0]
    assert not said.aligned
    assert said.reason == "The cat is blue, not red."


@pytest.fixture(scope="module")
def looks(tmp_path_factory) -> Path:
    """Of the toy painter, seen by the shipped inspector."""
    folder = tmp_path_factory.mktemp("looks")
    wanted = Build("looks", PathBuild(per_prompt=3, batch=5), WORDING, VerifierData(looks=6))
    stats = build(wanted, Toy(), judge_by_name("atelier-inspector", "cpu"), ASKED, folder / "looks", folder / "paths")
    assert stats is not None
    assert stats["images"] == 12
    return folder


def test_a_look_says_why_it_is_wrong_and_how_surely_it_is_right(looks):
    found, inspector = Looks(looks / "looks").rows, judge_by_name("atelier-inspector", "cpu").inspector
    labels = [label for shard in Paths(looks / "paths").shards() for label in shard.labels]
    assert [look.reason for look in found] == [label.reason for label in labels]
    assert all(look.sure in (0.0, 0.2, 0.4, 0.6, 0.8, 1.0) for look in found)
    rng = random.Random(0)
    demand = parse("a photo of a red cat")
    clean = np.asarray(draw(compose(demand, rng)).convert("RGB")).transpose(2, 0, 1)
    both = np.stack((clean, np.full_like(clean, 230)))
    told = [Label("a photo of a red cat", i, 0, i == 0) for i in range(2)]
    assert surely_right(inspector, told, both, inspector.look(torch.from_numpy(both))) == [1.0, 0.0]


def test_looks_hold_the_moments_of_a_path_and_what_is_seen_in_the_end(looks):
    found, generator = Looks(looks / "looks"), Toy().generator(None)
    assert len(found) == 12
    canvas = Paths(looks / "paths").shard(0).canvas()
    for row in range(2):
        look, alone = found[row], canvas.select([row])
        assert list(look.moments) == sorted(set(look.moments))
        for picture, moment in zip(look.pictures, (*look.moments, 1.0), strict=True):
            step = round(moment * generator.steps)
            shown = generator.preview(generator.rewind(alone, step))[0]
            assert (picture.transpose(1, 2, 0) == shown).all()
        seen = judge_by_name("atelier-inspector", "cpu").inspector.look(torch.from_numpy(np.array(look.pictures)))
        told = [sorted((thing.kind, thing.colour) for thing in one.objects) for one in seen]
        assert look.clear == tuple(one == told[-1] for one in told[:-1])
    clear_at = {moment for look in found.rows for moment, clear in zip(look.moments, look.clear, strict=True) if clear}
    assert found.clear_from == pytest.approx(min(clear_at, default=1.0), abs=1e-3)
    with pytest.raises(ValueError, match="holds no looks"):
        Looks(looks / "paths")


def test_what_benchmarks_hold_out_is_not_among_looks(looks, tmp_path):
    folder = tmp_path / "looks"
    shutil.copytree(looks / "looks", folder)
    for file in folder.glob("*.jsonl"):
        rows = [json.loads(line) for line in file.read_text().splitlines()]
        for row in rows:
            row |= {"prompt": "a photo of a red cat", "objects": []}
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    kept = len(Looks(folder))
    file = min(folder.glob("*.jsonl"))
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    held = [(colour, kind) for kind in KINDS for colour in COLOURS if held_out_colour(colour, kind)]
    colour, kind = next(both for both in held if both[0] != KINDS[both[1]].natural)
    own, natural = next(both for both in held if both[0] == KINDS[both[1]].natural)
    other = next(one for one in KINDS if held_out_pair(kind, one))
    number, many = next((n, one) for one in KINDS for n in (2, 3, 4) if held_out_count(n, one))

    def seen(*things: tuple[str, str]) -> dict[str, object]:
        return {"objects": [asdict(Seen(kind, colour, 0.5, 0.5, 0.3, score=1.0)) for kind, colour in things]}

    rows[0] |= {"prompt": f"a photo of a {colour} {kind}"}
    rows[1] |= {"prompt": f"a photo of a {kind} and a {other}"}
    rows[2] |= seen((kind, colour))
    rows[3] |= seen(*[(many, KINDS[many].natural)] * number)
    assert len(rows) == 5
    rows[4] |= seen((natural, own)) | {"prompt": "one that nobody can read"}
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = Looks(folder)
    assert (len(found), found.left_out) == (kept - 4, 4)
    assert found.rows[0].own.text == "one that nobody can read"
    for file in folder.glob("*.jsonl"):
        text = json.dumps(json.loads(file.read_text().splitlines()[0]) | {"prompt": f"a photo of a {colour} {kind}"})
        file.write_text((text + "\n") * len(file.read_text().splitlines()))
    with pytest.raises(ValueError, match="only what benchmarks ask for"):
        Looks(folder)


def test_the_recipe_trains_on_looks_and_leaves_an_adapter_that_judges_alike(vlm, looks, tmp_path):  # noqa: F811
    save_vlm(vlm.model, vlm.processor, tmp_path / "vlm")
    made = tmp_path / "judge.yaml"
    loop = {"steps": 3, "lr": 1e-3, "precision": "no", "log_every": 1, "ema": 0.0}
    values = {
        "task": "judge-claims", "out": str(tmp_path / "out"), "model": str(tmp_path / "vlm"), "wording": "atelier",
        "data": str(looks / "looks"), "claims": {"pictures": 4, "claims": 3, "drawn": 0.5}, "loop": loop,
        "base": "../../vlm", "rank": 8, "moves": 2, "blend": 0.5,
    }  # fmt: skip
    made.write_text(json.dumps(values))
    with pytest.raises(ValueError, match="moves is 9"):
        recipes.run(made, ["moves=9"])
    assert not (tmp_path / "out").exists(), "said before it learns"
    folder = recipes.run(made) / "checkpoint"
    config = json.loads((folder / "config.json").read_text())
    assert config["reverie"]["judge"] == "atelier"
    assert config["reverie"]["clear_from"] == Looks(looks / "looks").clear_from
    assert config["reverie"]["adapter"]["base"] == "../../vlm"
    kept = Looks(looks / "looks")
    assert f"{len(kept)} images, {kept.left_out} more kept back" in (folder / "README.md").read_text()
    judge = judge_by_name(str(folder), "cpu")
    assert judge.manner.moves == config["reverie"]["moves"] == 2
    assert not judge.manner.reasons, "nobody taught it any"
    views = [View(case.prompt, case.right) for case in cases(every=200, seed=0)]
    loaded = QwenStudent(TransformersVLM.load(folder))
    base = dict(TransformersVLM.load(tmp_path / "vlm").model.named_parameters())
    changes = difference(dict(loaded.model.named_parameters()), base, 8)
    assert any(name.endswith("lora_A") for name in changes)
    assert sum(path.stat().st_size for path in folder.glob("*.safetensors")) < 2 * sum(p.numel() for p in base.values())
    assert all(0 <= answer.yes <= 1 for answer in judge.ask("orm", views))
    found = report(judge, every=120)
    assert found["all"]["pairs"] == 5
    assert 0 <= found["all"]["low"] <= found["all"]["right picture first"] <= found["all"]["high"] <= 1
    config["reverie"]["moves"] = 9
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="moves is 9"):
        judge_by_name(str(folder), "cpu")


def test_a_share_of_what_was_learnt_is_kept():
    layer = torch.nn.Linear(2, 2)
    before = [p.detach().clone() for p in layer.parameters()]
    with torch.no_grad():
        layer.weight.add_(4.0)
    blended(layer, before, 0.25)
    torch.testing.assert_close(layer.weight, before[0] + 1.0)
    torch.testing.assert_close(layer.bias, before[1])


def test_what_cannot_be_is_refused(student):
    with pytest.raises(ValueError, match="needs painted pictures"):
        ClaimTask(student, WORDING, ClaimTraining(drawn=0.5))
    alone = painted("a photo of a red cat", [compose(parse("a photo of a red cat"), random.Random(0))])
    with pytest.raises(ValueError, match="one picture is right and another wrong"):
        ClaimTask(student, WORDING, ClaimTraining(drawn=0.5, pairs=0.5), painted=[alone])
    with pytest.raises(ValueError, match="shares between"):
        ClaimTraining(pairs=2.0)
    with pytest.raises(ValueError, match="two claims"):
        ClaimTraining(claims=1)
