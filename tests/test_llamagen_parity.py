"""LlamaGen against numbers made with the authors' code: tiny random checkpoints in the official layout.

The fixtures lie beside the repository (or where REVERIE_FIXTURES says); every folder of the family is run.
"""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.canvas import Conditions, pick
from reverie.generators.llamagen import LlamagenPainter, to_uint8
from reverie.models.llamagen_checkpoint import load_networks, save_llamagen
from reverie.models.registry import resolve

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
FOLDERS = [
    path.parent
    for path in sorted(ROOT.glob("**/cases.json"))
    if json.loads(path.read_text("utf-8")).get("family") == "llamagen"
]


class Fixture:
    """The fixture, and a stand-in for the text encoder: prompt "2" is row 2 of its captions."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.cases = json.loads((folder / "cases.json").read_text("utf-8"))
        self.inputs, self.expected = np.load(folder / "inputs.npz"), np.load(folder / "expected.npz")
        self.model = load_networks(folder / "checkpoint", dtype=torch.float32)
        self.embeddings = self.input("t5_embs_right")
        self.lengths = self.input("t5_mask_right").sum(1)
        self.prompts = [str(row) for row in range(len(self.lengths))]

    def ids(self, caption: str) -> list[int]:
        """Which row, and which of its vectors."""
        return [1000 * int(caption) + place for place in range(self.lengths[int(caption)])]

    def states(self, ids: list[int]) -> torch.Tensor:
        return torch.stack([self.embeddings[number // 1000, number % 1000] for number in ids])

    def close(self, name: str, value: torch.Tensor, tolerance: float = 1e-4) -> None:
        expected = self.expected[name]
        assert value.shape == expected.shape
        assert np.abs(value.numpy() - expected).max() <= tolerance, name

    def same(self, name: str, value) -> None:
        np.testing.assert_array_equal(np.asarray(value), self.expected[name], err_msg=name)

    def input(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.inputs[name])

    def paint(self, guidance: float, **keywords) -> torch.Tensor:
        painter = LlamagenPainter(self.model, self, **keywords)
        canvas = painter.start(Conditions(self.prompts, guidance), range(len(self.prompts)))
        return painter.advance(canvas).tokens


@pytest.fixture(scope="module", params=FOLDERS or [None], ids=[folder.name for folder in FOLDERS] or ["none"])
def llamagen(request) -> Fixture:
    if request.param is None:
        pytest.skip(f"no LlamaGen fixtures in {ROOT}; set REVERIE_FIXTURES to their folder")
    return Fixture(request.param)


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


class Forced:
    """A picker that notes the logits it is shown and, if `codes` (N, L) are given, takes those."""

    def __init__(self, codes=None):
        self.codes, self.seen = codes, []

    def __call__(self, logits, uniforms, temperature):
        self.seen.append(logits)
        if self.codes is None:
            return pick(logits, uniforms, temperature)
        return torch.as_tensor(self.codes[:, len(self.seen) - 1]).long()

    @property
    def logits(self) -> torch.Tensor:
        return torch.stack(self.seen, 1)


def test_captions(llamagen):
    """Left padding, zeroing and masking leave the same vectors that we keep."""
    states, mask = llamagen.expected["caption_embs"], llamagen.expected["caption_mask"].astype(bool)
    assert not states[~mask].any()
    for prompt, row, kept in zip(llamagen.prompts, states, mask, strict=True):
        np.testing.assert_array_equal(llamagen.states(llamagen.ids(prompt)), row[kept])
        assert kept[-kept.sum() :].all()
    llamagen.close("caption_proj", llamagen.model.embed_captions(torch.from_numpy(states)))


def test_prefix_of_image_codes(llamagen):
    """The whole sequence in one pass, and the cached loop over forced codes."""
    model, codes, lengths = llamagen.model, llamagen.input("token_prefix"), llamagen.lengths
    blank = torch.zeros_like(llamagen.embeddings)
    for row, length in enumerate(lengths):
        blank[row, :length] = model.unconditional_states(int(length))
    states, slots = torch.from_numpy(llamagen.expected["caption_embs"]), llamagen.expected["caption_embs"].shape[1]
    llamagen.close("prefix_logits", model(llamagen.embeddings, lengths, codes))
    llamagen.close("prefix_logits_uncond", model(blank, lengths, codes))
    llamagen.close("prefix_logits_nomask", model(states, torch.full_like(lengths, slots), codes))
    count, steps = codes.shape[1] + 1, model.config.image_length
    forced = torch.nn.functional.pad(codes, (0, steps - codes.shape[1]))
    for guidance, name in (
        (1.0, "prefix_logits"),
        (1.0, "prefix_logits_cond"),
        (llamagen.cases["cfg_scale"], "prefix_logits_cfg"),
    ):
        picker = Forced(forced)
        llamagen.paint(guidance, picker=picker, top_k=0)
        llamagen.close(name, picker.logits[:, :count])


def test_greedy_painting(llamagen):
    guidance, interval = llamagen.cases["cfg_scale"], llamagen.cases["cfg_interval"]
    picker = Forced()
    codes = llamagen.paint(guidance, temperature=0, picker=picker)
    llamagen.same("greedy_tokens", codes)
    llamagen.close("greedy_logits_cfg", picker.logits)
    until = interval + 1 if interval >= 0 else None
    llamagen.same("greedy_cfg_interval_tokens", llamagen.paint(guidance, temperature=0, guided_until=until))
    llamagen.same("greedy_nocfg_tokens", llamagen.paint(1.0, temperature=0))
    pixels = llamagen.model.decode_codes(codes)
    llamagen.close("greedy_pixels", pixels)
    expected = llamagen.expected["greedy_image_uint8"].astype(int)
    assert np.abs(to_uint8(pixels) - expected).max() <= 1
    painter = LlamagenPainter(llamagen.model, llamagen)
    canvas = painter.advance(painter.start(Conditions(llamagen.prompts), range(len(codes))), 0)
    canvas.tokens = codes
    assert np.abs(np.stack(painter.preview(canvas)) - expected).max() <= 1


def test_sampled_painting(llamagen):
    """torch.multinomial's draw is argmax of p / e with the recorded e; the painter narrows what it draws from."""
    settings, draws = llamagen.cases["sampled"], torch.from_numpy(llamagen.expected["sampled_exp_draws"])
    step = iter(range(draws.shape[1]))

    def replay(logits, uniforms, temperature):
        assert temperature == 1
        return (logits.softmax(-1) / draws[:, next(step)]).argmax(-1)

    narrowing = {name: settings[name] for name in ("temperature", "top_k", "top_p")}
    codes = llamagen.paint(settings["cfg_scale"], picker=replay, **narrowing)
    llamagen.same("sampled_tokens", codes)
    picker = Forced(codes)
    llamagen.paint(settings["cfg_scale"], picker=picker, top_k=0)
    llamagen.close("sampled_logits_cfg", picker.logits)
    painter = LlamagenPainter(llamagen.model, llamagen, **narrowing)
    chances = painter.log_prob(Conditions(llamagen.prompts, settings["cfg_scale"]), codes)
    assert chances.isfinite().all()
    picker = Forced(codes)
    llamagen.paint(settings["cfg_scale"], picker=picker, **narrowing)
    drawn_from = picker.logits.log_softmax(-1).gather(-1, codes[..., None])[..., 0]
    torch.testing.assert_close(chances, drawn_from, atol=1e-4, rtol=0)


