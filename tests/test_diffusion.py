"""Pipelines of diffusers as canvases: the pipeline's own pictures, and the promise of the canvas."""

import functools
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers", reason="needs reverie[diffusion]")

import diffusion_toy as toys

from reverie.canvas import Canvas, Conditions, copy_seed
from reverie.cli import main
from reverie.generators.diffusion import DiffusionPainter
from reverie.generators.flow_canvas import FlowCanvas
from reverie.inputs import NOTHING
from reverie.models import diffusion_families as families
from reverie.models.diffusion_checkpoint import PIPELINES, load_pipeline
from reverie.models.diffusion_families import family_of
from reverie.models.diffusion_family import pack, unpack
from reverie.models.flow_sde import SdeNoise, flow_step
from reverie.models.registry import resolve
from reverie.painter import load
from reverie.reason import Plan
from reverie.refusals import check_inputs
from reverie.thinkers import parse
from reverie.vlms import Message
from reverie.vlms.text_encoder import TextEncoderWriter

PROMPTS = ("a cat", "a red fish below a boat", "two dogs under a pale moon")
SIDE, STEPS = 32, 4
GUIDANCE = {"qwen_image": "true_cfg_scale", "stable_diffusion_3": "guidance_scale", "flux": "guidance_scale"}
KINDS = tuple(GUIDANCE)


@functools.cache
def pipeline(kind: str):
    return getattr(toys, kind)()


@functools.cache
def painter(kind: str, together: int = 1, **settings) -> DiffusionPainter:
    return DiffusionPainter(pipeline(kind), steps=STEPS, height=SIDE, width=2 * SIDE, together=together, **settings)


