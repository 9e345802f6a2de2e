"""The small T5, autoencoder and FLUX of the Atelier: what their batches hold, that they learn, and that what is saved
paints as diffusers itself would."""

import json
import random
from itertools import pairwise

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import reverie
from reverie.models.cells import vq_latents
from reverie.models.diffusion_family import Text
from reverie.models.folded_kl import FoldedKL, from_vq
from reverie.models.transform_kl import from_cells
from reverie.training.autoencoder import (
    AutoencoderTask,
    AutoencoderTraining,
    drawn,
    fresh_autoencoder,
    latents_of,
    load_autoencoder,
    save_autoencoder,
)
from reverie.training.captions import HEAD, pictured, worded
from reverie.training.flux import FluxSizes, FluxTask, FluxTraining, fresh_flux, go_on, save_flux
from reverie.training.recipes import run
from reverie.training.text_space import (
    TextSizes,
    TextTask,
    TextTraining,
    caption_texts,
    fresh_t5,
    hide,
    rescale,
    word_pieces,
)
from reverie.training.tokenizer import TokenizerConfig, build_vq

SIZES = FluxSizes(heads=1, head=16, double=1, single=1, pooled=8, vocabulary=514, steps=2, limit=32)


@pytest.fixture(scope="module")
def words():
    return word_pieces(caption_texts(400), 512)


@pytest.fixture(scope="module")
def t5(words):
    torch.manual_seed(0)
    return fresh_t5(TextSizes(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1), words)


def tiny_vq():
    torch.manual_seed(0)
    return build_vq(TokenizerConfig(codes=24, base=32, multipliers=(1, 1), latent=32)).eval()


def tiny_vae():
    return from_vq(tiny_vq())


@pytest.fixture(scope="module")
def saved(tmp_path_factory, t5, words):
    """A whole pipeline of random weights, as the recipe saves it."""
    folder = tmp_path_factory.mktemp("flux")
    vae = tiny_vae()
    pipeline = fresh_flux(SIZES, vae, t5, words)
    torch.manual_seed(1)
    for weight in pipeline.transformer.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    save_flux(pipeline, t5, SIZES, 96, folder)
    t5.float()
    return folder


def losses(task, steps=12, rate=1e-2):
    """Of one batch, learnt by heart."""
    batch = task.batch(0)
    optimizer = torch.optim.Adam([p for p in task.model.parameters() if p.requires_grad], rate)
    found = []
    for _ in range(steps):
        loss, _ = task.loss(batch)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        found.append(loss.item())
    return found


def same(a, b):
    return all(torch.equal(a[k], b[k]) if isinstance(a[k], torch.Tensor) else a[k] == b[k] for k in a)


def test_captions_keep_to_the_training_side_and_begin_as_the_vlm_is_asked_to():
    from reverie.atelier.sample import allowed

    rng = random.Random(0)
    demands = [pictured(rng, riddles=0)[0] for _ in range(300)]
    assert all(allowed(demand.include) for demand in demands)
    texts = [worded(demand, rng) for demand in demands]
    assert 0.08 < sum(text.startswith(HEAD) for text in texts) / len(texts) < 0.3
    assert not any("an image of" in text for text in texts if not text.startswith(HEAD))  # a held-out head


def test_shares_of_fine_details_and_of_pairs():
    rng = random.Random(0)
    answers = [pictured(rng, 1.0, fine=1.0)[1] for _ in range(50)]
    assert all(one.things[0].action or one.things[0].texture != "plain" for one in answers)
    demands = [pictured(rng, 0.0, 0.0, pairs=1.0)[0] for _ in range(60)]
    assert all([clause.count for clause in one.include] == [1, 1] for one in demands)
    assert all(clause.colour for one in demands for clause in one.include)
    assert 15 < sum(one.background != "plain" for one in demands) < 45
    same = [pictured(random.Random(seed), 0.5) for seed in range(30)]  # shares of nothing draw no lots
    assert same == [pictured(random.Random(seed), 0.5, fine=0.0, pairs=0.0) for seed in range(30)]


def test_common_words_are_one_piece_and_all_else_is_spelled(words):
    assert words.tokenize("a red cat") == ["▁a", "▁red", "▁cat"]
    text = "a red Xylophone, at 4 o'clock."
    assert words.decode(words(text).input_ids, skip_special_tokens=True) == text
    assert words("a").input_ids[-1] == words.eos_token_id


def test_a_t5_in_another_scale_says_the_same(words):
    small = fresh_t5(TextSizes(width=16, heads=2, ffn=16, encoder_layers=1, decoder_layers=1), words).eval()
    ids = words(["a red cat", "a box"], padding=True, return_tensors="pt").input_ids
    with torch.no_grad():
        before, said = small.encoder(ids).last_hidden_state, small(input_ids=ids, labels=ids).logits
        rescale(small, 0.125)
        after, again = small.encoder(ids).last_hidden_state, small(input_ids=ids, labels=ids).logits
    assert torch.equal(after, before * 0.125)
    assert torch.equal(again, said)
    with pytest.raises(ValueError, match="above 0"):
        TextSizes(scale=0.0)


