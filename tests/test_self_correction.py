"""Painters that see their flawed picture: what sees what, what is learned, and that looking back uses it."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from janus_toy import toy_janus
from PIL import Image
from showo_toy import toy_showo

import reverie
from reverie.atelier.faults import faults
from reverie.atelier.flaws import flaw
from reverie.atelier.sample import random_demand
from reverie.canvas import Conditions
from reverie.choose import painted
from reverie.cli import main
from reverie.data.build_verifier import Build, PairData, PathBuild, build
from reverie.data.prompts import Prompt, Prompts
from reverie.events import Revised, Spent
from reverie.generators.showo import ShowoPainter
from reverie.judges.mixed import FunctionJudge
from reverie.judges.vlm import Wording
from reverie.models.showo_checkpoint import save_showo
from reverie.png import read_recipe
from reverie.reason import Plan
from reverie.training import recipes, showo
from reverie.training.code_scorers import CodePainter
from reverie.training.self_correction import Correction, CorrectionConfig, CorrectionTask, corrector, seen_codes
from reverie.training.showo import ShowoSizes, ShowoTask, ShowoTraining, fresh_showo
from reverie.training.tokenizer import TokenizerConfig, build_vq

TEXT = "a red cat\nThe cat is blue, not red."


def painter(**settings) -> ShowoPainter:
    return ShowoPainter(*toy_showo(), **{"rows": 16, "steps": 6, "sees": True} | settings)


def picture(seed: int) -> Image.Image:
    generator = painter()
    return painted(generator, generator.advance(generator.start(Conditions(["x"]), [seed])))[0]


def test_drawn_flaws_fail_their_demand_and_their_other_halves_meet_it():
    rng = random.Random(0)
    for _ in range(200):
        demand = random_demand(rng)
        found = flaw(demand, rng)
        assert faults(demand, found.before)
        assert found.reason == " ".join(faults(demand, found.before))
        assert not faults(demand, found.after)


def test_the_new_image_sees_the_old_one_and_the_old_one_sees_neither_new_nor_pads():
    model, words = toy_showo()
    rng = torch.Generator().manual_seed(0)
    old, codes = (torch.randint(0, 32, (2, 16), generator=rng) for _ in range(2))
    masked = torch.rand(2, 16, generator=rng) < 0.6
    ids = [words.painting_ids("a red cat"), words.painting_ids("two blue dogs below a boat")]
    with torch.no_grad():
        found = model.look(old, model.read_prompts(ids))
        logits = model.slot_logits(codes, masked, found)
        # The same as one sequence under one mask, pads and all.
        prompts = torch.tensor(words.padded(ids))
        edge = [torch.full((2, 1), i) for i in (model.config.image_start, model.config.image_end)]
        offset = model.config.code_offset
        new = torch.where(masked, model.config.mask, codes + offset)
        whole = torch.cat([prompts, edge[0], old + offset, edge[1], edge[0], new, edge[1]], 1)
        text, length = prompts.shape[1], whole.shape[1]
        seen = torch.ones(length, length, dtype=torch.bool).tril()[None].repeat(2, 1, 1)
        seen[:, text : text + 18, : text + 18] = True
        seen[:, text + 18 :, :] = True
        pad = whole == words.pad
        seen &= ~(pad[:, None, :] & ~pad[:, :, None])
        places = torch.arange(text + 18)
        straight = model.logits(whole, seen, torch.cat((places, places[text:])))
        straight = straight[:, text + 19 : text + 35, offset : offset + 32]
        torch.testing.assert_close(logits, straight, atol=1e-4, rtol=0)
        other = model.slot_logits(codes, masked, model.look(old.roll(1, 1), model.read_prompts(ids)))
        assert (other - logits).abs().max() > 1e-3
        # Bit by bit, in blocks of rows: alone and in company.
        both = model.slot_logits(codes, masked, model.look(old, model.read_prompts(ids, 16), 16), 16)
        alone = model.slot_logits(codes[:1], masked[:1], model.look(old[:1], model.read_prompts(ids[:1], 16), 16), 16)
        assert torch.equal(both[:1], alone)
        torch.testing.assert_close(both, logits, atol=1e-4, rtol=0)


def test_the_loss_is_on_the_hidden_slots_of_the_new_image_alone():
    model, words = toy_showo()
    rng = torch.Generator().manual_seed(1)
    old, codes = (torch.randint(0, 32, (3, 16), generator=rng) for _ in range(2))
    masked = torch.rand(3, 16, generator=rng) < 0.5
    ids = [words.painting_ids(TEXT)] * 3
    found = model.log_prob(ids, codes, masked, flawed=old)
    assert torch.equal(found != 0, masked)
    logits = model.slot_logits(codes, masked, model.look(old, model.read_prompts(ids)))
    told = logits.log_softmax(-1).gather(2, codes[..., None])[..., 0]
    torch.testing.assert_close(found[masked], told[masked], atol=1e-5, rtol=0)
    # Codes that are hidden are not seen; the old image is, through its embedding.
    other = torch.where(masked, (codes + 1) % 32, codes)
    assert torch.equal(model.slot_logits(other, masked, model.look(old, model.read_prompts(ids))), logits)
    found.sum().backward()
    grad = model.showo.model.embed_tokens.weight.grad[model.config.code_offset :][:32]
    only_old = sorted(set(old.flatten().tolist()) - set(codes.flatten().tolist()))
    assert only_old
    assert all(grad[code].abs().sum() > 0 for code in only_old)


@pytest.mark.parametrize("blank_sees", [True, False])
def test_a_painter_that_sees_paints_the_same_alone_in_company_and_after_a_stop(blank_sees):
    generator = painter(blank_sees=blank_sees)
    old = [picture(1), picture(2)]
    whole = Conditions((TEXT, "a dog", TEXT), 2.0, (old[0], None, old[1]))
    canvas = generator.advance(generator.start(whole, [3, 4, 5]))
    for i in range(3):
        alone = generator.start(whole.select([i]), [3 + i])
        stopped = generator.advance(generator.advance(alone, to=2))
        assert torch.equal(generator.codes(stopped), generator.codes(canvas)[i : i + 1])
    assert canvas.work.vision_encodes == (2 if not blank_sees else 4)
    plain = generator.advance(generator.start(Conditions((TEXT,), 2.0), [3]))
    assert not torch.equal(generator.codes(plain), generator.codes(canvas)[:1])
    swapped = generator.advance(generator.start(Conditions((TEXT,), 2.0, (old[1],)), [3]))
    assert not torch.equal(generator.codes(swapped), generator.codes(canvas)[:1])
    # Who never learned to look does not.
    blind = painter(sees=False)
    ignored = blind.advance(blind.start(Conditions((TEXT,), 2.0, (old[0],)), [3]))
    assert torch.equal(blind.codes(ignored), generator.codes(plain))


def examples(count: int, length: int, codes: int) -> list[Correction]:
    """The right image is the wrong one turned around: who does not look cannot know it."""
    rng = torch.Generator().manual_seed(2)
    worse = torch.randint(0, codes, (count, length), generator=rng)
    return [Correction("a red cat", TEXT, row, row.flip(0)) for row in worse]


def task_of(family: str, count: int, config: CorrectionConfig) -> CorrectionTask:
    model, words = toy_showo() if family == "showo" else toy_janus()
    learner = CodePainter(model, words, family)
    length = model.config.image_length
    codes = model.config.num_codes
    return CorrectionTask(model, corrector(learner), examples(count, length, codes), learner.masked, config)


@pytest.mark.parametrize("family", ["showo", "janus"])
def test_it_learns_what_only_the_flawed_picture_can_tell(family):
    task = task_of(family, 3, CorrectionConfig(batch=8, plain=4, blank=0.0))
    one, again = task.batch(3)[0], task.batch(3)[0]
    assert torch.equal(one.codes, again.codes)
    assert torch.equal(one.hidden, again.hidden)
    learned = [p for p in task.model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learned, lr=3e-3)
    for step in range(110):
        loss, log = task.loss(task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert set(log) == {"corrected", "plain"}
    # Prompts are all the same, so without looking nobody does better than a guess among the three.
    assert log["corrected"] < 0.5 * log["plain"]


def test_the_flawed_picture_is_shown_as_it_will_be_seen():
    model, _ = toy_showo()
    codes = torch.randint(0, 32, (2, 16), generator=torch.Generator().manual_seed(3))
    from reverie.generators.showo_texts import _codes

    generator = painter()
    pictures = [Image.fromarray(x) for x in generator.preview(_finished(generator, codes))]
    assert torch.equal(seen_codes(model, codes), _codes(model, pictures))


def _finished(generator: ShowoPainter, codes: torch.Tensor):
    return generator.start(Conditions(("x",) * len(codes)), range(len(codes)), codes)


def test_a_small_show_o_learns_from_drawn_flaws(monkeypatch):
    monkeypatch.setattr(showo, "atelier_texts", lambda: ["a red fish below a boat", "three blue cats at night"] * 20)
    vq = TokenizerConfig(codes=24, base=32, multipliers=(1, 1), latent=32, patch=4)
    sizes = ShowoSizes(width=32, layers=2, heads=2, ffn=64, vocabulary=300, longest=127, steps=3)
    model, words = fresh_showo(sizes, vq, build_vq(vq).eval())
    task = ShowoTask(model, words, ShowoTraining(paint=3, correct=4, fresh=0.5), seed=1)
    assert task.painter().sees
    assert model.config.own["judge"] == "atelier"
    for step in range(3):
        batch = task.batch(step)
        fix = batch["fix"]
        again = task.batch(step)["fix"]
        assert all(torch.equal(fix[name], again[name]) for name in fix)
        told = [words.decode(row[row != words.pad].tolist()) for row in fix["ids"]]
        assert all("\n" in text for text in told if text)
        loss, log = task.loss(batch)
        codes = task.flaws.codes(fix, model.pictures.encode)
        numbers = fix["numbers"].tolist()
        drawn = task.flaws.pictures(numbers)
        before, after = (model.encode(drawn[:, side]) for side in (0, 1))
        assert torch.equal(codes, torch.cat([before, after], 1))
        ids = [row[row != words.pad].tolist() for row in fix["ids"]]
        found = -model.log_prob(ids, after, fix["masked"], flawed=before).sum() / fix["masked"].sum()
        torch.testing.assert_close(log["corrected"], found, atol=1e-4, rtol=0)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)


def redness(prompts, pictures) -> list[tuple[float, str]]:
    """Right is what is redder than most of a toy's paintings."""
    shares = [float(np.asarray(picture, float)[..., 0].mean()) / 255 for picture in pictures]
    return [(share, "" if share >= 0.5 else "It is not red.") for share in shares]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_showo(*toy_showo(), tmp_path / "showo")
    path = tmp_path / "showo" / "config.json"
    config = json.loads(path.read_text()) | {"reverie": {"steps": 4, "guidance": 1.5}}
    path.write_text(json.dumps(config))
    return tmp_path / "showo"


