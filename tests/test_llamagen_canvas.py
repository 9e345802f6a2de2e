"""The promise of the canvas, kept by LlamaGen: an image depends on its own seed and prompts, and on nothing else."""

import functools

import pytest
import torch
from canvas_promise import PROMPTS, TYPES, check, check_pieces, images, noting, seen, start, verbs
from hypothesis import given, settings
from hypothesis import strategies as st
from llamagen_toy import toy_llamagen

from reverie.canvas import Canvas, Conditions, pick
from reverie.generators.llamagen import LlamagenPainter, narrowed


@functools.cache
def painter(dtype: torch.dtype) -> LlamagenPainter:
    # Small blocks and chunks, so that these short runs cross their borders.
    return LlamagenPainter(*toy_llamagen(dtype), rows=16, chunk=16, top_k=40, top_p=0.95, picker=noting(pick))


@settings(max_examples=25, deadline=None)
@given(images=images, verbs=verbs(6), dtype=st.sampled_from(TYPES), guidance=st.sampled_from((None, 1.0, 2.5)))
def test_an_image_is_the_same_alone_and_after_anything_done_to_its_neighbours(
    images, verbs, dtype, guidance, tmp_path_factory
):
    generator = painter(dtype)
    check(generator, images, verbs, guidance, tmp_path_factory.mktemp("canvas") / "canvas.safetensors")


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("until", [None, 4])
def test_the_cached_path_agrees_with_whole_sequences(dtype, until):
    """`log_prob` reads the logits from which the codes were drawn off one uncached pass."""
    generator = LlamagenPainter(
        *toy_llamagen(dtype), guided_until=until, top_k=40, temperature=1.2, picker=noting(pick)
    )
    seen.clear()
    canvas = generator.advance(start(generator, PROMPTS, range(len(PROMPTS))))
    drawn_from = torch.stack(seen, 1).log_softmax(-1).gather(-1, canvas.tokens[..., None])[..., 0]
    chances = generator.log_prob(canvas.conditions, canvas.tokens)
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    torch.testing.assert_close(chances.detach(), drawn_from, atol=tolerance, rtol=tolerance)
    seen.clear()


def test_log_prob_is_a_distribution_and_learns():
    generator = LlamagenPainter(*toy_llamagen(), top_k=0)
    one, every = Conditions(["a cat"], 3.0), torch.arange(48)
    codes = torch.randint(0, 48, (1, 16), generator=torch.Generator().manual_seed(0)).repeat(48, 1)
    codes[:, -1] = every
    chances = generator.log_prob(one.repeat(48), codes)
    torch.testing.assert_close(chances[:, -1].exp().sum(), torch.tensor(1.0))
    assert torch.equal(chances, generator.log_prob(one.repeat(48), codes)), "before an update the ratio is 1"
    chances[:, 3].sum().backward()
    assert generator.model.caption.fc1.weight.grad.abs().sum() > 0
    with pytest.raises(ValueError, match="one for each"):
        generator.log_prob(one, codes)


def test_pieces_equal_one_stroke_and_old_canvases_stay_valid():
    generator = painter(torch.float32)
    half = check_pieces(generator, PROMPTS, 6)
    assert (half.tokens[:, 6:] == generator.fill).all()
    assert generator.preview(half)[0].shape == (32, 32, 3)


def test_equal_prompts_enter_once_and_padding_never():
    generator = painter(torch.float32)
    canvas = generator.advance(start(generator, ["a cat"], [0]).fork(8), 8)
    length = len("a cat") + 1
    assert canvas.work.prefilled == 2 * length
    assert canvas.work.decoded == 2 * 8 * 7
    assert generator.plain_work(canvas.conditions).prefilled == 2 * 8 * length
    plain = generator.advance(start(generator, ["a cat"], [0], guidance=0.5))
    assert plain.work.decoded == 15, "guidance up to 1 has no unconditional rows"


def test_narrowing():
    logits = torch.tensor([0.4, 0.3, 0.2, 0.1]).log()[None]
    kept = lambda **how: narrowed(logits, **how).isfinite()[0].tolist()  # noqa: E731
    assert kept(top_k=2) == [True, True, False, False]
    assert kept(top_k=9) == [True] * 4
    assert kept(top_p=0.41) == [True, True, False, False], "the code that passes the threshold stays"
    assert kept(top_p=0.05) == [True, False, False, False]
    # Of the best three, 4/9 and 3/9 make more than 0.7 and so rule the third out; of all four they just reach 0.7.
    assert kept(top_k=3, top_p=0.71) == [True, True, False, False]
    torch.testing.assert_close(narrowed(logits, temperature=0.5), logits * 2)
    for wrong in ({"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.5}):
        with pytest.raises(ValueError, match="correct them"):
            LlamagenPainter(*toy_llamagen(), **wrong)


def test_canvases_with_unguided_codes_advance_together_as_they_would_alone():
    generator = LlamagenPainter(*toy_llamagen(torch.float32), guided_until=5, top_k=40, rows=16, chunk=16)
    walks = [(PROMPTS[0], 1, 0, 9), (PROMPTS[1], 2, 4, 16), (PROMPTS[3], 3, 7, 8), (PROMPTS[1], 4, 2, 2)]

    def ready(prompt: str, seed: int, step: int) -> Canvas:
        return generator.advance(start(generator, [prompt], [seed]), step)

    ends = [end for *_, end in walks]
    together = generator.advance_together([ready(*walk[:3]) for walk in walks], ends)
    for walk, end, one in zip(walks, ends, together, strict=True):
        assert one.tokens.tolist() == generator.advance(ready(*walk[:3]), end).tokens.tolist()
