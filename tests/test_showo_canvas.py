"""The promise of the canvas, kept by Show-o: an image depends on its own seed and prompts, and on nothing else."""

import functools

import pytest
import torch
from canvas_promise import PROMPTS, TYPES, check, check_pieces, images, noting, seen, start, verbs
from hypothesis import given, settings
from hypothesis import strategies as st
from showo_toy import toy_showo

from reverie.canvas import Conditions, copy_seed
from reverie.generators.showo import ShowoPainter, draw, unpack
from reverie.models.showo import omni_mask
from reverie.training.adapters import Lora, add, merged


@functools.cache
def painter(dtype: torch.dtype, temperature: float = 1.0) -> ShowoPainter:
    # Small blocks, so that these short runs cross their borders.
    return ShowoPainter(*toy_showo(dtype), rows=16, steps=6, drawer=noting(draw), temperature=temperature)


def each_ones(generator: ShowoPainter):
    """Splits logits, of which there is one for every slot that was masked before the last step."""

    def split(logits, canvas):
        masked = unpack(generator.record(canvas)[:, generator.steps - 1])[1]
        return logits.split(masked.sum(1).tolist())

    return split


@settings(max_examples=40, deadline=None)
@given(images=images, verbs=verbs(4), dtype=st.sampled_from(TYPES), guidance=st.sampled_from((None, 1.0, 2.5)))
def test_an_image_is_the_same_alone_and_after_anything_done_to_its_neighbours(
    images, verbs, dtype, guidance, tmp_path_factory
):
    generator = painter(dtype)
    check(
        generator,
        images,
        verbs,
        guidance,
        tmp_path_factory.mktemp("canvas") / "canvas.safetensors",
        each_ones(generator),
    )


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("guidance", [1.0, 2.75])
def test_the_cached_path_agrees_with_whole_sequences(dtype, guidance):
    """One pass over everything, pads included, gives the logits from which the codes were drawn."""
    generator = painter(dtype)
    config, words = generator.model.config, generator.tokenizer
    half = generator.advance(start(generator, PROMPTS, range(len(PROMPTS)), guidance), 3)
    seen.clear()
    generator.advance(half, 4)
    codes, masked = unpack(generator.record(half)[:, 3])
    slots = torch.where(masked, config.mask, codes + config.code_offset)
    frame = torch.tensor([[config.image_start, config.image_end]]).repeat(len(slots), 1)
    found = []
    for prompts in (PROMPTS, [""] * len(PROMPTS)):
        text = torch.tensor(words.padded([words.painting_ids(prompt) for prompt in prompts]))
        ids = torch.cat((text, frame[:, :1], slots, frame[:, 1:]), 1)
        with torch.no_grad():
            whole = generator.model.logits(ids, omni_mask(ids, words))
        found.append(whole[:, config.block + 1 : -1, config.code_offset : config.mask].float())
    tolerance = 1e-4 if dtype == torch.float32 else 0.3
    guided = guidance * found[0] - (guidance - 1) * found[1]
    torch.testing.assert_close(seen[-1], guided[masked], atol=tolerance, rtol=tolerance)


def test_pieces_equal_one_stroke_and_old_canvases_stay_valid():
    check_pieces(painter(torch.float32), PROMPTS, 3)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**62), guidance=st.sampled_from((1.0, 3.0)), temperature=st.sampled_from((0.0, 1.0, 5.0)))
def test_kept_codes_never_change_and_the_schedule_is_kept(seed, guidance, temperature):
    generator = painter(torch.float32, temperature)
    canvas = generator.advance(start(generator, PROMPTS[:3], range(seed, seed + 3), guidance))
    codes, masked = unpack(generator.record(canvas))
    for step in range(generator.steps):
        kept = ~masked[:, step]
        assert not (masked[:, step + 1] & kept).any()
        assert torch.equal(codes[:, step + 1][kept], codes[:, step][kept])
        count = max(1, min(int(masked[0, step].sum()) - 1, generator.counts[step]))
        assert masked[:, step + 1].sum(1).tolist() == [count] * 3
    assert ((generator.codes(canvas) >= 0) & (generator.codes(canvas) < generator.model.config.num_codes)).all()


