"""Data for verifiers and preferences over a tiny Show-o: labels, proportions, roll-outs, pairs, stops, the command."""

import json
import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from showo_toy import toy_showo

from reverie.canvas import Conditions
from reverie.cli import main
from reverie.data import prompts
from reverie.data.build_verifier import Build, build
from reverie.data.pairs import PairData, read_pairs
from reverie.data.paths import PathBuild, Paths
from reverie.data.prompts import Prompt, Prompts
from reverie.data.records import read_records
from reverie.data.verifier import VerifierData
from reverie.generators.showo import ShowoPainter
from reverie.judges.mixed import FunctionJudge
from reverie.judges.vlm import Wording
from reverie.models.showo_checkpoint import save_showo

MODEL, WORDS = toy_showo()
ASKED = Prompts(tuple(map(Prompt, ("a red cat", "two blue dogs", "a fish", "an owl at night"))), twins=1)


class Toy:
    """As much of a `Painter` as a build needs."""

    def __init__(self):
        self.about = {"model": "toy", "fingerprint": "none", "dtype": "float32"}

    def generator(self, plan) -> ShowoPainter:
        return ShowoPainter(MODEL, WORDS, guidance=2.0, steps=6)


def redness(found_prompts, pictures) -> list[tuple[float, str]]:
    """Right if there is more red than is usual here."""
    reds = [float(np.asarray(picture)[..., 0].mean()) / 255 for picture in pictures]
    return [(red, "" if red >= LIMIT else "It is not red.") for red in reds]


def limit() -> float:
    generator = Toy().generator(None)
    canvas = generator.advance(generator.start(Conditions(("a fish",) * 12), range(12)))
    return float(np.median([picture[..., 0].mean() / 255 for picture in generator.preview(canvas)]))


LIMIT = limit()
JUDGE = FunctionJudge(redness, "redness", threshold=LIMIT)


def made(kind: str, out: Path, paths: Path | None = None, part: int = 0, parts: int = 1, **settings):
    wanted = Build(
        kind, PathBuild(per_prompt=6, batch=5, part=part, parts=parts), Wording.of("atelier"),
        VerifierData(looks=6, **settings), PairData(each=2),
    )  # fmt: skip
    return build(wanted, Toy(), JUDGE, ASKED, out, paths)