def middle(painter_, prompts) -> float:
    pictures = [painter_.generate(prompt, seed=seed).image for prompt in prompts for seed in range(8)]
    return float(np.median([score for score, _ in redness([], pictures)]))


@pytest.mark.parametrize("rank", [0, 4])
def test_from_paintings_to_a_painter_that_corrects_itself(folder, tmp_path, rank):
    prompts = ("a red cat", "a fish")
    first = reverie.load(folder, device="cpu")
    assert not first.generator(Plan()).sees
    cut = middle(first, prompts)

    def judged(asked, pictures):
        return [(score - cut + 0.5, "It is not red.") for score, _ in redness(asked, pictures)]

    found = Prompts(tuple(Prompt(text) for text in prompts), 0, 0)
    wanted = Build("correction", PathBuild(8, 8), Wording.of("atelier"), pairs=PairData(each=3))
    build(wanted, first, FunctionJudge(judged, "red"), found, tmp_path / "data")
    loop = {"steps": 2, "precision": "no", "log_every": 1}
    recipe = tmp_path / "recipe.yaml"
    made = {
        "task": "self-correction", "out": str(tmp_path / "out"), "model": str(folder), "data": str(tmp_path / "data"),
        "wording": "atelier", "correction": {"batch": 2, "plain": 1}, "lora": {"rank": rank}, "loop": loop,
    }  # fmt: skip
    recipe.write_text(json.dumps(made))
    trained = recipes.run(recipe) / "checkpoint"
    second = reverie.load(trained, device="cpu")
    assert second.generator(Plan()).sees
    assert second.source.judge == "atelier"
    unhappy = FunctionJudge(lambda asked, pictures: [(0.1, "The cat is blue, not red.")] * len(pictures), "strict")
    events = list(
        second.stream("a red cat", choose="parm", candidates=3, judge_steps=4, reflect=2, judge=unhappy, seed=1)
    )
    revised = [event for event in events if isinstance(event, Revised)]
    assert [event.prompt for event in revised] == ["a red cat\nThe cat is blue, not red."] * 2
    assert {event.note for event in revised} == {None}
    spent = next(event for event in events if isinstance(event, Spent))
    assert spent.work["vision_encodes"][0] >= 2
    # The blind one is told in words, and says so.
    short = FunctionJudge(lambda asked, pictures: [(0.1, "Blue.")] * len(pictures), "short")
    events = list(first.stream("a cat", reflect=1, judge=short, seed=1))
    assert "cannot look" in next(event.note for event in events if isinstance(event, Revised))


