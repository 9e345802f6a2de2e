"""The promise of the canvas: an image depends on its own seed and prompts, and on nothing else that happens."""

import functools

import pytest
import torch
from canvas_promise import PROMPTS, TYPES, check, check_pieces, images, noting, seen, start, verbs
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus

from reverie.canvas import Canvas, Conditions, copy_seed, pick
from reverie.generators.janus import JanusPainter


@functools.cache
def painter(dtype: torch.dtype) -> JanusPainter:
    # Small blocks and chunks, so that these short runs cross their borders.
    return JanusPainter(*toy_janus(dtype), rows=16, chunk=16, picker=noting(pick))


@settings(max_examples=60, deadline=None)
@given(images=images, verbs=verbs(6), dtype=st.sampled_from(TYPES), guidance=st.sampled_from((None, 1.0, 2.5)))
def test_an_image_is_the_same_alone_and_after_anything_done_to_its_neighbours(
    images, verbs, dtype, guidance, tmp_path_factory
):
    generator = painter(dtype)
    check(generator, images, verbs, guidance, tmp_path_factory.mktemp("canvas") / "canvas.safetensors")


@pytest.mark.parametrize("dtype", TYPES)
def test_the_cached_path_agrees_with_whole_sequences(dtype):
    """Teacher forcing without a cache gives the logits from which the codes were drawn."""
    generator = painter(dtype)
    seen.clear()
    canvas = generator.advance(start(generator, PROMPTS[:1], [5]), 7)
    canvas = generator.advance(generator.recondition(canvas, Conditions(PROMPTS[1:2])))
    model, ids = generator.model, torch.tensor(generator.tokenizer.painting_ids(PROMPTS[1]))
    rows = torch.stack((ids, torch.tensor(generator.tokenizer.blank_ids(ids.tolist()))))
    codes = model.embed_codes(canvas.tokens[:, :-1]).expand(2, -1, -1)
    with torch.no_grad():
        hidden = model.hidden(torch.cat((model.embed_text(rows), codes), 1))[:, len(ids) - 1 :]
        cond, blank = model.code_logits(hidden).float()
    tolerance = 1e-4 if dtype == torch.float32 else 0.2
    torch.testing.assert_close(torch.cat(seen[7:]), (blank + 5 * (cond - blank))[7:], atol=tolerance, rtol=tolerance)


def test_pieces_equal_one_stroke_and_old_canvases_stay_valid():
    generator = painter(torch.float32)
    half = check_pieces(generator, PROMPTS, 6)
    assert (half.tokens[:, 6:] == generator.fill).all()


def test_a_long_prompt_goes_on_while_its_neighbour_gets_a_short_one():
    """Nothing is left to enter between the end of the short one and what is new of the long one."""
    generator = painter(torch.float32)
    old, new = PROMPTS[3], (f"{PROMPTS[3]}, and a bell", PROMPTS[0])
    canvas = generator.advance(start(generator, [old, old], [1, 2]), 1)
    both = generator.advance(generator.recondition(canvas, Conditions(new)))
    for row, prompt in enumerate(new):
        one = generator.recondition(canvas.select([row]), Conditions([prompt]))
        assert torch.equal(both.tokens[row], generator.advance(one).tokens[0])


def test_pruned_images_cost_nothing_more():
    generator = painter(torch.float32)
    canvas = generator.advance(start(generator, ["a cat"], [0]).fork(8), 8)
    canvas = generator.advance(canvas.select([3]))
    ids = generator.tokenizer.painting_ids("a cat")
    assert canvas.work.prefilled == 2 * len(ids) - 1, "equal prompts enter once, and so does the start of both ways"
    assert canvas.work.decoded == 2 * (8 * 7 + 8)
    assert generator.plain_work(canvas.conditions).decoded == 2 * 15


def test_prompts_enter_together_and_what_they_share_enters_once():
    """Blank twins and equal beginnings; that nobody's bits change by it is what the programs above show."""
    generator = painter(torch.float32)
    prompts = [f"{word} fish {place} a boat" for word in ("red", "big") for place in ("in", "on")]
    canvas = generator.advance(start(generator, prompts, range(4)), 1)
    rows = [generator.tokenizer.painting_ids(prompt) for prompt in prompts]
    rows += [generator.tokenizer.blank_ids(ids) for ids in rows]
    assert canvas.work.prefilled == len({tuple(ids[: end + 1]) for ids in rows for end in range(len(ids))})
    assert canvas.work.prefilled < 0.6 * sum(map(len, rows))


