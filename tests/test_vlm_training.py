"""The Atelier's small Qwen2-VL: its fast forward pass is transformers', rows are what it will be asked, it learns."""

import json
import random

import numpy as np
import pytest
import torch

from reverie.atelier.draw import draw
from reverie.atelier.episode_answers import said
from reverie.atelier.episode_pictures import EpisodePictures, detail_of
from reverie.atelier.episodes import benchmark, episode, theme_of
from reverie.atelier.language import held_out_colour
from reverie.models.thinkdiff import in_context
from reverie.training import recipes
from reverie.training.state import load_mean
from reverie.training.vlm import VlmTask, VlmTraining, caption_row, episode_row, told_row
from reverie.training.vlm_build import (
    END,
    INSTRUCTION,
    VlmSizes,
    build_processor,
    build_tokenizer,
    build_vlm,
    mrope_sections,
)
from reverie.training.vlm_forward import patches_of, places_of, read, see
from reverie.training.vlm_report import question, share
from reverie.vlms import IMAGE, Message
from reverie.vlms.transformers import TransformersVLM

SMALL = {"width": 48, "layers": 2, "heads": 3, "ffn": 64, "vision_width": 32, "vision_layers": 2, "vision_heads": 2,
         "vocabulary": 400, "texts": 60}  # fmt: skip
SIZES = VlmSizes(**SMALL)


@pytest.fixture(scope="module")
def vlm() -> TransformersVLM:
    torch.manual_seed(0)
    processor = build_processor(SIZES, build_tokenizer(SIZES))
    model = build_vlm(SIZES, processor.tokenizer)
    with torch.no_grad():
        for parameter in model.parameters():  # large enough that every token and picture matters
            parameter.add_(torch.randn_like(parameter), alpha=0.05)
    return TransformersVLM(model, processor)


def task_of(vlm: TransformersVLM, **mix) -> VlmTask:
    return VlmTask(vlm.model, vlm.tokenizer, SIZES, VlmTraining(**mix))


def test_the_fast_forward_pass_is_that_of_transformers(vlm):
    asked = question(benchmark(3, 3)[5])
    inputs = vlm.inputs([asked])
    pixels = torch.stack([torch.tensor(np.asarray(picture)).permute(2, 0, 1) for picture in asked[0].images])
    patches = patches_of(pixels, SIZES.patch)
    # The processor repeats a still picture as two frames.
    assert torch.equal(patches, inputs["pixel_values"].view(3, 64, 3, 2, 144)[:, :, :, 0].reshape(3, 64, 432))
    picture = vlm.model.config.image_token_id
    ids = inputs["input_ids"]
    places = torch.tensor(places_of(ids[0].tolist(), picture, 4)).T[:, None]
    with torch.no_grad():
        tokens = see(vlm.model.model.visual, patches)
        expected = vlm.model.model.visual(inputs["pixel_values"], inputs["image_grid_thw"]).pooler_output
        torch.testing.assert_close(tokens.flatten(0, 1), expected, atol=1e-5, rtol=1e-4)
        told = vlm.model.model.get_rope_index(
            ids, inputs["mm_token_type_ids"], inputs["image_grid_thw"], attention_mask=inputs["attention_mask"]
        )[0]
        assert torch.equal(places, told)
        embeds = vlm.model.get_input_embeddings()(ids)
        embeds = embeds.masked_scatter((ids == picture)[..., None], tokens)
        hidden = vlm.model.model(**inputs).last_hidden_state
        torch.testing.assert_close(read(vlm.model, embeds, places), hidden, atol=1e-4, rtol=1e-4)


