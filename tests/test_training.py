"""The training loop and what it trains: identities, resuming, refusals, and learning on tiny problems."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from reverie.models.llama import RMSNorm
from reverie.training import recipes
from reverie.training.cross_entropy import cross_entropy
from reverie.training.janus import JanusSizes, JanusTask, JanusTraining, atelier_texts, build_janus
from reverie.training.loop import LoopConfig, learning_rate, train
from reverie.training.quick_norm import quicken
from reverie.training.tokenizer import TokenizerConfig, TokenizerTask, build_vq


class Line:
    """Fits a line: the smallest task there is."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        self.model = nn.Linear(3, 1)

    def batch(self, step: int) -> torch.Tensor:
        return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))

    def loss(self, batch: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        loss = (self.model(batch) - batch.sum(1, keepdim=True)).square().mean()
        return loss, {"twice": 2 * loss.detach()}


def loop(**values: object) -> LoopConfig:
    base = {"steps": 40, "lr": 0.05, "precision": "no", "save_every": 10, "log_every": 5, "decay": 0.0, "warmup": 0.0}
    return LoopConfig(**{**base, **values})  # type: ignore[arg-type]


class Stopped(Line):
    """The same, stopped by hand at one step."""

    def batch(self, step: int) -> torch.Tensor:
        if step == 25:
            raise KeyboardInterrupt
        return super().batch(step)


def test_a_stopped_run_ends_where_an_unbroken_one_does(tmp_path: Path) -> None:
    whole = train(Line(), loop(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), loop(), tmp_path / "cut")
    resumed = train(Line(), loop(), tmp_path / "cut")
    for a, b in zip(whole.parameters(), resumed.parameters(), strict=True):
        assert torch.equal(a, b)
    rows = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["step"] == 40
    assert rows[-1]["loss"] < 0.05 * rows[0]["loss"]


def test_learning_rate_rises_stays_and_falls() -> None:
    config = LoopConfig(warmup=0.1, decay=0.5, final=0.1)
    assert learning_rate(config, 0.05) == pytest.approx(0.5)
    assert learning_rate(config, 0.3) == 1.0
    assert learning_rate(config, 0.75) == pytest.approx(0.55)
    assert learning_rate(config, 1.0) == pytest.approx(0.1)


def test_quick_norms_are_the_norms_of_torch() -> None:
    torch.manual_seed(0)
    for plain, x in ((nn.GroupNorm(4, 16), torch.randn(3, 16, 5, 4)), (RMSNorm(12, 1e-6), torch.randn(2, 7, 12))):
        nn.init.normal_(plain.weight)
        plain, x = plain.double(), x.double().requires_grad_()
        expected = plain(x)
        towards = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, [x, *plain.parameters()], towards)
        found = quicken(nn.Sequential(plain))(x)
        got = torch.autograd.grad(found, [x, *plain.parameters()], towards)
        torch.testing.assert_close(found, expected)
        for a, b in zip(got, wanted, strict=True):
            torch.testing.assert_close(a, b)


def small_vq() -> TokenizerConfig:
    return TokenizerConfig(codes=32, base=32, latent=32, batch=4)


def test_the_tokenizer_learns_one_batch_and_can_keep_its_codes() -> None:
    torch.manual_seed(0)
    task = TokenizerTask(small_vq(), seed=1)
    batch = task.batch(0)
    assert torch.equal(batch, TokenizerTask(small_vq(), seed=1).batch(0))
    optimizer = torch.optim.AdamW(task.model.parameters(), lr=2e-3)
    errors = []
    for _ in range(30):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        errors.append(float(row["mse"]))
    assert errors[-1] < 0.5 * errors[0]
    task.freeze_codes()
    pixels = batch.float() / 127.5 - 1
    before = task._quantise(pixels)[2]
    for _ in range(3):
        loss, _ = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert torch.equal(before, task._quantise(pixels)[2])


