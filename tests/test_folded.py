"""Low-rank adapters that are added to the weights: the same layer, gradients and files as peft's."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

from reverie.training import adapters, folded
from reverie.training.adapters import Lora


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 10), nn.SiLU(), nn.Linear(10, 4, bias=False))


def test_the_same_function_and_gradients_as_pefts() -> None:
    lora = Lora(rank=3, alpha=5)
    theirs, mine = adapters.add(network(), lora), folded.fold(network(), lora)
    assert {k: v.shape for k, v in adapters.parts(theirs).items()} == {
        k: v.shape for k, v in folded.parts(mine).items()
    }
    parts = {name: torch.randn_like(part) for name, part in folded.parts(mine).items()}
    adapters.put(theirs, parts)
    folded.put(mine, parts)
    x = torch.randn(7, 6)
    for model in (theirs, mine):
        with parametrize.cached():
            (model(x) ** 2).mean().backward()
    torch.testing.assert_close(mine(x), theirs(x))
    for name, part in folded.parts(mine).items():
        torch.testing.assert_close(part.grad, adapters.parts(theirs)[name].grad, rtol=1e-4, atol=1e-4)


def test_only_adapters_learn_and_nothing_changes_at_first() -> None:
    plain = network()
    model = folded.fold(copy.deepcopy(plain), Lora(rank=2, inside="2"))
    learning = [name for name, p in model.named_parameters() if p.requires_grad]
    assert all("lora_" in name for name in learning)
    assert len(learning) == 2
    x = torch.randn(3, 6)
    torch.testing.assert_close(model(x), plain(x))


def test_another_rank_is_refused() -> None:
    model = folded.fold(network(), Lora(rank=2))
    other = folded.parts(folded.fold(network(), Lora(rank=3)))
    with pytest.raises(ValueError, match="another rank"):
        folded.put(model, other)


def test_weights_come_in_the_type_of_the_products() -> None:
    model = folded.fold(network(), Lora(rank=2))
    with torch.autocast("cpu", torch.bfloat16), parametrize.cached():
        assert model[0].weight.dtype == torch.bfloat16
        assert model[0].weight is model[0].weight
    assert model[0].weight.dtype == torch.float32