def test_hidden_words_leave_one_sentinel_a_run():
    assert hide("a b c", 1.0, random.Random(0)) == "<extra_id_0>"
    assert hide("a b c", 0.0, random.Random(0)) == "a b c"
    half = hide(" ".join("abcdefgh"), 0.5, random.Random(3)).split()
    sentinels = [word for word in half if word.startswith("<extra")]
    assert sentinels == [f"<extra_id_{i}>" for i in range(len(sentinels))]
    assert not any(a.startswith("<extra") and b.startswith("<extra") for a, b in pairwise(half))


def test_the_t5_learns_and_its_batches_follow_from_the_step(t5, words):
    task = TextTask(t5, words, TextTraining(batch=8))
    assert same(task.batch(3), task.batch(3))
    assert task.batch(3)["ids"].tolist() != task.batch(4)["ids"].tolist()
    found = losses(task)
    assert found[-1] < 0.7 * found[0]
    with pytest.raises(ValueError, match="left_out"):
        TextTraining(left_out=1.0)


def test_the_autoencoder_is_the_tokenizer_without_its_codes():
    vq = tiny_vq()
    torch.nn.init.zeros_(vq.post_quant_conv.bias)  # the one thing that the border sees differently
    vae = from_vq(vq)
    pixels = torch.rand(2, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        latents = F.normalize(vq_latents(vq, F.pixel_unshuffle(pixels, 4), True), dim=1)
        torch.testing.assert_close(latents_of(vae, pixels), latents, atol=1e-5, rtol=0)
        painted = F.pixel_shuffle(vq.decoder(vq.post_quant_conv(latents)), 4)
        torch.testing.assert_close(vae.decode(latents).sample, painted, atol=1e-4, rtol=1e-4)


def test_each_latent_is_written_from_its_own_pixels():
    vae = tiny_vae()
    pixels = torch.rand(1, 3, 32, 32) * 2 - 1
    changed = pixels.clone()
    changed[:, :, 8:16, 16:24] += 0.5
    with torch.no_grad():
        a, b = (latents_of(vae, x) for x in (pixels, changed))
    assert a.shape == (1, 8, 4, 4)
    assert ((a - b).abs().amax(1)[0] > 1e-6).nonzero().tolist() == [[1, 2]]


def small_transform(channels=6, seed=0):
    config = AutoencoderTraining(channels=channels, width=128, measured=8)
    return fresh_autoencoder(config, seed).eval(), drawn(config, seed, 0, 8).float() / 127.5 - 1


def test_a_fresh_encoder_writes_principal_coordinates():
    """Of cells of 8 x 8 pixels, as numpy finds them: uncorrelated where cells are not flat, each as large as the root
    of its deviation; and back again they are the nearest pictures that so many coordinates can say."""
    vae, pixels = small_transform()
    with torch.no_grad():
        latents = latents_of(vae, pixels)
    assert latents.shape == (8, 6, 12, 12)
    cells = F.pixel_unshuffle(pixels, 8).permute(0, 2, 3, 1).reshape(-1, 192).double().numpy()
    busy = cells[np.ptp(cells, axis=1) > 0.1]
    axes = np.linalg.svd(busy - busy.mean(0), full_matrices=False)[2][:6]
    wanted = (cells - cells.mean(0)) @ axes.T
    wanted /= np.sqrt(wanted.std(0))
    wanted /= np.sqrt(wanted.var(0).mean())
    found = latents.permute(0, 2, 3, 1).reshape(-1, 6).double().numpy()
    signs = np.sign((found * wanted).sum(0))
    np.testing.assert_allclose(found, wanted * signs, atol=0.01)


def test_a_fresh_decoder_is_near_the_pictures_and_learns():
    vae, pixels = small_transform(16)
    with torch.no_grad():
        left = vae.decode(latents_of(vae, pixels)).sample
    assert F.mse_loss(left, pixels) < 0.5 * pixels.sub(pixels.mean((0, 2, 3), keepdim=True)).square().mean()
    task = AutoencoderTask(vae, AutoencoderTraining(batch=4, fresh=2))
    encoder = {name: weight.clone() for name, weight in vae.encoder.state_dict().items()}
    found = losses(task, rate=1e-3)
    assert found[-1] < 0.8 * found[0]
    assert all(torch.equal(weight, vae.encoder.state_dict()[name]) for name, weight in encoder.items())
    with pytest.raises(ValueError, match="at most 32 channels"):
        from_cells(torch.randn(300, 192), channels=40)
    with pytest.raises(ValueError, match="new pictures"):
        AutoencoderTraining(batch=2, fresh=4)


def test_a_run_of_the_autoencoder_that_goes_on_meets_the_same_pictures():
    config = AutoencoderTraining(batch=4, fresh=2, pool=6)
    first, second = (AutoencoderTask(tiny_vae(), config) for _ in range(2))
    for step in range(5):
        last = first._chosen(first.batch(step))
    assert torch.equal(second._chosen(second.batch(4)), last)
    assert len(last) == 4
    assert first.pool.count == 6  # the fifth step brought nothing new


def test_a_folded_autoencoder_is_on_disk_what_diffusers_knows(tmp_path):
    from diffusers import AutoencoderKL

    vae = tiny_vae()
    task = AutoencoderTask(vae, AutoencoderTraining(batch=2, fresh=2, side=32))
    found = losses(task)
    assert found[-1] < 0.7 * found[0]
    save_autoencoder(vae, tmp_path)
    plain, folded = AutoencoderKL.from_pretrained(tmp_path), load_autoencoder(tmp_path)
    assert type(plain) is AutoencoderKL
    assert isinstance(folded, FoldedKL)
    latents = F.normalize(torch.randn(1, 8, 4, 4), dim=1)
    torch.testing.assert_close(F.pixel_shuffle(plain.decode(latents).sample, 4), folded.decode(latents).sample)


@pytest.fixture
def task(t5, words):
    return FluxTask(
        fresh_flux(SIZES, tiny_vae().eval(), t5, words), SIZES, FluxTraining(batch=8, fresh=2, pool=5, wordings=2)
    )


def test_the_flux_learns_from_a_pool_that_grows(task):
    assert same(task.batch(1), task.batch(1))
    assert [len(task.batch(step).get("pixels", ())) for step in range(4)] == [2, 2, 1, 0]
    seen = [task.loss(task.batch(step))[1]["seen"] for step in range(4)]
    assert seen == [2, 4, 5, 5]
    found = losses(task, 25)
    assert abs(found[0] - 2) < 0.4  # the prediction begins as zero; noise and latents have unit variance each
    assert min(found) < 0.95 * found[0]


def test_a_run_that_goes_on_has_the_same_pool(task, t5, words):
    again = FluxTask(task.pipeline, SIZES, task.mix)
    there = [float(task.loss(task.batch(step))[0]) for step in range(4)]
    assert float(again.loss(again.batch(3))[0]) == pytest.approx(there[3], abs=1e-5)
    for a, b in zip(task.pool.kept, again.pool.kept, strict=True):
        assert torch.equal(a[:5], b[:5])


def test_captions_come_in_every_length_that_painting_has(task):
    ids = torch.cat([task._ids(["a red cat"] * 400)[0], task.blank[0].repeat(400, 1)])
    there = task._lengths(ids, torch.Generator().manual_seed(0)).sum(1)
    told, blank = there[:400], there[400:]
    assert told.min() == 4  # three words and the end
    assert 0.3 < (told == 4).float().mean() < 0.5
    assert 0.05 < (told == 32).float().mean() < 0.15
    assert sorted(set(blank.tolist())) == list(range(1, 33))


def test_steps_with_little_room_hold_short_captions(task):
    task.loss(task.batch(0))
    rooms = [task._room(seed) for seed in range(300)]
    assert {room: rooms.count(room) > 30 for room in set(rooms)} == {16: True, 32: True}
    longest = task.pool.kept[1][: task.pool.count].ne(0).sum(-1).max()
    latents, ids, _ = task._chosen(torch.Generator().manual_seed(0), 4)
    assert ids.shape == (8, 4)
    assert longest > 4  # a longer caption is never cut: a blank stands for it
    kept = task.pool.kept[1].flatten(0, 1).tolist()
    blank = task.blank[0][0, :4].tolist()
    assert all(row == blank or any(row == full[:4] and not any(full[4:]) for full in kept) for row in ids.tolist())
    assert latents.shape == (8, 36, 32)


def test_vectors_of_some_captions_come_again_in_place_of_padding(task):
    ids = torch.tensor([[5, 6, 1, 0, 0, 0], [1, 0, 0, 0, 0, 0], [5, 6, 7, 8, 9, 1]])
    states = torch.arange(18.0).view(3, 6, 1).expand(3, 6, 2)
    task.mix.again = 1.0
    found = task._repeated(states, ids, torch.Generator().manual_seed(0))
    task.mix.again = 0.0
    assert torch.equal(found[1:], states[1:])  # a blank one, and one without padding
    assert torch.equal(found[0, :3], states[0, :3])
    assert set(found[0, 3:, 0].tolist()) <= {0.0, 1.0, 2.0}


def test_a_run_goes_on_from_a_saved_pipeline(task, saved, t5, words):
    """Equal to it where the autoencoder is the same; with another, only what reads and writes latents is new."""
    old = reverie.load(saved).model
    kept = old.transformer.state_dict()
    fresh = fresh_flux(SIZES, tiny_vae(), t5, words)
    go_on(fresh, saved)
    assert all(torch.equal(weight, kept[name]) for name, weight in fresh.transformer.state_dict().items())
    torch.manual_seed(3)
    other = fresh_flux(SIZES, small_transform(8)[0], t5, words)
    begun = {name: weight.clone() for name, weight in other.transformer.state_dict().items()}
    go_on(other, saved)
    for name, weight in other.transformer.state_dict().items():
        ends = name.startswith(("x_embedder", "proj_out"))
        assert torch.equal(weight, begun[name] if ends else kept[name])
    assert fresh.tokenizer.get_vocab() == old.tokenizer.get_vocab()
    with pytest.raises(ValueError, match="no transformer to go on from"):
        go_on(fresh, saved / "vae")
    other = FluxSizes(heads=2, head=16, double=1, single=1, pooled=8, vocabulary=514)
    with pytest.raises(ValueError, match="other sizes"):
        go_on(fresh_flux(other, tiny_vae(), t5, words), saved)


def test_missing_vectors_are_not_read(task):
    """A row of a batch with a mask is the row alone without the vectors that are masked."""
    for weight in task.pipeline.transformer.parameters():
        torch.nn.init.normal_(weight, std=0.1)
    family, sigma = task.family, torch.tensor([0.3, 0.7])
    x = torch.randn(2, 36, 32)
    states, pooled = torch.randn(2, 6, 16), torch.randn(2, 8)
    there = torch.tensor([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0]]).bool()
    with torch.no_grad():
        both = family.predict(x, sigma, [Text(states, pooled)], 1.0, (96, 96), there)
        alone = family.predict(x[1:], sigma[1:], [Text(states[1:, :3], pooled[1:])], 1.0, (96, 96))
    torch.testing.assert_close(both[1:], alone, atol=1e-5, rtol=1e-4)


