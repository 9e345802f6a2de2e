"""LlamaGen's training: it learns, its loss is that of the canvas, blanked captions are the painter's unconditional."""

import json
import random

import pytest
import torch

from reverie.canvas import Conditions
from reverie.models.llamagen_checkpoint import load_llamagen
from reverie.training import recipes
from reverie.training.llamagen import LlamagenSizes, LlamagenTask, LlamagenTraining, build_llamagen
from reverie.training.tokenizer import TokenizerConfig, build_vq

SIZES = LlamagenSizes(width=64, layers=2, heads=2, ffn=128, text_width=32, text_layers=1, text_heads=2, vocabulary=300)
TOKENIZER = TokenizerConfig(side=48, codes=64, base=32, latent=32, res_blocks=1)


@pytest.fixture(scope="module")
def task() -> LlamagenTask:
    torch.manual_seed(0)
    built = build_llamagen(SIZES, TOKENIZER, build_vq(TOKENIZER).eval())
    return LlamagenTask(*built, LlamagenTraining(paint=4, side=48, blank=0.3))


def test_it_learns_one_batch_text_encoder_included(task):
    batch = task.batch(0)
    before = task.captions.network.shared.weight.detach().clone()
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=4e-3)
    losses = []
    for _ in range(30):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    assert row["perplexity"].item() == pytest.approx(torch.tensor(losses[-1]).exp().item(), rel=1e-4)
    assert not torch.equal(before, task.captions.network.shared.weight)


def test_the_loss_is_that_of_the_canvas(task):
    """Padded captions in a batch and captions read alone give the same likelihood of the codes."""
    painter, batch = task.painter(), task.batch(1) | {"blank": torch.zeros(4, dtype=torch.bool)}
    prompts, _ = task.drawn.batch(1, random.Random("0/1"))
    with torch.no_grad():
        codes = task.drawn.codes(batch, task.network.encode_image)
        expected = -painter.log_prob(Conditions(prompts, 1.0), codes).mean()
        assert task.loss(batch)[0].item() == pytest.approx(expected.item(), abs=1e-4)
        blank = task._states(batch | {"blank": torch.ones(4, dtype=torch.bool)})
    for row, length in zip(blank, batch["length"], strict=True):
        assert torch.equal(row[:length], task.network.unconditional_states(int(length)))


def test_recipes_end_in_a_checkpoint_that_paints(tmp_path, monkeypatch):
    """From nothing through a tokenizer to a picture, with every part as small as it can be."""
    monkeypatch.setattr("reverie.training.samples.PROMPTS", ("a red cat", "two dogs"))
    sizes = {"side": 48, "codes": 64, "base": 32, "latent": 32, "res_blocks": 1, "batch": 2}
    loop = {"steps": 1, "precision": "no", "muon_lr": 1e-3}
    first = {"task": "tokenizer", "out": str(tmp_path / "tokenizer"), "model": sizes, "loop": loop}
    (tmp_path / "tokenizer.yaml").write_text(json.dumps(first))
    recipe = {
        "task": "llamagen", "out": str(tmp_path / "run"), "mix": {"paint": 2, "side": 48}, "loop": loop,
        "tokenizer": str(recipes.run(tmp_path / "tokenizer.yaml")),
        "model": {name: getattr(SIZES, name) for name in ("width", "layers", "heads", "ffn", "text_width")}
        | {"text_layers": 1, "text_heads": 2, "vocabulary": 300, "top_k": 50},
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    out = recipes.run(tmp_path / "recipe.yaml")
    model, captions = load_llamagen(out / "checkpoint")
    assert model.config.raw["reverie"]["top_k"] == 50
    assert (out / "samples-000001.png").is_file()
    assert captions.ids("a red cat")[-1] == captions.end
    with pytest.raises(ValueError, match="no key 'speed'"):
        recipes.run(tmp_path / "recipe.yaml", ["mix.speed=1"])
