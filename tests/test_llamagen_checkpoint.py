"""Three ways in (authors' files, our folder, the front door); every damaged folder is refused in one sentence."""

import argparse
import json
import shutil
from pathlib import Path

import pytest
import torch
from llamagen_toy import toy_config, toy_llamagen

import reverie
from reverie.models.llamagen_checkpoint import (
    VQ_PREFIX,
    halved,
    interleaved,
    load_llamagen,
    load_networks,
    save_llamagen,
    sizes_of,
    to_authors_tensors,
)
from reverie.models.llamagen_text import clean_caption
from reverie.models.registry import resolve

ARGS = {"gpt_type": "t2i", "block_size": 16, "gpt_overrides": {"n_head": 4, "n_kv_head": 2}, "gpt_ckpt": "gpt.pt"}


@pytest.fixture(scope="module")
def toy():
    return toy_llamagen(torch.bfloat16)


@pytest.fixture
def ours(toy, tmp_path):
    save_llamagen(*toy, tmp_path / "ours")
    return tmp_path / "ours"


@pytest.fixture
def theirs(toy, tmp_path):
    """The authors' layout."""
    folder = tmp_path / "theirs"
    folder.mkdir()
    tensors = to_authors_tensors(toy[0])
    gpt = {key: tensor for key, tensor in tensors.items() if not key.startswith(VQ_PREFIX)}
    vq = {key.removeprefix(VQ_PREFIX): tensor for key, tensor in tensors.items() if key.startswith(VQ_PREFIX)}
    surplus = {"freqs_cis": torch.zeros(3), "layers.0.attention.kv_cache.k_cache": torch.zeros(3)}
    torch.save({"model": gpt | surplus, "steps": 7, "args": argparse.Namespace(lr=0.1)}, folder / "gpt.pt")
    torch.save({"model": vq | {"quantize.codebook_used": torch.zeros(9)}}, folder / "vq_ds16_t2i.pt")
    (folder / "args.json").write_text(json.dumps(ARGS))
    toy[1].save(folder / "text_encoder")
    return folder


def assert_same(a, b) -> None:
    for (name, first), (other, second) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(first, second), name


def test_our_layout_comes_back(ours, toy):
    model, captions = load_llamagen(ours, dtype=torch.bfloat16)
    assert_same(model, toy[0])
    assert model.config == toy[0].config
    assert not model.training
    ids = captions.ids("A red Cat!")
    assert ids == toy[1].ids("a red cat!")
    torch.testing.assert_close(captions.states(ids).float(), toy[1].states(ids), atol=0.1, rtol=0.1)
    assert load_llamagen(ours)[0].dtype == torch.float32
    assert not list(ours.parent.glob("ours.*"))


def test_authors_files_with_their_unused_tensors(theirs, toy):
    assert_same(load_networks(theirs, dtype=torch.bfloat16), toy[0])
    assert resolve(theirs).family == "llamagen"
    (theirs / "gpt.pt").rename(theirs / "t2i_XL_stage1_256.pt")
    (theirs / "args.json").write_text(json.dumps({key: ARGS[key] for key in ("gpt_overrides",)}))
    assert load_networks(theirs, dtype=torch.bfloat16).config.grid == 16
    assert resolve(theirs).family == "llamagen"


def test_sizes_of_the_public_model():
    shapes = {
        "tok_embeddings.weight": (16384, 1280),
        "layers.35.attention.wqkv.weight": (3840, 1280),
        "layers.0.attention.wqkv.weight": (3840, 1280),
        "layers.0.feed_forward.w1.weight": (3584, 1280),
        "cls_embedding.uncond_embedding": (120, 2048),
        f"{VQ_PREFIX}encoder.conv_in.weight": (128, 3, 3, 3),
        f"{VQ_PREFIX}quant_conv.weight": (8, 256, 1, 1),
    }
    for level, width in enumerate((128, 128, 256, 256, 512)):
        shapes[f"{VQ_PREFIX}encoder.conv_blocks.{level}.res.1.conv2.weight"] = (width, width, 3, 3)
    data = sizes_of(shapes, {}, Path("t2i_XL_stage2_512.pt"))
    gpt = {key: data["gpt"][key] for key in ("n_layer", "n_head", "n_kv_head", "block_size", "caption_dim")}
    assert gpt == {"n_layer": 36, "n_head": 20, "n_kv_head": 20, "block_size": 1024, "caption_dim": 2048}
    assert data["vq"]["ch_mult"] == [1, 1, 2, 2, 4]
    assert data["vq"]["num_res_blocks"] == 2


def test_rotary_pairs_are_reordered_and_back():
    weight = torch.arange(24.0).view(12, 2)
    assert halved(weight, 6)[:6, 0].tolist() == [0, 4, 8, 2, 6, 10]
    assert torch.equal(interleaved(halved(weight, 6), 6), weight)


