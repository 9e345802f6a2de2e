"""Adapters as checkpoints, twins for roll-outs, exercises, and stories of several numbers of regions."""

import json
import random

import numpy as np
import pytest
import torch
from janus_toy import toy_janus
from PIL import Image
from tiny import tiny_folder

import reverie
from reverie.atelier.exercises import exercise
from reverie.atelier.language import held_out_colour, held_out_pair
from reverie.atelier.sample import compose
from reverie.canvas import Canvas, Conditions
from reverie.data.shards import ShardedBuild
from reverie.data.stories import Stories, build_stories
from reverie.data.teachers import AtelierTeacher
from reverie.generators.janus import JanusPainter
from reverie.models.janus_checkpoint import load_janus
from reverie.models.low_rank import base_of, read_adapter, save_adapter
from reverie.training import adapters, recipes
from reverie.training.roll_sheets import roll_sheet
from reverie.training.tree import Branch, Tree
from reverie.training.twin import Twin
from reverie.vlms.janus import prepare, prepare_tensor


def wrapped(model, rank=2):
    """Adapters on the language model that already differ from nothing."""
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    found = adapters.add(model, adapters.Lora(rank=rank, alpha=4))
    torch.manual_seed(0)
    with torch.no_grad():
        for name, part in adapters.parts(found).items():
            if name.endswith("lora_B"):
                part.normal_(std=0.1)
    return found


def test_an_adapter_comes_back_as_the_sum_of_both(tmp_path):
    base = tiny_folder(tmp_path / "base")
    model, _ = load_janus(base)
    plain = {name: p.clone() for name, p in model.named_parameters()}
    found = wrapped(model)
    save_adapter(tmp_path / "adapter", "../base", model.config.to_dict(), 2.0, adapters.parts(found))
    assert base_of(tmp_path / "adapter") is not None
    assert base_of(base) is None
    loaded, words = load_janus(tmp_path / "adapter")
    assert words.eos == load_janus(base)[1].eos
    held = read_adapter(tmp_path / "adapter")
    assert {name.partition(".")[0] for name in held} == {"language_model"}
    for name, parameter in loaded.named_parameters():
        key = name.removesuffix(".weight")
        want = plain[name]
        if f"{key}.lora_A" in held:
            want = want + 2.0 * held[f"{key}.lora_B"].float() @ held[f"{key}.lora_A"].float()
        assert torch.equal(parameter, want), name
    # The wrapped network says the same, up to the adapter's bfloat16.
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        direct = found.get_base_model().hidden(found.get_base_model().embed_text(ids))
        torch.testing.assert_close(loaded.hidden(loaded.embed_text(ids)), direct, atol=5e-2, rtol=0)
    painted = reverie.load(tmp_path / "adapter", device="cpu").generate("a red cat", seed=1)
    assert painted.image.tobytes() != reverie.load(base, device="cpu").generate("a red cat", seed=1).image.tobytes()


def test_adapters_that_do_not_fit_are_refused_in_one_sentence(tmp_path):
    base = tiny_folder(tmp_path / "base")
    model, _ = load_janus(base)
    parts = {"language_model.lm_head.lora_A": torch.zeros(2, 7), "language_model.lm_head.lora_B": torch.zeros(272, 2)}
    save_adapter(tmp_path / "adapter", str(base), model.config.to_dict(), 1.0, parts)
    with pytest.raises(ValueError, match=r"does not fit its base at language_model\.lm_head"):
        load_janus(tmp_path / "adapter")
    save_adapter(tmp_path / "nested", str(tmp_path / "adapter"), model.config.to_dict(), 1.0, parts)
    with pytest.raises(ValueError, match="no whole model"):
        load_janus(tmp_path / "nested")
    with pytest.raises(ValueError, match="other layers or another rank"):
        adapters.put(wrapped(model), parts)


