"""Features on disk: shards, resuming, the order of an epoch, and building them from pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from t5_toy import sample, t5_words, tiny_t5
from vlm_toy import WIDTH, picture, save_toy

from reverie.cli import main
from reverie.data.build_features import FeatureBuild, build_features, read_items
from reverie.data.features import FeatureFolder, FeatureKind, FeatureWriter, Order, Sample
from reverie.data.webdataset import open_features
from reverie.models.aligner import load_aligner
from reverie.models.thinkdiff import in_context, think
from reverie.training import recipes
from reverie.vlms.states import FeatureStates
from reverie.vlms.transformers import TransformersVLM


@pytest.mark.parametrize("kind", ["generated", "input"])
def test_shards_read_back_equal(tmp_path, kind):
    samples = [sample(number, kind) for number in range(11)]
    with FeatureWriter(tmp_path, FeatureKind(kind, WIDTH, "toy", "float32"), shard=4) as writer:
        for one in samples:
            writer.add(one)
    folder = FeatureFolder(tmp_path)
    assert folder.shards == [4, 4, 3]
    for index, one in enumerate(samples):
        found = folder[index]
        assert torch.equal(found.features, one.features)
        assert (found.key, found.ids, found.text, found.question) == (one.key, one.ids, one.text, one.question)
        assert folder.tokens(index) == len(one.ids)
    with pytest.raises(IndexError):
        folder[11]


def test_a_killed_writer_goes_on_without_loss_or_doubles(tmp_path):
    what, samples = FeatureKind("generated", WIDTH, "toy"), [sample(number) for number in range(10)]
    writer = FeatureWriter(tmp_path, what, shard=3)
    for one in samples[:8]:
        writer.add(one)  # two whole shards; two samples wait, and are lost with the process
    (tmp_path / "features-000002.safetensors").write_bytes(b"half a shard that no index names")
    with FeatureWriter(tmp_path, what, shard=3) as again:
        assert again.done == {one.key for one in samples[:6]}
        for one in samples:
            if one.key not in again.done:
                again.add(one)
        with pytest.raises(ValueError, match="already"):
            again.add(samples[0])
    folder = FeatureFolder(tmp_path)
    assert [folder[index].key for index in range(len(folder))] == [one.key for one in samples]
    with pytest.raises(ValueError, match="choose another folder"):
        FeatureWriter(tmp_path, FeatureKind("input", WIDTH, "toy"))


def test_damaged_or_foreign_folders_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no folder"):
        open_features(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"index\.json"):
        open_features(tmp_path)
    with FeatureWriter(tmp_path, FeatureKind("generated", WIDTH, "toy")) as writer:
        writer.add(sample(1))
        with pytest.raises(ValueError, match="shape"):
            writer.add(Sample("x", torch.zeros(2, WIDTH + 1), (1, 2)))
        with pytest.raises(ValueError, match="2 tokens"):
            writer.add(Sample("y", torch.zeros(3, WIDTH), (1, 2)))
    with pytest.raises(ValueError, match="asked for"):
        open_features(tmp_path, "input")
    shard = tmp_path / "features-000000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-20])
    with pytest.raises(ValueError, match="damaged"):
        open_features(tmp_path)[0]


@given(st.lists(st.integers(0, 7), min_size=1, max_size=9), st.integers(0, 5), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_an_epoch_sees_every_sample_once(shards, seed, window):
    count = sum(shards)
    if count == 0:
        with pytest.raises(ValueError, match="no samples"):
            Order(shards, seed, window)
        return
    order = Order(shards, seed, window)
    for epoch in range(3):
        assert sorted(order[epoch * count + place] for place in range(count)) == list(range(count))
    again, places = Order(shards, seed, window), (3 * count - 1, 0, count)
    assert [again[place] for place in places] == [order[place] for place in places]


def test_states_are_kept_narrowed_trained_on_and_checked(tmp_path):
    """From the command line: two layers and what has read; the recipe takes one of them; think wants the same."""
    save_toy(tmp_path / "vlm")
    for number in range(5):
        picture(number).save(tmp_path / f"{number}.png")
    asked = {"key": "episode", "images": ["1.png", "2.png"], "request": "red <image> blue <image> then?"}
    (tmp_path / "episodes.jsonl").write_text(json.dumps(asked))
    (tmp_path / "captions.jsonl").write_text("\n".join(json.dumps({"image": f"{n}.png"}) for n in range(5)))
    build = [
        "data",
        "build",
        "features",
        "--model",
        str(tmp_path / "vlm"),
        "--quiet",
        "--tokens",
        "6",
        "--device",
        "cpu",
        "--images",
        *(str(tmp_path / f"{name}.jsonl") for name in ("captions", "episodes")),
    ]
    folder = tmp_path / "features"
    assert main([*build, "--layers", "-1", "-2", "--read", "--out", str(folder)]) == 0
    whole, narrow = open_features(folder), open_features(folder, states=FeatureStates((-2,), True))
    assert whole.states == FeatureStates((-1, -2), True)
    assert (len(whole), whole.width, narrow.width) == (6, 4 * WIDTH, 2 * WIDTH)
    assert (whole[5].key, whole[5].question) == ("episode", asked["request"])
    for number in range(6):
        kept = whole[number].features.unflatten(1, (4, WIDTH))
        assert torch.equal(narrow[number].features, kept[:, [1, 3]].flatten(1))
        assert torch.equal(kept[1:, 0], kept[:-1, 2])  # what has read a token writes the next
        assert not kept[-1, 2:].any()
        assert narrow.tokens(number) == len(whole[number].ids)
    with pytest.raises(ValueError, match="choose another folder"):
        FeatureWriter(folder, FeatureKind("generated", 4 * WIDTH, str(tmp_path / "vlm")))
    with pytest.raises(ValueError, match="cannot be taken from"):
        open_features(folder, states=FeatureStates((-3,)))

    tiny_t5().save_pretrained(tmp_path / "t5")
    t5_words().save_pretrained(tmp_path / "t5")
    recipe = {
        "task": "thinkdiff-lvlm", "out": str(tmp_path / "run"), "features": str(folder), "t5": str(tmp_path / "t5"),
        "states": {"layers": [-1], "read": True}, "data": {"batch": 2, "text": 12, "pull": 1.0},
        "loop": {"steps": 2, "precision": "no", "ema": 0.0, "workers": 0},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    aligner = load_aligner(recipes.run(tmp_path / "recipe.yaml") / "aligner.safetensors", source=WIDTH)
    assert (aligner.config.source, aligner.config.states) == (2 * WIDTH, FeatureStates(read=True))
    vlm = TransformersVLM.load(tmp_path / "vlm")
    talk = in_context([(picture(1), "red")], "green")
    with pytest.raises(ValueError, match="the states that the aligner was trained on"):
        think(vlm, aligner, talk, tokens=5)
    vlm = TransformersVLM.load(tmp_path / "vlm", states=aligner.config.states)
    assert think(vlm, aligner, talk, tokens=5).vectors.shape == (1, 5, WIDTH)
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe | {"states": {"layers": [-3]}}))
    with pytest.raises(ValueError, match="cannot be taken from"):
        recipes.run(tmp_path / "recipe.yaml")


def test_questions_about_several_pictures_mark_their_places(tmp_path):
    for row, words in (
        ({"images": ["a.png", "b.png"]}, "line 1"),
        ({"image": "a.png", "request": "<image><image>"}, "1 times"),
    ):
        (tmp_path / "list.jsonl").write_text(json.dumps({"key": "k", **row}))
        with pytest.raises(ValueError, match=words):
            read_items(tmp_path / "list.jsonl")
    (tmp_path / "list.jsonl").write_text(json.dumps({"images": ["a.png"], "request": "<image>?"}))
    with pytest.raises(ValueError, match="or key, images, request"):
        read_items(tmp_path / "list.jsonl")


def test_building_resumes_and_training_runs_on_it(tmp_path, monkeypatch):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(7):
        picture(number).save(pictures / f"{number}.png")
    (pictures / "9.png").write_bytes(b"no picture")
    items, build = read_items(pictures), FeatureBuild(limit=6, batch=2, shard=3, dtype="float32", temperature=1.0)
    vlm, whole = TransformersVLM.load(save_toy(tmp_path / "vlm")), tmp_path / "whole"
    assert build_features(vlm, "toy", items, whole, build) == ["9.png"]

    def stop(done: int, count: int) -> None:
        if done >= 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_features(vlm, "toy", items, tmp_path / "cut", build, stop)
    assert len(FeatureFolder(tmp_path / "cut")) == 3
    build_features(vlm, "toy", items, tmp_path / "cut", build)
    a, b = FeatureFolder(whole), FeatureFolder(tmp_path / "cut")
    assert [a[i].key for i in range(len(a))] == [f"{number}.png" for number in range(7)]
    head = vlm.model.get_output_embeddings()
    for index in range(7):
        assert (a[index].ids, a[index].question) == (b[index].ids, b[index].question)
        torch.testing.assert_close(a[index].features, b[index].features, atol=1e-4, rtol=1e-4)
        chosen = head(a[index].features).softmax(-1)[range(len(a[index].ids)), list(a[index].ids)]
        assert bool((chosen > 0).all())
    shares = [build_parts(vlm, items, tmp_path / f"part{n}", n) for n in range(2)]
    assert sorted(shares[0] + shares[1]) == [f"{number}.png" for number in range(7)]

    tiny_t5().save_pretrained(tmp_path / "t5")
    t5_words().save_pretrained(tmp_path / "t5")
    recipe = {
        "task": "thinkdiff-lvlm", "out": str(tmp_path / "run"), "features": str(whole), "t5": str(tmp_path / "t5"),
        "data": {"batch": 2, "text": 12}, "masking": {"whole": 0.5},
        "loop": {"steps": 3, "precision": "no", "log_every": 1, "ema": 0.0, "workers": 1},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    out = recipes.run(tmp_path / "recipe.yaml")
    aligner = load_aligner(out / "aligner.safetensors", source=WIDTH, target=WIDTH)
    read = [json.loads(line) for line in (out / "readings.jsonl").read_text().splitlines()]
    assert {row["key"] for row in read} == {f"{number}.png" for number in range(7)}
    assert (out / "state.pt").stat().st_size < 200_000  # the aligner's state, never the T5's
    condition = think(vlm, aligner, in_context([(picture(1), "red"), (picture(2), "blue")], "green"), tokens=11)
    assert condition.vectors.shape == (1, 11, WIDTH)
    assert condition.pooled_text == ""


def test_the_command_line_builds_features(tmp_path, capsys):
    picture(1).save(tmp_path / "1.png")
    (tmp_path / "list.jsonl").write_text('{"image": "1.png", "key": "one", "request": "What is it?"}')
    arguments = ["data", "build", "features", "--model", str(save_toy(tmp_path / "vlm")), "--device", "cpu",
                 "--images", str(tmp_path / "list.jsonl"), "--out", str(tmp_path / "out"), "--tokens", "4"]  # fmt: skip
    assert main(arguments) == 0
    found = open_features(tmp_path / "out")
    assert (len(found), found[0].key, found[0].question) == (1, "one", "What is it?")
    assert main(arguments) == 0  # nothing is left to do
    tiny_t5().save_pretrained(tmp_path / "t5")
    wrongs = [
        ("--images", str(tmp_path / "no"), "no pictures"), ("--kind", "all", "must be one of"),
        ("--part", "1", "counted from 0"), ("--temperature", "-1", "at least 0"),
        ("--model", str(tmp_path), "is no model"), ("--model", str(tmp_path / "t5"), "cannot look"),
    ]  # fmt: skip
    for *wrong, says in wrongs:
        capsys.readouterr()
        assert main([*arguments, *wrong]) == 2
        assert says in capsys.readouterr().err


def build_parts(vlm: TransformersVLM, items, folder: Path, part: int) -> list[str]:
    build_features(vlm, "toy", items, folder, FeatureBuild("input", limit=3, batch=3, part=part, parts=2))
    found = FeatureFolder(folder)
    assert found.kind == "input"
    return [found[index].key for index in range(len(found))]