def test_rows_are_what_the_chat_template_makes_of_the_question(vlm):
    task, rng = task_of(vlm, pictures=0, look=0, episodes=1, eyes=False), random.Random(2)
    drawn = episode(rng, 4, 2)
    pairs = [(draw(scene, 96), word) for word, scene in drawn.examples]
    row = episode_row(drawn, rng)
    found = task._rows([row])
    asked = vlm.inputs([in_context(pairs, drawn.query, INSTRUCTION)])["input_ids"][0].tolist()
    ids = found["ids"][0].tolist()
    assert ids[: len(asked)] == asked
    answer = vlm.tokenizer.encode(row[-1][0] + END)
    assert ids[len(asked) :] == answer
    carries = found["carries"][0].nonzero().flatten().tolist()
    assert carries == list(range(len(asked) - 1, len(asked) - 1 + len(answer)))
    scene = drawn.answer
    caption = caption_row(scene, random.Random(1))
    request = caption[0][0].removeprefix(IMAGE)
    asked = vlm.inputs([[Message("user", request, (draw(scene, 96),))]])["input_ids"][0].tolist()
    assert task._rows([caption])["ids"][0].tolist()[: len(asked)] == asked


def test_captions_of_told_episodes_are_learnt_but_for_the_first(vlm):
    task, drawn = task_of(vlm), episode(random.Random(5), 2, 3)
    row = told_row(drawn, random.Random(0))
    assert [learns for _, learns in row] == [False, False, False, True, False, True, False, True]
    found = task._rows([row])
    learnt = found["ids"].roll(-1, 1)[found["carries"]].tolist()
    told = [text for text, learns in row if learns]
    assert learnt == [index for text in told[:-1] for index in vlm.tokenizer.encode(text)] + vlm.tokenizer.encode(
        told[-1] + END
    )
    assert "<|image_pad|>" not in vlm.tokenizer.decode(found["ids"][0])


def test_padding_changes_no_loss(vlm):
    task, rng = task_of(vlm, pictures=0, look=0, episodes=1, eyes=False), random.Random(0)
    drawn = [episode(rng, task_number, shots) for task_number, shots in ((1, 1), (8, 4))]
    tokens = torch.randn(5, 16, SIZES.width, generator=torch.Generator().manual_seed(0))
    rows = [episode_row(one, rng) for one in drawn]
    with torch.no_grad():
        together = task._answer_loss(task._rows(rows), tokens)
        alone = [
            task._answer_loss(task._rows([rows[0]]), tokens[:1]),
            task._answer_loss(task._rows([rows[1]]), tokens[1:]),
        ]
    counts = [task._rows([row])["carries"].sum() for row in rows]
    mean = sum(loss * count for loss, count in zip(alone, counts, strict=True)) / sum(counts)
    torch.testing.assert_close(together, mean, atol=1e-5, rtol=1e-5)


def test_it_learns_with_eyes_and_then_with_kept_pictures(vlm):
    torch.manual_seed(0)
    fresh = TransformersVLM(build_vlm(SIZES, vlm.tokenizer), vlm.processor)
    task = task_of(fresh, pictures=6, look=3, told=2)
    tower = fresh.model.model.visual.blocks[0].mlp.fc1.weight
    before = tower.detach().clone()
    assert learnt(task) < 0.7
    assert not torch.equal(before, tower)
    task = task_of(fresh, pictures=2, look=2, told=0, episodes=2, eyes=False, variants=1)
    before = tower.detach().clone()
    assert learnt(task) < 0.7
    assert torch.equal(before, tower)
    number = int(task.known.nonzero()[0])
    pixels = torch.tensor(task.pictures.pixels(number, 96)).permute(2, 0, 1)[None]
    torch.testing.assert_close(task.seen[number].float(), task._see(pixels)[0].float(), atol=0.02, rtol=0.02)