def test_known_codes_stay_and_the_rest_is_painted():
    generator = painter(torch.float32)
    known = torch.arange(16)[None].repeat(2, 1)
    known[0, 5:9] = -1
    known[1] = -1
    canvas = generator.advance(generator.start(Conditions(PROMPTS[:2]), [0, 1], known))
    codes = generator.codes(canvas)
    assert torch.equal(codes[0, :5], known[0, :5])
    assert torch.equal(codes[0, 9:], known[0, 9:])
    assert torch.equal(canvas.tokens[1], generator.advance(start(generator, [PROMPTS[1]], [1])).tokens[0])


def test_prompts_are_read_once_and_pruned_images_cost_nothing_more():
    generator = painter(torch.float32)
    canvas = generator.advance(start(generator, ["a cat"], [0]).fork(8), 2)
    canvas = generator.advance(canvas.select([3]))
    words = generator.tokenizer
    assert canvas.work.prefilled == len(words.painting_ids("a cat")) + len(words.painting_ids(""))
    # Before anything is painted the copies are alike, and one of them is computed for all.
    assert canvas.work.decoded == 2 * 18 * (1 + 8 + 4)
    plain = generator.plain_work(canvas.conditions)
    assert (plain.prefilled, plain.decoded) == (canvas.work.prefilled, 2 * 18 * 6)
    before = canvas.work.prefilled
    canvas = generator.recondition(generator.rewind(canvas, 3), Conditions(["a dog"]))
    generator.advance(canvas)
    assert canvas.work.prefilled - before == len(words.painting_ids("a dog"))


def test_copies_share_the_past_and_differ_in_the_future():
    generator = painter(torch.float32)
    canvas = generator.advance(start(generator, ["a cat"], [9]), 2)
    copies = generator.advance(canvas.fork(2).fork(2))
    assert copies.seeds[0] == 9
    assert copies.seeds[2] == copy_seed(9, 0, 1)
    assert (copies.tokens[:, : 3 * 16] == canvas.tokens[:, : 3 * 16]).all()
    assert len({tuple(row) for row in generator.codes(copies).tolist()}) == 4


def test_drawing_follows_the_distribution_and_its_rest_is_uniform():
    probabilities = torch.tensor([0.0, 0.5, 0.0, 0.3, 0.2])
    uniforms = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    codes, chosen, rest = draw(probabilities.log().expand(1000, -1), uniforms, 1.0)
    assert codes.bincount(minlength=5).tolist() == [0, 500, 0, 300, 200]
    torch.testing.assert_close(chosen.float(), probabilities[codes])
    for code, count in ((1, 500), (3, 300), (4, 200)):
        even = (torch.arange(count, dtype=torch.float64) + 0.5) / count
        torch.testing.assert_close(rest[codes == code], even, atol=1e-6, rtol=0)


def test_log_probabilities_come_from_where_the_codes_were_drawn():
    generator = painter(torch.float32)
    model = generator.model
    prompts = [generator.tokenizer.painting_ids(prompt) for prompt in PROMPTS]
    half = generator.advance(start(generator, PROMPTS, range(len(PROMPTS)), 1.0), 2)
    seen.clear()
    masked = unpack(generator.record(half)[:, 2])[1]
    target = generator.codes(generator.advance(half, 3))
    with torch.no_grad():
        exact = model.log_prob(prompts, target, masked, rows=generator.rows)
        quick = model.log_prob(prompts, target, masked)
        everything = model.log_prob(prompts, target, masked, vocabulary="all")
        framed = model.log_prob(prompts, target, masked, vocabulary="all", frame=True)
    drawn = torch.zeros(masked.shape)
    drawn[masked] = seen[0].log_softmax(-1).gather(-1, target[masked][:, None])[:, 0]
    assert torch.equal(exact, drawn), "bit by bit, with the painter's rows"
    torch.testing.assert_close(quick, drawn, atol=1e-5, rtol=0)
    assert (everything <= quick).all()
    assert torch.equal(framed[:, 1:-1], everything)
    assert (framed[:, [0, -1]] < 0).all()
    assert (model.log_prob(prompts, target, torch.zeros_like(masked), rows=generator.rows) == 0).all()
    with pytest.raises(ValueError, match="vocabulary='all'"):
        model.log_prob(prompts, target, masked, frame=True)


