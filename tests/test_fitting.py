"""How a pipeline is made to fit: from the command line, into the recipe of a picture, and out of it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from diffusion_toy import qwen_image, save_thinker

from reverie import load
from reverie.cli import main
from reverie.png import read_recipe
from reverie.training.adapted import inject, save_adapter
from reverie.training.adapters import Lora


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_thinker(qwen_image(), tmp_path_factory.mktemp("models") / "toy")


def test_lora_weights_come_from_the_command_line_and_a_replay_loads_them_again(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    peft = pytest.importorskip("peft", reason="needs reverie[diffusion]")
    pipe = qwen_image()
    settings = peft.LoraConfig(r=2, lora_alpha=64, target_modules=["to_q", "to_v"], init_lora_weights=False)
    pipe.transformer.add_adapter(settings)
    weights = peft.get_peft_model_state_dict(pipe.transformer)
    type(pipe).save_lora_weights(tmp_path / "lora", transformer_lora_layers=weights)
    order = ["generate", "a cat", "--model", str(model), "--device", "cpu", "--seed", "3", "--quiet"]
    assert main([*order, "--out", str(tmp_path / "plain.png")]) == 0
    assert main([*order, "--lora", str(tmp_path / "lora"), "--out", str(tmp_path / "cat.png")]) == 0
    plain, adapted = (read_recipe(tmp_path / f"{name}.png") for name in ("plain", "cat"))
    assert plain["picture"] != adapted["picture"]
    assert adapted["fitting"] == {"lora": str(tmp_path / "lora")}
    assert "fitting" not in plain
    capsys.readouterr()
    assert (
        main(["replay", str(tmp_path / "cat.png"), "--device", "cpu", "-q", "--out", str(tmp_path / "again.png")]) == 0
    )
    assert "identical" in capsys.readouterr().out


def test_a_replay_knows_the_weights_of_a_model_with_adapters(model: Path, tmp_path: Path, capsys) -> None:
    pytest.importorskip("peft", reason="needs reverie[diffusion]")
    pipe = qwen_image()
    lora = Lora(2, 4, "attn")
    inject(pipe.transformer, lora)
    folder = tmp_path / "adapters"
    save_adapter(pipe.transformer, lora, folder / "transformer")
    (folder / "adapters.json").write_text(json.dumps({"base": str(model)}))
    order = ["generate", "a cat", "--model", str(folder), "--device", "cpu", "--seed", "3", "--quiet"]
    assert main([*order, "--out", str(tmp_path / "cat.png")]) == 0
    capsys.readouterr()
    assert (
        main(["replay", str(tmp_path / "cat.png"), "--device", "cpu", "-q", "--out", str(tmp_path / "again.png")]) == 0
    )
    told = capsys.readouterr()
    assert "identical" in told.out
    assert "other weights" not in told.err
    with pytest.raises(ValueError, match="only be added to whole weights"):
        load(folder, "cpu", offload="sequential")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--offload", "cloud"], "must be one of model, sequential"),
        (["--quantise", "int3"], "must be one of nf4, int8"),
        (["--lora", "nowhere"], "no LoRA weights at nowhere"),
        (["--offload", "model", "--device", "cpu"], "without one leave it out"),
        (["--compile", "--model", "atelier-janus"], "no pipeline of diffusers"),
    ],
)
def test_what_cannot_be_fitted_is_said_in_a_sentence(options: list[str], said: str, model: Path, capsys) -> None:
    assert main(["generate", "a cat", "--model", str(model), *options]) == 2
    told = capsys.readouterr().err.splitlines()
    assert said in told[-1]
