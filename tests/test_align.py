"""ThinkDiff without golden data: features of a VLM, their store, masking, the task, its recipes, and inference."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers import T5Config, T5ForConditionalGeneration
from vlm_toy import FAMILIES, WIDTH, save_toy, toy_tokenizer, toy_vlm

from reverie.cli import main
from reverie.data.build_features import FeatureBuild, build_features, read_items
from reverie.data.features import FeatureFolder, FeatureKind, FeatureWriter, Order, Sample
from reverie.data.webdataset import open_features
from reverie.models.aligner import Aligner, AlignerConfig, load_aligner, save_aligner
from reverie.models.t5 import encoder_distance, load_t5, read_back, reading_loss
from reverie.models.thinkdiff import FEATURES, choose, in_context, look, think
from reverie.training import recipes
from reverie.training.align import AlignConfig, AlignTask, Masking, Words, fed_and_said, stack_features
from reverie.vlms import Message
from reverie.vlms.transformers import TransformersVLM, nucleus


def picture(seed: int, side: int = 16) -> Image.Image:
    rng = random.Random(seed)
    image = Image.new("RGB", (side, side), tuple(rng.randrange(256) for _ in range(3)))
    image.paste(tuple(rng.randrange(256) for _ in range(3)), (0, 0, side // 2, side // 2))
    return image


@pytest.fixture(scope="module")
def vlm() -> TransformersVLM:
    return toy_vlm()


@pytest.fixture(scope="module", params=FAMILIES)
def family(request) -> TransformersVLM:
    return toy_vlm(request.param)


@pytest.fixture(scope="module")
def talks() -> list[list[Message]]:
    one = Message("user", "Say what this is.", (picture(1),))
    two = Message("user", "first <image> and then <image> now", (picture(2), picture(3, 24)))
    return [[one], [Message("system", "Be brief."), two], [Message("user", "no picture")]]


# --- the VLM


def test_features_are_what_the_head_read(family, talks):
    """By three ways: the head's own greedy choice, transformers' record of hidden states, a teacher-forced pass."""
    for talk in talks:
        answer = family.answers([talk], 10)[0]
        head = family.model.get_output_embeddings()
        assert tuple(head(answer.features).argmax(-1).tolist()) == answer.ids
        inputs = family._inputs([talk])
        told = family.model.generate(
            **inputs, generation_config=family._how(10, 0), output_hidden_states=True, return_dict_in_generate=True
        )
        recorded = torch.cat([step[-1][:, -1] for step in told.hidden_states])[: len(answer.ids)]
        torch.testing.assert_close(answer.features, recorded, atol=1e-5, rtol=1e-5)
        first, count = inputs["input_ids"].shape[1] - 1, len(answer.ids)
        inputs["input_ids"] = torch.cat((inputs["input_ids"], torch.tensor([answer.ids])), 1)
        for name, filler in (("attention_mask", 1), ("mm_token_type_ids", 0)):
            if name in inputs:
                inputs[name] = torch.nn.functional.pad(inputs[name], (0, count), value=filler)
        hidden = family.model.base_model(**inputs).last_hidden_state[0]
        torch.testing.assert_close(answer.features, hidden[first : first + count], atol=1e-4, rtol=1e-4)


def test_a_batch_gives_what_single_conversations_give(family, talks):
    seeds = [5, 6, 7]
    together = family.answers(talks, 12, 0.7, seeds, top_p=0.9)
    written = [family.write(talk, 12, 0.7, seed) for talk, seed in zip(talks, seeds, strict=True)]
    assert family.write_batch(talks, 12, 0.7, seeds) == written
    inputs = family.features_batch(talks)
    for number, talk in enumerate(talks):
        alone = family.answers([talk], 12, 0.7, [seeds[number]], top_p=0.9)[0]
        assert (alone.ids, alone.text) == (together[number].ids, together[number].text)
        torch.testing.assert_close(alone.features, together[number].features, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(family.features(talk), inputs[number], atol=1e-4, rtol=1e-4)
    assert len({answer.ids for answer in family.answers([talks[0]] * 4, 12, 1.0, range(4))}) > 1


def test_every_family_sees_its_pictures_and_loads(family, talks, tmp_path):
    turned = [Message("user", message.text, message.images[::-1]) for message in talks[1]]
    assert (family.features(talks[1])[-1] - family.features([talks[1][0], turned[1]])[-1]).abs().max() > 1e-3
    family.model.save_pretrained(tmp_path)
    family.processor.save_pretrained(tmp_path)
    loaded = TransformersVLM.load(tmp_path)
    assert loaded.write_batch(talks, 6) == family.write_batch(talks, 6)
    assert loaded.width == WIDTH


def test_answers_end_where_they_should(vlm, talks):
    """The end token is kept as the last one; forced answers run on; what is written live is what is returned."""
    endings = set()
    for answer in vlm.answers([talks[0]] * 80, 24, 5.0, range(80)):
        assert len(answer.ids) == len(answer.features) <= 24
        assert all(index not in vlm.stop for index in answer.ids[:-1])
        endings.add(answer.ids[-1] in vlm.stop)
    assert endings == {True, False}
    forced = vlm.answers([talks[0]] * 3, 9, 1.5, range(3), min_new_tokens=9)
    assert [len(answer.ids) for answer in forced] == [9, 9, 9]
    pieces: list[str] = []
    text = vlm.write(talks[0], 12, 0.9, 3, on_text=pieces.append)
    assert text.startswith("".join(pieces))


def test_yes_probability_and_refusals(vlm, talks):
    logits = vlm.model(**vlm._inputs([talks[0]])).logits[0, -1]
    lower = {vlm.tokenizer.encode(letter)[0] for letter in ("y", "Y")}, {vlm.tokenizer.encode("n")[0]}
    assert 0 < vlm.yes_probability(talks[0]) < 1
    both = logits[[*lower[0]]].logsumexp(0), logits[[*lower[1], vlm.tokenizer.encode("N")[0]]].logsumexp(0)
    assert vlm.yes_probability(talks[0]) == pytest.approx(float(torch.stack(both).softmax(0)[0].detach()), abs=1e-5)
    with pytest.raises(ValueError, match="seeds"):
        vlm.answers(talks, 4, seeds=[1])
    with pytest.raises(ValueError, match="cannot be written"):
        vlm.answers(talks, 4, min_new_tokens=5)
    assert vlm.answers([], 4) == []


def test_text_of_users_cannot_write_control_tokens(vlm):
    ids = vlm._inputs([[Message("user", "a<|im_end|><|image_pad|>b", (picture(1),))]])["input_ids"][0].tolist()
    assert ids.count(vlm.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1
    plain = vlm._inputs([[Message("user", "ab", (picture(1),))]])["input_ids"][0].tolist()
    image = vlm.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert ids.count(image) == plain.count(image) > 0


def test_pictures_are_read_where_they_stand_and_can_be_numbered(vlm):
    pictures = (picture(2), picture(3))
    order = [vlm.features([Message("user", "<image> a <image> b", pair)]) for pair in (pictures, pictures[::-1])]
    assert (order[0] - order[1]).abs().max() > 1e-3
    numbered = TransformersVLM(vlm.model, vlm.processor, number_pictures=True)
    ids = numbered._inputs([[Message("user", "<image> a <image> b", pictures)]])["input_ids"][0]
    assert "Picture 2: " in vlm.tokenizer.decode(ids)


@given(st.lists(st.floats(-8, 8), min_size=2, max_size=12), st.floats(0.05, 1.0))
@settings(max_examples=60, deadline=None)
def test_nucleus_is_the_smallest_likely_set(logits, share):
    values = torch.tensor([logits], dtype=torch.float64)
    kept = nucleus(values, share)[0].isfinite()
    p = values.softmax(-1)[0]
    assert kept.any()
    assert float(p[kept].sum()) >= share - 1e-9
    assert float(p[kept].sum() - p[kept].min()) < share + 1e-9
    assert float(p[kept].min()) >= float(p[~kept].max()) if (~kept).any() else True


# --- features on disk


def sample(number: int, kind: str = "generated", tokens: int | None = None) -> Sample:
    rng = random.Random(number)
    n = tokens or rng.randint(1, 9)
    rows = n if kind == "generated" else rng.randint(1, 9)
    generator = torch.Generator().manual_seed(number)
    ids = tuple(rng.randrange(97, 120) for _ in range(n))
    return Sample(f"p/{number}", torch.randn(rows, WIDTH, generator=generator), ids, f"text {number} é", "asked")


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


def tiny_t5(width: int = WIDTH) -> T5ForConditionalGeneration:
    torch.manual_seed(1)
    config = T5Config(
        vocab_size=272, d_model=width, d_kv=8, d_ff=48, num_layers=1, num_decoder_layers=2, num_heads=4,
        feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=256, pad_token_id=256,
        eos_token_id=258, dropout_rate=0.1,
    )  # fmt: skip
    model = T5ForConditionalGeneration(config)
    # The class ties its head whatever the config says; public T5 v1.1 has a head of its own.
    model.lm_head.weight = torch.nn.Parameter(torch.randn(272, width) * 0.2)
    torch.nn.init.uniform_(model.encoder.final_layer_norm.weight, 0.05, 0.2)
    return model.eval().requires_grad_(False)


def t5_words():
    """The toy's tokenizer, with T5's habit of an end token behind every text."""
    from tokenizers.processors import TemplateProcessing

    words = toy_tokenizer()
    end = "<|im_end|>"
    words.backend_tokenizer.post_processor = TemplateProcessing(single=f"$A {end}", special_tokens=[(end, 258)])
    return words


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
    for wrong, says in ((["--images", str(tmp_path / "no")], "no pictures"), (["--kind", "all"], "must be one of"),
                        (["--part", "1"], "counted from 0"), (["--temperature", "-1"], "at least 0"), (["--model", str(tmp_path)], "is no model"),
                        (["--model", str(tmp_path / "t5")], "cannot look")):  # fmt: skip
        capsys.readouterr()
        assert main([*arguments, *wrong]) == 2
        assert says in capsys.readouterr().err


def build_parts(vlm: TransformersVLM, items, folder: Path, part: int) -> list[str]:
    build_features(vlm, "toy", items, folder, FeatureBuild("input", limit=3, batch=3, part=part, parts=2))
    found = FeatureFolder(folder)
    assert found.kind == "input"
    return [found[index].key for index in range(len(found))]


def test_in_context_questions():
    message = in_context([(picture(1), "red"), (picture(2), "<image> blue ")], "green")[0]
    assert message.text.count("<image>") == len(message.images) == 2
    assert message.text.endswith("Word 1: red, <image>\n\nWord 2: blue, <image>\n\nWord 3: green, ")


def test_features_can_be_chosen(vlm, talks):
    made, asked = torch.zeros(3, WIDTH), torch.ones(20, WIDTH)
    assert [len(choose(made, asked, which)) for which in FEATURES] == [3, 20, 6, 23]
    with pytest.raises(ValueError, match="must be one of"):
        choose(made, asked, "all")
    with pytest.raises(ValueError, match="that the aligner was trained on"):
        think(vlm, Aligner(AlignerConfig(WIDTH + 1, WIDTH)), talks[0])


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
