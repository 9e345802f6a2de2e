"""Pictures beside prompts at the front door: editing, contexts, and replaying all of it."""

import os

import pytest
from pictures_toy import noise
from test_reason import Parrot
from tiny import tiny_folder
from vlm_toy import save_toy

from reverie.cli import main
from reverie.events import Spent
from reverie.eyes import check_eyes
from reverie.inputs import Inputs
from reverie.painter import load
from reverie.png import read_recipe
from reverie.reason import Plan


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return str(tiny_folder(tmp_path_factory.mktemp("models") / "tiny"))


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    noise(1, (300, 300)).save("photo.png")
    noise(2).save("cat.png")
    noise(3).save("dog.png")
    return tmp_path


def call(capsys, *order):
    try:
        code = main([*order])
    except SystemExit as end:
        code = end.code
    out, err = capsys.readouterr()
    return code, out, err


def test_edit_and_replay(capsys, here, tiny):
    code, out, err = call(capsys, "edit", "photo.png", "make it blue", "--model", tiny, "--seed", "1", "--out", "o.png")
    assert (code, out) == (0, "o.png\n"), err
    assert "Seen:" in err
    recipe = read_recipe("o.png")
    assert recipe["inputs"]["picture"]["file"] == "photo.png"
    assert recipe["told"]["seen"]
    assert call(capsys, "replay", "o.png", "--quiet")[1].startswith("identical")
    assert call(capsys, "replay", "o.png", "--quiet", "--from-thought")[1].startswith("identical")
    os.rename("photo.png", "moved.png")
    code, out, err = call(capsys, "replay", "o.png", "--quiet")
    assert (code, err.count("\n")) == (2, 1)
    assert "photo.png is not here; --picture" in err
    assert call(capsys, "replay", "o.png", "--quiet", "--picture", "moved.png")[1].startswith("identical")
    assert "none of them is photo.png" in call(capsys, "replay", "o.png", "--quiet", "--picture", "cat.png")[2]


def test_context_in_the_order_in_which_it_is_typed(capsys, here, tiny):
    order = ["generate", "a zebra", "--context", "cat.png", "a cat", "--image", "dog.png", "--context", "cat.png", "b"]
    code, _, err = call(capsys, *order, "--model", tiny, "--seed", "1", "--out", "o.png", "--quiet")
    assert code == 0, err
    (here / "cat.png").unlink()  # small pictures are kept in the recipe
    (here / "dog.png").unlink()
    context = read_recipe("o.png")["inputs"]["context"]
    assert [part if isinstance(part, str) else part["file"] for part in context] == [
        "cat.png", "a cat", "dog.png", "cat.png", "b",
    ]  # fmt: skip
    assert call(capsys, "replay", "o.png", "--quiet")[1].startswith("identical")


@pytest.mark.parametrize(
    ("order", "words"),
    [
        (["edit", "none.png", "a"], "no file none.png"),
        (["edit", "photo.png", " "], "empty"),
        (["edit", "photo.png"], "instruction"),
        (["edit", "photo.png", "a", "--eyes", "nobody"], "unknown model 'nobody'"),
        (["generate", "a", "--eyes", "atelier-inspector"], "nothing to look at"),
        (["generate", "a", "--context", "cat.png"], "expected 2 arguments"),
        (["generate", "a", "--image", "."], "cannot be read"),
        (["generate", "a", *(["--image", "cat.png"] * 33)], "33 pictures"),
        (["replay", "photo.png"], "no recipe"),
    ],
)
def test_bad_orders_are_one_sentence(capsys, here, tiny, order, words):
    model = [] if order[0] == "replay" else ["--model", tiny]
    code, out, err = call(capsys, *order, *model)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert words in err


def test_the_same_in_python_with_any_eyes(here, tiny, monkeypatch):
    painter = load(tiny, "cpu")
    eyes = Parrot("a red fish")
    messages = [{"role": "user", "content": [{"type": "image", "image": "cat.png"}, {"type": "text", "text": "a dog"}]}]
    result = painter.generate(messages, seed=1, eyes=eyes)
    assert result.prompt == "a dog"
    assert result.recipes[0]["plan"]["eyes"] == "python:Parrot"
    assert result.thought.startswith("a red fish")
    assert result.image.tobytes() == painter.generate(result.rewritten, seed=1).image.tobytes()
    (image,) = painter.paint(["a"], [1], Plan(eyes="atelier-inspector"), [Inputs.of(noise())])
    assert image.text
    spent = next(e for e in painter.stream("a", picture="cat.png", seed=1) if isinstance(e, Spent))
    assert spent.work["vision_encodes"][0] >= 1
    with pytest.raises(ValueError, match="leave context out"):
        painter.generate(messages, context=[noise()])
    with pytest.raises(ValueError, match="none of them"):
        painter.generate("a", picture=noise(), eyes=3)
    monkeypatch.setattr("reverie.refusals.TAKES_CONTEXT", ("janus",))
    both = [Inputs.of(noise()), Inputs.of(context=[noise()])]
    with pytest.raises(ValueError, match="some of these inputs"):
        painter.run(Plan(), ["a", "b"], [1, 2], inputs=both)


def test_thirty_pictures_are_read(here, tiny):
    result = load(tiny, "cpu").generate("a zebra", context=[noise(i) for i in range(30)], seed=1)
    assert len(result.recipes[0]["told"]["seen"]) == 30


def test_eyes_by_name_are_of_many_kinds(here, tiny, tmp_path):
    painter = load(tiny, "cpu")
    chat = str(save_toy(tmp_path / "chat"))
    context = [noise(0), "one", noise(1), "two"]
    told = painter.generate("three", context=context, eyes=chat, seed=1).recipes[0]["told"]
    assert told["seen"] == []  # this model reads pictures between words, and nobody describes them first
    other = str(tiny_folder(tmp_path / "other", thinker="instruct"))
    told = painter.generate("three", picture=noise(), eyes=other, seed=1).recipes[0]["told"]
    assert len(told["seen"]) == 1
    assert check_eyes("openai:model@http://localhost:1/v1").family == "served"
    for name, words in (("clipscore:", "cannot look"), ("openai:@x", "names no served model"), (".", "config")):
        with pytest.raises(ValueError, match=words):
            check_eyes(name)
