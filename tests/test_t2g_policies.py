"""The text encoder and the transformer of a tiny Qwen-Image as policies: what they write is what they score."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from diffusion_toy import flux, qwen_image, qwen_image_edit, stable_diffusion_3
from PIL import Image

from reverie.generators.diffusion import DiffusionPainter
from reverie.models.diffusion_adapters import add_adapter
from reverie.models.flow_sde import SdeNoise, Window
from reverie.models.prompt_states import read_prompts
from reverie.training.adapted import Adapted, Learning, adapters_off, merge, save_adapter, swapped
from reverie.training.adapters import Lora
from reverie.training.diffusion_policy import diffusion_policy
from reverie.training.encoder_policy import EncoderPolicy
from reverie.training.rollout import Level, Path, grow
from reverie.vlms import Message
from reverie.vlms.text_encoder import TextEncoderWriter

PROMPTS = ["a cat", "two red dogs below a boat", "a cat", "ein Haus mit Tür"]


@pytest.mark.parametrize("build", [qwen_image, flux, stable_diffusion_3])
def test_prompts_are_read_once_each_and_as_the_pipeline_reads_them(build: Callable) -> None:
    painter = DiffusionPainter(build())
    with torch.no_grad():
        together = read_prompts(painter, [(prompt, ()) for prompt in PROMPTS])
        for prompt, text in zip(PROMPTS, together, strict=True):
            alone = painter.family.encode(prompt)
            assert text.states.shape == alone.states.shape
            torch.testing.assert_close(text.states, alone.states, rtol=1e-4, atol=1e-5)
    assert together[0] is together[2]


def test_a_qwen_prompt_beyond_the_limit_is_cut_where_the_pipeline_cuts_it() -> None:
    painter = DiffusionPainter(qwen_image(), limit=40)
    prompt = "a very long story about a cat that " * 4
    with torch.no_grad():
        (cut,) = read_prompts(painter, [(prompt, ())])
        torch.testing.assert_close(cut.states, painter.family.encode(prompt).states, rtol=1e-4, atol=1e-5)
    assert cut.states.shape[1] == 40


def test_an_editor_that_paints_reads_words_alone_and_words_about_pictures() -> None:
    painter = DiffusionPainter(qwen_image_edit(), area=64**2, paints=True)
    picture = Image.new("RGB", (32, 32), "red")
    asked = [("a cat", ()), ("make it blue", (picture,)), ("a dog", ()), ("a cat", ()), ("make it blue", (picture,))]
    with torch.no_grad():
        found = read_prompts(painter, asked, together=2)
        alone = painter.words.encode("a dog"), painter.family.encode("make it blue", (picture,))
    torch.testing.assert_close(found[2].states, alone[0].states, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(found[1].states, alone[1].states, rtol=1e-4, atol=1e-5)
    assert found[1].source is not None
    assert found[0].source is None
    assert (found[0] is found[3], found[1] is found[4]) == (True, True)


def test_answers_written_together_are_those_written_alone() -> None:
    pipe = qwen_image()
    asked = [[Message("user", text)] for text in ("a cat", "what Newton saw fall, beside a tree", "x")]
    alone = TextEncoderWriter(pipe).write_scored(asked, 12, 1.0, [3, 4, 5])
    together = TextEncoderWriter(pipe, together=3).write_scored(asked, 12, 1.0, [3, 4, 5])
    assert [ids for ids, _ in alone] == [ids for ids, _ in together]
    for (_, a), (_, b) in zip(alone, together, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_a_thought_is_scored_as_it_was_written_and_its_reference_is_the_model_without_adapters() -> None:
    pipe = qwen_image()
    adapted = Adapted(pipe.text_encoder.eval(), Lora(4, 8, "language_model"))
    policy = EncoderPolicy(TextEncoderWriter(pipe, together=8), adapted, limit=10, temperature=0.7)
    with torch.no_grad():
        segments = [row[0] for row in policy.think([Path("a cat", 1), Path("a cat", 2), Path("a longer prompt", 3)])]
        assert segments[0].context is segments[1].context  # siblings share their question
        scored = policy.log_prob(segments).log_prob
        for segment, row in zip(segments, scored, strict=True):
            torch.testing.assert_close(row[: len(segment)], segment.log_prob, rtol=1e-4, atol=1e-4)
        for name, p in pipe.text_encoder.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.3)
        moved, first = policy.log_prob(segments).log_prob, policy.reference(segments).log_prob
    torch.testing.assert_close(first, scored)
    assert (moved - first).abs().max() > 0.01
    assert all(p.requires_grad == ("lora_" in name) for name, p in pipe.text_encoder.named_parameters())


def _painting(noise: SdeNoise, **settings: object) -> tuple:
    pipe = qwen_image()
    pipe.text_encoder.requires_grad_(False)
    adapted = Adapted(pipe.transformer.eval(), Lora(4, 8))
    painter = DiffusionPainter(pipe, steps=5, guidance=3.0, height=32, width=32)
    return pipe, adapted, diffusion_policy(painter, adapted, noise=noise, rows=4, **settings)


@pytest.mark.parametrize("variant", ["sde", "cps", "dance", "wan"])
def test_steps_are_scored_as_they_were_written(variant: str) -> None:
    _, adapted, policy = _painting(SdeNoise(variant, 0.6), window=lambda path: Window(1, 2))
    with torch.no_grad():
        segments = [row[0] for row in policy.write([Path("a cat", 1), Path("a dog", 2), Path("a cat", 3)])]
        torch.testing.assert_close(
            policy.log_prob(segments).log_prob, torch.stack([s.log_prob for s in segments]), rtol=0, atol=0
        )
        reference = policy.reference(segments).log_prob
        torch.testing.assert_close(reference, torch.stack([s.log_prob for s in segments]), rtol=0, atol=0)
    assert policy.read == 3  # two prompts and what guides away
    assert all(list(s.sampled) == [True, True, False] for s in segments)
    loss = policy.log_prob(segments).log_prob.sum()
    loss.backward()
    moved = [p for p in adapted.network.parameters() if p.grad is not None and p.grad.abs().max() > 0]
    assert moved


def test_latents_are_rounded_before_they_are_scored_where_they_are_kept_in_few_bits() -> None:
    _, _, policy = _painting(SdeNoise("sde", 1.2), window=lambda path: Window(0, 4), storage=torch.bfloat16)
    with torch.no_grad():
        segments = [row[0] for row in policy.write([Path("a cat", 1), Path("a dog", 2)])]
        assert segments[0].actions.dtype == torch.bfloat16
        again = policy.log_prob(segments).log_prob
    torch.testing.assert_close(again, torch.stack([s.log_prob for s in segments]), rtol=0, atol=0)


@pytest.mark.parametrize("free", [False, True])
def test_both_ways_of_guidance_apart_are_those_of_one_batch(free: bool) -> None:
    """As the painter guides, whose text that guides away is padded; Qwen-Image keeps each token's length."""
    _, adapted, policy = _painting(SdeNoise("sde", 0.6), free_blank=free)
    painter = policy.painter
    with torch.no_grad():
        guided = policy.conditions([("a cat that sleeps on a red box", ()), ("a dog", ())])
        x = torch.randn(2, *policy.shape)
        sigma = torch.tensor([0.7, 0.7])
        apart, joint = policy.velocity(x, sigma, guided), painter.velocity(x, sigma, guided)
        torch.testing.assert_close(apart, joint, rtol=1e-4, atol=1e-5)
        cond = painter.velocity(x, sigma, [replace(one, blank=None) for one in guided])
        torch.testing.assert_close(apart.norm(dim=-1), cond.norm(dim=-1), rtol=1e-4, atol=1e-5)
        once = painter.family.guided(cond, torch.zeros_like(cond), 1.0)
        torch.testing.assert_close(once, cond, rtol=1e-4, atol=1e-5)
    calls = []
    transformer = painter.pipeline.transformer
    handle = transformer.register_forward_hook(lambda m, given, out: calls.append(torch.is_grad_enabled()))
    policy.velocity(x, sigma, guided)
    handle.remove()
    assert calls == [True, free]
    assert adapted.learns


