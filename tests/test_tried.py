"""Prompts are tried before reinforcement, and those whose pictures do not differ are left out."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from diffusion_toy import qwen_image, save_thinker

from reverie.cli import main
from reverie.models.registry import entries
from reverie.training import tried
from reverie.training.questions import Asks, kind_of, questions
from reverie.training.tree import Branch, Tree

DUAL = Path(__file__).parent.parent / "recipes" / "t2g" / "dual-nft.yaml"
WEIGHTS = entries()["atelier-inspector"].folder
needs_inspector = pytest.mark.skipif(WEIGHTS is None or not WEIGHTS.is_dir(), reason="no inspector weights installed")


@needs_inspector
def test_what_was_tried_is_asked_where_it_differs(tmp_path: Path) -> None:
    model = save_thinker(qwen_image(), tmp_path / "model")
    out = tmp_path / "tried.jsonl"
    common = [f"model={model}", "adapters=[]", "tree.images=2", "tree.limit=6", "grpo.prompts=3", "flow.steps=2"]
    tried.main([str(DUAL), *common, "data.prompts=atelier:5", "tree.thoughts=2", "--out", str(out)])
    whole = out.read_text().splitlines()
    rows = [json.loads(line) for line in whole]
    assert len({row["prompt"] for row in rows}) == 5
    assert all(row["demand"]["include"] for row in rows)
    assert all(len(groups) == 2 and all(len(group) == 2 for group in groups) for groups in rows[0]["rewards"].values())

    # Stopped in the middle of a line, it goes on and says the same; other prompts belong into another file.
    out.write_text("\n".join(whole[:3]) + "\n" + whole[3][:20])
    tried.main([str(DUAL), *common, "data.prompts=atelier:5", "tree.thoughts=2", "--out", str(out)])
    assert out.read_text().splitlines() == whole
    with pytest.raises(ValueError, match="other prompts"):
        tried.tried_in(out, ["a cat"] * 5)

    # How sure the inspector is differs between any two pictures; every prompt is asked again, with its truth.
    asked = questions(Asks(str(out), differ="sure"), 0)
    assert [one.text for one in asked] == [row["prompt"] for row in rows]
    assert kind_of(asked) == "atelier"
    train = [
        "train",
        str(DUAL),
        *common,
        f"data.prompts={out}",
        "data.differ=sure",
        "loop.steps=2",
        "loop.precision=no",
    ]
    assert main([*train, f"out={tmp_path / 'run'}"]) == 0
    row = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert {"reward/exact", "reward/told"} <= set(row)


def test_rows_keep_thoughts_apart() -> None:
    def leaf(value: float) -> Branch:
        return Branch([], rewards={"exact": value})

    thoughts = [Branch([], branches=[leaf(1), leaf(0)]), Branch([], branches=[leaf(0.33333), leaf(math.nan)])]
    assert tried.row(Tree("a cat", thoughts), None) == {
        "prompt": "a cat",
        "rewards": {"exact": [[1, 0], [0.3333, None]]},
    }
    assert tried.row(Tree("a cat", [leaf(1), leaf(0)]), None)["rewards"] == {"exact": [[1, 0]]}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([{"prompt": "a cat"}], "does not say what pictures earned"),
        ([{"prompt": "a cat", "rewards": {"exact": [[1, 1], [0, None], [None, None]]}}], "no prompt of"),
    ],
)
def test_nothing_to_learn_from_is_said(rows: list, said: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(ValueError, match=said):
        questions(Asks(str(path), differ="exact"), 0)


def test_pictures_that_differ_under_one_thought_are_enough(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [
        {"prompt": "a cat", "rewards": {"exact": [[1, 1], [0, 1]]}},
        {"prompt": "a dog", "rewards": {"exact": [[1, 1], [0, 0]]}},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    assert [one.text for one in questions(Asks(str(path), differ="exact"), 0)] == ["a cat"]
    assert len(questions(Asks(str(path)), 0)) == 2


def test_recipes_that_roll_nothing_out_are_refused(capsys) -> None:
    with pytest.raises(SystemExit) as stopped:
        tried.main([str(DUAL.with_name("sft.yaml")), "--out", "nowhere.jsonl"])
    assert stopped.value.code == 2
    assert "recipe of think-sft" in capsys.readouterr().err
