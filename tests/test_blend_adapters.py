"""Adapters of one base, added up."""

from __future__ import annotations

import pytest
import torch
from tiny import tiny_folder

from reverie.models.janus_checkpoint import load_janus
from reverie.models.low_rank import save_adapter
from reverie.training.blend_adapters import main

LAYER, HEAD = "language_model.model.layers.0.self_attn.q_proj", "language_model.lm_head"


def test_a_blend_is_the_weighted_sum_and_what_one_alone_was_taught_is_whole(tmp_path, capsys):
    base = tiny_folder(tmp_path / "base")
    plain, _ = load_janus(base)
    config, held, layers = plain.config.to_dict(), dict(plain.named_parameters()), {}
    torch.manual_seed(0)
    for name, scale in (("first", 1.0), ("second", 0.5)):
        parts = {}
        for layer in (LAYER, HEAD):
            out, size = held[f"{layer}.weight"].shape
            parts[f"{layer}.lora_A"], parts[f"{layer}.lora_B"] = torch.randn(2, size), torch.randn(out, 2)
        if name == "second":
            parts[f"{HEAD}.lora_B"].zero_()
        save_adapter(tmp_path / name, "../base", config, scale, parts)
        layers[name] = dict(load_janus(tmp_path / name)[0].named_parameters())
    one, other = f"{tmp_path / 'first'}=0.75", f"{tmp_path / 'second'}=0.5"
    main([one, other, "--rank", "4", "--out", str(tmp_path / "blend")])
    assert "at most 0.00 %" in capsys.readouterr().out
    found = dict(load_janus(tmp_path / "blend")[0].named_parameters())
    for name, before in held.items():
        first, second = layers["first"][name] - before, layers["second"][name] - before
        wanted = first + second if name == f"{HEAD}.weight" else 0.75 * first + 0.5 * second
        torch.testing.assert_close(found[name], before + wanted, atol=0.05, rtol=0.03)  # factors are in 8 bits
    assert not torch.equal(found[f"{LAYER}.weight"], held[f"{LAYER}.weight"])

    main([one, other, "--rank", "1", "--out", str(tmp_path / "thin")])
    assert "at most 0.00 %" not in capsys.readouterr().out


def test_what_cannot_be_added_up_is_refused_in_one_sentence(tmp_path, capsys):
    base = tiny_folder(tmp_path / "base")
    config = load_janus(base)[0].config.to_dict()
    save_adapter(tmp_path / "bias", "../base", config, 1.0, {"aligner.layers.0.bias": torch.zeros(64)})
    for wrong, words in ((base, "of one base"), (tmp_path / "bias", "not of low rank")):
        with pytest.raises(SystemExit):
            main([f"{wrong}=1", "--rank", "4", "--out", str(tmp_path / "no")])
        assert words in capsys.readouterr().err
    assert not (tmp_path / "no").exists()
