"""Thinking while painting with painters that are no Janus: rows of LlamaGen, stages of masked tokens and of denoising.

Others think for them, as they do not write. What must hold is the same everywhere: alone as in a batch, a stage that is
redone leaves what came before, and without thoughts and critiques the picture is the plain one."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from janus_toy import toy_janus
from test_during import Critic, finished, of
from tiny import tiny_folder

from reverie.canvas import Conditions, Work
from reverie.cli import main
from reverie.dialogue import dialogue
from reverie.events import Thought, Verdict
from reverie.png import read_recipe
from reverie.reason import Plan, run
from reverie.thinkers import Thinker

PROMPTS = ("a red cat", "a boat", "two dogs")


@functools.cache
def painters():
    from diffusion_toy import finished as ready
    from diffusion_toy import stable_diffusion_3
    from llamagen_toy import toy_llamagen
    from showo_toy import toy_showo

    from reverie.generators.diffusion import DiffusionPainter
    from reverie.generators.llamagen import LlamagenPainter
    from reverie.generators.showo import ShowoPainter

    model, captions = toy_llamagen()
    return {
        "llamagen": LlamagenPainter(model, captions, guidance=2.0),
        "showo": ShowoPainter(*toy_showo(), guidance=1.0, steps=6),
        "diffusion": DiffusionPainter(ready(stable_diffusion_3()), steps=6, guidance=2.0),
    }


class Listener(Critic):
    """Notes what it is asked and how the picture looked then."""

    def __init__(self, best: int = 99):
        super().__init__(best)
        self.looks = []

    def write(self, messages, *arguments, **keywords):
        self.looks.append([np.asarray(picture) for picture in messages[0].images])
        return super().write(messages, *arguments, **keywords)


def told(generator, vlm, plan, prompts=("a red cat",), seeds=(7,)):
    thinker = Thinker(vlm, "instruct", lambda text: None, Work())
    return list(run(generator, thinker, plan, prompts, seeds, batch=4))


@pytest.mark.parametrize("name", ["llamagen", "showo", "diffusion"])
def test_a_picture_is_the_same_alone_and_in_a_batch(name):
    generator, plan = painters()[name], Plan(think="during", regions=3, reflect=1, threshold=60)
    together = finished(told(generator, Listener(), plan, PROMPTS, (1, 2, 3)))
    for image, prompt in enumerate(PROMPTS):
        alone = finished(told(generator, Listener(), plan, (prompt,), (image + 1,)))[0]
        assert alone.recipe["regions"] == together[image].recipe["regions"]
        assert alone.picture.tobytes() == together[image].picture.tobytes()
    assert any(len(region["attempts"]) > 1 for event in together.values() for region in event.recipe["regions"])


@pytest.mark.parametrize("name", ["llamagen", "showo", "diffusion"])
def test_every_stage_is_painted_from_the_thoughts_so_far(name):
    generator, vlm = painters()[name], Listener()
    events = told(generator, vlm, Plan(think="during", regions=3, reflect=0))
    recipe = finished(events)[0].recipe
    ends = [region["end"] for region in recipe["regions"]]
    assert ends[-1] == generator.steps
    texts = [event.prompt for event in of(Thought, events) if event.prompt]
    # The same walk by hand over the plain verbs.
    canvas = generator.start(Conditions(("a red cat",)), [7])
    shown = []
    for end, text in zip(ends, texts, strict=True):
        canvas = generator.advance(generator.recondition(canvas, Conditions((text,))), end)
        shown.append(generator.preview(canvas)[0])
    assert finished(events)[0].picture.tobytes() == shown[-1].tobytes()
    looked = [pictures[0] for pictures in vlm.looks if pictures]
    assert all(np.array_equal(a, b) for a, b in zip(looked, shown, strict=False))
    wording = dialogue("instruct" if name == "llamagen" else "stages")
    assert vlm.asked[0].startswith(wording.first.format(prompt="a red cat", regions=3)[:80])


@pytest.mark.parametrize("name", ["llamagen", "showo", "diffusion"])
def test_a_stage_that_is_redone_becomes_another_and_leaves_what_came_before(name):
    class Stubborn(Listener):
        """Hates the second stage once, and would have it painted from the same words again."""

        def write(self, messages, *arguments, **keywords):
            answer = super().write(messages, *arguments, **keywords)
            if "SCORE" not in messages[0].text:
                return answer
            stage = sum("SCORE" in text for text in self.asked)
            return "SCORE: 10\nIMPROVED_DESCRIPTION: thing" if stage == 2 else "SCORE: 100"

        def thought(self):
            return "thing"

    generator = painters()[name]
    plan = Plan(think="during", regions=3, reflect=1)
    vlm = Stubborn()
    events = told(generator, vlm, plan)
    record = finished(events)[0].recipe["regions"]
    assert [len(region["attempts"]) for region in record] == [1, 2, 1]
    plain = told(generator, Listener(), replace(plan, reflect=0))
    assert record[0]["attempts"][0]["thought"] == finished(plain)[0].recipe["regions"][0]["attempts"][0]["thought"]
    critiques = [looked[0] for looked, text in zip(vlm.looks, vlm.asked, strict=True) if "SCORE" in text]
    assert len(critiques) == 3 == len(of(Verdict, events))
    assert not np.array_equal(critiques[1], critiques[2])


@pytest.mark.parametrize("name", ["llamagen", "showo", "diffusion"])
def test_the_same_words_paint_a_redone_stage_differently(name):
    """Random numbers, or noise where there are none, part a redo from what was rejected."""
    from reverie.wall import Paint, Wall

    class Begun:
        prompt, seed = "a red cat", 7

    generator = painters()[name]
    wall = Wall(generator, {0: Begun()}, None)
    half = generator.steps // 2
    first = wall.paint({0: Paint("a red cat", 0, half, 7)})[0]
    done = wall.paint({0: Paint("a red cat", half, generator.steps, 7)})[0]
    again = wall.paint({0: Paint("a red cat", half, generator.steps, 8)})[0]
    assert not np.array_equal(np.asarray(done.picture), np.asarray(again.picture))
    back = generator.rewind(again.canvas, half)
    assert np.array_equal(generator.preview(back)[0], np.asarray(first.picture))


@pytest.mark.parametrize("name", ["llamagen", "showo", "diffusion"])
def test_one_thought_that_is_the_prompt_is_plain_painting(name):
    class Echo(Listener):
        def write(self, messages, *_, on_text=None, **__):
            return "a red cat"

    generator = painters()[name]
    (plain,) = finished(run(generator, None, Plan(), ["a red cat"], [7])).values()
    after = told(generator, Listener(), Plan(think="after", reflect=1, threshold=0))
    assert finished(after)[0].picture.tobytes() == plain.picture.tobytes()
    if name == "llamagen":  # its wording paints from thoughts alone, so an echo is the prompt
        during = told(generator, Echo(), Plan(think="during", regions=1))
        assert finished(during)[0].picture.tobytes() == plain.picture.tobytes()


def test_the_command_line_names_who_thinks_for_a_painter_that_does_not(tmp_path, capsys, monkeypatch):
    from showo_toy import toy_showo

    from reverie.models.showo_checkpoint import save_showo

    monkeypatch.chdir(tmp_path)
    save_showo(*toy_showo(), tmp_path / "showo")
    eyes = tiny_folder(tmp_path / "janus", thinker="instruct", context=4096)
    argv = ["generate", "a red cat", "--model", "showo", "--device", "cpu", "--think", "during", "--regions", "2"]
    argv += ["--thought-tokens", "4", "--seed", "3", "--out", "out.png", "-q"]
    assert main(argv) == 2
    message = capsys.readouterr().err
    assert "--eyes" in message
    assert message.count("\n") == 1
    assert main([*argv, "--eyes", str(eyes)]) == 0
    recipe = read_recipe(tmp_path / "out.png")
    assert len(recipe["regions"]) == 2
    assert main([*argv, "--eyes", "atelier-inspector"]) == 2
    assert "cannot think for another model" in capsys.readouterr().err


def test_eyes_may_be_a_python_object(tmp_path):
    import reverie

    place = tiny_folder(tmp_path / "janus")
    painter = reverie.load(place, device="cpu")
    result = painter.generate("a red cat", preset="twig", reflect=0, seed=1, eyes=Critic())
    assert result.recipes[0]["regions"][0]["attempts"][0]["thought"].startswith("thing ")
    assert toy_janus()[0].config.image_length == result.recipes[0]["regions"][-1]["end"]
