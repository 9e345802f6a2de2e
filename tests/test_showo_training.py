"""Training a small Show-o: what is hidden, what is learned, and that the result is a checkpoint like any other."""

import json
import math
from pathlib import Path

import pytest
import torch

import reverie
from reverie.models.magvit import MagvitConfig
from reverie.models.showo import Showo, ShowoConfig
from reverie.models.showo_text import ShowoTokenizer
from reverie.training import recipes, showo
from reverie.training.showo import ShowoSizes, ShowoTask, ShowoTraining, fresh_showo, random_masks, small_showo_config
from reverie.training.tokenizer import TokenizerConfig, build_vq

SIZES = ShowoSizes(width=32, layers=2, heads=2, ffn=64, vocabulary=300, longest=40, steps=3)
VQ = TokenizerConfig(codes=24, base=32, multipliers=(1, 1), latent=32, patch=4)


@pytest.fixture(scope="module")
def made() -> tuple[Showo, ShowoTokenizer]:
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        # Fewer sentences to learn words from: the vocabulary is tiny.
        patch.setattr(showo, "atelier_texts", lambda: ["a red fish below a boat", "three blue cats at night"] * 20)
        return fresh_showo(SIZES, VQ, build_vq(VQ).eval())


def test_the_hidden_share_follows_the_cosine():
    masked = random_masks(torch.Generator().manual_seed(0), 20000, 16)
    counts = masked.sum(1)
    assert counts.min() == 1
    assert counts.max() == 16
    assert masked.float().mean() == pytest.approx(2 / math.pi, abs=0.01)
    # P(cos(pi u / 2) < 1/2) = 1/3; the 8 of 16 are shared by rounding.
    assert (counts < 8).float().mean() == pytest.approx(1 - 2 / math.pi * math.acos(7.5 / 16), abs=0.01)
    assert masked.float().mean(0).std() < 0.01


def test_a_batch_depends_on_its_step_and_the_loss_is_the_log_probability(made):
    task = ShowoTask(*made, ShowoTraining(paint=3, blank=0.5), seed=1)
    batch, again, other = task.batch(4), task.batch(4), task.batch(5)
    assert all(torch.equal(batch[name], again[name]) for name in batch)
    assert not torch.equal(batch["pixels"], other["pixels"])
    loss, _ = task.loss(batch)
    codes = task.model.pictures.encode(batch["pixels"].float() / 127.5 - 1)
    prompts = [[i for i in row if i != task.words.pad] for row in batch["ids"].tolist()]
    found = task.model.log_prob(prompts, codes, batch["masked"])
    torch.testing.assert_close(loss, -found.sum() / batch["masked"].sum(), atol=1e-5, rtol=0)
    loss.backward()
    assert all((p.grad is None) == name.startswith("vq_model.") for name, p in task.model.named_parameters())


def test_it_learns_a_batch_by_heart(made):
    """More than how frequent each code is: that alone would leave the entropy of the codes."""
    task = ShowoTask(*made, ShowoTraining(paint=2), seed=2)
    batch = task.batch(0)
    codes = task.model.pictures.encode(batch["pixels"].float() / 127.5 - 1)
    share = codes.flatten().bincount() / codes.numel()
    learned = [p for p in task.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=1e-2)
    first = task.loss(batch)[0].detach()
    for _ in range(60):
        optimizer.zero_grad()
        loss, _ = task.loss(batch)
        loss.backward()
        optimizer.step()
    assert loss < 0.85 * torch.special.entr(share).sum() < first


def test_the_recipe_makes_a_checkpoint_that_paints(made, tmp_path: Path, monkeypatch):
    monkeypatch.setattr("reverie.training.tokenizer.finished_tokenizer", lambda folder: (VQ, build_vq(VQ).eval()))
    monkeypatch.setattr(showo, "atelier_texts", lambda: ["a red fish below a boat"] * 20)
    recipe = tmp_path / "showo.yaml"
    model = {"width": 32, "layers": 1, "heads": 2, "ffn": 64, "vocabulary": 300, "steps": 2}
    loop = {"steps": 2, "precision": "no", "log_every": 1}
    recipe.write_text(
        json.dumps({"task": "showo", "out": str(tmp_path / "out"), "model": model, "mix": {"paint": 2}, "loop": loop})
    )
    recipes.run(recipe)
    painter = reverie.load(tmp_path / "out" / "checkpoint", device="cpu")
    assert painter.generate("a red fish", seed=1).image.size == (96, 96)
    assert painter.model.config.own["steps"] == 2
    recipes.run(recipe, [f"out={tmp_path / 'more'}", f"from={tmp_path / 'out' / 'checkpoint'}"])
    with pytest.raises(ValueError, match="paints 96"):
        recipes.run(recipe, ["mix.side=64"])
    with pytest.raises(ValueError, match="nothing to learn"):
        recipes.run(recipe, ["mix.paint=0"])


def test_a_small_one_can_stand_around_a_small_magvit():
    """96 x 96 pixels, 12 x 12 codes."""
    pictures = MagvitConfig(32, (1, 1, 2, 2), (1, 1, 2, 2), (1, 1, 1, 1), (1, 1, 1, 1), z_channels=6)
    model = Showo(ShowoConfig.from_dict(small_showo_config(SIZES, pictures.to_dict(), 64, 12)))
    with torch.no_grad():
        codes = model.pictures.encode(torch.zeros(1, 3, 96, 96))
        assert codes.shape == (1, 144)
        assert model.pictures.decode(codes).shape == (1, 3, 96, 96)
    assert ShowoConfig.from_dict(model.config.to_dict()) == model.config
    with pytest.raises(ValueError, match="has 64"):
        Showo(ShowoConfig.from_dict(small_showo_config(SIZES, pictures.to_dict(), 128, 12)))
