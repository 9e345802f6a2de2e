"""The small CLIP of the Atelier, and ThinkDiff-CLIP's trainer over its tower; noise on aligned vectors."""

import json

import pytest
import torch
from t5_toy import sample, t5_words, tiny_t5
from vlm_toy import toy_tokenizer

from reverie.atelier.picture_book import write_book
from reverie.data.features import FeatureKind, FeatureWriter
from reverie.data.webdataset import open_features
from reverie.models.aligner import Aligner, AlignerConfig, load_aligner
from reverie.models.thinkdiff import look
from reverie.models.vision_tokens import load_tower
from reverie.training import recipes
from reverie.training.align import AlignConfig, AlignTask, Masking, Words, shaken, uneven_noise
from reverie.training.clip import ClipSizes, ClipTask, ClipTraining, build_clip, contrast
from reverie.training.encoder_space import SpacedAligner, principal_space

SMALL = {"vision_width": 32, "vision_layers": 1, "vision_heads": 2, "text_width": 32, "text_layers": 1, "text_heads": 2,
         "shared": 16, "vocabulary": 320, "texts": 100}  # fmt: skip


def test_contrast_is_the_mean_of_both_ways_and_knows_captions_of_equal_meaning():
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 0.0], [1.0, 0.0, 0.0]])
    rows = -logits.log_softmax(1).diagonal().mean()
    columns = -logits.log_softmax(0).diagonal().mean()
    loss, row = contrast(logits, torch.eye(3))
    torch.testing.assert_close(loss, (rows + columns) / 2)
    assert row["right"].item() == pytest.approx(2 / 3)
    same = torch.tensor([[1.0, 0, 1], [0, 1, 0], [1, 0, 1]])  # the first and the third caption mean the same
    loss, row = contrast(logits, same)
    assert row["right"].item() == 1
    logs, turned = logits.log_softmax(1), logits.T.log_softmax(1)
    wanted = [(logs[0, 0] + logs[0, 2]) / 2, logs[1, 1], (logs[2, 0] + logs[2, 2]) / 2]
    wanted += [(turned[0, 0] + turned[0, 2]) / 2, turned[1, 1], (turned[2, 0] + turned[2, 2]) / 2]
    torch.testing.assert_close(loss, -torch.stack(wanted).sum() / 6)


def test_clip_learns_and_its_batches_repeat():
    torch.manual_seed(0)
    task = ClipTask(*build_clip(ClipSizes(**SMALL)), ClipTraining(batch=8, variants=1))
    again = ClipTask(task.model, task.words, ClipTraining(batch=8, variants=1))
    again.batch(2)
    batch = task.batch(3)
    assert all(torch.equal(batch[name], value) for name, value in again.batch(3).items())
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=3e-3)
    losses = []
    for _ in range(40):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    assert row["right"] > 0.5
    with pytest.raises(ValueError, match="at least 2"):
        ClipTraining(batch=1)


