"""Rewrites: built, read again, and learnt by the text encoder of a tiny Qwen-Image."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusion_toy import qwen_image, qwen_image_edit
from hypothesis import assume, given
from hypothesis import strategies as st

from reverie import thinkers
from reverie.atelier.knowledge import facts, wise_prompts, wordings
from reverie.cli import main
from reverie.data.prompts import Prompt
from reverie.data.rewriters import AtelierRewriter, VlmRewriter
from reverie.data.rewrites import Rewrite, RewriteBuild, build_rewrites, read_rewrites
from reverie.generators.diffusion import DiffusionPainter
from reverie.training.adapted import Adapted
from reverie.training.adapters import Lora
from reverie.training.loop import LoopConfig, train
from reverie.training.think_sft import ThinkTask, ThinkTraining, states_similarity
from reverie.vlms import Message
from reverie.vlms.text_encoder import TextEncoderWriter

TEXT = st.text(st.characters(blacklist_categories=("Cs",)), min_size=1).filter(
    lambda text: any(letter.isalnum() for letter in text) and text == text.strip("* \n\t\r\x0b\x0c\x1c\x1d\x1e\x85")
)


@given(cot=TEXT, refined=TEXT, tags=st.booleans())
def test_what_is_taught_is_read_again(cot: str, refined: str, tags: bool) -> None:
    hostile = ("Revised Prompt:", "<think>", "</think>")
    assume(refined.strip() == refined and not any(word in text for word in hostile for text in (cot, refined)))
    answer = Rewrite("1", "p", cot, refined).answer("t2g", tags)
    read = thinkers.parse("t2g", answer, "p")
    assert (read.prompt, read.note) == (refined, None)


def test_wordings_of_one_line_are_read_again_too() -> None:
    answer = Rewrite("1", "p", "Wool is shorn from sheep.", "a sheep").answer("atelier")
    assert thinkers.parse("atelier", answer, "p").prompt == "a sheep"


def test_the_atelier_tells_only_its_training_side(tmp_path: Path) -> None:
    counts = build_rewrites(AtelierRewriter(3), tmp_path, RewriteBuild(300, 100), {})
    assert counts == {"prompts": 300, "rewrites": 300}
    found = read_rewrites(tmp_path)
    asked = {row["prompt"] for row in wise_prompts()}
    held = {wordings(fact, "held_out")[0] for fact in facts()}
    assert not [one for one in found if one.prompt in asked]
    assert not [one for one in found if any(one.prompt.endswith(wording) for wording in held)]
    again = AtelierRewriter(3).teach([7])[0]
    assert again is not None
    assert again.record["prompt"] == found[7].prompt


def test_a_build_goes_on_and_parts_fill_one_folder(tmp_path: Path) -> None:
    about = {"seed": 0}
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    build_rewrites(AtelierRewriter(), whole, RewriteBuild(50, 20), about)
    assert build_rewrites(AtelierRewriter(), parts, RewriteBuild(50, 20, 0, 2), about) is None
    assert build_rewrites(AtelierRewriter(), parts, RewriteBuild(50, 20, 1, 2), about) is not None
    assert read_rewrites(parts) == read_rewrites(whole)
    (whole / "rewrites-000001.jsonl").unlink()
    build_rewrites(AtelierRewriter(), whole, RewriteBuild(50, 20), about)
    assert read_rewrites(parts) == read_rewrites(whole)
    with pytest.raises(ValueError, match="holds seed"):
        build_rewrites(AtelierRewriter(), whole, RewriteBuild(50, 20), {"seed": 1})


def test_edits_bring_their_picture(tmp_path: Path) -> None:
    build_rewrites(AtelierRewriter(edits=True), tmp_path, RewriteBuild(4, 2), {})
    found = read_rewrites(tmp_path)
    assert all(one.image is not None and one.image.is_file() for one in found)
    painter = DiffusionPainter(qwen_image_edit(), area=64**2)
    adapted = Adapted(painter.pipeline.text_encoder.eval(), Lora(2, 4, "language_model"))
    words = [Rewrite("a", "wool", "It is a sheep.", "a sheep"), Rewrite("b", "barks", "It is a dog.", "a dog")]
    task = ThinkTask(painter, adapted, "atelier", [*found[:2], *words], ThinkTraining(batch=6), 0)
    batch = task.batch(0)
    assert {bool(seen) for (_, seen), _ in batch["rows"]} == {True, False}  # with pictures and without, side by side
    assert all(answer[-1] == task.writer.stop[0] for _, answer in batch["rows"])
    loss, _ = task.loss(batch)
    alone = [task.loss({"rows": [row], "prompts": []})[0] * len(row[1]) for row in batch["rows"]]
    torch.testing.assert_close(loss, sum(alone) / sum(len(answer) for _, answer in batch["rows"]), rtol=1e-4, atol=1e-4)
    loss.backward()


class Said:
    """A teacher's model that says what it was given to say, and keeps what it was asked."""

    def __init__(self, answers: list[str]):
        self.answers, self.asked = answers, []

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None) -> list[str]:
        self.asked += conversations
        return self.answers[: len(conversations)]