def test_without_noise_the_policy_paints_what_the_pipeline_paints() -> None:
    pipe, _, policy = _painting(SdeNoise("sde", 0.6), window=lambda path: Window(0, 0))
    with torch.no_grad():
        (segment,) = policy.write([Path("a cat", 11)])[0]
        (picture,) = policy.pictures([segment])
    import numpy as np

    start = segment.context.start
    told = pipe(
        "a cat", negative_prompt=" ", true_cfg_scale=3.0, num_inference_steps=5, height=32, width=32,
        latents=policy._noise([Path("a cat", 11)], 5)[0], output_type="np",
    ).images[0]  # fmt: skip
    assert start.shape == segment.actions[-1].shape
    assert np.abs(np.round(told * 255) - picture).max() <= 1


def test_trees_read_a_text_once_for_all_images_and_nothing_again_when_they_are_scored() -> None:
    _, _, policy = _painting(SdeNoise("sde", 0.6), window=lambda path: Window(0, 2))
    with torch.no_grad():
        trees = grow(["a cat", "a dog"], [1, 2], [Level(6, policy.write)])
        assert (policy.read, policy.predictions) == (3, 2 * 6 * 5 * 2)
        policy.log_prob([branch.segments[0] for tree in trees for branch in tree.branches])
    assert (policy.read, policy.predictions) == (3, 2 * 6 * 5 * 2 + 2 * 6 * 2 * 2)