def test_from_pictures_to_an_aligner_of_thinkdiff_clip_by_recipe(tmp_path):
    """Tower, aligner, conditions: as a user goes, on a few pictures."""
    common = ["loop.minutes=null", "loop.workers=0", "loop.steps=2", 'loop.precision="no"']
    clip = [f"model.{name}={value}" for name, value in SMALL.items()] + ["mix.batch=4", "mix.variants=1"]
    recipes.run("recipes/atelier/clip.yaml", [*common, *clip, f"out={tmp_path}/clip", f"export={tmp_path}/tower"])
    t5 = tiny_t5()
    t5.save_pretrained(tmp_path / "t5")
    t5_words().save_pretrained(tmp_path / "t5")
    captions = write_book(tmp_path / "book", 6)
    given = [f"captions={captions}", f"tower={tmp_path}/tower", f"t5={tmp_path}/t5", f"out={tmp_path}/aligner"]
    given += ["data.batch=2", "data.noise=0.5", "loop.steps=2", 'loop.precision="no"']
    recipes.run("recipes/atelier/aligner-clip.yaml", [*given, "loop.log_every=1"])
    aligner, tower = load_aligner(tmp_path / "aligner" / "aligner.safetensors"), load_tower(tmp_path / "tower")
    assert (aligner.config.source, aligner.config.target) == (32, t5.config.d_model)
    rows = [json.loads(line) for line in (tmp_path / "aligner" / "log.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    from PIL import Image

    pictures = [Image.open(path) for path in sorted((tmp_path / "book" / "pictures").iterdir())[:2]]
    two = look(tower, aligner, pictures, "a red cat", t5, t5_words(), text_tokens=12).vectors
    one = look(tower, aligner, pictures[:1], "a red cat", t5, t5_words(), text_tokens=12).vectors
    turned = look(tower, aligner, pictures[::-1], "a red cat", t5, t5_words(), text_tokens=12).vectors
    assert (one.shape[1], two.shape[1]) == (
        17 + 12,
        34 + 12,
    )  # a class token and 4 x 4 patches a picture, then the text
    torch.testing.assert_close(two[:, :17], one[:, :17])
    torch.testing.assert_close(two[:, 34:], one[:, 17:])  # pictures change nothing in the text
    torch.testing.assert_close(two[:, :34], torch.cat((turned[:, 17:34], turned[:, :17]), 1))
    other = look(tower, aligner, pictures, "a dog", t5, t5_words(), text_tokens=12).vectors
    torch.testing.assert_close(other[:, :34], two[:, :34])
    assert not torch.equal(other[:, 34:], two[:, 34:])
    huge = look(tower, aligner, [pictures[0].resize((3000, 1200))], "", t5, t5_words(), text_tokens=12).vectors
    assert huge.shape == one.shape
    many = look(tower, aligner, pictures[:1] * 30, "", t5, t5_words(), text_tokens=12).vectors
    assert many.shape[1] == 30 * 17 + 12
    with pytest.raises(ValueError, match="at least one picture"):
        look(tower, aligner, [], "a red cat", t5, t5_words())


def test_noise_is_another_for_every_row_and_step_and_in_units_of_the_encoder(tmp_path):
    found = uneven_noise((400, 5, 16), 0.8, "a")
    assert torch.equal(found, uneven_noise((400, 5, 16), 0.8, "a"))
    assert not torch.equal(found, uneven_noise((400, 5, 16), 0.8, "b"))
    deviations = found.flatten(1).std(1)
    assert 0 < deviations.min() < 0.1 < 0.7 < deviations.max() < 1.0
    t5 = tiny_t5()
    with torch.no_grad():
        t5.encoder.final_layer_norm.weight.fill_(0.25)
    memory = torch.zeros(400, 5, 16)
    torch.testing.assert_close(shaken(memory, found, t5), found * 0.25)
    assert shaken(memory, None, t5) is memory
    with pytest.raises(ValueError, match="noise=-1"):
        AlignConfig(noise=-1)
    t5 = tiny_t5()
    with FeatureWriter(tmp_path, FeatureKind("generated", 32, "toy")) as writer:
        for number in range(6):
            writer.add(sample(number))
    tasks = []
    for noise in (0.0, 0.5):
        aligner = Aligner(AlignerConfig(32, t5.config.d_model)).initialise()
        config = AlignConfig(batch=3, noise=noise, dropout=False)
        tasks.append(
            AlignTask(aligner, t5, t5_words(), open_features(tmp_path, "generated"), toy_tokenizer(), config, Masking())
        )
    quiet, loud = (task.batch(0) for task in tasks)
    assert "noise" not in quiet
    assert loud["noise"].shape == (*loud["mask"].shape, t5.config.d_model)
    assert torch.equal(quiet["features"], loud["features"])
    assert tasks[1].loss(loud)[0] != tasks[1].loss(quiet)[0]


def test_an_aligner_in_the_encoders_space_folds_into_an_ordinary_one(tmp_path):
    t5, words = tiny_t5(), t5_words()
    texts = [sample(number).text for number in range(9)]
    mean, basis = principal_space(t5, Words(words, 64), texts, 6)
    ids, mask = Words(words, 64).ids(texts)
    plain = t5.encoder(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
    plain = plain / t5.encoder.final_layer_norm.weight
    torch.testing.assert_close(mean, plain.mean(0))
    centred = plain - mean
    principal = torch.linalg.svd(centred).Vh[:6]
    torch.testing.assert_close(basis @ torch.linalg.pinv(basis), principal.T @ principal, atol=1e-4, rtol=1e-3)
    deviations = torch.linalg.svdvals(centred)[:6] / len(centred) ** 0.5
    torch.testing.assert_close(basis.norm(dim=0).flip(0), deviations, atol=1e-4, rtol=1e-3)
    fresh = Aligner(AlignerConfig(32, t5.config.d_model)).initialise(t5.encoder.final_layer_norm.weight)
    spaced = SpacedAligner(fresh, mean, basis)
    features = torch.randn(2, 5, 32)
    torch.testing.assert_close(spaced.folded()(features), spaced(features))
    with pytest.raises(ValueError, match="directions"):
        principal_space(t5, Words(words, 64), texts, 99)
    with pytest.raises(ValueError, match="two layers"):
        SpacedAligner(Aligner(AlignerConfig(32, 32, 2, "none")), mean, basis)
    with FeatureWriter(tmp_path / "f", FeatureKind("generated", 32, "toy")) as writer:
        for number in range(6):
            writer.add(sample(number))
    toy_tokenizer().save_pretrained(tmp_path / "f" / "tokenizer")
    t5.save_pretrained(tmp_path / "t5")
    words.save_pretrained(tmp_path / "t5")
    given = [f"features={tmp_path}/f", f"t5={tmp_path}/t5", f"out={tmp_path}/out", "loop.steps=2", "loop.workers=0"]
    given += ["states.read=false", "data.batch=2", "aligner.space=4", 'loop.precision="no"']
    recipes.run("recipes/atelier/aligner.yaml", given)
    assert load_aligner(tmp_path / "out" / "aligner.safetensors", source=32, target=t5.config.d_model)