@pytest.mark.parametrize("layout", ["ours", "theirs"])
def test_the_front_door(layout, request):
    painter = reverie.load(request.getfixturevalue(layout), device="cpu")
    result = painter.generate("a cat", seed=3)
    assert result.image.size == (32, 32)
    assert result.recipes[0]["fingerprint"]
    again = painter.generate("a cat", seed=2, n=3)
    assert again.recipes[1]["picture"] == result.recipes[0]["picture"]
    with pytest.raises(ValueError, match="only paints"):
        painter.generate("a cat", think="before")
    with pytest.raises(ValueError, match="only paints"):
        painter.describe(result.image)
    with pytest.raises(ValueError, match="one device"):
        reverie.load(painter.folder, device_map="auto")


def test_bad_folders_are_refused(theirs, ours, toy):
    def refused(folder, match: str, **keywords) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            load_llamagen(folder, **keywords)
        assert "\n" not in str(caught.value)

    def rewrite(name: str, key: str, tensor) -> None:
        whole = torch.load(theirs / name, weights_only=False)
        whole["model"] = {k: v for k, v in (whole["model"] | {key: tensor}).items() if v is not None}
        torch.save(whole, theirs / name)

    refused(theirs, "could not be loaded", text_encoder="no such folder")
    (theirs / "text_encoder" / "tokenizer.json").rename(theirs / "tokenizer.json")
    refused(theirs, "holds no tokenizer.json")
    shutil.rmtree(theirs / "text_encoder")
    refused(theirs, "has no text encoder; put google/flan-t5-xl into")
    (theirs / "text_encoder").mkdir()
    toy[1].save(theirs / "text_encoder")
    head = toy[0].language_model.lm_head.weight.detach()
    for tensor, match in (
        (head[:5], r"holds output\.weight in the shape \[5, 32\]"),
        (None, r"lacks .* output\.weight"),
    ):
        rewrite("gpt.pt", "output.weight", tensor)
        refused(theirs, match)
    rewrite("gpt.pt", "output.weight", head)
    rewrite("gpt.pt", "tok_embeddings.weight", None)
    refused(theirs, r"lacks the tensor tok_embeddings\.weight")
    rewrite("gpt.pt", "tok_embeddings.weight", head)
    rewrite("vq_ds16_t2i.pt", "post_quant_conv.bias", None)
    refused(theirs, r"lacks the tensor post_quant_conv\.bias")
    (theirs / "args.json").write_text(json.dumps(ARGS | {"block_size": None}))
    refused(theirs, "does not tell the size")
    (theirs / "args.json").write_text(json.dumps(ARGS | {"gpt_overrides": {}}))
    refused(theirs, "number of heads")
    (theirs / "args.json").write_text(json.dumps({}))
    shutil.copy(theirs / "gpt.pt", theirs / "other.pt")
    refused(theirs, "several files that may be the transformer")
    (theirs / "vq_ds16_t2i.pt").write_bytes(b"junk")
    (theirs / "args.json").write_text(json.dumps(ARGS))
    refused(theirs, "could run code|damaged")
    (theirs / "vq_ds16_t2i.pt").unlink()
    refused(theirs, "image tokenizer")
    (theirs / "args.json").write_text("{")
    refused(theirs, "not valid JSON")
    config = toy_config()
    del config["gpt"]["n_head"]
    (ours / "config.json").write_text(json.dumps(config))
    refused(ours, "lacks the field 'n_head'")
    (ours / "config.json").write_text(json.dumps(toy_config() | {"gpt": toy_config()["gpt"] | {"block_size": 15}}))
    refused(ours, "fill a square")
    wide = toy_config()
    wide["gpt"]["caption_dim"] = 24
    (ours / "config.json").write_text(json.dumps(wide))
    refused(ours, "uncond_embedding in the shape")


@pytest.mark.parametrize(
    ("caption", "cleaned"),
    [
        ("  A RED cat  ", "a red cat"),
        ("a cat, see https://cats.com/page now", "a cat, see now"),
        ("<b>bold</b> &amp; beautiful", "bold beautiful"),
        ("two “dogs” — one’s black", 'two "dogs" - one\'s black'),
        ("狗 a dog #123 @photographer", "a dog"),
        ("my-very-long-file-name of a cat.jpg", "my very long file name of a"),
        ("free shipping worldwide on page 12", "worldwide on"),
        ("a clock at 4 o'clock", "a clock at 4 o'clock"),
        ("", ""),
    ],
)
def test_captions_are_cleaned(caption, cleaned):
    assert clean_caption(caption) == cleaned


def test_long_captions_are_cut(toy):
    ids = toy[1].ids("cat " * 100)
    assert len(ids) == 120
    assert ids[-1] == toy[1].end
    assert toy[1].ids("") == [toy[1].end]