def test_pictures_and_codes(llamagen):
    model, pixels = llamagen.model, llamagen.input("vq_encode_image")
    llamagen.close("vq_pixels_square", model.decode_codes(llamagen.input("vq_ids_square")))
    llamagen.close(
        "vq_pixels_rect", model.decode_codes(llamagen.input("vq_ids_rect"), tuple(llamagen.cases["vq_rect_hw"]))
    )
    codes = model.encode_image(pixels)
    llamagen.same("vq_encode_ids", codes)
    size = tuple(llamagen.expected["vq_encode_quant"].shape[2:])
    llamagen.close("vq_encode_quant", model.code_latents(codes, size))
    llamagen.close("vq_encode_prequant", model.vqmodel.quant_conv(model.vqmodel.encoder(pixels)))


class NoText:
    def save(self, folder: Path) -> None:
        folder.mkdir()


def test_our_layout_holds_the_same_model(llamagen, tmp_path):
    assert resolve(llamagen.folder / "checkpoint").family == "llamagen"
    save_llamagen(llamagen.model, NoText(), tmp_path / "ours")
    ours = load_networks(tmp_path / "ours", dtype=torch.float32)
    assert resolve(tmp_path / "ours").family == "llamagen"
    assert ours.config == llamagen.model.config
    for (name, tensor), (other, again) in zip(
        llamagen.model.state_dict().items(), ours.state_dict().items(), strict=True
    ):
        assert name == other
        assert torch.equal(tensor.bfloat16(), again.bfloat16()), name
