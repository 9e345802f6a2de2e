"""Reinforcement in the Atelier, from the recipe to the checkpoint, with a tiny Janus and the shipped inspector."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny import tiny_folder

from reverie.atelier.inspector import Inspector
from reverie.atelier.language import canonical, held_out_pair
from reverie.models.janus_checkpoint import load_janus
from reverie.models.registry import entries
from reverie.training import recipes
from reverie.training.atelier_grpo import AtelierRl, atelier_task, inspector_rewards, questions
from reverie.training.grpo import GrpoConfig
from reverie.training.janus_grpo import Learning

WEIGHTS = entries()["atelier-inspector"].folder
needs_inspector = pytest.mark.skipif(WEIGHTS is None or not WEIGHTS.is_dir(), reason="no inspector weights installed")


def test_prompts_are_for_training_and_come_again_from_their_seed() -> None:
    config = AtelierRl(prompts=300, riddles=0.0)  # riddles keep a split of their own
    asked = questions(config, 1)
    assert [one.prompt for one in asked] == [one.prompt for one in questions(config, 1)]
    assert len({one.prompt for one in asked}) == 300
    for one in asked:
        kinds = [clause.kind for clause in one.demand.include]
        assert not any(held_out_pair(a, b) for a in kinds for b in kinds if a < b)
    smooth = questions(replace(config, exercises=0.9, textures=False), 1)
    assert len(smooth) == 300
    assert all(clause.texture == "plain" for one in smooth for clause in one.demand.include)
    with pytest.raises(ValueError, match="must be one of paint"):
        AtelierRl(tree="graph")


@needs_inspector
def test_rewards_know_a_true_picture_from_a_false_one() -> None:
    import random

    import numpy as np

    from reverie.atelier.draw import draw
    from reverie.atelier.sample import compose, random_demand

    rng = random.Random(0)
    demands = [random_demand(rng) for _ in range(12)]
    prompts = [canonical(demand) for demand in demands]
    pictures = [np.asarray(draw(compose(demand, rng), 96)) for demand in demands]
    rewards = inspector_rewards(Inspector.load(WEIGHTS), dict(zip(prompts, demands, strict=True)))
    true, false = rewards["faithful"](prompts, pictures), rewards["faithful"](prompts, pictures[::-1])
    assert sum(true) / 12 > 0.85 > 0.5 > sum(false) / 12
    assert sum(rewards["exact"](prompts, pictures)) >= 8


@needs_inspector
def test_a_careful_reward_reads_textures_and_actions_by_drawing() -> None:
    """Of drawn pictures it is sure, and what the network believes does not matter to it."""
    import random

    import numpy as np

    from reverie.atelier.draw import draw
    from reverie.atelier.exercises import exercise
    from reverie.atelier.sample import compose
    from reverie.atelier.scene import Scene

    rng = random.Random(4)
    asked = (demand for demand in iter(lambda: exercise(rng, 1.0), None))
    wanted = [
        d for d, _ in zip(asked, range(60), strict=False) if any(c.action or c.texture != "plain" for c in d.include)
    ]
    prompts, scenes = [canonical(demand) for demand in wanted[:5]], [compose(demand, rng) for demand in wanted[:5]]
    plain = [
        Scene(tuple(replace(thing, texture="plain", action=None) for thing in s.things), s.background, s.style)
        for s in scenes
    ]
    rewards = inspector_rewards(Inspector.load(WEIGHTS), dict(zip(prompts, wanted, strict=False)), careful=True)
    right = rewards["careful"](prompts, [np.asarray(draw(scene, 96)) for scene in scenes])
    without = rewards["careful"](prompts, [np.asarray(draw(scene, 96)) for scene in plain])
    assert sum(right) > 4.75  # the network may still misread a kind or a colour
    assert all(whole > part for whole, part in zip(right, without, strict=True))
    assert "careful" not in inspector_rewards(Inspector.load(WEIGHTS), {})


@needs_inspector
@pytest.mark.parametrize("tree", ["paint", "think", "twig", "dual"])
def test_every_tree_makes_a_step_on_policy(tree: str, tmp_path: Path) -> None:
    model, words = load_janus(tiny_folder(tmp_path))
    config = AtelierRl(tree=tree, images=2, thoughts=2, prompts=8, limit=6, guidance=1.0)
    task = atelier_task(Learning(model, words, "atelier"), Inspector.load(WEIGHTS), config, GrpoConfig(prompts=2))
    loss, row = task.loss(task.batch(0))
    gaps = [value for name, value in row.items() if name.endswith("ratio_gap")]
    assert len(gaps) == {"paint": 1, "think": 2, "twig": 2, "dual": 2}[tree]
    assert all(gap == 0 for gap in gaps)
    assert float(max(value for name, value in row.items() if name.endswith("drift"))) < 1e-4
    assert {"reward/faithful", "reward/exact", "reward/sure"} <= row.keys()
    with torch.autocast("cpu", torch.bfloat16):  # writes as ever, scores as the loop casts
        cast = task.loss(task.batch(1))[1]
    assert all(value == 0 for name, value in cast.items() if name.endswith("ratio_gap"))
    loss.backward()
    grown = [name for name, p in model.named_parameters() if p.grad is not None]
    assert grown
    assert not any(name.startswith(("vision_model", "aligner", "vqmodel")) for name in grown)


@needs_inspector
def test_the_recipe_runs_and_leaves_a_checkpoint(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    folder = tiny_folder(tmp_path / "tiny")
    overrides = [
        f"from={folder}",
        f"out={tmp_path / 'run'}",
        "tree.images=2",
        "tree.limit=5",
        "grpo.prompts=1",
        "loop.steps=2",
        "loop.save_every=2",
    ]
    recipes.run(root / "recipes" / "atelier" / "reinforce.yaml", overrides)
    model, _ = load_janus(tmp_path / "run" / "checkpoint")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    rows = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 2
    assert all(row["janus/image/ratio_gap"] == 0 for row in rows)
    assert (tmp_path / "run" / "checkpoint" / "README.md").is_file()