def test_log_probabilities_by_hand_and_their_gradient():
    """Against one whole sequence, and uphill for the codes that are asked about."""
    generator = painter(torch.float32)
    model, config, words = generator.model, generator.model.config, generator.tokenizer
    prompt, codes = words.painting_ids("a cat"), torch.arange(16)[None]
    masked = torch.zeros(1, 16, dtype=torch.bool)
    masked[0, [1, 4, 9, 15]] = True
    slots = torch.where(masked, config.mask, codes + config.code_offset)
    ids = torch.tensor([[*prompt, config.image_start, *slots[0].tolist(), config.image_end]])
    logits = model.logits(ids, omni_mask(ids, words)).log_softmax(-1)[0, len(prompt) :]
    by_hand = sum(logits[1 + place, config.code_offset + place] for place in (1, 4, 9, 15))
    found = model.log_prob([prompt], codes, masked, vocabulary="all").sum()
    torch.testing.assert_close(found, by_hand, atol=1e-4, rtol=0)
    framed = model.log_prob([prompt], codes, masked, vocabulary="all", frame=True).sum()
    ends = logits[0, config.image_start] + logits[17, config.image_end]
    torch.testing.assert_close(framed, by_hand + ends, atol=1e-4, rtol=0)
    (gradient,) = torch.autograd.grad(model.log_prob([prompt], codes, masked).sum(), model.showo.lm_head.bias)
    assert (gradient[config.code_offset + torch.tensor([1, 4, 9, 15])] > 0).all()
    assert (gradient[: config.code_offset] == 0).all()


def test_text_and_mask_are_never_drawn():
    model, words = toy_showo()
    outside = torch.ones(model.config.vocabulary, dtype=torch.bool)
    outside[model.config.code_offset : model.config.mask] = False
    with torch.no_grad():
        model.showo.lm_head.bias[outside] = 1e4
    generator = ShowoPainter(model, words, steps=3)
    codes = generator.codes(generator.advance(start(generator, PROMPTS, range(5))))
    assert ((codes >= 0) & (codes < model.config.num_codes)).all()
    assert torch.isfinite(model.log_prob([words.painting_ids("a")], codes[:1], codes[:1] >= 0)).all()


def test_bad_calls_are_told_in_one_sentence():
    generator = painter(torch.float32)
    canvas = start(generator, ["a cat"], [0])
    with pytest.raises(ValueError, match="one seed for each"):
        start(generator, ["a", "b"], [0])
    with pytest.raises(ValueError, match="last step is 6"):
        generator.advance(canvas, 7)
    with pytest.raises(ValueError, match="rewind"):
        generator.rewind(canvas, 1)
    with pytest.raises(ValueError, match="one for each"):
        generator.recondition(canvas, Conditions(["a", "b"]))
    with pytest.raises(ValueError, match="6 steps"):
        ShowoPainter(generator.model, generator.tokenizer, steps=18).advance(canvas)
    with pytest.raises(ValueError, match="Known codes"):
        generator.start(Conditions(["a"]), [0], torch.full((1, 16), 32))
    with pytest.raises(ValueError, match="schedule"):
        ShowoPainter(generator.model, generator.tokenizer, schedule="tan")


def test_prompts_that_are_read_several_at_once_have_the_states_of_those_read_alone():
    """As on accelerators, where a prompt alone would be bound by launches."""
    model, words = toy_showo()
    ids = [words.painting_ids(text) for text in ("a cat", "two dogs", "")]
    alone = model.read_prompts(ids, 16, 16)
    together = model._read_in_parts(ids, 16, size=2)
    assert torch.equal(alone.seen, together.seen)
    for mine, other in zip((*alone.keys, *alone.values), (*together.keys, *together.values), strict=True):
        seen_ones = alone.seen[:, None, :, None].expand_as(mine)
        torch.testing.assert_close(mine[seen_ones], other[seen_ones])


def test_adapters_that_are_not_merged_are_painted_with():
    """Guided DPO explores so; weights packed for the CPU would leave them out."""
    model, words = toy_showo()
    learner = add(model, Lora(rank=2))
    for name, part in learner.named_parameters():
        if "lora_B" in name and "layers" in name:  # the head is taken by its rows, beside any adapter of its own
            torch.nn.init.normal_(part)
    conditions = Conditions(("a cat", "a dog"))
    with_them = ShowoPainter(model, words, steps=4)
    explored = with_them.codes(with_them.advance(with_them.start(conditions, (1, 2))))
    merged(learner)
    plain = ShowoPainter(model, words, steps=4)
    assert torch.equal(explored, plain.codes(plain.advance(plain.start(conditions, (1, 2)))))