def test_an_answer_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    vlm = Said(["It is a sheep.\n**Revised Prompt:**\na sheep", "I do not know.", "Hm.\nRevised Prompt:\n"])
    prompts = [Prompt("wool"), Prompt("a riddle"), Prompt("another")]
    counts = build_rewrites(VlmRewriter(vlm, prompts, "t2g"), tmp_path, RewriteBuild(3), {})  # type: ignore[arg-type]
    assert counts == {"prompts": 3, "rewrites": 1}
    (one,) = read_rewrites(tmp_path)
    assert (one.prompt, one.cot, one.refined_prompt, one.source) == ("wool", "It is a sheep.", "a sheep", "vlm")
    assert thinkers.request("t2g", "wool") == vlm.asked[0][0].text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "1", "prompt": "a"}', "line 1 is no rewrite"),
        ("[]", "line 1 is no rewrite"),
        ('{"id": "1", "prompt": "a", "cot": " ", "refined_prompt": "b"}', "with something in them"),
        ('{"id": "1", "prompt": "a", "cot": "c", "refined_prompt": "b", "image": "gone.png"}', "no picture"),
        ("", "no rewrites that passed"),
    ],
)
def test_bad_records_are_named(line: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "rewrites-000000.jsonl").write_text(line + "\n")
    with pytest.raises(ValueError, match=said):
        read_rewrites(tmp_path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--prompts", "some.txt"], "atelier:N"),
        (["--prompts", "atelier:none"], "atelier:N"),
        (["--prompts", "atelier:3", "--plain", "2"], "from 0 to 1"),
        (["--prompts", "atelier:3", "--composed", "-1"], "from 0 to 1"),
        (["--prompts", "atelier:3", "--wording", "loud"], "must be one of"),
        (["--prompts", "atelier-edits:3", "--teacher", "some/vlm"], "for the teacher `atelier`"),
        (["--prompts", "atelier:3", "--parts", "0"], "at least 1"),
    ],
)
def test_the_command_line_refuses_in_a_sentence(options: list[str], said: str, tmp_path: Path, capsys) -> None:
    assert main(["data", "build", "rewrites", "--out", str(tmp_path / "out"), *options]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "build.json").exists()


@pytest.fixture(scope="module")
def records() -> list[Rewrite]:
    return [
        Rewrite("1", "wool", "It is shorn from sheep.", "a sheep"),
        Rewrite("2", "fell on Newton", "An apple did.", "an apple"),
        Rewrite("3", "barks", "A dog does.", "a dog"),
        Rewrite("4", "purrs", "A cat does.", "a cat"),
    ]


def test_the_answer_alone_carries_the_loss(records: list[Rewrite]) -> None:
    painter = DiffusionPainter(qwen_image())
    task = ThinkTask(painter, Adapted.still(painter.pipeline.text_encoder), "t2g", records, ThinkTraining(batch=4), 0)
    batch = task.batch(0)
    for (ids, _), answer in batch["rows"]:
        told = task.writer.words.decode(answer)
        assert told.endswith("<|im_end|>")
        assert "\n\nRevised Prompt:\n" in told
        assert "Revised Prompt:" not in task.writer.words.decode(ids[-8:])
    with torch.no_grad():
        loss, _ = task.loss(batch)
        nats = []
        for (ids, _), answer in batch["rows"]:
            whole = torch.tensor([[*ids, *answer]])
            logits = painter.pipeline.text_encoder(input_ids=whole).logits[0].log_softmax(-1)
            nats += [-logits[len(ids) - 1 + i, token] for i, token in enumerate(answer)]
    torch.testing.assert_close(loss, torch.stack(nats).mean(), rtol=1e-4, atol=1e-4)