def test_reconditioning_computes_only_behind_the_common_prefix():
    generator = painter(torch.float32)
    old, new = PROMPTS[1], PROMPTS[1] + " at night"
    canvas = generator.advance(start(generator, [old], [0]), 8)
    before = canvas.work.prefilled
    generator.recondition(canvas, Conditions([new]))
    total = len(generator.tokenizer.painting_ids(new)) + 7
    shared = len(generator.tokenizer.encode(f"{generator.tokenizer.user}: {old}")) // 16 * 16
    assert canvas.work.prefilled - before == 2 * (total - shared)
    before = canvas.work.prefilled
    generator.recondition(generator.advance(canvas, 8), canvas.conditions)
    assert canvas.work.prefilled - before <= 2 * len(generator.tokenizer.painting_ids(old))


def test_copies_share_the_past_and_differ_in_the_future():
    generator = painter(torch.float32)
    canvas = generator.advance(start(generator, ["a cat"], [9]), 5)
    copies = generator.advance(canvas.fork(2).fork(2))
    assert len(set(copies.seeds)) == 4
    assert copies.seeds[0] == 9
    assert copies.seeds[2] == copy_seed(9, 0, 1)
    assert (copies.tokens[:, :5] == canvas.tokens[:, :5]).all()
    assert len({tuple(row) for row in copies.tokens.tolist()}) == 4


def test_special_token_strings_in_a_prompt_stay_text():
    tokenizer = painter(torch.float32).tokenizer
    ids = tokenizer.painting_ids("<begin_of_image> a cat<|Assistant|><｜end▁of▁sentence｜>")
    assert ids.count(tokenizer.image_start) == 1
    assert tokenizer.eos not in ids
    assert ids.count(tokenizer.tokenizer.token_to_id("<|Assistant|>")) == 1


def test_picking_follows_the_distribution():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2])
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    codes = pick(probabilities.log().expand(1000, -1), uniforms)
    assert codes.bincount(minlength=5).tolist() == [0, 500, 0, 300, 200]
    assert pick(probabilities.log()[None], torch.tensor([0.999]), temperature=0).item() == 1
    sharp = pick(probabilities.log().expand(1000, -1), uniforms, temperature=0.5).bincount(minlength=5)
    assert abs(sharp[1].item() - 1000 * 0.25 / 0.38) < 2


def test_bad_calls_are_told_in_one_sentence(tmp_path):
    generator = painter(torch.float32)
    canvas = start(generator, ["a cat"], [0])
    with pytest.raises(ValueError, match="one seed for each"):
        start(generator, ["a", "b"], [0])
    with pytest.raises(ValueError, match="last step is 16"):
        generator.advance(canvas, 17)
    with pytest.raises(ValueError, match="rewind"):
        generator.rewind(canvas, 1)
    with pytest.raises(ValueError, match="Cannot select"):
        canvas.select([1])
    with pytest.raises(ValueError, match="list"):
        Conditions("a cat")
    (tmp_path / "no.safetensors").write_text("not a canvas")
    with pytest.raises(ValueError, match="not a saved canvas"):
        Canvas.load(tmp_path / "no.safetensors")


@pytest.mark.parametrize("dtype", TYPES)
def test_a_resumed_canvas_takes_its_codes_in_as_before(dtype, tmp_path):
    """What entered many at once before the interruption does so again after it: the account tells, and so do the bits
    of keys and values, which codes betray only by luck."""
    generator = painter(dtype)
    canvas = generator.advance(start(generator, PROMPTS[1:3], [1, 2]), 8)
    canvas = generator.recondition(canvas, Conditions([PROMPTS[0], PROMPTS[2]]))
    canvas = generator.advance(canvas, 10)
    assert canvas.given == (7, 0)
    canvas.save(tmp_path / "canvas.safetensors")
    resumed = Canvas.load(tmp_path / "canvas.safetensors")
    assert resumed.given == canvas.given
    before = resumed.work.prefilled
    canvas, resumed = generator.advance(canvas, 11), generator.advance(resumed, 11)
    lengths = [len(generator.tokenizer.painting_ids(prompt)) for prompt in canvas.conditions.prompts]
    assert resumed.work.prefilled - before == 2 * (sum(lengths) + 7 - 1), "both ways begin alike"
    for image, length in enumerate(lengths):
        rows, slots = slice(2 * image, 2 * image + 2), slice(0, length + 10)
        for name in ("keys", "values"):
            first, second = (getattr(one.cache.kv, name)[:, rows, :, slots] for one in (canvas, resumed))
            assert torch.equal(first, second), f"{name} of image {image}"
