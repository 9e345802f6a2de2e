"""Training atelier-qwen: its parts are what diffusers' pipelines take them for, the tasks learn, the recipes fit."""

import json
import random
import sys

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline

import reverie
from reverie.atelier.draw import draw
from reverie.atelier.edits import fair
from reverie.atelier.layout import random_scene
from reverie.canvas import Conditions
from reverie.generators.diffusion import DiffusionPainter
from reverie.models.stills import quicken_stills
from reverie.thinkers import parse, request
from reverie.training.qwen import Encoder, QwenTask, QwenTraining, assemble, fresh_transformer
from reverie.training.qwen_build import (
    DROPPED,
    QwenSizes,
    QwenVlmSizes,
    build_processor,
    build_vlm,
    build_words,
    save_parts,
)
from reverie.training.qwen_edits import plain_change, plain_edit
from reverie.training.qwen_recipes import load_encoder, save_qwen
from reverie.training.qwen_report import PARTS, Painting, known, load_painting, report, wise
from reverie.training.qwen_vae import (
    QwenVaeSizes,
    QwenVaeTask,
    QwenVaeTraining,
    fresh_vae,
    load_vae,
    measure,
    raw_latents,
    save_vae,
)
from reverie.training.qwen_vlm import QwenVlmTask, QwenVlmTraining, ask_row, t2g_answer
from reverie.training.recipes import run

VLM = QwenVlmSizes(
    width=32, layers=2, heads=2, ffn=32, vision_width=16, vision_layers=1, vision_heads=2, vocabulary=1000, texts=300
)
SIZES = QwenSizes(heads=2, head=16, layers=2, steps=2)


@pytest.fixture(scope="module")
def words():
    return build_words(VLM)


