"""Show-o checkpoints on disk: the authors' layout, ours, and everything that can be wrong with them."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from showo_toy import MAGVIT, toy_config, toy_showo

import reverie
from reverie.models.prompt_length import check_length
from reverie.models.registry import resolve
from reverie.models.showo import ShowoConfig
from reverie.models.showo_checkpoint import load_showo, save_showo


def official(folder: Path) -> Path:
    """The toy in the authors' layout: three folders and a yaml."""
    model, words = toy_showo()
    config = model.config
    about = {
        "_class_name": "Showo", "vocab_size": config.vocabulary, "llm_vocab_size": config.text_tokens,
        "llm_model_path": "somebody/phi", "codebook_size": config.num_codes, "num_vq_tokens": config.image_length,
        "mask_token_id": config.mask, "w_clip_vit": False,
    }  # fmt: skip
    sizes = {name: value for name, value in MAGVIT.to_dict().items() if name != "type"}
    phi = toy_config()["phi"] | {"model_type": "phi", "vocab_size": 51200, "qk_layernorm": False}
    parts = {"language": about, "pictures": {"_class_name": "MAGVITv2", **sizes}, "words": phi}
    for name, data in parts.items():
        (folder / name).mkdir(parents=True)
        (folder / name / "config.json").write_text(json.dumps(data))
    own = {name: t.contiguous() for name, t in model.state_dict().items()}
    save_file({n: t for n, t in own.items() if n.startswith("showo.")}, weights(folder))
    table = {"quantize.embedding": torch.ones(32, 5), "quantize.power_vals": torch.ones(5)}
    rest = {n.removeprefix("vq_model."): t for n, t in own.items() if n.startswith("vq_model.")}
    torch.save(rest | table, folder / "pictures" / "pytorch_model.bin")
    words.save(folder / "words")
    (folder / "inference.yaml").write_text(f"dataset: {{preprocessing: {{max_seq_length: {config.longest}}}}}\n")
    return folder


def weights(folder: Path) -> Path:
    return folder / "language" / "pytorch_model.safetensors"


def assert_same(a, b) -> None:
    for (name, first), (other, second) in zip(a.state_dict().items(), b.state_dict().items(), strict=True):
        assert name == other
        assert torch.equal(first, second), name


def paint(folder: Path):
    return reverie.load(folder, device="cpu").generate("a cat", seed=3).image.tobytes()


def test_all_layouts_paint_the_same(tmp_path):
    folder = official(tmp_path / "official")
    model, words = load_showo(folder)
    assert_same(model, toy_showo()[0])
    model.to(torch.bfloat16)
    save_showo(model, words, tmp_path / "ours")
    again, tokenizer = load_showo(tmp_path / "ours", dtype=torch.bfloat16)
    assert_same(model, again)
    assert tokenizer.painting_ids("a cat") == words.painting_ids("a cat")
    assert paint(folder) == paint(folder / "language")
    assert len(paint(tmp_path / "ours")) == 8 * 8 * 3


def test_shards_are_read_too(tmp_path):
    folder = official(tmp_path / "a")
    tensors = sorted(load_file(weights(folder)).items())
    half, files = len(tensors) // 2, ("pytorch_model-1.safetensors", "pytorch_model-2.safetensors")
    for name, part in zip(files, (tensors[:half], tensors[half:]), strict=True):
        save_file(dict(part), weights(folder).with_name(name))
    place = {name: files[i >= half] for i, (name, _) in enumerate(tensors)}
    index = weights(folder).with_name("pytorch_model.safetensors.index.json")
    index.write_text(json.dumps({"weight_map": place}))
    weights(folder).unlink()
    load_showo(folder)


def test_the_config_may_name_how_it_is_to_be_used(tmp_path):
    model, words = toy_showo()
    model.config.own.update(guidance=1.5, steps=3, temperature=0.5)
    save_showo(model, words, tmp_path / "m")
    painter = reverie.load(tmp_path / "m", device="cpu")
    generator = painter.generator(reverie.Plan())
    assert (generator.guidance, generator.steps, generator.temperature) == (1.5, 3, 0.5)