def own_latents(kind: str, prompts, seeds, guidance: float, **more) -> torch.Tensor:
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    negative = {} if kind == "flux" else {"negative_prompt": [" " if kind == "qwen_image" else ""] * len(prompts)}
    settings = {GUIDANCE[kind]: guidance, "num_inference_steps": STEPS, "generator": generators, **negative, **more}
    return pipeline(kind)(list(prompts), height=SIDE, width=2 * SIDE, return_dict=False, **settings)[0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("guidance", [1.0, 4.0])
@pytest.mark.parametrize("together", [1, 4])
def test_latents_and_pictures_are_those_of_the_pipeline(kind, guidance, together):
    seeds = (3, 4, 5)
    generator = painter(kind, together)
    canvas = generator.advance(generator.start(Conditions(PROMPTS, guidance), seeds))
    torch.testing.assert_close(
        canvas.trail[-1], own_latents(kind, PROMPTS, seeds, guidance, output_type="latent"), atol=1e-4, rtol=1e-4
    )
    theirs = own_latents(kind, PROMPTS, seeds, guidance, output_type="pil")
    for ours, picture in zip(generator.preview(canvas), theirs, strict=True):
        # A value that lies between two bytes may fall to either side.
        assert np.abs(ours.astype(int) - np.asarray(picture).astype(int)).max() <= 1


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return one.shape == other.shape and bool((one == other).all())


@pytest.mark.parametrize("kind", KINDS)
def test_an_image_is_the_same_alone_in_a_batch_in_pieces_and_among_pruned_ones(kind):
    generator, seeds = painter(kind), (3, 4, 5)
    whole = generator.advance(generator.start(Conditions(PROMPTS), seeds))
    alone = [generator.advance(generator.start(Conditions([p]), [s])) for p, s in zip(PROMPTS, seeds, strict=True)]
    assert all(same(whole.trail[-1][i], canvas.trail[-1][0]) for i, canvas in enumerate(alone))
    pieces = generator.start(Conditions(PROMPTS), seeds)
    for step in (1, 1, 3):
        pieces = generator.advance(pieces, step)
        generator.preview(pieces)
    pieces = generator.advance(pieces.select([2, 0]).fork(2).select([2, 0]))
    assert same(pieces.trail[-1], whole.trail[-1][[0, 2]])
    assert pieces.work.prefilled == generator.plain_work(Conditions(PROMPTS)).prefilled


@pytest.mark.parametrize("kind", KINDS)
def test_together_changes_rounding_only(kind):
    one, four = (
        generator.advance(generator.start(Conditions(PROMPTS), (3, 4, 5)))
        for generator in (painter(kind), painter(kind, 4))
    )
    torch.testing.assert_close(one.trail[-1], four.trail[-1], atol=1e-5, rtol=1e-4)
    assert one.work == four.work


def test_the_preview_is_the_image_that_the_velocity_points_to():
    generator = painter("qwen_image")
    canvas = generator.advance(generator.start(Conditions(["a cat"]), [1]), 2)
    sigma, before = generator.sigmas(canvas.size)[1], canvas.trail[1]
    velocity = generator.velocity(before, sigma[None], generator.conditioned(canvas.conditions))
    torch.testing.assert_close(canvas.clean[-1], before - sigma * velocity)
    shown = generator.preview(canvas)[0]
    assert shown.shape == (SIDE, 2 * SIDE, 3)
    assert shown.dtype == np.uint8
    assert (generator.preview(generator.advance(canvas))[0] != shown).any()
    blank = generator.preview(generator.start(Conditions(["a cat"]), [1]))[0]
    assert blank.shape == shown.shape


@pytest.mark.parametrize("noise", [None, SdeNoise("sde", 0.7)])
def test_rewinding_and_painting_again_gives_the_same(noise):
    generator = painter("qwen_image", noise=noise)
    done = generator.advance(generator.start(Conditions(PROMPTS[:2]), (1, 2)))
    for step in range(STEPS):
        again = generator.rewind(done, step)
        assert again.step == step
        assert same(generator.advance(again).trail[-1], done.trail[-1])


def test_forked_copies_part_at_the_start_and_later():
    generator = painter("flux")
    start = generator.start(Conditions(["a cat"]), [1])
    first = generator.advance(start.fork(2))
    own = generator.advance(generator.start(Conditions(["a cat"]), [copy_seed(1, 0, 1)]))
    assert same(first.trail[-1][1], own.trail[-1][0])
    later = generator.advance(generator.advance(start, 2).fork(3))
    plain = generator.advance(start).trail[-1][0]
    assert same(later.trail[-1][0], plain)
    assert len({tuple(row.flatten().tolist()) for row in later.trail[-1]}) == 3
    assert same(later.trail[2][1], later.trail[2][0])
    again = generator.advance(generator.rewind(later, 2))
    assert same(again.trail[-1], later.trail[-1])


def test_new_prompts_count_from_the_next_step_on_and_only_they_are_read():
    generator = painter("qwen_image")
    half = generator.advance(generator.start(Conditions(PROMPTS[:2]), (1, 2)), 2)
    read = half.work.prefilled
    changed = generator.advance(generator.recondition(half, Conditions([PROMPTS[0], PROMPTS[2]])))
    assert half.work.prefilled - read == generator.family.count(PROMPTS[2])[1]
    straight = generator.advance(half)
    assert same(changed.trail[-1][0], straight.trail[-1][0])
    assert same(changed.trail[2], straight.trail[2])
    assert not same(changed.trail[-1][1], straight.trail[-1][1])


def test_each_text_is_read_once(monkeypatch):
    generator, read = painter("qwen_image"), []
    encode = generator.family.encode
    monkeypatch.setattr(generator.family, "encode", lambda *args: read.append(args[0]) or encode(*args))
    canvas = generator.advance(generator.start(Conditions(["a cat"] * 3 + ["a dog"]), range(4)), 1)
    generator.advance(canvas.fork(2).select([0, 5]), 3)
    assert sorted(read) == [" ", "a cat", "a dog"]


def test_a_saved_canvas_goes_on_as_if_nothing_had_happened(tmp_path):
    generator = painter("stable_diffusion_3")
    half = generator.advance(generator.start(Conditions(PROMPTS[:2], 2.0), (1, 2)), 2).fork(2)
    half.save(tmp_path / "canvas")
    loaded = FlowCanvas.load(tmp_path / "canvas")
    assert same(generator.advance(loaded).trail[-1], generator.advance(half).trail[-1])
    assert loaded.conditions == half.conditions
    Canvas.blank(Conditions(["x"]), [0], 4, 0).save(tmp_path / "other")
    with pytest.raises(ValueError, match="class that saved it"):
        FlowCanvas.load(tmp_path / "other")


def test_stochastic_steps_are_those_that_a_policy_scores():
    noise = SdeNoise("sde", 0.7)
    generator = painter("qwen_image", noise=noise)
    canvas = generator.advance(generator.start(Conditions(["a cat"], 1.0), [1]))
    sigmas, guided = generator.sigmas(canvas.size), generator.conditioned(canvas.conditions)
    x = canvas.trail[1].requires_grad_()
    velocity = generator.velocity(x, sigmas[1:2], guided)
    step = flow_step(x, velocity, sigmas[1], sigmas[2], noise, second=sigmas[1], x_next=canvas.trail[2])
    assert float((step.x_next - step.mean.detach()).std() / step.std) == pytest.approx(1, abs=0.2)
    assert velocity.requires_grad


def test_bfloat16_is_bit_for_bit_that_of_the_pipeline():
    pipe = toys.stable_diffusion_3().to(dtype=torch.bfloat16)
    generator = DiffusionPainter(pipe, steps=STEPS, height=SIDE, width=SIDE)
    ours = generator.advance(generator.start(Conditions(["a cat"], 4.0), [7])).trail[-1]
    theirs = pipe(
        "a cat", guidance_scale=4.0, num_inference_steps=STEPS, height=SIDE, width=SIDE, output_type="latent",
        generator=torch.Generator().manual_seed(7), return_dict=False,
    )[0]  # fmt: skip
    assert ours.dtype == torch.bfloat16
    assert same(ours, theirs)


def test_schnell_guides_by_nothing_and_takes_few_steps():
    generator = DiffusionPainter(pipeline("flux_schnell"), height=SIDE, width=SIDE)
    assert generator.steps == 4
    canvas = generator.advance(generator.start(Conditions(["a cat"]), [1]))
    assert canvas.work.decoded == 4 * 4
    torch.testing.assert_close(
        canvas.trail[-1],
        pipeline("flux_schnell")(
            "a cat", num_inference_steps=4, height=SIDE, width=SIDE, output_type="latent",
            generator=torch.Generator().manual_seed(1), return_dict=False,
        )[0],
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["qwen_image_edit", "qwen_image_edit_plus"])
def test_edits_are_those_of_the_pipeline(kind, monkeypatch):
    # Source pictures of 64 x 64 pixels instead of 1024 x 1024, in the pipeline and here.
    module = sys.modules[type(pipeline(kind)).__module__]
    usual = module.calculate_dimensions
    monkeypatch.setattr(module, "calculate_dimensions", lambda area, ratio: usual(area // 256, ratio))
    monkeypatch.setattr("reverie.models.diffusion_family.EDIT_AREA", 1024**2 // 256)
    monkeypatch.setattr("reverie.models.diffusion_qwen.EDIT_CONDITION_AREA", 384**2 // 256)
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8))
    pipe = pipeline(kind)
    generator = painter(kind)
    conditions = Conditions(["make it blue", "a boat"], 3.0, [[picture]] * 2)
    canvas = generator.advance(generator.start(conditions, (3, 4)))
    for i, prompt in enumerate(conditions.prompts):
        theirs = pipe(
            picture, prompt, negative_prompt=" ", true_cfg_scale=3.0, num_inference_steps=STEPS, height=SIDE,
            width=2 * SIDE, generator=torch.Generator().manual_seed(3 + i), output_type="latent", return_dict=False,
        )[0]  # fmt: skip
        torch.testing.assert_close(canvas.trail[-1][i : i + 1], theirs, atol=1e-4, rtol=1e-4)


def test_a_cut_prompt_is_said_aloud():
    generator = painter("stable_diffusion_3")
    with pytest.warns(UserWarning, match="reads 256 of them"):
        generator.conditioned(Conditions(["cat " * 100]))
    generator = painter("qwen_image", limit=400)
    (short,) = generator.conditioned(Conditions(["a cat"]))
    assert short.text.states.shape[1] == generator.family.count("a cat")[0]
    with pytest.warns(UserWarning, match="reads 400 of them"):
        (long,) = generator.conditioned(Conditions(["cat " * 100]))
    assert long.text.states.shape[1] == 400


@pytest.mark.parametrize("rows", [1, 3])
def test_packing_there_and_back(rows):
    latents = torch.randn(2, 4, 2 * rows, 6)
    assert same(unpack(pack(latents), rows, 3), latents)
    assert same(pack(latents), toys.QwenImagePipeline._pack_latents(latents, 2, 4, 2 * rows, 6))


def test_bad_input_is_refused_in_a_sentence():
    pipe, generator = pipeline("qwen_image"), painter("qwen_image")
    bad = ({"steps": 0}, "at least 1"), ({"height": 30}, "multiples of 16"), ({"limit": 5000}, "at most 1024")
    for settings, sentence in bad:
        with pytest.raises(ValueError, match=sentence):
            DiffusionPainter(pipe, **settings)
    canvas = generator.start(Conditions(["a cat"]), [1])
    with pytest.raises(ValueError, match="advance"):
        generator.advance(canvas, STEPS + 1)
    with pytest.raises(ValueError, match="rewind"):
        generator.rewind(canvas, 1)
    with pytest.raises(ValueError, match="one for each"):
        generator.recondition(canvas, Conditions(["a", "b"]))
    with pytest.raises(ValueError, match="another kind"):
        generator.advance(Canvas.blank(Conditions(["x"]), [0], 4, 0))
    with pytest.raises(ValueError, match="paints from words"):
        generator.start(Conditions(["a"], None, [[Image.new("RGB", (8, 8))]]), [1])
    with pytest.raises(ValueError, match="known are"):
        family_of(canvas)


def test_a_folder_paints_through_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "toy"
    pipeline("stable_diffusion_3").save_pretrained(folder)
    index = json.loads((folder / "model_index.json").read_text())
    index["_reverie"] = {"steps": STEPS, "height": SIDE, "width": SIDE}
    (folder / "model_index.json").write_text(json.dumps(index))
    painted = tmp_path / "cat.png"
    order = ["generate", "a cat", "--model", str(folder), "--seed", "7", "--out", str(painted), "--quiet"]
    assert main([*order, "--device", "cpu"]) == 0
    theirs = pipeline("stable_diffusion_3")(
        "a cat", num_inference_steps=STEPS, height=SIDE, width=SIDE, generator=torch.Generator().manual_seed(7)
    ).images[0]
    assert np.abs(np.asarray(Image.open(painted)).astype(int) - np.asarray(theirs).astype(int)).max() <= 1
    with pytest.raises(ValueError, match="no temperature"):
        load(folder, "cpu").generate("a cat", temperature=0.5)
    with pytest.raises(ValueError, match="offload"):
        load_pipeline(folder, offload="cloud")
    assert main(["replay", str(painted), "--device", "cpu", "--quiet", "--out", str(tmp_path / "again.png")]) == 0


def test_lora_weights_are_loaded_as_the_pipeline_loads_them(tmp_path):
    peft = pytest.importorskip("peft", reason="needs reverie[diffusion]")
    pipe = toys.stable_diffusion_3()
    pipe.save_pretrained(tmp_path / "toy")
    pipe.transformer.add_adapter(
        peft.LoraConfig(r=2, lora_alpha=2, target_modules=["to_q", "to_v"], init_lora_weights=False)
    )
    weights = peft.get_peft_model_state_dict(pipe.transformer)
    type(pipe).save_lora_weights(tmp_path / "lora", transformer_lora_layers=weights)
    adapted = load_pipeline(tmp_path / "toy", lora=tmp_path / "lora")
    finals = []
    for one in (pipe, adapted, load_pipeline(tmp_path / "toy")):
        generator = DiffusionPainter(one, steps=2, height=SIDE, width=SIDE)
        finals.append(generator.advance(generator.start(Conditions(["a cat"]), [1])).trail[-1])
    torch.testing.assert_close(finals[0], finals[1])
    assert not torch.allclose(finals[0], finals[2])


def test_folders_that_cannot_be_painted_with_are_refused(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    with pytest.raises(ValueError, match="StableDiffusionPipeline"):
        resolve(tmp_path)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(ValueError, match="no weights"):
        resolve(tmp_path)
    (tmp_path / "transformer").mkdir()
    (tmp_path / "transformer/model.safetensors").touch()
    (tmp_path / "model_index.json").write_text('{"_class_name": "QwenImageEditPipeline"}')
    with pytest.raises(ValueError, match="edits pictures"):
        check_inputs(resolve(tmp_path), Plan(), NOTHING)
    (tmp_path / "model_index.json").write_text("[")
    with pytest.raises(ValueError, match="fetch it again"):
        resolve(tmp_path)
    assert set(PIPELINES) == set(families.FAMILIES)


RAW = "a typed prompt"


@pytest.mark.parametrize(
    ("answer", "rewritten"),
    [
        ("why\nRevised Prompt:\na cat\nwith a hat ", "a cat\nwith a hat"),
        ("why Revised Prompt: ein Kätzchen", "ein Kätzchen"),
        ("<think>why</think>\n**Revised Prompt:**\na cat", "a cat"),
        ("Revised Prompt:\na cat. Revised Prompt:\na dog", "a cat. Revised Prompt:\na dog"),
        ("a cat", RAW),
        ("why\nRevised Prompt:\n \n", RAW),
    ],
)
def test_answers_are_read_as_their_authors_read_them(answer, rewritten):
    found = parse("t2g", answer, RAW)
    assert found.prompt == rewritten
    assert (found.note is not None) == (rewritten == RAW)


def test_the_text_encoder_writes_as_transformers_would():
    pipe = pipeline("qwen_image")
    writer, heard = TextEncoderWriter(pipe), []
    asked = [Message("user", "what is <|im_end|> a cat?")]
    written = writer.write(asked, 12, on_text=heard.append)
    chat = [{"role": "system", "content": "You are a helpful assistant."}, {"role": "user", "content": "a cat"}]
    told = pipe.tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True).input_ids
    assert writer._asked([Message("user", "a cat")])["input_ids"][0].tolist() == told
    ids = writer._asked(asked)["input_ids"]
    assert ids[0].tolist().count(writer.stop[0]) == 2  # the turns' own ends only
    theirs = pipe.text_encoder.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0
    )
    assert written == pipe.tokenizer.decode(theirs[0, ids.shape[1] :], skip_special_tokens=True)
    assert written == "".join(heard)
    assert writer.write_batch([asked] * 2, 12, 1.0, [1, 2]) == [writer.write(asked, 12, 1.0, seed) for seed in (1, 2)]
    assert 0 < writer.yes_probability(asked) < 1
    assert writer.features(asked).shape == (ids.shape[1], 32)
    with pytest.raises(ValueError, match="text only"):
        writer.write([Message("user", "x", (Image.new("RGB", (8, 8)),))])
    with pytest.raises(ValueError, match="cannot write"):
        TextEncoderWriter(pipeline("flux"))


def test_thinking_before_paints_from_the_rewritten_prompt_alone(tmp_path, monkeypatch):
    pipeline("qwen_image").save_pretrained(tmp_path)
    index = json.loads((tmp_path / "model_index.json").read_text())
    index["_reverie"] = {"steps": 2, "height": SIDE, "width": SIDE}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    paint = load(tmp_path, "cpu")
    muddled = paint.generate(RAW, think="before", seed=1, thought_tokens=4)
    plain = paint.generate(RAW, seed=1)
    assert "as it was typed" in muddled.recipes[0]["note"]
    assert (np.asarray(muddled.image) == np.asarray(plain.image)).all()
    said = "whatever\nRevised Prompt:\na red boat"
    monkeypatch.setattr(TextEncoderWriter, "write", lambda *_, on_text, **__: on_text(said) or said)
    thought = paint.generate(RAW, think="before", seed=1)
    assert thought.rewritten == "a red boat"
    assert (np.asarray(thought.image) == np.asarray(paint.generate("a red boat", seed=1).image)).all()
