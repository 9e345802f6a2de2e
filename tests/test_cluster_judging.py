"""What is judged, rewarded and rewritten in actors is what it is without them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from test_cluster import cluster, data, files  # noqa: F401 (fixtures)
from test_harness_kills import same
from tiny import tiny_folder
from toy_run import NAME, Dabs, Glance

from reverie.benchmarks.harness import evaluate
from reverie.cli import main
from reverie.cluster.pool import Cluster
from reverie.training import recipes

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.parametrize("actors", [2, 4])
def test_pictures_made_elsewhere_are_judged_as_without_a_cluster(tmp_path: Path, data: Path, actors: int) -> None:  # noqa: F811
    evaluate(NAME, Dabs(), tmp_path / "made", data=data, limit=30, images_per_prompt=2, batch=4, judge=Glance())
    pictures = tmp_path / "made" / "images"

    def go(out: Path, on: Cluster | None) -> dict:
        return evaluate(
            NAME, None, out, data=data, images=pictures, limit=30, images_per_prompt=2, batch=4, judge=Glance(), on=on
        )

    assert go(tmp_path / "spread", Cluster(actors=actors))["images_scored"] == 60
    go(tmp_path / "whole", None)
    same(tmp_path / "spread", tmp_path / "whole")


@pytest.mark.parametrize(
    ("kind", "prompts"), [("rewrites", "atelier:30"), ("rewrites", "atelier-edits:6"), ("thoughts", "atelier:9")]
)
def test_what_is_told_is_that_of_a_build_without_a_cluster(tmp_path: Path, capsys, kind: str, prompts: str) -> None:
    argv = ["data", "build", kind, "--prompts", prompts, "--batch", "4", "-q"]
    if kind == "thoughts":
        argv += ["--model", str(tiny_folder(tmp_path / "tiny")), "--device", "cpu", "--regions", "2"]
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    expected = capsys.readouterr().out
    assert main([*argv, "--out", str(tmp_path / "spread"), "--on", "ray", "--actors", "2"]) == 0
    assert capsys.readouterr().out == expected
    assert files(tmp_path / "spread") == files(tmp_path / "whole")


def learnt(folder: Path, out: Path, *more: str) -> list[dict]:
    (folder / "prompts.jsonl").write_text('{"prompt": "a red cat"}\n{"prompt": "two dogs"}\n')
    judges = f"{{right: {{judge: {folder}, weight: 1.0}}, seen: {{judge: {folder}, weight: 0.5}}}}"
    words = [f"from={folder}", f"out={out}", f"prompts={folder / 'prompts.jsonl'}", f"rewards={judges}",
             "tree={images: 2, limit: 5, guidance: 1.0}", "grpo.prompts=2", "loop.steps=2", "loop.save_every=2",
             *more]  # fmt: skip
    recipes.run(ROOT / "recipes" / "atelier" / "reinforce.yaml", words)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def test_rewards_in_actors_teach_what_rewards_here_teach(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny")
    alone = learnt(folder, tmp_path / "alone")
    apart = learnt(folder, tmp_path / "apart", "judging={actors: 2, batch: 3}")
    for ours, theirs in zip(alone, apart, strict=True):
        for name in ("loss", "reward/right", "reward/seen"):
            assert theirs[name] == pytest.approx(ours[name], abs=1e-5)
    with pytest.raises(ValueError, match="judge what they explore"):
        learnt(folder, tmp_path / "both", "judging={actors: 1}", "rollouts={actors: 1}")
    with pytest.raises(ValueError, match="batch=0: at least 1"):
        learnt(folder, tmp_path / "none", "judging={batch: 0}")