def test_what_is_saved_paints_as_diffusers_does(saved):
    """The pipeline's own call, with the same noise, guidance and length, gives the same picture of 96 pixels a side."""
    painter = reverie.load(saved)
    assert isinstance(painter.model.vae, FoldedKL)
    painted = painter.generate("a red cat", seed=5).image
    assert painted.size == (96, 96)
    own = painter.model(
        prompt="a red cat", negative_prompt="", true_cfg_scale=SIZES.guidance, num_inference_steps=SIZES.steps,
        height=96, width=96, max_sequence_length=SIZES.limit, generator=torch.Generator().manual_seed(5),
    ).images[0]  # fmt: skip
    assert np.abs(np.asarray(painted, int) - np.asarray(own, int)).max() <= 1


def test_the_recipe_goes_from_words_to_a_painter(tmp_path):
    """The three recipes with tiny sizes, one after another, by the command's own function."""
    loop = [
        "loop.steps=2",
        "loop.workers=0",
        "loop.minutes=null",
        "loop.sample_every=0",
        'loop.precision="no"',
        "loop.muon_lr=null",
    ]
    run(
        "recipes/atelier/t5.yaml",
        [*loop, f"out={tmp_path / 't5'}", "model={width: 16, heads: 2, ffn: 16, encoder_layers: 1, decoder_layers: 1}",
         "mix.batch=2"],
    )  # fmt: skip
    assert json.loads((tmp_path / "t5/readings.jsonl").read_text().splitlines()[-1])["step"] == 2
    run(
        "recipes/atelier/vae.yaml",
        [*loop, f"out={tmp_path / 'vae'}", "mix={batch: 2, fresh: 1, channels: 4, width: 128, measured: 4}"],
    )
    run(
        "recipes/atelier/flux.yaml",
        [*loop, f"out={tmp_path / 'flux'}", f"t5={tmp_path / 't5/checkpoint'}", f"vae={tmp_path / 'vae/checkpoint'}",
         "model={heads: 1, head: 16, double: 1, single: 1, pooled: 8, vocabulary: 514, steps: 1}", "mix.batch=2"],
    )  # fmt: skip
    assert reverie.load(tmp_path / "flux/checkpoint").generate("a boat", seed=0).image.size == (96, 96)
    told = [path.read_text("utf-8") for path in (tmp_path / "flux/checkpoint").rglob("*config.json")]
    assert not any(str(tmp_path) in text for text in told), "a checkpoint names no folder of who made it"
    with pytest.raises(ValueError, match="no tokenizer"):
        run("recipes/atelier/flux.yaml", [f"vae={tmp_path}", f"out={tmp_path / 'x'}"])
