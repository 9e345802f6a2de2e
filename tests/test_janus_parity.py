"""Janus against numbers made with the authors' code: tiny random checkpoints in the official layout.

The fixtures lie beside the repository (or where REVERIE_FIXTURES says); every folder of the family is run.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from reverie.canvas import Conditions
from reverie.generators.janus import JanusPainter, to_uint8
from reverie.models.janus_checkpoint import load_janus
from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes, prepare

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
FOLDERS = [
    path.parent
    for path in sorted(ROOT.glob("**/cases.json"))
    if json.loads(path.read_text("utf-8")).get("family") == "janus"
]
ROLES = {"<|User|>": "user", "User": "user", "<|Assistant|>": "assistant", "Assistant": "assistant"}


class Fixture:
    def __init__(self, folder: Path):
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text("utf-8"))
        self.inputs, self.expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
        self.model, self.tokenizer = load_janus(folder / "checkpoint", dtype=torch.float32)
        self.eyes = JanusEyes(self.model, self.tokenizer)
        self.prompt = self.cases["generation"]["conversation"][0]["content"]

    def close(self, name: str, value: torch.Tensor, tolerance: float = 1e-4) -> None:
        expected = self.expected[name]
        assert value.shape == expected.shape
        assert np.abs(value.numpy() - expected).max() <= tolerance, name

    def same(self, name: str, value) -> None:
        np.testing.assert_array_equal(np.asarray(value), self.expected[name], err_msg=name)

    def input(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.inputs[name])

    def conversation(self, turns: list[dict], system: str | None = None) -> list[Message]:
        """The fixture's turns as our messages; the empty last turn is ours to add."""
        messages = [] if system is None else [Message("system", system)]
        for turn in turns:
            if turn["content"]:
                pictures = [Image.open(self.folder / name) for name in turn.get("images", [])]
                text = turn["content"].replace("<image_placeholder>", "<image>")
                messages.append(Message(ROLES[turn["role"]], text, pictures))
        return messages


@pytest.fixture(scope="module", params=FOLDERS or [None], ids=[folder.name for folder in FOLDERS] or ["none"])
def janus(request) -> Fixture:
    if request.param is None:
        pytest.skip(f"no Janus fixtures in {ROOT}; set REVERIE_FIXTURES to their folder")
    with torch.inference_mode():
        return Fixture(request.param)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_tokenizer_and_chat_strings(janus):
    tokenizer, cases = janus.tokenizer, janus.cases
    for text, with_bos, without in cases["tokenizer_samples"]:
        assert tokenizer.encode(text) == with_bos
        assert tokenizer.encode(text)[1:] == without
    ids = cases["special_token_ids"]
    assert (tokenizer.bos, tokenizer.eos, tokenizer.pad) == (ids["bos"], ids["eos"], ids["pad"])
    assert (tokenizer.image_start, tokenizer.image_end) == (ids["image_start"], ids["image_end"])
    turns = [(turn["role"], turn["content"]) for turn in cases["text"]["conversation"]]
    assert tokenizer.chat(turns, cases["text"]["system_prompt"]) == cases["expected_strings"]["text_sft"]
    prompt = tokenizer.painting_ids(janus.prompt)
    janus.same("gen_prompt_ids", prompt)
    pairs = len(janus.expected["gen_cfg_prompt_rows"]) // 2
    janus.same("gen_cfg_prompt_rows", [prompt, tokenizer.blank_ids(prompt)] * pairs)


def test_text(janus):
    messages = janus.conversation(janus.cases["text"]["conversation"], janus.cases["text"]["system_prompt"])
    janus.same("text_input_ids", [janus.eyes.ids(messages)])
    janus.close("text_logits", janus.eyes.logits(messages)[None])


def test_prefix_of_image_codes(janus):
    model, codes = janus.model, janus.input("gen_prefix_tokens")
    embeds = model.embed_codes(codes)
    janus.close("gen_prefix_embeds", embeds)
    prompt = janus.tokenizer.painting_ids(janus.prompt)
    logits = []
    for ids in (prompt, janus.tokenizer.blank_ids(prompt)):
        text = model.embed_text(torch.tensor([ids] * len(codes)))
        hidden = model.hidden(torch.cat((text, embeds), 1))[:, len(prompt) - 1 :]
        logits.append(model.code_logits(hidden))
    janus.close("gen_prefix_logits_cond", logits[0])
    janus.close("gen_prefix_logits_uncond", logits[1])
    guided = logits[1] + janus.cases["generation"]["cfg_weight"] * (logits[0] - logits[1])
    janus.close("gen_prefix_logits_cfg", guided, 5e-4)


def paint(janus, count: int, picker, weight: float, temperature: float):
    painter = JanusPainter(janus.model, janus.tokenizer, picker=picker, temperature=temperature)
    canvas = painter.start(Conditions([janus.prompt] * count, weight), range(count))
    return painter, painter.advance(canvas)


