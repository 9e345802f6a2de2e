"""Adapters on top of each other, as one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from reverie.models.diffusion_adapters import ADAPTERS, add_adapter
from reverie.training.adapted import Adapted, save_adapter
from reverie.training.adapters import Lora
from reverie.training.join_adapters import join, joined, main


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(12, 16, bias=False), nn.Linear(16, 8, bias=False)


def learnt(folder: Path, part: str, rank: int, inside: str = "") -> Path:
    """The folder of a run whose adapter is random, on a part of a pipeline."""
    torch.manual_seed(rank)
    network = Adapted(Small(), Lora(rank, 2 * rank, inside)).network
    for name, parameter in network.named_parameters():
        if ".lora_" in name:
            nn.init.normal_(parameter)
    save_adapter(network, Lora(rank, 2 * rank), folder / part)
    (folder / ADAPTERS).write_text(json.dumps({"base": "toy", "before": ["elsewhere"], "settings": {"thinker": "t2g"}}))
    return folder


def changes(*folders: Path) -> list[torch.Tensor]:
    network = Small()
    for parameter in network.parameters():
        nn.init.zeros_(parameter)
    for folder in folders:
        add_adapter(network, folder)
    return [parameter.detach() for parameter in network.parameters()]


def test_the_sum_of_two_adapters_is_one_adapter(tmp_path: Path, capsys) -> None:
    first = learnt(tmp_path / "sft", "text_encoder", 3)
    second = learnt(tmp_path / "rl", "text_encoder", 2, "inner")
    learnt(second, "transformer", 1)
    main([str(first), str(second), "--rank", "5", "--out", str(tmp_path / "both")])
    assert "text_encoder: at most 0.00 %" in capsys.readouterr().out
    for mine, theirs in zip(
        changes(tmp_path / "both" / "text_encoder"),
        changes(first / "text_encoder", second / "text_encoder"),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=0.03, atol=0.05)  # the factors are bf16
    config = json.loads((tmp_path / "both" / "transformer" / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 1  # no more than it had
    about = json.loads((tmp_path / "both" / ADAPTERS).read_text())
    assert about == {"base": "toy", "before": [], "settings": {"thinker": "t2g"}}


def test_what_is_lost_is_the_least_that_can_be() -> None:
    torch.manual_seed(0)
    pairs = [(torch.randn(20, 4), torch.randn(4, 30)), (torch.randn(20, 3), torch.randn(3, 30))]
    whole = sum((up @ down for up, down in pairs), torch.zeros(20, 30))
    up, down, lost = joined(pairs, 5)
    sizes = torch.linalg.svdvals(whole)
    assert lost == pytest.approx(float(sizes[5:].square().sum() / sizes.square().sum()), rel=1e-4)
    assert float((whole - up @ down).square().sum() / whole.square().sum()) == pytest.approx(lost, rel=1e-3)


def test_folders_without_adapters_and_no_rank_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no adapters"):
        join([tmp_path], 4, tmp_path / "out")
    with pytest.raises(ValueError, match="at least 1"):
        join([tmp_path], 0, tmp_path / "out")
