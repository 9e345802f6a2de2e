"""Another model thinks in the painter's place: by name, behind a server, or as an object in Python."""

from __future__ import annotations

from pathlib import Path

import pytest
from diffusion_toy import qwen_image, qwen_image_edit, save_thinker, stable_diffusion_3
from PIL import Image

from reverie import around, load
from reverie.cli import main
from reverie.png import read_recipe


class Told:
    """A VLM that has read everything."""

    name = "told"

    def __init__(self, answer: str):
        self.answer, self.asked = answer, []

    def write(self, messages, tokens, on_text=None, **rest):
        self.asked.append(messages)
        if on_text is not None:
            on_text(self.answer)
        return self.answer

    def write_batch(self, conversations, tokens, **rest):
        return [self.write(messages, tokens) for messages in conversations]


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A painter whose text encoders cannot write."""
    return save_thinker(stable_diffusion_3(), tmp_path_factory.mktemp("models") / "silent")


def test_another_thinks_for_a_painter_that_cannot(silent: Path) -> None:
    painter = load(silent, "cpu")
    vlm = Told("Wool is shorn from sheep.\nRevised Prompt:\na sheep")
    result = painter.generate("the animal that gives us wool", think="before", thinker=vlm, seed=1)
    assert (result.thought, result.rewritten) == ("Wool is shorn from sheep.", "a sheep")
    assert "the animal that gives us wool" in vlm.asked[0][0].text
    plain = painter.generate("a sheep", seed=1)
    assert plain.image.tobytes() == result.image.tobytes()
    with pytest.raises(ValueError, match="writes"):
        painter.generate("the animal that gives us wool", think="before", seed=1)


def test_an_external_thinker_sees_the_picture_that_is_edited() -> None:
    vlm = Told("It is dark then. Revised Prompt: a black square")
    picture = Image.new("RGB", (32, 32), "red")
    painter = around(qwen_image_edit(), steps=2, area=64**2)
    result = painter.generate("show it at night", picture=picture, think="before", thinker=vlm, seed=1)
    assert result.rewritten == "a black square"
    ((message,),) = vlm.asked
    assert len(message.images) == 1
    assert "edits pictures" in message.text


def test_a_named_thinker_stands_in_the_recipe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The shipped Janus reasons in its own wording, and a replay asks it again."""
    pytest.importorskip("diffusers", reason="needs reverie[diffusion]")
    folder = save_thinker(qwen_image(), tmp_path / "toy")
    out = tmp_path / "wool.png"
    order = ["generate", "the animal that gives us wool", "--model", str(folder), "--device", "cpu", "--seed", "1"]
    assert main([*order, "--think", "before", "--thinker", "atelier-janus", "--out", str(out), "--quiet"]) == 0
    recipe = read_recipe(out)
    assert recipe["plan"]["thinker"] == "atelier-janus"
    assert "a sheep" in str(recipe["thought"])
    capsys.readouterr()
    assert main(["replay", str(out), "--device", "cpu", "--quiet", "--out", str(tmp_path / "again.png")]) == 0
    assert "identical" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--thinker", "atelier-janus"], "add think=before"),
        (["--think", "during", "--thinker", "atelier-janus"], "add think=before"),
        (["--think", "before", "--thinker", "atelier-inspector"], "cannot think for another model"),
        (["--think", "before", "--thinker", "nowhere"], "nowhere"),
    ],
)
def test_what_cannot_think_is_said_in_a_sentence(options: list[str], said: str, silent: Path, capsys) -> None:
    assert main(["generate", "a cat", "--model", str(silent), *options]) == 2
    assert said in capsys.readouterr().err