def test_a_twin_is_the_learner_with_its_adapters_added():
    model, _ = toy_janus()
    found = wrapped(model)
    twin = Twin.of(model, found)
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        torch.testing.assert_close(
            twin.model.hidden(twin.model.embed_text(ids)), model.hidden(model.embed_text(ids)), atol=1e-5, rtol=1e-5
        )
        before = twin.model.hidden(twin.model.embed_text(ids))
        for name, part in adapters.parts(found).items():
            if name.endswith("lora_B"):
                part.zero_()
        assert torch.equal(twin.model.hidden(twin.model.embed_text(ids)), before)
        twin.refresh()
        with found.disable_adapter():
            plain = model.hidden(model.embed_text(ids))
        torch.testing.assert_close(twin.model.hidden(twin.model.embed_text(ids)), plain, atol=1e-5, rtol=1e-5)


def test_exercises_keep_out_of_the_benchmarks():
    rng = random.Random(3)
    sorts = {"texture": 0, "action": 0, "position": 0, "count": 0}
    for _ in range(300):
        demand = exercise(rng, 1.0)
        first, second = demand.include
        assert not held_out_pair(first.kind, second.kind)
        assert not any(clause.colour and held_out_colour(clause.colour, clause.kind) for clause in demand.include)
        compose(demand, rng)
        sorts["texture"] += first.texture != "plain"
        sorts["action"] += bool(first.action or second.action)
        sorts["position"] += bool(second.position)
        sorts["count"] += first.count + second.count > 2
    assert min(sorts.values()) > 20


def test_stories_may_have_different_numbers_of_regions(tmp_path):
    model, words = toy_janus()
    painter = JanusPainter(model, words, guidance=1.0)
    teacher = AtelierTeacher(model.encode_image, painter.steps, painter.row, regions=(1, 2, 4), side=32)
    build_stories(teacher, tmp_path, ShardedBuild(24, shard=12), {"wording": teacher.wording})
    stories = Stories(tmp_path)
    assert {len(told.ends) for told in stories.told} == {1, 2, 4}
    told = next(told for told in stories.told if len(told.ends) == 4)
    story = told.story(stories.wording, 2)
    assert story.think(3, True).endswith(f"Above is {told.thoughts[0]}. {told.thoughts[1]}. What is in part 3 of 4?")
    assert story.painting(told.thoughts[2], False) == ". ".join([story.prompt, *told.thoughts[:3]])


def test_pictures_on_a_device_are_prepared_as_those_from_files():
    rng = np.random.default_rng(0)
    pixels = torch.from_numpy(rng.integers(0, 256, (3, 3, 32, 32), dtype=np.uint8))
    rules = toy_janus()[1].rules
    for side in (32, 40):
        shown = pixels if side == 32 else torch.nn.functional.pad(pixels, (4, 4, 4, 4))
        want = [prepare(Image.fromarray(one.permute(1, 2, 0).numpy()), rules) for one in shown]
        assert torch.equal(prepare_tensor(shown, rules), torch.stack(want))


def test_joined_canvases_go_on_as_they_would_alone():
    model, words = toy_janus()
    painter = JanusPainter(model, words, guidance=2.0)
    prompts = ("a red cat", "two dogs and more", "a fish")

    def begun(i: int) -> Canvas:
        return painter.advance(painter.start(Conditions((prompts[i],)), [i]), 4)

    alone = [painter.advance(painter.recondition(begun(i), Conditions((prompts[i] + " now",)))) for i in range(3)]
    joined = painter.join([begun(i) for i in range(3)])
    joined = painter.recondition(joined, Conditions(tuple(prompt + " now" for prompt in prompts)))
    apart = painter.split(painter.advance(joined))
    for one, other in zip(alone, apart, strict=True):
        assert torch.equal(one.tokens, other.tokens)
        assert (one.seeds, one.given, one.conditions) == (other.seeds, other.given, other.conditions)
    assert all(np.array_equal(a, painter.preview(b)[0]) for a, b in zip(painter.previews(apart), alone, strict=True))
    # What was split goes on, too: its cache is a view.
    again = [painter.advance(painter.rewind(canvas, 8)) for canvas in painter.split(painter.join(apart))]
    assert [a.tokens.tolist() for a in again] == [a.tokens.tolist() for a in apart]