def test_greedy_painting(janus):
    seen, settings = [], janus.cases["generation"]

    def greedy(logits, uniforms, temperature):
        seen.append(logits[0])
        return logits.argmax(-1)

    painter, canvas = paint(janus, 1, greedy, settings["cfg_weight"], settings["greedy_temperature"])
    assert painter.steps == settings["grid"] ** 2
    janus.same("gen_greedy_tokens", canvas.tokens)
    janus.close("gen_greedy_logits_cfg", torch.stack(seen), 5e-4)
    pixels = janus.model.decode_codes(canvas.tokens)
    janus.close("gen_greedy_pixels", pixels)
    expected = janus.expected["gen_greedy_image_uint8"].astype(int)
    assert np.abs(to_uint8(pixels) - expected).max() <= 1
    assert np.abs(painter.preview(canvas)[0] - expected[0]).max() <= 1
    # The rows one by one, as guidance 1 (no blank row) and 0 (nothing but it) show them.
    for weight, name in ((1.0, "gen_greedy_logits_cond"), (0.0, "gen_greedy_logits_uncond")):
        seen.clear()
        given = iter(canvas.tokens[0])
        paint(janus, 1, lambda logits, *_, given=given: seen.append(logits[0]) or next(given)[None], weight, 1.0)
        janus.close(name, torch.stack(seen))


def test_sampled_painting(janus):
    settings, draws, seen = (
        janus.cases["generation"]["sampled"],
        torch.from_numpy(janus.expected["gen_sampled_exp_draws"]),
        [],
    )

    def replay(logits, uniforms, temperature):
        """torch.multinomial's draw: argmax of p / e, with the recorded e."""
        draw = draws[:, len(seen)]
        seen.append(logits)
        return ((logits / temperature).softmax(-1) / draw).argmax(-1)

    _, canvas = paint(janus, settings["parallel_size"], replay, settings["cfg_weight"], settings["temperature"])
    janus.same("gen_sampled_tokens", canvas.tokens)
    janus.close("gen_sampled_logits_cfg", torch.stack(seen, 1), 5e-4)


def test_pictures_and_codes(janus):
    model = janus.model
    janus.close("vq_pixels_square", model.decode_codes(janus.input("vq_ids_square")))
    janus.close("vq_pixels_rect", model.decode_codes(janus.input("vq_ids_rect"), tuple(janus.cases["vq"]["rect_hw"])))
    janus.same("vq_encode_ids", model.encode_image(janus.input("vq_encode_image")))
    pixels = janus.input("vision_pixel_values")
    janus.close("vision_features", model.vision_model(pixels))
    janus.close("vision_aligned", model.image_features(pixels))


def test_understanding(janus):
    cases, eyes = janus.cases["understanding"], janus.eyes
    talks = [janus.conversation(turns) for turns in cases["conversations"]]
    mask = janus.expected["und_batch_attention_mask"].astype(bool)
    for row, talk in enumerate(talks):
        np.testing.assert_array_equal(eyes.ids(talk), janus.expected["und_batch_input_ids"][row][mask[row]])
        pixels = prepare(talk[0].images[0], janus.tokenizer.rules)
        np.testing.assert_array_equal(pixels.numpy(), janus.expected["und_batch_pixel_values"][row, 0])
        is_image = np.array(eyes.ids(talk)) == janus.tokenizer.placeholder
        np.testing.assert_array_equal(is_image, janus.expected["und_batch_images_seq_mask"][row][mask[row]])
        first = eyes.logits(talk)[-1].numpy()
        assert np.abs(first - janus.expected["und_batch_step_logits"][row, 0]).max() <= 1e-4
    janus.same("und_input_ids", [eyes.ids(talks[0])])
    janus.close("und_logits", eyes.logits(talks[0])[None])
    janus.close("und_inputs_embeds", eyes._embed(talks[0])[None])
    janus.close("und_pixel_values", prepare(talks[0][0].images[0], janus.tokenizer.rules)[None, None], 0)


def test_greedy_answers(janus):
    cases, eyes = janus.cases["understanding"], janus.eyes
    talks = [janus.conversation(turns) for turns in cases["conversations"]]
    pieces = []
    answers = eyes.write_batch(talks, cases["max_new_tokens"])
    assert answers == janus.cases["expected_strings"]["greedy_text"]
    assert [eyes.write(talk, cases["max_new_tokens"], on_text=pieces.append) for talk in talks] == answers
    for row, ids in enumerate(janus.expected["und_batch_greedy_tokens"].tolist()):
        assert janus.tokenizer.decode(ids) == answers[row]
    # The logits behind each token: the answer so far goes in again as embeddings, in one uncached pass.
    for row, talk in enumerate(talks):
        ids = torch.tensor(janus.expected["und_batch_greedy_tokens"][row, :-1])
        embeds = torch.cat((eyes._embed(talk), janus.model.embed_text(ids)))
        logits = janus.model.text_logits(janus.model.hidden(embeds[None])[0, -cases["max_new_tokens"] :])
        assert np.abs(logits.numpy() - janus.expected["und_batch_step_logits"][row]).max() <= 1e-4
