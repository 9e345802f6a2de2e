"""ThinkDiff as a painter: an aligner's vectors in the place of T5's, by the pipelines' own arithmetic; contexts on a
canvas; and a checkpoint of real classes with random weights, from the command line to the picture."""

import functools
import json

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs reverie[diffusion]")

import diffusion_toy as toys
from vlm_toy import WIDTH, toy_vlm

import reverie
from reverie.canvas import Conditions
from reverie.cli import main
from reverie.generators.diffusion import DiffusionPainter
from reverie.generators.thinkdiff import ThinkDiffPainter
from reverie.models.aligner import Aligner, AlignerConfig, save_aligner
from reverie.models.diffusion_checkpoint import load_pipeline
from reverie.models.diffusion_families import family_of
from reverie.models.registry import resolve
from reverie.models.thinkdiff import INSTRUCTION, Condition, in_context, question, think
from reverie.models.thinkdiff_checkpoint import ThinkDiffConfig, load_thinkdiff

SIDE, STEPS = 32, 3
RED, BLUE = (Image.new("RGB", (24, 24), colour) for colour in ("red", "blue"))
PAIRS = (RED, "red", BLUE, "blue")
LENGTHS = {"green": 5, "grey": 7}
PIPELINES = ("flux", "flux_schnell", "stable_diffusion_3")


def vectors(prompt: str) -> torch.Tensor:
    generator = torch.Generator().manual_seed(len(prompt))
    return torch.randn(1, LENGTHS.get(prompt, 6), 32, generator=generator)


def by_hand(context, prompt):
    """A mind whose vectors are known."""
    return Condition(vectors(prompt), pooled_text="", text=f"of {len(context)} parts")


@functools.cache
def pipeline(kind):
    return getattr(toys, kind)()


def painter(kind, guidance=None, together=1):
    return ThinkDiffPainter(
        pipeline(kind), by_hand, steps=STEPS, guidance=guidance, height=SIDE, width=SIDE, together=together
    )


def own_latents(kind, prompt, seed, guidance):
    """By the pipeline's own call, from prompt embeddings made by hand."""
    pipe, made, length = pipeline(kind), vectors(prompt), LENGTHS[prompt]
    with torch.no_grad():
        if kind == "stable_diffusion_3":
            embeds, blank, pooled, no_pooled = pipe.encode_prompt("", "", "", max_sequence_length=length)
            embeds = torch.cat([embeds[:, :77], made], 1)
            more = {"negative_prompt_embeds": blank, "negative_pooled_prompt_embeds": no_pooled}
        else:
            blank, pooled, _ = pipe.encode_prompt("", max_sequence_length=length)
            embeds, more = made, {"true_cfg_scale": guidance if kind == "flux_schnell" else 1.0}
            more |= {"negative_prompt_embeds": blank, "negative_pooled_prompt_embeds": pooled}
    return pipe(
        prompt_embeds=embeds, pooled_prompt_embeds=pooled, guidance_scale=guidance, num_inference_steps=STEPS,
        height=SIDE, width=SIDE, generator=torch.Generator().manual_seed(seed), output_type="latent", **more,
    ).images  # fmt: skip


@pytest.mark.parametrize("kind", PIPELINES)
@pytest.mark.parametrize("guidance", [1.0, 3.0])
@pytest.mark.parametrize("together", [1, 4])
def test_vectors_are_painted_from_as_the_pipeline_paints_from_prompt_embeddings(kind, guidance, together):
    """Contexts of several lengths in one batch, the two of one length side by side."""
    prompts, seeds = ("green", "grey", "grey"), (3, 4, 5)
    generator = painter(kind, guidance, together)
    canvas = generator.advance(generator.start(Conditions(prompts, contexts=(PAIRS,) * 3), seeds))
    for row, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
        theirs = own_latents(kind, prompt, seed, guidance)
        torch.testing.assert_close(canvas.trail[-1][row : row + 1], theirs, atol=1e-4, rtol=1e-4)


def test_without_a_context_the_pipeline_reads_the_prompt_itself():
    generator = painter("flux_schnell", 3.0)
    plain = generator.advance(generator.start(Conditions(["grey"]), [1]))
    words = DiffusionPainter(pipeline("flux_schnell"), steps=STEPS, guidance=3.0, height=SIDE, width=SIDE)
    theirs = words.advance(words.start(Conditions(["grey"]), [1]))
    torch.testing.assert_close(plain.trail[-1], theirs.trail[-1], atol=1e-5, rtol=1e-5)
    seen = generator.advance(generator.start(Conditions(["grey"], contexts=(PAIRS,)), [1]))
    assert (seen.trail[-1] - plain.trail[-1]).abs().max() > 0.1
    with pytest.raises(ValueError, match="reads no context"):
        words.start(Conditions(["grey"], contexts=(PAIRS,)), [1])


