"""Images between right and wrong: what is drawn, which codes are whose, what is said of them, the command."""

import json
import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus
from PIL import Image
from test_verifier_data import MODEL, WORDS, Toy

from reverie.atelier.draw import draw
from reverie.atelier.edits import fair
from reverie.atelier.faults import faults
from reverie.atelier.language_parse import parse
from reverie.cli import main
from reverie.data import prompts
from reverie.data.between import LEAST, between, encoded, mask, pair
from reverie.data.build_verifier import Build, build
from reverie.data.looks import Looks
from reverie.data.paths import PathBuild
from reverie.generators.janus import JanusPainter
from reverie.judges import View
from reverie.judges.load import judge_by_name
from reverie.judges.mixed import FunctionJudge
from reverie.judges.vlm import Wording
from reverie.models.showo_checkpoint import save_showo


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 30))
def test_a_pair_is_right_and_wrong_on_the_training_side(seed, which):
    demand = parse(ASKED.prompts[which].text)
    found = pair(demand, random.Random(seed))
    assert not faults(demand, found.right)
    assert faults(demand, found.wrong)
    assert fair(found.wrong)
    if found.tint:
        changed = [(a, b) for a, b in zip(found.right.things, found.wrong.things, strict=True) if a != b]
        assert len(changed) == 1
        (a, b) = changed[0]
        assert (a.kind, a.x, a.y) == (b.kind, b.x, b.y)


ASKED = prompts.read("atelier-geneval:31", seed=5)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=16, max_size=16).filter(any))
def test_some_of_the_places_that_differ_are_the_wrong_ones(seed, differ):
    differ = torch.tensor(differ)
    found = mask(differ, random.Random(seed))
    assert not (found & ~differ).any()
    count = int(differ.sum())
    assert max(1, round(LEAST * count)) <= int(found.sum()) <= max(1, round((1 - LEAST) * count))


@pytest.mark.parametrize("painter", [Toy().generator(None), JanusPainter(*toy_janus(), guidance=1.0)])
def test_what_becomes_of_a_pair_is_the_right_one_a_mean_or_parts_of_both(painter):
    demand = parse("a photo of a red cat")
    rng, count = random.Random(1), 24
    pairs = [pair(demand, rng) for _ in range(count)]
    codes = between(painter, pairs, [random.Random(seed) for seed in range(count)])
    side = len(painter.decoded(codes[:1])[0])
    right, wrong = (
        encoded(painter, torch.from_numpy(np.stack([np.asarray(draw(scene, side)) for scene in scenes])))
        for scenes in ([one.right for one in pairs], [one.wrong for one in pairs])
    )
    whole, parted = (codes == right).all(1), ((codes == right) | (codes == wrong)).all(1)
    assert 0 < int(whole.sum()) < int(parted.sum()) < count
    assert all(one.tint for one, apart in zip(pairs, parted.tolist(), strict=True) if not apart), (
        "only colours are mixed"
    )
    again = between(painter, pairs[3:4], [random.Random(3)])
    assert (again[0] == codes[3]).all(), "whatever stands beside it"
    with pytest.raises(ValueError, match="no codes on a square"):
        between(type("Flow", (), {"model": MODEL})(), pairs[:1], [rng])


def test_a_folder_of_them_is_one_of_looks_and_a_stopped_build_goes_on(tmp_path):
    judge = judge_by_name("atelier-inspector", "cpu")

    def made(part: int, parts: int):
        wanted = Build("between", PathBuild(per_prompt=2, batch=25, part=part, parts=parts), Wording.of("atelier"))
        return build(wanted, Toy(), judge, ASKED, tmp_path / "out")

    assert made(0, 2) is None
    assert made(1, 2)["images"] == 62
    found = Looks(tmp_path / "out").rows
    assert [look.own.text for look in found] == [one.text for one in ASKED.prompts for _ in range(2)]
    for look in found[:6]:
        picture = Image.fromarray(np.array(look.pictures[-1]).transpose(1, 2, 0))
        said = judge.ask("orm", [View(look.own.text, picture)])[0]
        assert said.reason == (look.reason or None)
    with pytest.raises(ValueError, match="leave --judge out"):
        build(
            Build("between", PathBuild(), Wording.of("atelier")), Toy(), FunctionJudge(lambda p, i: [1.0] * len(p)),
            ASKED, tmp_path / "other",
        )  # fmt: skip


def test_the_command_builds_them_and_refuses_a_folder_of_other_prompts(tmp_path, capsys):
    save_showo(MODEL, WORDS, tmp_path / "toy")
    given = ["data", "build", "between", "--model", str(tmp_path / "toy"), "--per-prompt", "3", "--quiet"]
    given += ["--out", str(tmp_path / "out"), "--prompts"]
    assert main([*given, "atelier-geneval:4"]) == 0
    assert json.loads((tmp_path / "out" / "stats.json").read_text())["images"] == 12
    assert len(Looks(tmp_path / "out")) == 12
    assert main([*given, "atelier-geneval:5"]) == 2
    assert "holds prompts 4, not 5" in capsys.readouterr().err