def test_the_line_of_the_documentation(folder, tmp_path, monkeypatch, capsys):
    """-n are candidates where a judge chooses; the judge is whom the checkpoint names, and is refused without."""
    monkeypatch.chdir(tmp_path)
    line = ["generate", "a red cat", "--model", str(folder), "-n", "3", "--choose", "parm", "--reflect", "2", "-q"]
    assert main([*line, "--seed", "4"]) == 2
    assert "cannot judge" in capsys.readouterr().err
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["reverie"]["judged_by"] = "atelier-inspector"
    path.write_text(json.dumps(config))
    assert main([*line, "--seed", "4"]) == 0
    assert capsys.readouterr().out == "a-red-cat.png\n"
    recipe = read_recipe("a-red-cat.png")
    assert recipe["judge"] == "atelier-inspector"
    assert recipe["plan"]["candidates"] == 3
    assert len(recipe["rounds"]) == 3
    assert main(["replay", "a-red-cat.png", "-q"]) == 0
    assert capsys.readouterr().out.startswith("identical")


def test_the_recipe_says_what_is_wrong(folder, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps({"task": "self-correction", "out": str(tmp_path / "out"), "model": str(folder)}))
    with pytest.raises(ValueError, match="data build correction"):
        recipes.run(recipe, [f"data={tmp_path}"])
    with pytest.raises(ValueError, match="unknown judge wording"):
        recipes.run(recipe, [f"data={tmp_path}", "wording=klingon"])


def test_who_cannot_look_is_refused():
    class Blind:
        family = "llamagen"

    with pytest.raises(ValueError, match="cannot look"):
        corrector(Blind())
    with pytest.raises(ValueError, match="no corrections"):
        task_of("showo", 0, CorrectionConfig())
    with pytest.raises(ValueError, match="blank"):
        CorrectionConfig(blank=1.0)