@pytest.fixture(scope="module")
def folder(words, tmp_path_factory):
    """A whole tiny atelier-qwen on disk, with random weights large enough that every token matters."""
    torch.manual_seed(0)
    root = tmp_path_factory.mktemp("qwen")
    vlm, vae = build_vlm(VLM, words), fresh_vae(QwenVaeSizes(base=4, multipliers=(1, 1, 1, 1))).eval()
    transformer = fresh_transformer(SIZES, vae, vlm)
    for part in (vlm, transformer):
        for weight in part.parameters():
            if weight.ndim > 1:
                torch.nn.init.normal_(weight, std=weight[0].numel() ** -0.5)
    pictures = [draw(random_scene(random.Random(n))) for n in range(4)]
    measure(vae, torch.tensor(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1)
    save_parts(vlm, words, root / "parts")
    build_processor(VLM, words).save_pretrained(root / "parts/processor")
    save_qwen(assemble(vae, vlm, words, transformer), root / "parts", SIZES, 96, root / "whole")
    return root / "whole"


@pytest.fixture(scope="module")
def painter(folder):
    return reverie.load(folder, "cpu")


def losses(task, step, steps=10, rate=3e-3):
    """Of one batch, learnt by heart."""
    batch = task.batch(step)
    optimizer = torch.optim.Adam([p for p in task.model.parameters() if p.requires_grad], rate)
    found = []
    for _ in range(steps):
        loss, _ = task.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def test_the_templates_are_dropped_where_the_pipelines_drop_them(words):
    """What is left begins with the prompt, or with the picture before an instruction."""
    encoder = Encoder(build_vlm(VLM, words), words, 96)
    for kind, first in (("paint", "hello"), ("edit", "<|vision_start|>")):
        ids = encoder.rows(kind, ["hello"])["ids"][0].tolist()
        assert words.decode(ids[DROPPED[kind] :]).startswith(first)
    with pytest.raises(ValueError, match="vocabulary"):
        build_words(QwenVlmSizes(vocabulary=300, texts=5))


def test_stills_need_no_convolutions_over_time():
    torch.manual_seed(0)
    plain = AutoencoderKLQwenImage(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1).eval()
    quick = AutoencoderKLQwenImage.from_config(plain.config).eval()
    quick.load_state_dict(plain.state_dict())
    quicken_stills(quick)
    for frames in (1, 5):  # a video goes on as before
        pixels, latents = torch.randn(2, 3, frames, 16, 16), torch.randn(2, 4, 1 + (frames - 1) // 4, 2, 2)
        with torch.no_grad():
            pair = [(vae.encode(pixels).latent_dist.mean, vae.decode(latents).sample) for vae in (plain, quick)]
        for a, b in zip(*pair, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_batches_are_read_as_the_pipelines_read_a_prompt(painter):
    """With and without a picture, padded or not: the states of diffusers' own `encode_prompt`."""
    pipe, encoder = painter.model, Encoder(painter.model.text_encoder, painter.model.tokenizer, 96)
    texts, picture = ["a red cat", "three blue dogs at night, and a house"], draw(random_scene(random.Random(1)))
    pixels = torch.tensor(np.asarray(picture)).permute(2, 0, 1)[None].repeat(2, 1, 1, 1)
    with torch.no_grad():
        for kind, seen in (("paint", None), ("edit", encoder.see(pixels))):
            states, real = encoder(encoder.rows(kind, texts), seen)
            for row, text in enumerate(texts):
                if seen is None:
                    theirs = QwenImagePipeline._get_qwen_prompt_embeds(_words_alone(pipe), text)[0]
                else:
                    theirs = pipe.encode_prompt(prompt=[text], image=picture)[0]
                assert int(real[row].sum()) == theirs.shape[1]
                torch.testing.assert_close(states[row : row + 1, : theirs.shape[1]], theirs, atol=1e-4, rtol=1e-3)
                assert not states[row, theirs.shape[1] :].any()


def _words_alone(pipe):
    return QwenImagePipeline(**{name: part for name, part in pipe.components.items() if name != "processor"})


def test_one_folder_paints_and_edits_as_diffusers_does(painter, folder, monkeypatch):
    """Both pipelines load from it; their own calls, with the same noise and guidance, give the same pictures."""
    theirs = QwenImagePipeline.from_pretrained(folder, torch_dtype=torch.float32)(
        "a red cat", negative_prompt=" ", true_cfg_scale=SIZES.guidance, num_inference_steps=2, height=96, width=96,
        generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    ours = painter.generate("a red cat", seed=5).image
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    module, picture = sys.modules[type(painter.model).__module__], draw(random_scene(random.Random(2)))
    monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio: (96, 96, None))  # theirs is always 1024
    theirs = painter.model(
        picture, "Make it red.", negative_prompt=" ", true_cfg_scale=SIZES.guidance, num_inference_steps=2, height=96,
        width=96, generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    ours = painter.generate("Make it red.", picture=picture, seed=5).image
    assert np.abs(np.asarray(ours, int) - np.asarray(theirs, int)).max() <= 1
    assert painter.generate("a red cat", seed=5, think="before").thought is not None


def test_a_painter_takes_words_or_pictures_but_not_both_on_one_canvas(painter, folder):
    own = json.loads((folder / "model_index.json").read_text())["_reverie"]
    kept = {name: own[name] for name in ("steps", "height", "width", "area", "limit")}
    both, editor = DiffusionPainter(painter.model, **kept, paints=True), DiffusionPainter(painter.model, **kept)
    picture = draw(random_scene(random.Random(3)))
    assert (both.edits, both.paints, editor.edits, editor.paints) == (True, True, True, False)
    with pytest.raises(ValueError, match="picture for each"):
        both.start(Conditions(["a", "b"], None, [[picture], []]), [1, 2])
    with pytest.raises(ValueError, match="picture for each"):
        editor.start(Conditions(["a"]), [1])


def test_the_report_paints_what_the_painter_paints(painter, folder):
    """Large batches, the same pictures: of words, and of a picture with an instruction."""
    painting, picture = load_painting(folder), draw(random_scene(random.Random(2)))
    for prompts, given in ((["a red cat", "two dogs in the park"], []), (["Make it red."], [picture])):
        for row, made in enumerate(painting.paint(prompts, given, first=5)):
            alone = painter.generate(prompts[row], picture=given[0] if given else None, seed=5 + row).image
            assert np.abs(np.asarray(made, int) - np.asarray(alone, int)).max() <= 1
    asked = request("t2g", "a red cat")
    from reverie.vlms import Message

    (batched,) = painting.answer([asked], 12)
    assert batched == painter.vlm().write([Message("user", asked)], 12)


def test_plain_edits_keep_to_the_training_side_and_say_what_is_seen():
    rng = random.Random(0)
    for _ in range(200):
        before, words, after = plain_change(rng)
        assert all(map(fair, (before, after)))
        assert before != after
        assert words
    heads = {plain_edit(before, after, random.Random(n)).partition(" ")[0] for n in range(30)}
    assert {"Change", "Make", "Now"} <= heads


def test_what_the_language_model_is_taught():
    """Held-out wordings are never asked, and a riddle is never rewritten."""
    from reverie.atelier.knowledge import facts, wordings

    rng, shares = random.Random(0), QwenVlmTraining().asked
    rows = [ask_row(rng, shares) for _ in range(600)]
    held_out = [wording for fact in facts() for wording in wordings(fact, "held_out")]
    asked = {wording for question, _, _ in rows for wording in held_out if f" {wording}?" in question}
    taught = {wording for fact in facts() for wording in wordings(fact, "train")}
    assert not asked - taught
    for question, answer, _ in rows:
        if "Revised Prompt:" in question:
            assert not any(wording in question for wording in taught)
            read = parse("t2g", answer, "")
            assert answer == t2g_answer(read.thought, read.prompt)


def test_the_language_model_learns_and_its_batches_follow_from_the_step(words):
    mix = QwenVlmTraining(ask=3, look=2, paint=3, edit=2, pool=50, pictures=20, reader=1)
    task = QwenVlmTask(build_vlm(VLM, words), words, VLM, mix)
    batch, again = task.batch(3), QwenVlmTask(build_vlm(VLM, words), words, VLM, mix).batch(3)
    assert all(torch.equal(batch[kind][name], again[kind][name]) for kind in batch for name in batch[kind])
    found = losses(task, 3, 12, 1e-2)
    assert found[-1] < 0.8 * found[0]


def test_the_autoencoder_learns_and_knows_its_latents(tmp_path):
    task = QwenVaeTask(fresh_vae(QwenVaeSizes(base=4, multipliers=(1, 1, 1, 1))), QwenVaeTraining(batch=3, fresh=2))
    assert task.batch(1)["numbers"].tolist()[:2] == [2, 3]
    found = losses(task, 0, 12, 1e-2)
    assert found[-1] < 0.9 * found[0]
    resumed = QwenVaeTask(task.model, task.config)
    batches = [task.batch(0), task.batch(1)]
    for batch in batches:
        pictures = task._pictures(batch)
    assert torch.equal(resumed._pictures(batches[1]), pictures)  # drawn again after a stop
    measure(task.model, torch.rand(4, 3, 96, 96) * 2 - 1)
    save_vae(task.model, tmp_path)
    loaded, pixels = load_vae(tmp_path), torch.rand(1, 3, 96, 96) * 2 - 1
    assert loaded.config.latents_std == task.model.config.latents_std
    with torch.no_grad():  # kernels were learnt as matrices and are kernels again, in bfloat16
        torch.testing.assert_close(
            loaded.decode(torch.ones(1, 16, 1, 2, 2)).sample,
            task.model.decode(torch.ones(1, 16, 1, 2, 2)).sample,
            atol=0.05,
            rtol=0.05,
        )
    before = raw_latents(loaded, pixels)
    later = QwenVaeTask(loaded.requires_grad_(True), QwenVaeTraining(batch=2, fresh=2, encoder=False))
    losses(later, 0, 2)
    assert torch.equal(raw_latents(later.model, pixels), before)
    with pytest.raises(ValueError, match="train one first"):
        load_vae(tmp_path / "nothing")


def test_the_transformer_learns_both_and_goes_on_after_a_stop(folder):
    encoder, words = load_encoder(folder)
    vae, mix = (
        load_vae(folder / "vae"),
        QwenTraining(batch=4, edits=4, editing=0.5, fresh=2, changes=2, pool=6, changed=4),
    )

    def fresh():
        torch.manual_seed(0)
        return QwenTask(assemble(vae, encoder, words, fresh_transformer(SIZES, vae, encoder)), SIZES, mix)

    task, resumed = fresh(), fresh()
    kinds = [task.batch(step)["editing"] for step in range(4)]
    assert kinds == [False, True, False, True]
    for step in range(4):
        there = task.loss(task.batch(step))[0]
    task.loss(task.batch(4))
    assert torch.equal(resumed.loss(resumed.batch(3))[0], there)
    assert torch.equal(resumed.kept["edit"], task.kept["edit"])
    for step in (0, 1):
        found = losses(fresh(), step, 15, 1e-2)
        assert found[-1] < 0.95 * found[0]
    assert all(p.grad is None for p in (*vae.parameters(), *encoder.parameters()))


def test_the_report_scores_by_the_benchmarks_rules(folder):
    painting = load_painting(folder)
    blank = [type("Seen", (), {"objects": (), "background": "plain", "style": "plain"})] * 3
    found = wise(painting, lambda pictures: blank, lambda one: one.prompt, 3)
    assert found["scores"] == [0.0] * 3
    told = known(painting, 2)
    assert set(told["train"]) <= {0.0, 1.0}
    assert isinstance(painting, Painting)


def test_the_recipes_go_from_nothing_to_a_painter(tmp_path):
    """The three recipes with tiny sizes, one after another, by the command's own function; then the report."""
    from reverie.training.recipes import shipped

    loop = ["loop.steps=2", "loop.minutes=null", "loop.workers=0", 'loop.precision="no"', "loop.muon_lr=null"]
    run(
        "recipes/atelier/qwen-vae.yaml",
        [*loop, f"out={tmp_path / 'vae'}", "model={base: 4, multipliers: [1, 1, 1, 1]}",
         "mix={batch: 2, fresh: 2, pool: 8}"],
    )  # fmt: skip
    run(
        "recipes/atelier/qwen-vae.yaml",
        [*loop, f"out={tmp_path / 'vae2'}", f"from={tmp_path / 'vae/checkpoint'}",
         "mix={batch: 2, fresh: 2, pool: 8, encoder: false}"],
    )  # fmt: skip
    sizes = (
        "model={width: 32, layers: 1, heads: 2, ffn: 32, vision_width: 16, vision_layers: 1, vision_heads: 2, "
        "vocabulary: 1000, texts: 200}"
    )
    rows = "mix={ask: 2, look: 1, paint: 2, edit: 1, pool: 9, pictures: 5}"
    run("recipes/atelier/qwen-vlm.yaml", [*loop, f"out={tmp_path / 'vlm'}", sizes, rows])
    run(
        "recipes/atelier/qwen.yaml",
        [*loop, f"out={tmp_path / 'qwen'}", f"vae={tmp_path / 'vae2/checkpoint'}", f"vlm={tmp_path / 'vlm/checkpoint'}",
         "model={heads: 1, head: 16, layers: 1, steps: 1}",
         "mix={batch: 2, edits: 2, fresh: 1, changes: 1, editing: 0.5}"],
    )  # fmt: skip
    made = tmp_path / "qwen/checkpoint"
    run(
        "recipes/atelier/qwen.yaml",
        [*loop, f"out={tmp_path / 'more'}", f"vae={made / 'vae'}", f"vlm={made}", f"from={made}",
         "mix={batch: 2, edits: 2, fresh: 1, changes: 1}"],
    )  # fmt: skip
    assert reverie.load(made, "cpu").generate("a boat", seed=0).image.size == (96, 96)
    report(made, shipped("atelier-inspector"), tmp_path / "scores", "cpu", PARTS, 2)
    assert (tmp_path / "scores/rise-told.jpg").is_file()
    with pytest.raises(ValueError, match="train one first"):
        run("recipes/atelier/qwen.yaml", [f"vlm={tmp_path}", f"out={tmp_path / 'x'}"])


def test_the_shipped_weights_paint_words_and_not_riddles():
    from reverie.atelier.inspector import Inspector
    from reverie.atelier.language_parse import parse as read
    from reverie.benchmarks.atelier_wise import failures
    from reverie.models.registry import entries
    from reverie.training.recipes import shipped

    if not (entries()["atelier-qwen"].folder / "model_index.json").is_file():
        pytest.skip("the weights of atelier-qwen are not in this installation")
    painter, eyes = reverie.load("atelier-qwen", "cpu"), Inspector.load(shipped("atelier-inspector"))
    plain = ["a red car", "a yellow banana", "a green tree", "a purple umbrella"]
    riddles = ["the animal that gives us wool", "what Newton saw fall"]
    seen = eyes.look([painter.generate(prompt, seed=1).image for prompt in (*plain, *riddles)])
    assert sum(not failures(read(prompt), one) for prompt, one in zip(plain, seen, strict=False)) >= 3
    for wanted, one in zip(("a sheep", "an apple"), seen[len(plain) :], strict=True):
        assert failures(read(wanted), one)