@pytest.fixture(scope="module")
def task() -> JanusTask:
    from reverie.models.janus_text import ImageRules, JanusTokenizer
    from reverie.training.words import train_words

    torch.manual_seed(0)
    sizes = JanusSizes(
        width=64, layers=2, heads=2, ffn=96, vision_width=32, vision_layers=1, vision_heads=2, vocabulary=600
    )
    words = JanusTokenizer(train_words(atelier_texts(300), sizes.vocabulary), ImageRules(96))
    model = quicken(build_janus(sizes, small_vq(), build_vq(small_vq())))
    return JanusTask(model, words, JanusTraining(paint=3, think=3, look=3))


def test_janus_learns_all_its_tasks_on_one_batch(task: JanusTask) -> None:
    batch = task.batch(0)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=6e-3)
    rows = []
    for _ in range(40):
        loss, row = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rows.append({name: float(value) for name, value in row.items()})
    for name in ("paint", "think", "look"):
        assert rows[-1][name] < 0.82 * rows[0][name], name


def test_painting_loss_is_that_of_the_canvas(task: JanusTask) -> None:
    """Teacher forcing and generation see the same sequence: the loss equals the mean negative log-likelihood of the
    codes under the logits that one prompt at a time, unpadded, gives."""
    rows = task._paint_rows(random.Random(3))
    model = task.model
    with torch.no_grad():
        together = task._paint_loss(rows)
        codes = model.encode_image(rows["pixels"].float() / 127.5 - 1)
        alone = []
        for ids, length, code in zip(rows["ids"], rows["length"], codes, strict=True):
            embeds = torch.cat((model.embed_text(ids[None, :length]), model.embed_codes(code[None, :-1])), 1)
            logits = model.code_logits(model.hidden(embeds)[:, length - 1 :])
            alone.append(F.cross_entropy(logits[0], code))
    assert together.item() == pytest.approx(torch.stack(alone).mean().item(), abs=1e-5)


def test_only_answers_carry_loss(task: JanusTask) -> None:
    from reverie.atelier.lessons import lesson

    batch = task._answer_rows([lesson(random.Random(number), "think") for number in range(4)])
    assert bool((batch["start"] < batch["length"] - 1).all())
    for ids, start, length in zip(batch["ids"], batch["start"], batch["length"], strict=True):
        answer = task.words.tokenizer.decode(ids[start + 1 : length].tolist(), skip_special_tokens=False)
        assert "\nPicture: " in answer
        assert answer.endswith("<｜end▁of▁sentence｜>")


def test_no_precision_need_not_be_quoted(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("task: tokenizer\nout: x")
    recipe = recipes.read(tmp_path / "recipe.yaml", ["loop.precision=no"])
    assert recipes.section(recipe, "loop", LoopConfig).precision == "no"


@pytest.mark.parametrize(
    ("text", "overrides", "says"),
    [
        ("task: nonsense\nout: x", [], "task is 'nonsense'"),
        ("task: tokenizer", [], "give `out`"),
        ("task: tokenizer\nout: x\nsurprise: 1", [], "no key 'surprise'"),
        ("task: tokenizer\nout: x\nloop: {speed: 3}", [], "no key 'speed'"),
        ("task: tokenizer\nout: x", ["loop"], "key=value"),
        ("task: tokenizer\nout: x", ["loop.steps=0"], "steps=0"),
        ("task: janus\nout: x\ntokenizer: nowhere", [], "there is no tokenizer run"),
        ("[1", [], "not valid YAML"),
        ("task: tokenizer\nout: x\nfrom: y\nexport: z", [], "set decoder_only"),
    ],
)
def test_bad_recipes_are_refused_in_a_sentence(tmp_path: Path, text: str, overrides: list[str], says: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=says.replace("`", ".")) as error:
        recipes.run(path, [f"out={tmp_path / 'out'}" if o == "out" else o for o in overrides])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_cross_entropy_in_pieces_is_cross_entropy():
    logits = torch.randn(600, 37, dtype=torch.float64, requires_grad=True)
    targets = torch.randint(0, 37, (600,))
    expected = F.cross_entropy(logits, targets)
    (gradient,) = torch.autograd.grad(expected * 3, logits)
    found = cross_entropy(logits, targets)
    torch.testing.assert_close(found.double(), expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(torch.autograd.grad(found * 3, logits)[0], gradient)