def test_a_sheet_shows_the_worst_and_the_best(tmp_path):
    def leaf(value: int) -> Branch:
        picture = np.full((4, 4, 3), value, np.uint8)
        return Branch([], rewards={"r": value / 100, "s": float("nan")}, result=picture)

    trees = [Tree(f"prompt {i}", [leaf(i), leaf(i + 50), leaf(i + 20)]) for i in range(11)]
    roll_sheet(trees, 7, tmp_path)
    shown = np.asarray(Image.open(tmp_path / "rollout-000007.png"))
    assert shown.shape == (16, 32, 3)
    assert [int(shown[0, 4, 0]), int(shown[4, 4, 0]), int(shown[15, 31, 0])] == [1, 51, 255]
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    assert [row["best"]["r"] for row in rows] == [(i + 50) / 100 for i in range(11)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_reinforcement_goes_on_from_an_adapter_and_leaves_one(tmp_path, dtype):
    base = tiny_folder(tmp_path / "base")
    model, _ = load_janus(base)
    config = model.config.to_dict()
    config["reverie"] = {**config.get("reverie", {}), "dialogue": "story"}
    save_adapter(tmp_path / "sft", str(base), config, 2.0, adapters.parts(wrapped(model)))
    recipe = tmp_path / "rl.yaml"
    tree = {
        "tree": "twig",
        "regions": 2,
        "images": 2,
        "limit": 5,
        "guidance": 1.0,
        "rewards": {"faithful": 1, "sure": 1},
    }
    loop = {"steps": 2, "precision": "no", "log_every": 1, "sample_every": 1, "save_every": 2, "lr": 1e-2}
    recipe.write_text(
        json.dumps({"task": "reinforce", "out": str(tmp_path / "out"), "from": str(tmp_path / "sft"), "tree": tree,
                    "grpo": {"prompts": 1}, "dtype": dtype, "lora": {"rank": 2, "alpha": 4}, "loop": loop,
                    "keep": True})
    )  # fmt: skip
    out = recipes.run(recipe)
    before, after = read_adapter(tmp_path / "sft"), read_adapter(out / "checkpoint")
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert base_of(out / "checkpoint") == base
    painter = reverie.load(out / "checkpoint", device="cpu")
    assert painter.source.dialogue == "story"
    result = painter.generate("a red cat", preset="twig", regions=2, reflect=0, seed=1, thought_tokens=4)
    assert len(result.recipes[0]["regions"]) == 2
    assert (out / "rollout-000002.png").is_file()
    assert read_adapter(out / "kept-000001").keys() == after.keys()
    with pytest.raises(ValueError, match="folded is for supervised"):
        recipes.run(recipe, ["lora.folded=true", f"out={tmp_path / 'no'}"])


def test_the_shipped_adapter_is_a_model_by_its_name():
    """Its base's memory, its own wording and context; and it paints what no seed of the base paints."""
    from reverie.models.registry import entries, resolve

    entry = entries()["atelier-janus-twig"]
    if entry.folder is None or not entry.folder.is_dir():
        pytest.skip("no adapter installed")
    assert entry.count() == entries()["atelier-janus"].count()
    assert sum(path.stat().st_size for path in entry.folder.iterdir()) < 3 * 2**20
    assert resolve("atelier-janus-twig").dialogue == "story"
    painter = reverie.load("atelier-janus-twig", device="cpu", dtype="bfloat16")
    result = painter.generate("a red cat left of a blue dog", preset="twig", reflect=0, seed=1)
    thoughts = [region["attempts"][0]["thought"] for region in result.recipes[0]["regions"]]
    assert any("red cat on the left" in thought and "blue dog on the right" in thought for thought in thoughts), (
        thoughts
    )