def test_the_canvas_keeps_its_promises_with_a_context():
    generator = painter("flux", 3.5)
    asked = Conditions(("green", "grey"), contexts=(PAIRS, PAIRS[:2]))
    whole = generator.advance(generator.start(asked, (3, 4)))
    pieces = generator.advance(generator.start(asked, (3, 4)), 1)
    assert generator.preview(pieces)[0].shape == (SIDE, SIDE, 3)
    pieces = generator.advance(pieces.fork(2).select([2, 0]))
    assert torch.equal(pieces.trail[-1], whole.trail[-1][[1, 0]])
    again = generator.advance(generator.rewind(whole, 1))
    assert torch.equal(again.trail[-1], whole.trail[-1])
    assert generator.thoughts == {key: f"of {len(key[1])} parts" for key in generator.thoughts}
    half = generator.rewind(whole, 1)
    other = generator.recondition(half, Conditions(("grey", "green")))
    assert other.conditions.contexts == asked.contexts
    assert not torch.equal(generator.advance(other).trail[-1], whole.trail[-1])
    back = generator.recondition(other, Conditions(("green", "grey")))
    assert torch.equal(generator.advance(back).trail[-1], whole.trail[-1])


def test_a_context_is_read_once_for_all_its_images():
    asked = []

    def mind(context, prompt):
        asked.append(prompt)
        return by_hand(context, prompt)

    generator = ThinkDiffPainter(pipeline("flux"), mind, steps=2, height=SIDE, width=SIDE)
    canvas = generator.start(Conditions(["grey"] * 3, contexts=(PAIRS,) * 3), (1, 2, 3))
    generator.advance(generator.advance(canvas, 1).select([0, 2]).fork(2))
    assert asked == ["grey"]


def test_vectors_of_the_wrong_width_and_pipelines_without_a_t5_are_refused():
    family = family_of(pipeline("flux"))
    with pytest.raises(ValueError, match="reads 32 wide ones"):
        family.swap(torch.zeros(1, 4, 16), "")
    with pytest.raises(ValueError, match="reads 32 wide ones"):
        family.swap(torch.zeros(1, 0, 32), "")
    with pytest.raises(ValueError, match="not read its prompt through a T5"):
        family_of(pipeline("qwen_image")).swap(torch.zeros(1, 4, 32), "")


def test_pairs_are_asked_as_cobsat_asks_and_all_else_in_its_order():
    assert question(PAIRS, "green") == in_context([(RED, "red"), (BLUE, "blue")], "green")
    (turn,) = question(("first", RED, BLUE, "then <image>"), "green")
    assert turn.text == "first\n\n<image>\n\n<image>\n\nthen\n\ngreen"
    assert turn.images == (RED, BLUE)


