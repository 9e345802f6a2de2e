"""Dual-GRPO over a tiny Qwen-Image: who is compared with whom, who learns when, and that both learn."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_toy import qwen_image_edit
from dual_toy import PAINTER, THINKER, WORDING, bright, letters, toy
from PIL import Image

from reverie.thinkers import WORDINGS
from reverie.training.dual_grpo import DualTask, DualTree, FlowSampling, Question, Side, dual_task
from reverie.training.grpo import GrpoConfig, reinforce
from reverie.training.loop import LoopConfig
from reverie.training.picture_rewards import similarity
from reverie.training.rollout import Path as Place
from reverie.training.tree import Segment, Tree, lessons

FLOW = FlowSampling(steps=4, guidance=1.0, height=32, width=32, level=0.7)


@pytest.fixture(autouse=True)
def _wording(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(WORDINGS, "toy", WORDING)


def weights(made: DualTask) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in made.task.model.named_parameters()}


def moved(before: dict[str, torch.Tensor], made: DualTask) -> set[str]:
    """Which of the two have other weights than before."""
    now = dict(made.task.model.named_parameters())
    return {name.split(".")[0] for name, p in before.items() if not torch.equal(p, now[name])}


def grown(made: DualTask, prompts: int = 2) -> list[Tree]:
    turn = made.task.batch(0)
    with torch.no_grad():
        return made.task.explore(turn.prompts[:prompts], turn.seeds[:prompts])


def loop(steps: int, **settings) -> LoopConfig:
    usual = {"lr": 1e-2, "ema": 0.0, "precision": "no", "save_every": 1, "warmup": 0.0, "decay": 0.0, "log_every": 1}
    return LoopConfig(steps=steps, **{**usual, **settings})


# --- the tree, its rewards and advantages


def test_thoughts_are_paid_by_the_mean_of_their_images_and_images_among_their_siblings() -> None:
    made = toy(DualTree(thoughts=3, images=4, limit=4))
    trees = grown(made)
    assert [len(tree.branches) for tree in trees] == [3, 3]
    assert all(len(thought.branches) == 4 for tree in trees for thought in tree.branches)
    credits = {learner.name: learner.credit for learner in made.task.learners}
    found = lessons(trees, credits)
    assert (len(found["thinker"]), len(found["painter"])) == (6, 24)
    thoughts = iter(found["thinker"])
    images = iter(found["painter"])
    for tree in trees:
        means = [sum(leaf.rewards["letters"] for leaf in t.branches) / 4 for t in tree.branches]
        middle = sum(means) / 3
        std = math.sqrt(sum((mean - middle) ** 2 for mean in means) / 2)
        for mean in means:
            wanted = 0.0 if max(means) == min(means) else (mean - middle) / (std + 1e-4)
            assert next(thoughts).advantage == pytest.approx(wanted, abs=1e-6)
        for thought in tree.branches:
            group = [next(images).advantage for _ in thought.branches]
            assert sum(group) == pytest.approx(0, abs=1e-6)
            best = max(range(4), key=lambda i: thought.branches[i].rewards["bright"])
            assert group[best] == max(group)


def test_two_equal_thoughts_stay_two_groups() -> None:
    made = toy(DualTree(thoughts=2, images=3, limit=4, temperature=1e-6))  # so cold that all thoughts are the likeliest
    (tree, *_) = grown(made)
    first, second = tree.branches
    assert torch.equal(first.segments[0].actions, second.segments[0].actions)
    found = lessons([tree], {learner.name: learner.credit for learner in made.task.learners})
    assert [lesson.advantage for lesson in found["thinker"]] == [0.0, 0.0]
    groups = [[leaf.rewards["bright"] for leaf in thought.branches] for thought in tree.branches]
    assert groups[0] != groups[1]
    for start in (0, 3):
        assert sum(lesson.advantage for lesson in found["painter"][start : start + 3]) == pytest.approx(0, abs=1e-6)


def test_what_a_thought_arrives_at_is_all_that_reaches_the_painter() -> None:
    """Other reasoning and the same rewrite: the same picture, bit for bit."""
    made = toy()
    assert made.thinker is not None

    def painted(thought: str) -> torch.Tensor:
        ids = torch.tensor(made.thinker.writer._plain(thought))
        segment = Segment("thinker", "text", ids, torch.ones(len(ids), dtype=torch.bool), torch.zeros(len(ids)))
        with torch.no_grad():
            return made.painter.write([Place("a cat", 5, (segment,))])[0][0].actions

    same = painted("it purrs\na red cat"), painted("quite another reasoning\na red cat")
    assert torch.equal(*same)
    assert not torch.equal(same[0], painted("it purrs\na dog"))


@pytest.mark.parametrize("missing", [None, math.nan])
def test_a_judge_that_fails_on_some_pictures_costs_these_alone(missing: float | None) -> None:
    seen = []

    def half(keys, pictures):
        seen.append(len(pictures))
        return [missing if i % 4 == 0 else value for i, value in enumerate(bright(keys, pictures))]

    made = toy(DualTree(thoughts=2, images=4, limit=4), rewards={"letters": letters, "bright": half})
    trees = grown(made)
    assert seen == [16]  # all pictures of a roll-out at once
    found = lessons(trees, {learner.name: learner.credit for learner in made.task.learners})["painter"]
    assert [lesson.advantage == 0 for lesson in found] == [i % 4 == 0 for i in range(16)]
    assert all(math.isfinite(lesson.advantage) for lesson in found)


# --- who learns when


def test_a_constant_factor_on_rewards_changes_nothing() -> None:
    plain, scaled = toy(), toy(thinker=replace(THINKER, rewards={"letters": 7.5}))
    found = [lessons(grown(made), {"thinker": made.task.learners[0].credit})["thinker"] for made in (plain, scaled)]
    for a, b in zip(*found, strict=True):
        assert a.advantage == pytest.approx(b.advantage, abs=2e-2)


def test_stages_teach_one_after_the_other_and_balance_both(tmp_path: Path) -> None:
    made = toy(DualTree(learn="staged", switch=1, thoughts=3, images=2, limit=4))
    start = weights(made)
    reinforce(made.task, loop(1), tmp_path / "staged")
    assert moved(start, made) == {"thinker"}
    again = toy(DualTree(learn="staged", switch=1, thoughts=3, images=2, limit=4))
    reinforce(again.task, loop(2), tmp_path / "staged")
    assert moved(weights(made), again) == {"painter"}
    both = toy()
    start = weights(both)
    reinforce(both.task, loop(1), tmp_path / "balanced")
    assert moved(start, both) == {"thinker", "painter"}
    for who in ("thinker", "painter"):
        alone = toy(DualTree(learn=who, thoughts=3, images=2, limit=4))
        assert {name.split(".")[0] for name in weights(alone)} == {who}


def test_no_gradient_goes_from_the_pictures_into_the_encoder() -> None:
    made = toy()
    trees = grown(made)
    images = [leaf.segments[0] for tree in trees for leaf in tree.leaves()]
    made.painter.log_prob(images).log_prob.sum().backward()
    assert all(p.grad is None for p in made.thinking.network.parameters())
    assert any(p.grad is not None for p in made.painting.network.parameters())
    assert not any(s.context.condition.text.states.requires_grad for s in images)


def test_prompts_are_read_again_when_the_encoder_has_learnt() -> None:
    made = toy()
    first = grown(made)[0].branches[0].branches[0].segments[0]
    with torch.no_grad():
        for name, p in made.thinking.network.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.5)
        path = made.painter.conditions([("a cat", ())])[0].text.states
        with made.thinking.reference():
            before = made.painter.conditions([("a cat", ())])[0].text.states
    assert (path - before).abs().max() > 1e-3
    assert first.context.condition.text.states.shape[-1] == path.shape[-1]


def test_the_first_reader_keeps_the_painters_prompts_what_they_were() -> None:
    made = toy(DualTree(thoughts=3, images=2, limit=4, reader="first"))
    start = grown(made)[0].branches[0].branches[0].segments[0].context.condition.text.states
    with torch.no_grad():
        for name, p in made.thinking.network.named_parameters():
            if "lora_B" in name:
                p.normal_(std=1e-4)
    now = grown(made)[0].branches[0].branches[0].segments[0].context.condition.text.states
    assert torch.equal(start, now)
    with pytest.raises(ValueError, match="adapters off"):
        toy(DualTree(thoughts=3, images=2, limit=4, reader="first"), thinker=replace(THINKER, rank=0))


def test_work_is_done_once() -> None:
    """Texts: each different rewrite. Transformer: steps of the roll-out, then the window of images that differ; no pass
    for old log-probabilities, and a reference only where a KL asks for it."""
    flow = replace(FLOW, guidance=2.0, window="random", size=1, low=0, high=3)
    for beta in (0.0, 0.1):
        side = replace(PAINTER, beta=beta, kl="velocity")
        made = toy(DualTree(thoughts=2, images=3, limit=4), flow, painter=side, thinker=replace(THINKER, beta=beta))
        passes = []
        encoder = made.thinking.network
        handle = encoder.base_model.register_forward_hook(lambda m, given, out, seen=passes: seen.append(1))
        made.task.loss(made.task.batch(0))
        handle.remove()
        images, ways = 2 * 2 * 3, 2
        rollout, learning = images * 4 * ways, images * 1 * ways
        assert made.painter.predictions == rollout + learning * (2 if beta else 1)
        assert made.painter.read <= 2 * 2 + 1
        reading, scoring = 1, 1 + (1 if beta else 0)
        assert len(passes) == 4 + reading + scoring  # all thoughts together, four tokens each


def test_recomputing_and_resting_change_nothing() -> None:
    tree = DualTree(learn="painter", thoughts=2, images=2, limit=4)
    losses = []
    for one in (tree, replace(tree, rest=True, recompute=True)):
        made = toy(one)
        loss, _ = made.task.loss(made.task.batch(0))
        loss.backward()
        grads = [p.grad for p in made.task.model.parameters() if p.grad is not None]
        losses.append((loss.detach(), torch.cat([g.flatten() for g in grads])))
    torch.testing.assert_close(*losses)


def test_edits_are_thought_about_with_their_picture_and_paid_for_what_stays() -> None:
    """Two edits that say the same about two pictures are two questions."""
    pictures = [Image.new("RGB", (64, 64), colour) for colour in ("red", "navy")]
    asked = [Question(f"edit {i}", "make it green", (picture,)) for i, picture in enumerate(pictures)]
    table = {one.key: one for one in asked}
    made = dual_task(
        qwen_image_edit(), "toy", asked, {"alike": similarity(table), "letters": letters},
        DualTree(thoughts=2, images=2, limit=3), replace(FLOW, height=64, width=64),
        THINKER, replace(PAINTER, rewards={"alike": 1.0}), GrpoConfig(prompts=2), own={"area": 64**2},
    )  # fmt: skip
    trees = grown(made)
    assert [tree.prompt for tree in trees] == made.task.batch(0).prompts
    contexts = [tree.branches[0].segments[0].context for tree in trees]
    assert all("pixel_values" in seen for _, seen in contexts)
    assert not torch.equal(contexts[0][1]["pixel_values"], contexts[1][1]["pixel_values"])
    leaf = trees[0].branches[0].branches[0]
    assert leaf.segments[0].context.condition.text.source is not None
    assert leaf.result.size == (64, 64)
    source = np.asarray(table[trees[0].prompt].pictures[0], np.float32)
    assert leaf.rewards["alike"] == pytest.approx(1 - np.abs(np.asarray(leaf.result, np.float32) - source).mean() / 255)
    loss, row = made.task.loss(made.task.batch(0))
    loss.backward()
    assert row["painter/image/ratio_gap"] == row["thinker/text/ratio_gap"] == 0
    assert {name.split(".")[0] for name, p in made.task.model.named_parameters() if p.grad is not None} == {
        "thinker",
        "painter",
    }


# --- learning


def curve(folder: Path, name: str) -> tuple[float, float]:
    """Mean of a logged value over the first and the last fifth of a run."""
    rows = [json.loads(line)[name] for line in (folder / "log.jsonl").read_text().splitlines()]
    few = max(1, len(rows) // 5)
    return sum(rows[:few]) / few, sum(rows[-few:]) / few


def test_thinker_and_painter_both_learn_what_they_are_paid_for(tmp_path: Path) -> None:
    made = toy(DualTree(thoughts=8, images=2, limit=3), thinker=replace(THINKER, rank=0), prompts=2)
    reinforce(made.task, loop(24, lr=3e-2, save_every=24), tmp_path)
    early, late = curve(tmp_path, "reward/letters")
    assert late > early + 0.3, (early, late)
    early, late = curve(tmp_path, "reward/bright")
    assert late > early + 0.04, (early, late)
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert row["thinker/text/ratio_gap"] == row["painter/image/ratio_gap"] == 0
    assert row["thinker/text/drift"] < 1e-3
    assert row["painter/image/drift"] < 1e-5


@pytest.mark.parametrize(
    "flow",
    [
        replace(FLOW, noise="cps", window="random", size=2, low=0, high=3),
        replace(FLOW, window="sliding", size=2, every=3, guidance=2.0),
        replace(FLOW, loss="forward", follow=0.7),
    ],
    ids=["cps-fast", "mix", "nft"],
)
def test_every_way_to_learn_to_paint_brightens(flow: FlowSampling, tmp_path: Path) -> None:
    tree = DualTree(learn="painter", thoughts=0, images=8)
    made = toy(tree, flow, painter=replace(PAINTER, limit=5.0))
    reinforce(made.task, loop(24, lr=2e-2, save_every=24), tmp_path)
    early, late = curve(tmp_path, "reward/bright")
    assert late > early + 0.02, (early, late)


# --- going on


@pytest.mark.parametrize("loss", ["policy", "forward"])
def test_a_stopped_run_goes_on_to_the_same_weights(loss: str, tmp_path: Path) -> None:
    def run(out: Path, steps: int) -> DualTask:
        flow = replace(FLOW, loss=loss, follow=0.5, window="random", size=1, high=2)
        made = toy(DualTree(learn="staged", switch=2, thoughts=2, images=2, limit=4), flow)
        reinforce(made.task, loop(steps, ema=0.5), out)
        return made

    run(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    on, whole = run(tmp_path / "b", 5), run(tmp_path / "c", 5)
    assert moved(weights(whole), on) == set()
    state = torch.load(tmp_path / "b" / "state.pt", weights_only=True)["model"]
    assert all("lora_" in name for name in state)
    assert any(name.startswith("slow") for name in state) == (loss == "forward")


def test_several_updates_of_a_roll_out_begin_on_policy(tmp_path: Path) -> None:
    made = toy(prompts=2, updates=2)
    reinforce(made.task, loop(4, save_every=2), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    gaps = [row["painter/image/ratio_gap"] for row in rows]
    # Some processors round the forward of a roll-out and that of its first update differently, by a unit of float32.
    assert [gap < 1e-6 for gap in gaps] == [True, False, True, False], gaps


# --- what is refused


def test_a_thinker_learns_from_words_and_nothing_is_painted(tmp_path: Path) -> None:
    made = toy(
        DualTree("thinker", thoughts=8, images=0, limit=3),
        thinker=replace(THINKER, rank=0),
        rewards={"letters": letters},
        prompts=4,
    )
    before = weights(made)
    reinforce(made.task, loop(25, lr=3e-2, save_every=25), tmp_path)
    assert moved(before, made) == {"thinker"}
    assert made.painter.predictions == made.painter.read == 0
    early, late = curve(tmp_path, "reward/letters")
    assert late > early + 0.1


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DualTree(images=0), "siblings"),
        (lambda: DualTree(learn="nobody"), "learn='nobody'"),
        (lambda: DualTree(learn="staged"), "switch=0"),
        (lambda: DualTree(learn="balanced", switch=3), "switch=3"),
        (lambda: DualTree(thoughts=0), "leaves nobody to learn but the painter"),
        (lambda: DualTree(thoughts=1), "at least 2"),
        (lambda: DualTree(images=1), "siblings"),
        (lambda: DualTree(reader="last"), "reader='last'"),
        (lambda: DualTree(rest=True), "cannot wait elsewhere"),
        (lambda: FlowSampling(noise="pink"), "noise='pink'"),
        (lambda: FlowSampling(level=0.0), "no policy to learn"),
        (lambda: FlowSampling(window="random", size=3, low=0, high=2), "window of 3 steps"),
        (lambda: FlowSampling(window="sliding", size=30), "does not fit"),
        (lambda: FlowSampling(loss="l2"), "loss='l2'"),
        (lambda: FlowSampling(storage="int8"), "storage='int8'"),
        (lambda: Side({}).credit(), "at least one reward"),
        (lambda: Side({"a": 1}, clip=2.0).rule(), "clip range"),
        (lambda: Side({"a": 1}, std="world").credit(), "must be one of"),
    ],
)
def test_what_makes_no_sense_is_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
