"""Pictures beside prompts: opening them, and painters that take them."""

import base64
import json
import os
import struct
import zlib
from dataclasses import replace

import diffusion_toy as toys
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pictures_toy import noise
from PIL import Image
from test_reason import Greys
from tiny import tiny_folder

from reverie.canvas import Conditions
from reverie.events import Finished, Revised
from reverie.generators.diffusion import DiffusionPainter
from reverie.inputs import LARGEST_COPY, NOTHING, WORKING_AREA, Inputs, Picture, from_messages
from reverie.judges.mixed import FunctionJudge
from reverie.look_back import Bench
from reverie.models.registry import Source, resolve
from reverie.painter import Painter
from reverie.png import picture_hash
from reverie.reason import Plan, run
from reverie.refusals import check_inputs, in_words
from reverie.vlms import Message
from reverie.vlms.text_encoder import TextEncoderWriter


def header_of(width: int, height: int) -> bytes:
    """A PNG that says how large it is, and holds no pixels."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + zlib.compress(b""))
    lengths = (struct.pack(">I", len(chunk) - 4) for chunk in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        n + c + struct.pack(">I", zlib.crc32(c)) for n, c in zip(lengths, chunks, strict=True)
    )


def test_pictures_are_known_by_their_pixels_upright_and_on_white(tmp_path):
    noise().save(tmp_path / "a.png")
    noise().save(tmp_path / "b.webp", lossless=True)
    one, two = Picture.of(tmp_path / "a.png"), Picture.of(str(tmp_path / "b.webp"))
    assert one == two == Picture.of(noise()) != Picture.of(noise(1))
    assert (one.file, len({one, two})) == (str(tmp_path / "a.png"), 1)
    turned = Image.Exif()
    turned[0x0112] = 6  # a camera held upright
    noise().save(tmp_path / "c.png", exif=turned)
    assert Picture.of(tmp_path / "c.png").image.size == (16, 24)
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    assert Picture.of(clear) == Picture.of(Image.new("RGB", (8, 8), "white"))
    large = Image.new("RGB", (4000, 2000), "red")
    known = Picture.of(large)
    assert known.sha256 == picture_hash(large)
    assert WORKING_AREA * 0.99 < known.image.width * known.image.height <= WORKING_AREA


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "no file"), (b"hello", "cannot be read"), (header_of(8, 8), "cannot be read"),
        (header_of(20000, 20000), "scale it down"), (header_of(9000, 9000), "9000 x 9000"),
    ],
)  # fmt: skip
def test_what_is_no_picture_is_refused_in_a_sentence(tmp_path, content, words):
    if content is not None:
        (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=words):
        Inputs.of(picture=tmp_path / "a.png")
    with pytest.raises(ValueError, match="not int"):
        Inputs.of(picture=7)


def test_contexts_have_limits():
    with pytest.raises(ValueError, match="no picture"):
        Inputs.of(context=["only", "words"])
    with pytest.raises(ValueError, match="33 pictures"):
        Inputs.of(context=[noise()] * 33)
    with pytest.raises(ValueError, match="129 parts"):
        Inputs.of(context=[noise(), *["word"] * 128])
    with pytest.raises(ValueError, match="empty"):
        Inputs.of(context=[noise(), " "])
    with pytest.raises(ValueError, match="Path"):
        Inputs.of(context=["cat.png", "a cat"])
    with pytest.raises(ValueError, match="sequence"):
        Inputs.of(context="cat.png")
    with pytest.raises(ValueError, match="no context"):
        Inputs.of(noise(), [noise()])
    assert len(Inputs.of(context=[noise(i) for i in range(32)]).pictures) == 32
    assert not NOTHING
    assert Inputs.of() == NOTHING


parts = st.lists(st.one_of(st.text(st.characters(codec="ascii", categories=["L"]), min_size=1), st.integers(0, 9)))


@given(parts.filter(lambda found: any(isinstance(part, int) for part in found)))
def test_inputs_survive_a_recipe(found):
    inputs = Inputs.of(context=[noise(part) if isinstance(part, int) else part for part in found])
    again = Inputs.from_json(json.loads(json.dumps(inputs.to_json())))
    assert again == inputs
    assert [picture.image.tobytes() for picture in again.pictures] == [p.image.tobytes() for p in inputs.pictures]


def test_a_recipe_of_a_large_picture_wants_the_same_one_again(tmp_path):
    side = 256
    noise(3, (side, side)).save(tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > LARGEST_COPY
    record = Inputs.of(tmp_path / "a.png").to_json()
    assert "png" not in record["picture"]
    assert Inputs.from_json(record).picture.image.size == (side, side)
    os.rename(tmp_path / "a.png", tmp_path / "moved.png")
    with pytest.raises(ValueError, match=r"a\.png is not here; --picture"):
        Inputs.from_json(record)
    assert Inputs.from_json(record, [tmp_path / "moved.png"]).picture.sha256 == record["picture"]["sha256"]
    noise(4, (side, side)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is not the picture"):
        Inputs.from_json(record)
    with pytest.raises(ValueError, match="none of the pictures"):
        Inputs.from_json(record, [tmp_path / "moved.png", tmp_path / "a.png"])
    kept = Inputs.of(noise()).to_json()
    kept["picture"]["png"] = Inputs.of(noise(1)).to_json()["picture"]["png"]
    for damage in ({"picture": {}}, {"context": 3}, [], {"picture": {"sha256": "0", "png": "%"}}, kept):
        with pytest.raises(ValueError, match="damaged"):
            Inputs.from_json(damage)


def test_messages_are_read_as_chat_servers_take_them(tmp_path):
    noise().save(tmp_path / "a.png")
    data = base64.b64encode((tmp_path / "a.png").read_bytes()).decode()
    content = [
        {"type": "image", "image": str(tmp_path / "a.png")}, {"type": "text", "text": "a cat.png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{data}"}},
        {"type": "image", "image": noise()},
    ]  # fmt: skip
    prompt, context = from_messages([{"role": "user", "content": content}, {"role": "user", "content": "a dog"}])
    assert (prompt, context[1]) == ("a dog", "a cat.png")
    assert len(set(Inputs.of(context=context).pictures)) == 1
    for wrong in (
        [], ["text"], [{"role": "system", "content": "a"}], [{"content": 3}], [{"content": content}],
        [{"content": [{"type": "image_url", "image_url": {"url": "http://x/y.png"}}, {"type": "text", "text": "a"}]}],
        [{"content": [{"type": "video"}]}],
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"message|image_url"):
            from_messages(wrong)


class Reader(Greys):
    takes_context = True

    def start(self, conditions, seeds):
        self.read = conditions.contexts
        return super().start(conditions, seeds)


def test_a_generator_that_takes_contexts_gets_the_parts():
    generator, inputs = Reader(), Inputs.of(context=[noise(), "one", noise(1)])
    events = list(run(generator, None, Plan(), ["two", "three"], [1, 2], inputs=[inputs, NOTHING]))
    assert [type(part).__name__ for part in generator.read[0]] == ["Image", "str", "Image"]
    assert generator.read[1] == ()
    assert Inputs.from_json(next(e for e in events if isinstance(e, Finished)).recipe["inputs"]) == inputs
    with pytest.raises(ValueError, match="reads no pictures"):
        list(run(Greys(), None, Plan(), ["two"], [1], inputs=[inputs]))
    with pytest.raises(ValueError, match="does not edit"):
        list(run(Greys(), None, Plan(), ["two"], [1], inputs=[Inputs.of(noise())]))
    with pytest.raises(ValueError, match="1 of 2 prompts"):
        list(run(Reader(), None, Plan(), ["two", "three"], [1, 2], inputs=[inputs]))


class Editor(Greys):
    edits = True

    def start(self, conditions, seeds):
        self.seen = [*getattr(self, "seen", []), conditions.pictures]
        return super().start(conditions, seeds)


def test_choosing_and_looking_back_edit_the_same_picture_again():
    generator, picture = Editor(), Inputs.of(noise())
    judge = FunctionJudge(lambda prompts, pictures: [0.0] * len(pictures))
    plan = Plan(choose="orm", candidates=3, reflect=1, judge="python:none")
    events = list(run(generator, None, plan, ["a", "a"], [1, 2], inputs=[picture] * 2, bench=Bench(judge)))
    assert [e for e in events if isinstance(e, Revised)]
    assert all(group == (picture.picture.image,) for start in generator.seen for group in start)
    with pytest.raises(ValueError, match="give it a picture"):
        list(run(Editor(), None, Plan(), ["a"], [1]))


def test_who_edits_and_paints_looks_back_by_changing_the_flawed_picture():
    generator, bench = Editor(), Bench(FunctionJudge(lambda prompts, pictures: [0.0] * len(pictures)))
    generator.paints = True
    bench = replace(bench, edit="Change it to {prompt}.")
    events = list(run(generator, None, Plan(reflect=1), ["a", "b"], [1, 2], bench=bench))
    assert [(e.prompt, e.note) for e in events if isinstance(e, Revised)] == [
        ("Change it to a.", None), ("Change it to b.", None)
    ]  # fmt: skip
    first, second = generator.seen
    assert first == ()
    assert [len(group) for group in second] == [1, 1]
    # Of a picture that was given the prompt says how it is to change, so that one is changed again.
    picture = Inputs.of(noise())
    events = list(run(generator, None, Plan(reflect=1), ["a"], [1], inputs=[picture], bench=bench))
    assert all(group == (picture.picture.image,) for start in generator.seen[2:] for group in start)
    assert [e.prompt for e in events if isinstance(e, Revised)] == ["a It does not show what was asked for."]


def test_pictures_of_other_sizes_do_not_share_a_batch():
    generator = Editor()
    inputs = [Inputs.of(noise(i, size)) for i, size in enumerate([(8, 8), (8, 8), (9, 8), (8, 8)])]
    events = list(run(generator, None, Plan(), ["a"] * 4, [1, 2, 3, 4], inputs=inputs))
    assert [len(start) for start in generator.seen] == [2, 1, 1]
    assert [e.image for e in events if isinstance(e, Finished)] == [0, 1, 2, 3]


@pytest.fixture(scope="module")
def editor(tmp_path_factory):
    """A tiny Qwen-Image-Edit as a painter, which edits pictures of about 64 x 64 points in place of 1024 x 1024."""
    folder = tmp_path_factory.mktemp("edit")
    index = {"_class_name": "QwenImageEditPipeline", "_reverie": {"steps": 2}}
    index["text_encoder"] = ["transformers", "Qwen2_5_VLForConditionalGeneration"]
    (folder / "model_index.json").write_text(json.dumps(index))
    pipe = toys.qwen_image_edit()
    return Painter(Source("toy-edit", "diffusion", folder, thinker="t2g", config=index), pipe, None)


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr("reverie.models.diffusion_family.EDIT_AREA", 1024**2 // 256)
    monkeypatch.setattr("reverie.models.diffusion_qwen.EDIT_CONDITION_AREA", 384**2 // 256)


def test_an_editing_pipeline_takes_the_picture_itself(editor, small):
    picture = noise(1, (60, 40))
    result = editor.generate("make it blue", picture=picture, seed=3, n=2)
    generator = DiffusionPainter(editor.model, steps=2)
    canvas = generator.advance(generator.start(Conditions(["make it blue"], None, [picture]), [3]))
    assert (np.asarray(result.image) == generator.preview(canvas)[0]).all()
    assert result.image.tobytes() != result.images[1].tobytes()
    assert result.rewritten is None
    assert Inputs.from_json(result.recipes[0]["inputs"]) == Inputs.of(picture)
    other = editor.generate("make it blue", picture=noise(2, (60, 40)), seed=3)
    assert other.image.tobytes() != result.image.tobytes()
    with pytest.raises(ValueError, match="edits pictures"):
        editor.generate("make it blue")
    with pytest.raises(ValueError, match="edits pictures"):
        editor.generate("make it blue", context=[picture])
    with pytest.raises(ValueError, match="leave eyes"):
        editor.generate("make it blue", picture=picture, eyes="atelier-janus")


def test_the_thinker_of_an_editing_pipeline_sees_the_picture(editor, small, monkeypatch):
    writer = TextEncoderWriter(editor.model)
    pictures, text = (noise(1, (60, 40)), noise(2, (30, 40))), "what <|image_pad|> is it?"
    found = writer._asked([Message("user", text.replace("<|image_pad|>", "it"), pictures)])
    template = (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n"
        + "<|vision_start|><|image_pad|><|vision_end|>" * 2
        + f"{text.replace('<|image_pad|>', 'it')}<|im_end|>\n<|im_start|>assistant\n"
    )
    theirs = editor.model.processor(text=[template], images=list(pictures), padding=True, return_tensors="pt")
    assert found["input_ids"].tolist() == theirs["input_ids"].tolist()
    assert torch.equal(found["pixel_values"], theirs["pixel_values"])
    quoted = writer._asked([Message("user", text, pictures[:1])])["input_ids"][0].tolist()
    pad = editor.model.tokenizer.convert_tokens_to_ids("<|image_pad|>")
    assert quoted.count(pad) == int(found["image_grid_thw"][0].prod()) // 4  # the user's own text stays text
    states = [writer.features([Message("user", "what is it?", (one,))])[-1] for one in pictures]
    assert not torch.allclose(states[0], states[1])
    asked = []
    answer = "It dries.\nRevised Prompt:\na dry leaf"
    monkeypatch.setattr(
        TextEncoderWriter, "write", lambda self, m, *_, on_text=None, **__: asked.extend(m) or on_text(answer) or answer
    )
    result = editor.generate("an hour in the sun", picture=pictures[0], think="before", seed=3)
    assert result.rewritten == "a dry leaf"
    assert asked[0].images[0].tobytes() == pictures[0].tobytes()
    assert "an hour in the sun" in asked[0].text
    assert "edits pictures" in asked[0].text


def test_who_cannot_look_says_what_to_do(tmp_path):
    janus = resolve(tiny_folder(tmp_path / "tiny"))
    reads = replace(janus, family="llamagen", name="reader")
    picture = Inputs.of(noise())
    with pytest.raises(ValueError, match="reader paints from words alone; name a model that looks"):
        check_inputs(reads, Plan(), picture)
    check_inputs(reads, Plan(eyes="atelier-inspector"), picture)
    assert in_words(reads, Plan(eyes="atelier-inspector"), picture)
    assert in_words(janus, Plan(), picture)
    assert not in_words(janus, Plan(), NOTHING)
    with pytest.raises(ValueError, match="nothing to look at"):
        check_inputs(janus, Plan(eyes="atelier-inspector"), NOTHING)
    with pytest.raises(ValueError, match="unknown model"):
        check_inputs(janus, Plan(eyes="nobody"), picture)