def without_a_tensor(folder):
    tensors = load_file(weights(folder))
    del tensors["showo.model.layers.0.mlp.fc1.bias"]
    save_file(tensors, weights(folder))


def with_a_wrong_shape(folder):
    save_file(load_file(weights(folder)) | {"showo.lm_head.bias": torch.zeros(7)}, weights(folder))


def with_a_stranger(folder):
    save_file(load_file(weights(folder)) | {"showo.other": torch.zeros(7)}, weights(folder))


def with_code_inside(folder):
    class Code:
        def __reduce__(self):
            return print, ("run",)

    (folder / "pictures" / "pytorch_model.bin").write_bytes(pickle.dumps({"encoder.conv_in.bias": Code()}))


def cut_off(folder):
    weights(folder).write_bytes(weights(folder).read_bytes()[:1000])


def changed(part, **values):
    def change(folder):
        path = folder / part / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def removed(*names):
    def remove(folder):
        for name in names:
            (folder / name).unlink()

    return remove


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (without_a_tensor, r"lacks the tensor showo.model.layers.0.mlp.fc1.bias"),
        (with_a_wrong_shape, r"lm_head.bias in the shape \[7\]"),
        (with_a_stranger, "showo.other, which no Show-o"),
        (with_code_inside, "could run code"),
        (cut_off, "is damaged"),
        (changed("language", llm_vocab_size=300), "vocab_size 303"),
        (changed("language", mask_token_id=5), "mask_token_id 5"),
        (changed("language", num_vq_tokens=15), "form no square"),
        (changed("language", vocab_size=None, codebook_size=64, mask_token_id=None), "vocab_size None"),
        (changed("pictures", z_channels=6), "image tokenizer has 64"),
        (changed("pictures", encoder_ch_mult=[1]), "different numbers of levels"),
        (changed("words", hidden_act="relu"), "'relu'"),
        (changed("words", num_attention_heads=3), "do not divide evenly"),
        (changed("words", num_hidden_layers=3), "lacks the tensor showo.model.layers.2"),
        (removed("words/tokenizer.json"), "no tokenizer.json"),
        (removed("pictures/config.json"), "part 'magvitv2'"),
        (removed("words/config.json"), "part 'phi'"),
        (removed("language/config.json"), "no config.json"),
        (removed("language/pytorch_model.safetensors"), "no weights"),
        (removed("pictures/pytorch_model.bin"), "no weights"),
        (lambda folder: (folder / "inference.yaml").write_text("a: ]"), "not valid YAML"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(tmp_path, damage, told, monkeypatch):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    folder = official(tmp_path / "m")
    damage(folder)
    with pytest.raises(ValueError, match=told):
        reverie.load(folder, device="cpu")


def test_requests_that_make_no_sense_are_refused_before_anything_is_loaded(tmp_path):
    source = resolve(official(tmp_path / "m"))
    assert source.family == "showo"
    check_length(source, "x" * 38)
    with pytest.raises(ValueError, match=r"39 tokens, but .* reads at most 38"):
        check_length(source, "x" * 39)
    painter = reverie.load(tmp_path / "m", device="cpu")
    with pytest.raises(ValueError, match="only paints"):
        painter.generate("a cat", think="before")
    with pytest.raises(ValueError, match="device_map"):
        reverie.load(tmp_path / "m", device_map="auto")
    assert isinstance(painter.describe(painter.generate("a cat", seed=1).image, "What is it?"), str)


def test_a_missing_field_is_named():
    for name in ("llm_vocab_size", "codebook_size", "num_vq_tokens", "phi", "vq_model"):
        data = toy_config()
        del data[name]
        with pytest.raises(ValueError, match=name):
            ShowoConfig.from_dict(data)
