"""ThinkDiff's aligner without golden data: masking, the task, its checkpoints and recipes, conditions for painters."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from t5_toy import sample, t5_words, tiny_t5
from vlm_toy import WIDTH, picture, toy_tokenizer, toy_vlm

from reverie.data.features import FeatureFolder, FeatureKind, FeatureWriter
from reverie.models.aligner import Aligner, AlignerConfig, load_aligner, save_aligner
from reverie.models.t5 import encoder_distance, load_t5, read_back, reading_loss
from reverie.models.thinkdiff import FEATURES, choose, in_context, look, think
from reverie.training import recipes
from reverie.training.align import AlignConfig, AlignTask, Masking, Words, fed_and_said, stack_features
from reverie.vlms import Message
from reverie.vlms.transformers import TransformersVLM


@pytest.fixture(scope="module")
def vlm() -> TransformersVLM:
    return toy_vlm()


# --- masking


@given(st.integers(1, 300), st.integers(1, 130), st.integers(0, 99))
def test_a_cut_leaves_something_to_read_and_something_to_say(tokens, longest, seed):
    fed, said = Masking(longest=longest).cut(tokens, random.Random(seed))
    fed_rows, said_rows = range(tokens)[fed], range(tokens)[said]
    assert len(fed_rows) >= 1
    assert len(said_rows) >= 1
    if tokens > 1:
        assert [*fed_rows, *said_rows] == list(range(tokens))
        assert len(fed_rows) <= longest


def test_the_mixture_has_the_share_it_says():
    masking, rng = Masking(whole=0.25), random.Random(0)
    whole = sum(masking.cut(40, rng) == (slice(0, 256), slice(0, 256)) for _ in range(4000))
    assert 0.22 < whole / 4000 < 0.28
    cuts = [Masking().cut(9, rng)[0].stop for _ in range(8000)]
    assert all(0.11 < cuts.count(at) / 8000 < 0.14 for at in range(1, 9))
    for bad in ({"whole": 1.5}, {"longest": 0}, {"limit": 0}):
        with pytest.raises(ValueError, match="must be"):
            Masking(**bad)


# --- the task


def store(folder: Path, count: int = 12, kind: str = "generated") -> FeatureFolder:
    with FeatureWriter(folder, FeatureKind(kind, WIDTH, "toy", "float32"), shard=5) as writer:
        for number in range(count):
            writer.add(sample(number, kind, tokens=1 if number == 3 else None))
    return FeatureFolder(folder)


def make_task(source, masking: Masking | None = None, **config) -> AlignTask:
    t5 = tiny_t5()
    torch.manual_seed(0)
    aligner = Aligner(AlignerConfig(WIDTH, WIDTH)).initialise(t5.encoder.final_layer_norm.weight)
    values = AlignConfig(**{"batch": 4, "text": 16, "dropout": False, **config})
    return AlignTask(aligner, t5, t5_words(), source, toy_tokenizer(), values, masking or Masking(), seed=3)


def test_padding_changes_nothing(tmp_path):
    """The loss of a batch is that of its rows, one by one, weighted by their tokens."""
    task = make_task(store(tmp_path))
    pairs = [fed_and_said(task.source[i], "generated", Masking(), random.Random(i)) for i in range(4)]
    loss, _ = task.loss(task.collate(pairs))
    alone = []
    for pair in pairs:
        batch = task.collate([pair])
        alone += [task.loss(batch)[0]] * int(batch["label_mask"].sum())
    assert float(loss.detach()) == pytest.approx(float(torch.stack(alone).mean().detach()), abs=1e-5)
    rows, mask = stack_features([features for features, _ in pairs])
    aligned = task.model(rows)
    for row, (features, _) in enumerate(pairs):
        torch.testing.assert_close(aligned[row][mask[row].bool()], task.model(features))


def test_short_empty_and_long_targets_are_defined(tmp_path):
    words = Words(t5_words(), 6)
    labels, mask = words.labels(["", "a", "abcdefghij"])
    assert labels.tolist() == [[258] + [-100] * 5, [64, 258] + [-100] * 4, [64, 65, 66, 67, 68, 258]]
    assert mask.sum(1).tolist() == [1, 2, 6]
    task = make_task(store(tmp_path))
    one = next(i for i in range(12) if task.source.tokens(i) == 1)
    fed, said = fed_and_said(task.source[one], "generated", Masking(), random.Random(0))
    assert (len(fed), len(said)) == (1, 1)
    only_end = task.collate([(fed, (258,))])  # nothing is left to say but that it is over
    assert only_end["labels"].tolist() == [[258]]
    assert torch.isfinite(task.loss(only_end)[0])
    long = sample(99, tokens=300)
    fed, said = fed_and_said(long, "generated", Masking(whole=1.0, limit=256), random.Random(0))
    assert (len(fed), len(said)) == (256, 256)
    fed, said = fed_and_said(long, "input", Masking(limit=20), random.Random(0))
    assert (len(fed), len(said)) == (20, 300)


def test_batches_depend_on_seed_and_step_alone(tmp_path):
    source = store(tmp_path)
    first, second = make_task(source), make_task(FeatureFolder(tmp_path))
    for step in (7, 2, 7):
        for a, b in zip(first.batch(step).values(), second.batch(step).values(), strict=True):
            assert torch.equal(a, b)
    assert not torch.equal(first.batch(0)["labels"], first.batch(3)["labels"])  # another epoch, another cut
    for widths in ((8, WIDTH), (WIDTH, 8)):
        aligner = Aligner(AlignerConfig(*widths))
        with pytest.raises(ValueError, match="make them equal"):
            AlignTask(aligner, tiny_t5(), t5_words(), source, toy_tokenizer(), AlignConfig(), Masking())


def test_buckets_hold_the_same_samples_with_less_padding(tmp_path):
    source = store(tmp_path, 40)
    plain, sorted_ = make_task(source), make_task(source, bucket=5)
    steps = range(10)
    places = [sorted(place for step in steps for place in task._places(step)) for task in (plain, sorted_)]
    assert places[0] == places[1] == list(range(40))
    spent = [sum(task.batch(step)["labels"].numel() for step in steps) for task in (plain, sorted_)]
    assert spent[1] < spent[0]


def test_the_aligner_learns_and_nothing_else_moves(tmp_path):
    task = make_task(store(tmp_path), Masking(whole=1.0))
    before = {name: tensor.clone() for name, tensor in task.t5.state_dict().items()}
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=5e-3)
    batch, losses = task.batch(0), []
    for _ in range(60):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.85 * losses[0]
    assert row["scale"] > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in task.t5.state_dict().items())
    assert sum(p.numel() for p in task.model.parameters()) == 2 * (WIDTH * WIDTH + WIDTH) + WIDTH


def test_half_precision_comes_close(tmp_path):
    """As on accelerators: the T5 in bfloat16, the aligner in float32 under autocast, its norm never rounded."""
    task = make_task(store(tmp_path))
    batch = task.batch(0)
    exact = float(task.loss(batch)[0].detach())
    task.t5.to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        assert task.model(batch["features"]).dtype == torch.float32
        loss, _ = task.loss(batch)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(exact, rel=0.02)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in task.model.parameters())


def test_published_sizes():
    with torch.device("meta"):
        for source, count in ((3584, 31_469_568), (1408, 22_556_672)):
            assert sum(p.numel() for p in Aligner(AlignerConfig(source, 4096)).parameters()) == count


# --- the frozen T5


def test_half_a_t5_reads_like_the_whole(tmp_path):
    tiny_t5().save_pretrained(tmp_path)
    t5_words().save_pretrained(tmp_path)
    (whole, words), (half, _) = load_t5(tmp_path), load_t5(tmp_path, encoder=False)
    assert len(half.encoder.block) == 0
    assert torch.equal(half.encoder.final_layer_norm.weight, whole.encoder.final_layer_norm.weight)
    memory, mask = torch.randn(2, 5, WIDTH) * 0.1, torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
    labels, label_mask = Words(words, 9).labels(["abc", "de"])
    arguments = memory, mask, labels, label_mask
    assert reading_loss(half, *arguments) == pytest.approx(float(reading_loss(whole, *arguments)), abs=1e-6)
    read = read_back(half, memory, mask, 7)
    alone = read_back(whole, memory[1:, :3], limit=7)
    assert torch.equal(read[1, : alone.shape[1]], alone[0])
    # Against the whole model's own uncached logits, token by token.
    start = torch.tensor([[256]])
    for step in range(alone.shape[1] - 1):
        out = whole(encoder_outputs=(memory[1:, :3],), decoder_input_ids=alone[:, : step + 1])
        assert int(out.logits[0, -1].argmax()) == int(alone[0, step + 1])
    assert torch.equal(alone[:, :1], start)


def test_distance_of_encoders():
    ids, mask = Words(t5_words(), 9).ids(["abc", "defgh"])
    one, other = tiny_t5(), tiny_t5()
    assert encoder_distance(one, other, ids, mask) == pytest.approx({"relative": 0.0, "cosine": 1.0}, abs=1e-5)
    other.encoder.final_layer_norm.weight.mul_(2)
    assert encoder_distance(one, other, ids, mask) == pytest.approx({"relative": 0.5, "cosine": 1.0}, abs=1e-5)


def test_what_is_no_t5_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no model of transformers"):
        load_t5(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="is a bert model"):
        load_t5(tmp_path)


# --- aligners on disk


@pytest.mark.parametrize("config", [
    AlignerConfig(6, 8), AlignerConfig(6, 8, 3, "rms"), AlignerConfig(6, 8, 2, "layer"), AlignerConfig(6, 8, 2, "none"),
    AlignerConfig(6, 8, 1, "none", flat=True), AlignerConfig(6, 8, 1), AlignerConfig(8, 8, 0),
])  # fmt: skip
def test_aligners_come_back(tmp_path, config):
    aligner = Aligner(config).initialise()
    save_aligner(aligner, tmp_path / "a.safetensors")
    again, x = load_aligner(tmp_path / "a.safetensors"), torch.randn(2, 3, config.source)
    assert again.config == config
    assert torch.equal(again(x), aligner(x))
    if config.depth:  # without the header, from the keys alone
        torch.save({"model": aligner.weights() | {"language_model.shared.weight": x}}, tmp_path / "a.pth")
        kind = config.norm if config.norm == "rms" else None
        torch.testing.assert_close(load_aligner(tmp_path / "a.pth", kind=kind)(x), aligner(x))


def test_wrong_aligners_are_refused_in_a_sentence(tmp_path):
    path = tmp_path / "a.safetensors"
    save_aligner(Aligner(AlignerConfig(6, 8)), path)
    for widths in ({"source": 7}, {"target": 9}):
        with pytest.raises(ValueError, match="but here they are"):
            load_aligner(path, **widths)
    torch.save({"model": {"head.weight": torch.zeros(2, 2)}}, tmp_path / "b.pth")
    (tmp_path / "c.pth").write_bytes(b"not a checkpoint")
    torch.save({"model": Path("a")}, tmp_path / "d.pth")
    path.write_bytes(path.read_bytes()[:-9])
    weights = Aligner(AlignerConfig(6, 8)).weights() | {"mm_projector.9.bias": torch.ones(1)}
    torch.save({"model": weights}, tmp_path / "e.pth")
    for name in ("none.pth", "b.pth", "c.pth", "d.pth", "a.safetensors", "e.pth"):
        with pytest.raises(ValueError, match=r"\w") as error:
            load_aligner(tmp_path / name)
        assert "\n" not in str(error.value)


# --- from pictures to a trained aligner and a condition


def test_in_context_questions():
    message = in_context([(picture(1), "red"), (picture(2), "<image> blue ")], "green")[0]
    assert message.text.count("<image>") == len(message.images) == 2
    assert message.text.endswith("Word 1: red, <image>\n\nWord 2: blue, <image>\n\nWord 3: green, ")


def test_features_can_be_chosen(vlm):
    made, asked = torch.zeros(3, WIDTH), torch.ones(20, WIDTH)
    assert [len(choose(made, asked, which)) for which in FEATURES] == [3, 20, 6, 23]
    with pytest.raises(ValueError, match="must be one of"):
        choose(made, asked, "all")
    with pytest.raises(ValueError, match="that the aligner was trained on"):
        think(vlm, Aligner(AlignerConfig(WIDTH + 1, WIDTH)), [Message("user", "hello")])


# --- the CLIP variant


@pytest.fixture(scope="module")
def blip2(tmp_path_factory) -> Path:
    from transformers import Blip2Config, Blip2ForConditionalGeneration

    t5 = tiny_t5(24)
    vision = {"hidden_size": 40, "image_size": 48, "patch_size": 8, "intermediate_size": 64, "num_hidden_layers": 1,
              "num_attention_heads": 4}  # fmt: skip
    former = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
              "vocab_size": 8, "encoder_hidden_size": 40}  # fmt: skip
    torch.manual_seed(2)
    text = t5.config.to_dict()
    config = Blip2Config(vision_config=vision, qformer_config=former, text_config=text, num_query_tokens=2)
    model = Blip2ForConditionalGeneration(config)
    model.language_model = t5
    for p in model.vision_model.parameters():
        torch.nn.init.normal_(p, std=0.2)
    folder = tmp_path_factory.mktemp("blip2")
    model.save_pretrained(folder)
    t5_words().save_pretrained(folder)
    return folder


def test_pictures_and_text_change_only_their_own_vectors(blip2):
    from reverie.models.vision_tokens import load_blip2

    tower, t5, words = load_blip2(blip2)
    aligner = Aligner(AlignerConfig(40, 24)).initialise(t5.encoder.final_layer_norm.weight, 0.02)

    def vectors(pictures, text, tokens=9):
        return look(tower, aligner, pictures, text, t5, words, text_tokens=tokens).vectors[0]

    a, b = picture(1, 50), picture(2, 30)
    one, two, turned = vectors([a], "cat"), vectors([a, b], "cat"), vectors([b, a], "cat")
    each = len(one) - 9
    assert each == 1 + 3 * 3
    assert len(two) == 2 * each + 9
    torch.testing.assert_close(two[:each], one[:each])
    torch.testing.assert_close(turned, torch.cat((two[each : 2 * each], two[:each], two[2 * each :])))
    silent = vectors([a], "")
    torch.testing.assert_close(silent[:each], one[:each])
    assert (silent[each:] - one[each:]).abs().max() > 1e-3
    assert len(vectors([a, b, a], "cat", 4)) == 3 * each + 4
    with pytest.raises(ValueError, match="at least one picture"):
        vectors([], "cat")


def test_the_tower_alone_is_that_of_the_whole_model(blip2, tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    from reverie.models.vision_tokens import load_blip2, load_tower

    alone, (whole, t5, _) = load_tower(blip2), load_blip2(blip2)
    theirs = whole.state_dict()
    assert theirs.keys() == alone.state_dict().keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in alone.state_dict().items())
    t5.save_pretrained(tmp_path / "t5")
    with pytest.raises(ValueError, match="no vision tower"):
        load_tower(tmp_path / "t5")
    small = CLIPVisionConfig(
        hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=8
    )
    CLIPVisionModel(small).save_pretrained(tmp_path / "clip")
    assert load_tower(tmp_path / "clip").config.hidden_size == 8


def test_clip_recipe_runs(tmp_path, blip2):
    for number in range(3):
        picture(number, 20).save(tmp_path / f"{number}.png")
    rows = [{"image": f"{n}.png", "caption": text} for n, text in enumerate(["One.", "Two (words)", "a b c d"])]
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, rows)))
    recipe = {
        "task": "thinkdiff-clip", "out": str(tmp_path / "run"), "captions": str(tmp_path / "captions.jsonl"),
        "blip2": str(blip2), "data": {"batch": 3, "text": 8}, "aligner": {"std": 0.02},
        "loop": {"steps": 2, "precision": "no", "log_every": 1},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    out = recipes.run(tmp_path / "recipe.yaml")
    assert load_aligner(out / "aligner.safetensors").config == AlignerConfig(40, 24)
    (tmp_path / "captions.jsonl").write_text('{"image": "0.png"}')
    with pytest.raises(ValueError, match="line 1"):
        recipes.run(tmp_path / "recipe.yaml")


@pytest.mark.parametrize("name", ["lvlm", "clip"])
def test_shipped_recipes_are_read(name):
    path = Path(__file__).parents[1] / "recipes" / "thinkdiff" / f"{name}.yaml"
    recipe = recipes.read(path)
    with pytest.raises(ValueError, match=r"no folder of features|no caption file"):
        recipes.run(path)
    assert recipe["loop"]["steps"] * recipe["loop"]["warmup"] == 2000
    assert recipe["loop"]["steps"] * recipe["loop"]["wave"] == 200_000
