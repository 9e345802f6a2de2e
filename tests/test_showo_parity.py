"""Show-o against numbers made with the authors' code: tiny random checkpoints in the official layout.

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
from reverie.generators.janus import to_uint8
from reverie.generators.showo import ShowoPainter, confidence, mask_ratio, masked_counts, temperature_at, unpack
from reverie.generators.showo_texts import Read, read
from reverie.models.showo import omni_mask, question_mask
from reverie.models.showo_checkpoint import load_showo
from reverie.vlms.showo import ShowoEyes, prepare

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
FOLDERS = [
    path.parent
    for path in sorted(ROOT.glob("**/cases.json"))
    if json.loads(path.read_text("utf-8")).get("family") == "showo"
]


class Fixture:
    def __init__(self, folder: Path):
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text("utf-8"))
        self.inputs, self.expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
        self.model, self.tokenizer = load_showo(folder / "checkpoint", dtype=torch.float32)
        self.prompts = self.cases["prompts"]

    def close(self, name: str, value: torch.Tensor, tolerance: float = 1e-4) -> None:
        expected = self.expected[name]
        assert value.shape == expected.shape, name
        assert np.abs(value.numpy() - expected).max() <= tolerance, name

    def same(self, name: str, value) -> None:
        np.testing.assert_array_equal(np.asarray(value), self.expected[name], err_msg=name)

    def input(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.inputs[name])

    def sequence(self, prompts, slots) -> torch.Tensor:
        """Whole painting sequences, as ids of the one vocabulary; slots are -1 where they are masked."""
        config, count = self.model.config, len(prompts)
        text = torch.tensor(self.tokenizer.padded([self.tokenizer.painting_ids(prompt) for prompt in prompts]))
        slots = torch.where(slots < 0, config.mask, slots + config.code_offset)
        edges = torch.tensor([[config.image_start, config.image_end]]).repeat(count, 1)
        return torch.cat((text, edges[:, :1], slots, edges[:, 1:]), 1)

    def partial(self) -> torch.Tensor:
        return torch.where(self.input("partial_mask"), -1, self.input("partial_image_tokens"))


@pytest.fixture(scope="module", params=FOLDERS or [None], ids=[folder.name for folder in FOLDERS] or ["none"])
def showo(request) -> Fixture:
    if request.param is None:
        pytest.skip(f"no Show-o fixtures in {ROOT}; set REVERIE_FIXTURES to their folder")
    with torch.inference_mode():
        return Fixture(request.param)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_tokenizer_and_layout(showo):
    tokenizer, config, ids = showo.tokenizer, showo.model.config, showo.cases["ids"]
    for text, expected in showo.cases["tokenizer_samples"]:
        assert tokenizer.encode(text) == expected
    assert ids == ids | tokenizer.ids
    assert tokenizer.start == ids["<|sot|>"]
    assert tokenizer.end == ids["<|eot|>"]
    assert (config.code_offset, config.mask) == (ids["image_token_offset"], ids["mask_token_id"])
    assert (config.vocabulary, config.text_tokens) == (ids["vocab_size"], ids["llm_vocab_size"])
    masked = torch.full((len(showo.prompts), config.image_length), -1)
    showo.same("t2i_input_ids", conditional := showo.sequence(showo.prompts, masked))
    showo.same("t2i_uncond_input_ids", blank := showo.sequence([""] * len(masked), masked))
    showo.same("t2i_attention_allowed", omni_mask(torch.cat((conditional, blank)), tokenizer)[:, None])


def test_logits(showo):
    model, tokenizer, slots = showo.model, showo.tokenizer, showo.partial()
    prompts = [*showo.prompts, *[""] * len(slots)]
    ids = showo.sequence(prompts, slots.repeat(2, 1))
    showo.same("partial_input_ids", ids)
    showo.close("partial_logits", logits := model.logits(ids, omni_mask(ids, tokenizer)))
    # The painting path: pads left out, text read beforehand, only slots and codes; with and without blocks of rows.
    columns = slice(model.config.code_offset, model.config.mask)
    inside = logits[:, model.config.block + 1 : -1, columns]
    texts = [tokenizer.painting_ids(prompt) for prompt in prompts]
    for rows in (None, 16):
        states = model.read_prompts(texts, rows)
        painted = model.slot_logits(slots.repeat(2, 1).clamp(min=0), slots.repeat(2, 1) < 0, states, rows)
        torch.testing.assert_close(painted, inside, atol=1e-4, rtol=0)
    weight = showo.cases["partial_guidance_scale"] + 1
    painter, told = ShowoPainter(model, tokenizer), [Read(tuple(text)) for text in texts]
    cache = read(model, list(dict.fromkeys(told)), {}, None, 64, lambda tokens, pictures: None)
    guided, _ = painter._guided(slots.clamp(min=0), slots < 0, cache, told, weight)
    expected = torch.from_numpy(showo.expected["partial_image_logits_cfg"])[slots < 0]
    torch.testing.assert_close(painter._head(guided), expected, atol=5e-4, rtol=0)


def runs(showo):
    return showo.cases["generation"].items()


def test_painting(showo):
    for name, run in runs(showo):
        seen = []
        recorded = ("exp_draws", "uniform_draws") if run["choice"] == "multinomial" else ()
        draws = {kind: showo.expected[f"{name}_{kind}"] for kind in recorded}
        first = showo.partial() < 0 if run["start"] == "partial" else torch.ones_like(showo.partial(), dtype=torch.bool)
        hidden = [first, *torch.from_numpy(showo.expected[f"{name}_step_masking"])]

        def replay(logits, uniforms, temperature, seen=seen, draws=draws, run=run, hidden=hidden):
            """The run's own choice: the likeliest code, or torch.multinomial's argmax of p / e with the recorded e.
            Ours asks about masked slots only."""
            probabilities = logits.softmax(-1)
            asked = hidden[len(seen)]
            noise = [torch.from_numpy(draws[kind][len(seen)])[asked] for kind in draws]
            codes = (probabilities / noise[0] if noise else probabilities).argmax(-1)
            seen.append((codes, probabilities.gather(-1, codes[..., None])[..., 0]))
            return *seen[-1], noise[1] if noise else uniforms

        assert run["choice"] in ("argmax", "multinomial")
        painter = ShowoPainter(
            showo.model, showo.tokenizer, guidance=run["guidance_scale"] + 1, temperature=run["temperature"],
            steps=run["timesteps"], schedule=run["schedule"], drawer=replay,
        )  # fmt: skip
        known = showo.partial() if run["start"] == "partial" else None
        canvas = painter.advance(painter.start(Conditions(showo.prompts), range(len(showo.prompts)), known))
        codes, masked = unpack(painter.record(canvas)[:, 1:].transpose(0, 1))  # (steps, N, L)
        before = unpack(painter.record(canvas)[:, :-1].transpose(0, 1))[1]
        showo.same(f"{name}_tokens", painter.codes(canvas))
        showo.same(f"{name}_step_masking", masked)
        showo.same(f"{name}_step_mask_len", masked.sum(-1).clamp(min=1))
        raw, chosen = (torch.cat([found[side] for found in seen]) for side in range(2))
        assert torch.equal(raw, torch.from_numpy(showo.expected[f"{name}_step_sampled_raw"])[before])
        assert torch.equal(raw, codes[before])
        expected = showo.expected[f"{name}_step_selected_probs"][before.numpy()]
        assert np.isclose(chosen.numpy(), expected, atol=1e-4, rtol=1e-6).all(), name
        temperatures = [temperature_at(run["temperature"], step, run["timesteps"]) for step in range(run["timesteps"])]
        showo.close(f"{name}_step_temperature", torch.tensor(temperatures), 1e-6)
        slots = torch.where(masked[-1], -1, codes[-1])
        showo.same(f"{name}_final_input_ids", showo.sequence(showo.prompts, slots))
        if f"{name}_pixels" in showo.expected:
            showo.close(f"{name}_pixels", pixels := showo.model.pictures.decode(painter.codes(canvas)))
            expected = showo.expected[f"{name}_image_uint8"].astype(int)
            assert np.abs(to_uint8(pixels) - expected).max() <= 1
            assert np.abs(np.stack(painter.preview(canvas)) - expected).max() <= 1


def test_painting_without_randomness_needs_no_replay(showo):
    for name, run in runs(showo):
        if run["choice"] != "argmax":
            continue
        painter = ShowoPainter(
            showo.model, showo.tokenizer, guidance=run["guidance_scale"] + 1, temperature=0.0,
            steps=run["timesteps"], schedule=run["schedule"],
        )  # fmt: skip
        known = showo.partial() if run["start"] == "partial" else None
        canvas = painter.advance(painter.start(Conditions(showo.prompts), range(len(showo.prompts)), known))
        showo.same(f"{name}_tokens", painter.codes(canvas))


def test_schedules(showo):
    steps, length = showo.cases["schedule_steps"], showo.model.config.image_length
    progress = torch.tensor([(step + 1) / steps for step in range(steps)])
    names = [name.removeprefix("schedule_") for name in showo.expected.files if name.startswith("schedule_")]
    for name in (name for name in names if not name.endswith("_mask_len")):
        showo.close(f"schedule_{name}", mask_ratio(progress, name), 1e-6)
        showo.same(f"schedule_{name}_mask_len", masked_counts(steps, length, name))


def test_pictures_and_codes(showo):
    pictures = showo.model.pictures
    showo.close("magvit_latent", pictures.latents(showo.input("magvit_image")))
    showo.same("magvit_ids", codes := pictures.encode(showo.input("magvit_image")))
    showo.close("magvit_recon_pixels", pictures.decode(codes))
    showo.close("magvit_pixels", pictures.decode(showo.input("magvit_ids_in")))
    size = tuple(showo.cases["magvit_rect_hw"])
    showo.close("magvit_pixels_rect", pictures.decode(showo.input("magvit_ids_rect"), size))


def test_understanding(showo):
    model, tokenizer = showo.model, showo.tokenizer
    picture = Image.open(next(iter(sorted((showo.folder / "images").iterdir()))))
    eyes = ShowoEyes(model, tokenizer)
    showo.close("image_transform", pixels := prepare(picture, eyes.side), 0)
    showo.same("image_ids", model.pictures.encode(pixels[None]))
    ids = torch.tensor([eyes.ids(picture, showo.cases["question"])])
    showo.same("mmu_input_ids", ids)
    showo.same("mmu_attention_allowed", question_mask(ids, tokenizer)[:, None])
    showo.close("mmu_logits", model.logits(ids, question_mask(ids, tokenizer)))
    answer = eyes.answer_ids(ids[0].tolist(), showo.cases["mmu_new_tokens"])
    expected = showo.expected["mmu_greedy_tokens"].tolist()
    end = expected.index(tokenizer.end) if tokenizer.end in expected else len(expected)
    assert answer == expected[:end]


@pytest.mark.parametrize(
    ("steps", "length", "left"),
    [
        (18, 256, [255, 252, 247, 240, 232, 221, 209, 196, 181, 164, 146, 127, 108, 87, 66, 44, 22, 1]),
        (12, 256, [253, 247, 236, 221, 203, 181, 155, 127, 97, 66, 33, 1]),
        (18, 1024, [1020, 1008, 989, 962, 928, 886, 838, 784, 724, 658, 587, 511, 432, 350, 265, 177, 89, 1]),
        (4, 16, [14, 11, 6, 1]),
        (18, 9, [8, 7, 6, 5, 4, 3, 2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
    ],
)
def test_how_many_slots_stay_masked(steps, length, left):
    """The published procedure's numbers, counted on random confidences."""
    from reverie.generators.showo import least_sure

    torch.manual_seed(0)
    masked, found = torch.ones(3, length, dtype=torch.bool), []
    for count in masked_counts(steps, length):
        sure = confidence(torch.rand(3, length), torch.rand(3, length), 1.0).masked_fill(~masked, torch.inf)
        now = least_sure(sure, masked, count)
        assert not (now & ~masked).any()
        masked = now
        found.append(masked.sum(1).tolist())
    assert found == [[number] * 3 for number in left]