def save_tower(folder):
    from transformers import CLIPVisionConfig, CLIPVisionModel

    torch.manual_seed(3)
    CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=16,
            patch_size=4,
        )
    ).save_pretrained(folder)  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Both variants in one folder; every class is that of the public checkpoints."""
    folder = tmp_path_factory.mktemp("thinkdiff")
    toys.flux_schnell().save_pretrained(folder / "diffusion")
    vlm = toy_vlm("Qwen2VL")
    vlm.model.save_pretrained(folder / "vlm")
    vlm.processor.save_pretrained(folder / "vlm")
    save_tower(folder / "tower")
    torch.manual_seed(4)
    for name, width in (("aligner", WIDTH), ("tower-aligner", 16)):
        save_aligner(
            Aligner(AlignerConfig(width, 32)).initialise(torch.full((32,), 0.3)), folder / f"{name}.safetensors"
        )
    index = json.loads((folder / "diffusion/model_index.json").read_text())
    index["_reverie"] = {"steps": 2, "guidance": 2.0, "height": SIDE, "width": SIDE, "limit": 16}
    (folder / "diffusion/model_index.json").write_text(json.dumps(index))
    config = {
        "model_type": "thinkdiff", "diffusion": "diffusion", "vlm": "vlm", "aligner": "aligner.safetensors",
        "tower": "tower", "tower_aligner": "tower-aligner.safetensors", "tokens": 6, "text_tokens": 8,
        "temperature": 0.0,
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_a_checkpoint_thinks_looks_and_reads(saved):
    model = load_thinkdiff(saved)
    assert model.pipeline.text_encoder_2 is None
    told = model.condition(PAIRS, "green")
    assert model.pipeline.text_encoder_2 is None  # features come from the aligner: the T5 is not even loaded
    by_itself = think(model.vlm, model.aligner, question(PAIRS, "green", INSTRUCTION), tokens=6, temperature=0.0)
    assert torch.equal(told.vectors, by_itself.vectors)
    assert told.vectors.shape == (1, 6, 32)
    assert told.pooled_text == ""
    seen = model.condition((RED, BLUE), "a cat")
    assert seen.vectors.shape == (1, 2 * 5 + 8, 32)  # a class token and 2 x 2 patches each, then the text
    assert seen.pooled_text == "a cat"
    swapped = model.condition((BLUE, RED), "a cat")
    assert torch.equal(swapped.vectors[:, :5], seen.vectors[:, 5:10])
    assert torch.equal(swapped.vectors[:, 10:], seen.vectors[:, 10:])
    empty = model.condition((RED,), "")
    assert empty.vectors.shape == (1, 13, 32)


def test_the_t5_stays_on_disk_where_the_guidance_is_an_input(saved, tmp_path):
    """FLUX.1 dev with features of a VLM: 9.5 GB less."""
    toys.flux().save_pretrained(tmp_path / "dev")
    config = json.loads((saved / "config.json").read_text())
    config |= {
        "diffusion": str(tmp_path / "dev"),
        "vlm": str(saved / "vlm"),
        "aligner": str(saved / "aligner.safetensors"),
    }
    for name in ("tower", "tower_aligner"):
        del config[name]
    (tmp_path / "config.json").write_text(json.dumps(config))
    model = load_thinkdiff(tmp_path)
    generator = ThinkDiffPainter(model.pipeline, model.condition, model.need_t5, steps=2, height=SIDE, width=SIDE)
    painted = generator.advance(generator.start(Conditions(["green"], contexts=(PAIRS,)), [1]))
    assert model.pipeline.text_encoder_2 is None
    with_all = ThinkDiffPainter(load_pipeline(tmp_path / "dev"), model.condition, steps=2, height=SIDE, width=SIDE)
    theirs = with_all.advance(with_all.start(Conditions(["green"], contexts=(PAIRS,)), [1]))
    assert torch.equal(painted.trail[-1], theirs.trail[-1])
    model.vlm = None
    with pytest.raises(ValueError, match="words between them need a VLM"):
        model.condition(PAIRS, "green")


def test_a_painter_takes_a_context_and_chooses(saved):
    painter = reverie.load(saved)
    one = painter.generate("green", context=PAIRS, seed=3)
    assert one.image.size == (SIDE, SIDE)
    assert np.array_equal(one.image, painter.generate("green", context=PAIRS, seed=3).image)
    assert not np.array_equal(one.image, painter.generate("green", context=(BLUE, "blue", RED, "red"), seed=3).image)
    assert not np.array_equal(one.image, painter.generate("green", seed=3).image)

    def redness(prompts, pictures):
        return [float(np.asarray(picture)[..., 0].mean() / 255) for picture in pictures]

    chosen = painter.generate("green", context=PAIRS, seed=3, judge=redness, choose="orm", candidates=3).image
    assert redness([], [chosen])[0] >= redness([], [one.image])[0]
    assert any(event.name == "thought" and event.whole for event in one.trace)


def test_the_command_line_paints_from_pairs(saved, tmp_path, capsys):
    for name, picture in (("a", RED), ("b", BLUE)):
        picture.save(tmp_path / f"{name}.png")
    a, b, out = (str(tmp_path / f"{name}.png") for name in ("a", "b", "out"))
    code = main(
        ["generate", "--context", a, "red", "--context", b, "blue", "green", "--model", str(saved), "--seed", "3",
         "--out", out]
    )  # fmt: skip
    assert code == 0, capsys.readouterr().err
    expected = reverie.load(saved).generate("green", context=PAIRS, seed=3).image
    assert np.array_equal(Image.open(out).convert("RGB"), expected)


def test_many_pictures_and_odd_ones_are_looked_at(saved):
    """Thirty pictures, one of a single pixel, a strip: on both ways each becomes vectors, and nothing is left out."""
    model = load_thinkdiff(saved)
    thirty = (RED, BLUE) * 15
    assert model.condition(thirty, "a cat").vectors.shape == (1, 30 * 5 + 8, 32)
    pairs = tuple(part for picture in thirty for part in (picture, "red"))
    assert model.condition(pairs, "green").vectors.shape == (1, 6, 32)
    odd = (Image.new("RGB", (1, 1)), Image.new("RGB", (900, 9)))
    assert model.condition(odd, "").vectors.shape == (1, 2 * 5 + 8, 32)
    assert model.condition((odd[0], "red", odd[1], "blue"), "green").vectors.shape == (1, 6, 32)


@pytest.mark.parametrize(("order", "words"), [
    (["--context", "gone.png", "red", "green"], "no file gone.png"),
    (["--context", "text.png", "red", "green"], "cannot be read as a picture"),
    (["--context", "a.png", "", "green"], "empty"),
    (["--image", "gone.png", "green"], "no file gone.png"),
    ([""], "the prompt is empty"),
    (["--image", "huge.png", "green"], "scale it down"),
    (["--image", "a.png"] * 33 + ["green"], "at most 32"),
])  # fmt: skip
def test_what_cannot_be_looked_at_is_one_sentence(saved, tmp_path, capfd, monkeypatch, recwarn, order, words):
    monkeypatch.chdir(tmp_path)
    RED.save("a.png")
    Image.new("1", (10000, 9000)).save("huge.png")
    (tmp_path / "text.png").write_text("no picture")
    assert main(["generate", *order, "--model", str(saved), "--out", "out.png"]) == 2
    told = capfd.readouterr().err
    assert words in told
    assert told.count("\n") == 1
    assert not [one for one in recwarn if issubclass(one.category, Image.DecompressionBombWarning)]


def test_a_picture_alone_is_enough(saved, tmp_path, capsys, monkeypatch):
    """ThinkDiff-CLIP without a word: the prompt may be empty where there is a picture, and nowhere else."""
    monkeypatch.chdir(tmp_path)
    RED.save("a.png")
    assert main(["generate", "", "--image", "a.png", "--model", str(saved), "--seed", "3", "--out", "out.png"]) == 0
    assert "thought:" not in capsys.readouterr().err  # a tower says nothing
    expected = reverie.load(saved).generate("", context=(RED,), seed=3).image
    assert np.array_equal(Image.open("out.png").convert("RGB"), expected)
    assert main(["generate", "", "--image", "a.png", "--model", "atelier-janus", "--out", "no.png"]) == 2
    assert "the prompt is empty" in capsys.readouterr().err


def test_what_is_missing_is_said_before_anything_is_loaded(saved, tmp_path):
    told = json.loads((saved / "config.json").read_text())

    def refused(message, **changes):
        config = {name: value for name, value in {**told, **changes}.items() if value is not None}
        (tmp_path / "config.json").write_text(json.dumps(config))
        for name in ("aligner", "tower-aligner"):
            (tmp_path / f"{name}.safetensors").write_bytes((saved / f"{name}.safetensors").read_bytes())
        with pytest.raises(ValueError, match=message):
            resolve(tmp_path)

    refused("names no diffusion", diffusion=None)
    refused("together", vlm=None)
    refused("no such file", aligner="elsewhere.pth")
    refused("no use for 'vlms'", vlms="x")
    refused("neither", vlm=None, aligner=None, tower=None, tower_aligner=None)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="not a valid configuration"):
        ThinkDiffConfig.read(tmp_path)


def test_widths_must_agree(saved, tmp_path):
    save_aligner(Aligner(AlignerConfig(WIDTH, 24)), tmp_path / "wrong.safetensors")
    config = json.loads((saved / "config.json").read_text()) | {"aligner": "wrong.safetensors"}
    config |= {name: str(saved / name) for name in ("diffusion", "vlm")}
    (tmp_path / "config.json").write_text(json.dumps({k: v for k, v in config.items() if "tower" not in k}))
    with pytest.raises(ValueError, match="24 wide"):
        load_thinkdiff(tmp_path)


def test_the_shipped_model_finds_what_the_pictures_have_in_common():
    """Of a red car and a red hat the apple is red: its VLM says so, and the picture has red in it."""
    from reverie.atelier.draw import draw
    from reverie.atelier.scene import Scene, Thing

    car, hat = (draw(Scene((Thing(kind, "red", scale=0.5),))) for kind in ("car", "hat"))
    painted = reverie.load("atelier-thinkdiff").generate("apple", context=(car, "car", hat, "hat"), seed=1)
    assert painted.recipes[0]["answer"].split()[-2:] == ["red", "apple"]
    red, green, blue = np.asarray(painted.image, int).transpose(2, 0, 1)
    assert ((red > green + 60) & (red > blue + 60)).mean() > 0.02
    plain = reverie.load("atelier-thinkdiff").generate("a blue hat", seed=1)
    red, green, blue = np.asarray(plain.image, int).transpose(2, 0, 1)
    assert ((blue > red + 60) & (blue > green + 40)).mean() > 0.02
