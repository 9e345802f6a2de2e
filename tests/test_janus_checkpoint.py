"""Three layouts in, one out; and every damaged folder is refused in one sentence."""

import json
import pickle
import shutil
import warnings

import pytest
import torch
from janus_toy import toy_config, toy_janus
from safetensors.torch import load_file, save_file
from transformers import JanusConfig as TheirConfig
from transformers import JanusForConditionalGeneration

from reverie.models.janus import Janus, JanusConfig, PackedHead
from reverie.models.janus_checkpoint import load_janus, memory_needed, read_config, save_janus, to_authors, to_ours
from reverie.models.llama import KVCache
from reverie.models.registry import from_folder
from reverie.models.rows import Packed, packed


@pytest.fixture
def folder(tmp_path):
    model, tokenizer = toy_janus(torch.bfloat16)
    save_janus(model, tokenizer, tmp_path / "toy")
    return tmp_path / "toy"


def assert_same(a: Janus, b: Janus) -> None:
    for (name, first), (other, second) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(first, second), name


def test_our_layout_comes_back(folder, monkeypatch):
    model, tokenizer = toy_janus(torch.bfloat16)
    loaded, words = load_janus(folder, dtype=torch.bfloat16)
    assert_same(model, loaded)
    assert words.encode("a <|User|> b") == tokenizer.encode("a <|User|> b")
    assert words.rules == tokenizer.rules
    assert loaded.config == model.config
    assert not loaded.training
    monkeypatch.setattr("reverie.models.janus_checkpoint.SHARD_BYTES", 40_000)
    save_janus(loaded, words, folder)
    shards = list(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert max(path.stat().st_size for path in shards) < 50_000
    assert not list(folder.parent.glob("toy.*"))
    assert_same(load_janus(folder, dtype=torch.bfloat16)[0], loaded)
    assert load_janus(folder)[0].dtype == torch.float32


def test_names_translate_both_ways():
    with torch.device("meta"):
        names = list(Janus(JanusConfig.from_dict(toy_config())).state_dict())
    for name in names:
        theirs = to_authors(name)
        assert name in [ours for ours, _ in to_ours(theirs, torch.zeros(3, 1))], (name, theirs)
    for theirs in ("gen_vision_model.decoder.conv_blocks.0.upsample.conv.weight", "gen_aligner.layers.2.bias"):
        assert to_authors(to_ours(theirs, torch.zeros(3, 1))[0][0]) == theirs


def test_authors_pickles_with_their_unused_tensors(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["gen_vision_model.quantize.codebook_used"] = torch.zeros(65536)
    tensors["vision_model.vision_tower.attn_pool.latent"] = torch.zeros(1, 1, 8)
    (folder / "model.safetensors").unlink()
    torch.save(tensors, folder / "pytorch_model.bin")
    assert_same(load_janus(folder, dtype=torch.bfloat16)[0], toy_janus(torch.bfloat16)[0])
    names = sorted(tensors)
    for number, part in enumerate((names[::2], names[1::2])):
        torch.save(
            {name: tensors[name] for name in part},
            folder / f"part{number}.bin",
            _use_new_zipfile_serialization=number == 0,
        )
    weight_map = {name: f"part{i % 2}.bin" for i, name in enumerate(names)}
    (folder / "pytorch_model.bin").unlink()
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert_same(load_janus(folder, dtype=torch.bfloat16)[0], toy_janus(torch.bfloat16)[0])


def test_transformers_layout(folder, tmp_path):
    """Their class, saved by their library, gives the same numbers through ours."""
    torch.manual_seed(0)
    text = toy_config()["language_config"] | {"model_type": "llama"}
    vision = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 32, "patch_size": 8}
    codes = {"num_embeddings": 48, "base_channels": 32, "channel_multiplier": [1, 1], "latent_channels": 32}
    widths = {"projection_dim": 32, "image_token_embed_dim": 32}
    config = TheirConfig(
        text_config=text,
        vision_config=vision | {"mlp_ratio": 2.0, "projection_dim": 32, "num_image_tokens": 16},
        vq_config=codes | widths,
        image_token_id=261,
        tie_word_embeddings=False,
    )
    theirs = JanusForConditionalGeneration(config).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    shutil.copy(folder / "tokenizer.json", tmp_path / "theirs")
    ours, _ = load_janus(tmp_path / "theirs")
    ids, pixels = torch.randint(0, 250, (2, 9)), torch.rand(2, 3, 32, 32) * 2 - 1
    image_codes = torch.randint(0, 48, (2, 16))
    with torch.no_grad():
        torch.testing.assert_close(ours.text_logits(ours.hidden(ours.embed_text(ids))), theirs(input_ids=ids).logits)
        torch.testing.assert_close(ours.image_features(pixels), theirs.model.get_image_features(pixels).pooler_output)
        decoded = theirs.model.vqmodel.decode(image_codes)
        torch.testing.assert_close(ours.decode_codes(image_codes), decoded)
    assert ours.config.grid == 4


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_copy_that_packing_keeps_is_counted_without_loading(folder, dtype):
    model, _ = load_janus(folder, dtype=dtype)
    with torch.no_grad():
        cache = KVCache.empty(model.config.language, 1, 8, model.language_model.lm_head.weight)
        layers = cache.layers_of(model.language_model.model)
        packs = [*(layers.layers if layers else [None]), packed(model.generation_head, 32, PackedHead)]
    if None in packs:
        pytest.skip("this processor packs nothing in this type")
    matrices = [part.weight for pack in packs for part in vars(pack).values() if isinstance(part, Packed)]
    assert from_folder(folder).packing(str(dtype).removeprefix("torch.")) == sum(
        weight.numel() * dtype.itemsize for weight in matrices
    )


def test_memory_is_counted_without_loading(folder):
    model = toy_janus()[0]
    expected = 2 * sum(parameter.numel() for parameter in model.parameters())
    assert memory_needed(read_config(folder), torch.bfloat16) == expected


def edit(folder, **changes) -> None:
    """Replaces, or with None removes, tensors of the one weight file."""
    tensors = load_file(folder / "model.safetensors") | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, folder / "model.safetensors")


class Code:
    def __reduce__(self):
        return print, ("run",)


def test_bad_folders_are_refused(folder, tmp_path):
    def refused(match: str) -> None:
        with pytest.raises(ValueError, match=match) as caught:
            load_janus(folder)
        assert "\n" not in str(caught.value)

    head = load_file(folder / "model.safetensors")["language_model.lm_head.weight"]
    edit(folder, **{"language_model.lm_head.weight": head[:5]})
    refused(r"model\.safetensors holds language_model\.lm_head\.weight in the shape \[5, 32\]")
    edit(folder, **{"language_model.lm_head.weight": None})
    refused(r"model\.safetensors lacks the tensor language_model\.lm_head\.weight")
    edit(folder, **{"language_model.lm_head.weight": head, "surprise.weight": torch.zeros(1)})
    refused("holds the tensor surprise.weight")
    (folder / "model.safetensors").write_bytes(b"junk")
    refused("damaged")
    (folder / "model.safetensors").unlink()
    refused("holds no weights")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Code()}))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is said beside the sentence
        refused("could run code")
    (folder / "config.json").write_text(json.dumps(toy_config() | {"model_type": "bert"}))
    refused("'bert'")
    broken = toy_config()
    del broken["gen_head_config"]
    (folder / "config.json").write_text(json.dumps(broken))
    refused("gen_head_config")
    with pytest.raises(ValueError, match="neither a folder nor the id"):
        load_janus(tmp_path / "absent" / "folder")