@pytest.fixture(scope="module")
def painted(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("verifier")
    made("ranking", folder / "ranking", folder / "paths")
    return folder


def test_ranking_labels_every_image_once_with_its_own_picture(painted):
    found = read_records(painted / "ranking")
    labels = [label for shard in Paths(painted / "paths").shards() for label in shard.labels]
    assert [label.prompt for label in labels] == [p.text for p in ASKED.prompts for _ in range(6)]
    assert len({label.seed for label in labels}) == len(found) == 24
    assert {label.right for label in labels} == {True, False}
    for record, label in zip(found, labels, strict=True):
        assert record.answer == ("yes" if label.right else "no")
        assert label.prompt in record.turns[0]
        red = np.asarray(Image.open(painted / "ranking" / record.image))[..., 0].mean() / 255
        assert red == pytest.approx(label.score)
    row = json.loads((painted / "ranking" / "records.jsonl").read_text().splitlines()[0])
    assert [turn["from"] for turn in row["conversations"]] == ["human", "gpt"]
    assert row["conversations"][0]["value"].count("<image>") == 1
    stats = json.loads((painted / "ranking" / "stats.json").read_text())
    assert sum(stats["answers"]["orm"].values()) == 24
    assert stats["left out"]["twins"] == 1


def test_labels_of_steps_are_those_of_roll_outs_done_by_hand(painted):
    made("steps", painted / "steps", painted / "paths", rollouts=3)
    found = [json.loads(line) for line in (painted / "steps" / "records.jsonl").read_text().splitlines()]
    assert len(found) == len(ASKED.prompts) * 6
    generator, paths = Toy().generator(None), Paths(painted / "paths")
    for record in random.Random(0).sample(found, 6):
        shard = paths.shard(record["shard"])
        label, canvas = shard.labels[record["row"]], shard.canvas().select([record["row"]])
        ends = [label.right]
        if record["step"] < 6:
            begun = replace(generator.rewind(canvas, record["step"]), forks=record["step"])
            others = [generator.advance(begun.fork(1, first=copy)) for copy in (1, 2)]
            ends += [redness([""], generator.preview(other))[0][0] >= LIMIT for other in others]
        assert record["soft"] == pytest.approx(sum(ends) / len(ends))
        assert record["conversations"][-1]["value"] == ("yes" if any(ends) else "no")
    last = [record for record in found if record["step"] == 6]
    assert all(record["soft"] in (0, 1) for record in last)


def test_potential_follows_the_rule_of_steps_and_the_proportions(painted):
    made("potential", painted / "potential", painted / "paths", clear_after=0.6, unclear_before=0.5)
    found = [json.loads(line) for line in (painted / "potential" / "records.jsonl").read_text().splitlines()]
    tasks = Counter(record["task"] for record in found)
    assert tasks["orm"] == 24
    # 0.6 and 0.4 of each shard of 5; the same picture is not asked about twice.
    assert 8 <= tasks["clarity"] <= 15
    assert 5 <= tasks["potential"] <= 10
    labels = {
        (shard.number, row): label
        for shard in Paths(painted / "paths").shards()
        for row, label in enumerate(shard.labels)
    }
    for record in found:
        answer = record["conversations"][-1]["value"]
        if record["task"] == "clarity":
            assert record["step"] in (1, 2, 4, 5)
            assert answer == ("yes" if record["step"] > 3 else "no")
        if record["task"] == "potential":
            assert record["step"] in (4, 5)
            assert [turn["from"] for turn in record["conversations"]] == ["human", "gpt"]
            assert answer == ("yes" if labels[record["shard"], record["row"]].right else "no")
        assert (painted / "potential" / record["image"]).is_file()
    clear = [record["conversations"][-1]["value"] for record in found if record["task"] == "clarity"]
    assert abs(clear.count("yes") - clear.count("no")) <= 6
    official = VerifierData()
    seen = [step for step in range(1, 19) if step / 18 > official.clear_after]
    assert (seen, [s for s in range(1, 19) if s / 18 < official.unclear_before]) == (
        list(range(12, 19)), list(range(1, 10)),
    )  # fmt: skip


def test_two_turns_where_the_wording_has_two():
    from reverie.data.records import asked

    turns = asked(Wording.of("verify-and-reinforce"), "potential", "a cat", "no")
    assert len(turns) == 4
    assert turns[1] == "yes"
    assert turns[3] == "no"
    assert turns[0].count("<image>") == 1


def test_reflections_say_what_is_wrong(painted):
    made("reflection", painted / "reflection", painted / "paths", wrong=0.8)
    found = read_records(painted / "reflection")
    wrong = [record for record in found if record.answer.startswith("no")]
    assert {record.answer for record in wrong} == {"no. It is not red."}
    assert {record.answer for record in found} - {"no. It is not red."} == {"yes"}
    assert len(wrong) > len(found) - len(wrong)


@pytest.mark.parametrize("kind", ["preference", "correction"])
def test_pairs_hold_the_codes_of_a_right_and_a_wrong_image_of_one_prompt(painted, kind):
    stats = made(kind, painted / kind, painted / "paths")
    found = read_pairs(painted / kind, kind)
    assert stats is not None
    assert stats["counts"]["pairs"] == len(found.prompts) > 0
    assert stats["counts"]["prompts"] == 4
    generator = Toy().generator(None)
    for prompt, better, worse, reason in zip(found.prompts, found.better, found.worse, found.reasons, strict=True):
        shown = [MODEL.pictures.decode(codes[None]) for codes in (better, worse)]
        reds = [((x[0, 0].clamp(-1, 1) + 1) / 2).mean().item() for x in shown]
        assert reds[0] >= LIMIT - 0.01
        assert reds[1] <= LIMIT + 0.01
        assert prompt in {p.text for p in ASKED.prompts}
        assert reason == ("It is not red." if kind == "correction" else "")
    assert better.shape == (generator.length,)
    with pytest.raises(ValueError, match="holds data for"):
        read_pairs(painted / kind, "correction" if kind == "preference" else "preference")


def test_a_build_that_was_stopped_or_split_gives_the_same(painted, tmp_path):
    assert made("ranking", tmp_path / "split", part=1, parts=2) is None
    labels = tmp_path / "split" / "paths" / "labels-000001.jsonl"
    there = labels.stat().st_mtime_ns
    assert made("ranking", tmp_path / "split", part=0, parts=2) is not None
    assert labels.stat().st_mtime_ns == there
    assert (tmp_path / "split" / "records.jsonl").read_text() == (painted / "ranking" / "records.jsonl").read_text()
    (tmp_path / "split" / "paths" / "labels-000002.jsonl").unlink()  # stopped in the middle of a shard
    made("ranking", tmp_path / "split")
    assert labels.stat().st_mtime_ns == there
    with pytest.raises(ValueError, match="holds per_prompt 6, not 3"):
        build(Build("ranking", PathBuild(3, 5), Wording.of("atelier")), Toy(), JUDGE, ASKED, tmp_path / "split")


def test_no_pairs_is_said(tmp_path):
    judge = FunctionJudge(lambda p, v: [1.0] * len(v), "kind")
    wanted = Build("preference", PathBuild(2, 4), Wording.of("atelier"))
    with pytest.raises(ValueError, match="no prompt has both"):
        build(wanted, Toy(), judge, ASKED, tmp_path)


# --- prompts


def test_prompts_of_benchmarks_and_twins_are_left_out(tmp_path):
    (tmp_path / "mine.txt").write_text("A red cat.\na  red cat\n\ntwo dogs\na bench\n")
    (tmp_path / "bench.jsonl").write_text('{"prompt": "a bench", "tag": "x"}\n')
    found = prompts.read(str(tmp_path / "mine.txt"), [tmp_path / "bench.jsonl"])
    assert [prompt.text for prompt in found.prompts] == ["A red cat.", "two dogs"]
    assert (found.twins, found.asked) == (1, 1)


def test_templates_are_those_of_geneval_with_its_record(tmp_path):
    things = {"objects": ["bench", "apple", "bus", "teddy bear", "knife"], "colors": ["red", "blue", "orange"]}
    (tmp_path / "things.json").write_text(json.dumps(things))
    found = prompts.read(f"{tmp_path / 'things.json'}:60").prompts
    assert len({prompt.text for prompt in found}) == 60
    by_tag = {prompt.record["tag"]: prompt for prompt in found}
    assert set(by_tag) == {"single_object", "two_object", "counting", "colors", "position", "color_attr"}
    counted = by_tag["counting"].record
    assert counted["exclude"][0]["count"] == counted["include"][0]["count"] + 1
    position = by_tag["position"]
    first, second = position.record["include"]
    assert position.text.endswith(
        f"{second['position'][0]} {'an' if first['class'] == 'apple' else 'a'} {first['class']}"
    )
    assert prompts.plural("teddy bear") == "teddy bears"
    assert [prompts.plural(x) for x in ("bus", "knife", "toothbrush", "cherry")] == [
        "buses",
        "knives",
        "toothbrushes",
        "cherries",
    ]
    with pytest.raises(ValueError, match="hardly more than"):
        prompts.read(f"{tmp_path / 'things.json'}:100000")


def test_the_ateliers_prompts_can_be_judged_and_are_not_those_of_its_benchmarks():
    from reverie.atelier.language_parse import parse

    found = prompts.read("atelier:40", seed=3)
    assert len(found.prompts) == 40
    for prompt in found.prompts:
        parse(prompt.text)
    assert found.prompts == prompts.read("atelier:40", seed=3).prompts != prompts.read("atelier:40").prompts


# --- the command


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("showo") / "tiny"
    save_showo(MODEL.to(torch.float32), WORDS, folder)
    return folder


def test_the_command_builds_and_goes_on(checkpoint, tmp_path, capsys):
    argv = ["data", "build", "ranking", "--model", str(checkpoint), "--prompts", "atelier:2", "--per-prompt", "2",
            "--batch", "2", "--device", "cpu", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(argv) == 0
    assert "answers, orm, no: 4" in capsys.readouterr().out
    assert main(argv) == 0
    assert len(read_records(tmp_path / "out")) == 4


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["ranking", "--prompts", "atelier:none"], "behind the colon"),
        (["ranking", "--prompts", "nowhere.txt"], "no prompts at"),
        (["ranking", "--prompts", "atelier:3", "--judge", "nobody"], "nobody"),
        (["steps", "--prompts", "atelier:3", "--rollouts", "0"], "at least 1"),
        (["preference", "--prompts", "atelier:3", "--pick", "best"], "random or extreme"),
        (["potential", "--prompts", "atelier:3", "--part", "2"], "counted from 0"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(checkpoint, tmp_path, capsys, argv, said):
    assert main(["data", "build", *argv, "--model", str(checkpoint), "--out", str(tmp_path / "out")]) == 2
    message = capsys.readouterr().err
    assert said in message
    assert message.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_prompts_in_other_words_than_the_inspectors_are_refused_at_once(checkpoint, tmp_path, capsys):
    (tmp_path / "p.txt").write_text("an ineffable longing\n")
    argv = ["data", "build", "ranking", "--model", str(checkpoint), "--prompts", str(tmp_path / "p.txt")]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2
    assert "Atelier's language" in capsys.readouterr().err