def test_four_rewrites_are_learnt_and_nothing_else_is_touched(records: list[Rewrite], tmp_path: Path) -> None:
    pipe = qwen_image()
    painter = DiffusionPainter(pipe)
    still = {name: p.detach().clone() for part in (pipe.transformer, pipe.vae) for name, p in part.named_parameters()}
    adapted = Adapted(pipe.text_encoder.eval(), Lora(0), frozen=True)
    task = ThinkTask(painter, adapted, "atelier", records, ThinkTraining(batch=4, kept=2), 0)
    train(task, LoopConfig(steps=300, lr=1e-2, ema=0.0, precision="no", decay=0.3, log_every=50), tmp_path)
    last = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    assert last["cross_entropy"] < 0.1
    writer = TextEncoderWriter(pipe)
    for one in records:
        written = writer.write([Message("user", thinkers.request("atelier", one.prompt))], 64)
        assert thinkers.parse("atelier", written, one.prompt).prompt == one.refined_prompt
    for part in (pipe.transformer, pipe.vae):
        for name, p in part.named_parameters():
            assert torch.equal(p, still[name])
    moved = states_similarity(painter, adapted, ["a sheep", "a cat"])
    assert moved["drift"] > 1e-3  # the published loss lets the states go; the next test keeps them


def test_keeping_the_states_keeps_them(records: list[Rewrite], tmp_path: Path) -> None:
    drift = {}
    for keep in (0.0, 100.0):
        pipe = qwen_image()
        painter = DiffusionPainter(pipe)
        adapted = Adapted(pipe.text_encoder.eval(), Lora(8, 16, "language_model"))
        task = ThinkTask(painter, adapted, "atelier", records, ThinkTraining(batch=4, keep=keep, kept=4), 0)
        train(task, LoopConfig(steps=40, lr=1e-2, ema=0.0, precision="no"), tmp_path / str(keep))
        drift[keep] = states_similarity(painter, adapted, ["a sheep", "a cat", "an apple"])["drift"]
    assert drift[100.0] < drift[0.0] / 4


def test_a_loss_at_another_temperature_is_that_of_divided_logits(records: list[Rewrite]) -> None:
    painter = DiffusionPainter(qwen_image(), height=32, width=32)
    adapted = Adapted(painter.pipeline.text_encoder.eval(), Lora(2, 4, "language_model"))
    sharp, flat = (
        ThinkTask(painter, adapted, "atelier", records, ThinkTraining(batch=4, temperature=t)) for t in (0.25, 1.0)
    )
    before = flat.loss(flat.batch(0))
    head = painter.pipeline.text_encoder.get_output_embeddings()
    with torch.no_grad():
        head.weight *= 4
    after = flat.loss(flat.batch(0))
    with torch.no_grad():
        head.weight /= 4
    torch.testing.assert_close(sharp.loss(sharp.batch(0))[0], after[0])
    assert abs(float(before[0].detach() - after[0].detach())) > 1e-3
    with pytest.raises(ValueError, match="above 0"):
        ThinkTraining(temperature=0.0)


def test_a_stopped_run_goes_on_to_the_same_weights(records: list[Rewrite], tmp_path: Path) -> None:
    def run(out: Path, steps: int) -> dict[str, torch.Tensor]:
        painter = DiffusionPainter(qwen_image())
        adapted = Adapted(painter.pipeline.text_encoder.eval(), Lora(2, 4, "language_model"))
        task = ThinkTask(painter, adapted, "atelier", records, ThinkTraining(batch=2), 0)
        # The schedule looks at `steps`; decay 0 and no warm-up make the two runs' rates equal.
        loop = LoopConfig(steps=steps, lr=1e-2, ema=0.5, precision="no", save_every=3, warmup=0.0, decay=0.0)
        train(task, loop, out)
        return torch.load(out / "state.pt", weights_only=True)["model"]

    run(tmp_path / "a", 3)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    on, whole = run(tmp_path / "b", 6), run(tmp_path / "c", 6)
    assert all(torch.equal(on[name], whole[name]) for name in whole)


def test_the_longest_are_left_out_and_all_of_them_are_refused(records: list[Rewrite]) -> None:
    painter = DiffusionPainter(qwen_image())
    adapted = Adapted.still(painter.pipeline.text_encoder)
    longer = [*records, Rewrite("5", "p", "word " * 100, "a cat")]
    task = ThinkTask(painter, adapted, "atelier", longer, ThinkTraining(longest=100), 0)
    assert (len(task.rewrites), task.too_long) == (4, 1)
    with pytest.raises(ValueError, match="longer than longest=3"):
        ThinkTask(painter, adapted, "atelier", longer, ThinkTraining(longest=3), 0)