def test_adapters_are_saved_small_and_added_to_the_same_model(tmp_path) -> None:
    pipe = qwen_image()
    plain = {name: p.detach().clone() for name, p in pipe.transformer.named_parameters()}
    network = pipe.transformer
    adapted = Adapted(network, Lora(2, 4))
    with torch.no_grad():
        for name, p in network.named_parameters():
            if "lora_" in name:
                p.copy_((torch.randn_like(p) * 0.1).bfloat16())
    save_adapter(network, adapted.lora, tmp_path)
    again = qwen_image().transformer
    add_adapter(again, tmp_path)
    merge(network)
    for (name, a), b in zip(again.named_parameters(), network.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        if a.ndim == 2:
            assert not torch.equal(a, plain[name])
    with pytest.raises(ValueError, match="another network"):
        add_adapter(pipe.text_encoder, tmp_path)
    with pytest.raises(ValueError, match="holds no adapter that"):
        add_adapter(network, tmp_path / "nothing")


def test_only_what_learns_is_in_the_state_of_a_run() -> None:
    pipe = qwen_image()
    adapted = Adapted(pipe.transformer, Lora(2, 4))
    model = Learning(painter=pipe.transformer)
    names = list(model.state_dict())
    assert names
    assert all("lora_" in name for name in names)
    with torch.no_grad():
        next(model.parameters()).fill_(0.5)
    assert any((p == 0.5).all() for n, p in pipe.transformer.named_parameters() if "lora_" in n)
    with adapters_off(pipe.transformer):
        assert not any(p.requires_grad for n, p in pipe.transformer.named_parameters() if "lora_" not in n)
    assert adapted.lora.rank == 2


def test_weights_that_were_swapped_count_in_mixed_precision_too() -> None:
    """autocast keeps weights that it has cast, and would go on with those of before."""
    layer = torch.nn.Linear(4, 4)
    x = torch.randn(2, 4)
    with torch.autocast("cpu", torch.bfloat16):
        live = layer(x).detach()
        with swapped(dict(layer.named_parameters()), {"weight": -layer.weight.detach()}), torch.no_grad():
            other = layer(x)
        again = layer(x).detach()
    torch.testing.assert_close(live, again)
    torch.testing.assert_close(other - layer.bias, layer.bias - live, rtol=0.02, atol=0.02)