def learnt(task: VlmTask, steps: int = 25) -> float:
    """Loss of one batch at the end, as a share of that at the start."""
    batch = task.batch(0)
    optimizer = torch.optim.AdamW([p for p in task.model.parameters() if p.requires_grad], lr=4e-3)
    losses = []
    for _ in range(steps):
        loss, _ = task.loss(batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses[-1] / losses[0]


def test_a_batch_depends_on_seed_and_step_alone(vlm):
    first, second = task_of(vlm, pictures=3, look=2, told=2), task_of(vlm, pictures=3, look=2, told=2)
    first.batch(6)
    same = torch.utils._pytree.tree_map(torch.equal, first.batch(7), second.batch(7))
    assert torch.utils._pytree.tree_all(bool, same)
    assert not torch.equal(first.batch(7)["look"]["facts"], first.batch(8)["look"]["facts"])


def test_pictures_of_episodes_never_show_a_held_out_colour():
    pictures, rng = EpisodePictures(2), random.Random(0)
    assert len(pictures) == 2 * len(pictures.pairs)
    assert not any(theme == "colour" and held_out_colour(detail, kind) for theme, detail, kind in pictures.pairs)
    for number in range(1, 11):
        drawn = episode(rng, number, 2)
        for (_, scene), place in zip(drawn.examples, pictures.numbers(drawn, rng), strict=True):
            other, theme = pictures.scene(place), theme_of(number)
            assert (other.things[0].kind, detail_of(other, theme)) == (scene.things[0].kind, detail_of(scene, theme))


@pytest.mark.parametrize(
    ("caption", "right"),
    [
        ("a purple car", (True, True)),
        ("a photo of a purple car", (True, True)),
        ("a red car", (True, False)),
        ("a purple hat", (False, True)),
        ("a purple car and a purple hat", (False, False)),
        ("two purple cars", (False, True)),
        ("purple purple", (False, False)),
        ("", (False, False)),
    ],
)
def test_an_answer_is_right_in_object_and_detail(caption, right):
    drawn = next(one for one in benchmark(1, 2) if (one.theta, one.query) == ("car", "purple"))
    assert said(caption, drawn) == right


def test_shares_have_intervals():
    found = share([(True, True), (True, False), (False, True), (True, True)])
    assert (found["object"], found["detail"], found["both"]) == (0.75, 0.75, 0.5)
    assert found["interval"][0] < 0.5 < found["interval"][1]


def test_from_eyes_to_episodes_by_recipe(tmp_path):
    """Two recipes as a user runs them; the checkpoint loads as any chat model does, and a stopped run goes on."""
    eyes, out = tmp_path / "eyes", tmp_path / "vlm"
    common = [f"model.{name}={value}" for name, value in SMALL.items()]
    common += [
        "loop.minutes=null",
        "loop.steps=2",
        "loop.workers=0",
        "loop.sample_every=0",
        'loop.precision="no"',
        "glimpse=1",
    ]
    eyes_mix = ["mix.pictures=2", "mix.look=1", "mix.told=1"]
    recipes.run("recipes/atelier/vlm-eyes.yaml", [*common, *eyes_mix, f"out={eyes}"])
    mix = ["mix.episodes=2", "mix.variants=1", f"from={eyes}", f"out={out}", f"export={out}/checkpoint"]
    recipes.run("recipes/atelier/vlm.yaml", [*common, *mix])
    recipes.run("recipes/atelier/vlm.yaml", [*common, *mix, "loop.steps=3"])
    rows = [json.loads(line) for line in (out / "episodes.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2, 3]
    assert len(rows[0]["2-shot"]["tasks"]) == 10
    loaded = TransformersVLM.load(out / "checkpoint")
    asked = question(benchmark(1, 2)[0])
    assert isinstance(loaded.write(asked, 4), str)
    assert json.loads((out / "checkpoint" / "reverie.json").read_text())["instruction"] == INSTRUCTION
    assert json.loads((out / "checkpoint" / "config.json").read_text())["dtype"] == "bfloat16"
    assert (out / "checkpoint" / "README.md").is_file()


def test_what_cannot_be_trained_is_refused(vlm, tmp_path):
    with pytest.raises(ValueError, match=r"mix\.eyes"):
        VlmTraining(episodes=4)
    with pytest.raises(ValueError, match="at most pictures"):
        VlmTraining(pictures=2, look=3)
    with pytest.raises(ValueError, match="nothing to learn"):
        VlmTraining(pictures=0, look=0)
    with pytest.raises(ValueError, match="two patches"):
        VlmSizes(side=100)
    with pytest.raises(ValueError, match="variants"):
        EpisodePictures(0)
    with pytest.raises(ValueError, match="train that first"):
        load_mean(tmp_path / "state.pt", task_of(vlm).model)
    assert [sum(mrope_sections(head)) for head in (16, 32, 64, 128)] == [8, 16, 32, 64]
    assert mrope_sections(128) == [16, 24, 24]  # Qwen2-VL's own
