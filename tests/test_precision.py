"""What is computed in which type: where bf16 has no instructions nobody gets it unasked, and who asks is warned."""

import warnings

import pytest
import torch

import reverie
from reverie.precision import multiplies_bf16, warn_of_slow
from reverie.training.loop import LoopConfig

CPU = torch.device("cpu")
GIVEN = ("no", "bf16", "fp16")


def test_auto_follows_the_device_and_all_else_is_kept():
    assert LoopConfig().precision == "auto"
    assert LoopConfig().mixed(CPU) == ("bf16" if multiplies_bf16(CPU) else "no")
    assert LoopConfig().mixed(torch.device("mps")) == "bf16"
    assert [LoopConfig(precision=name).mixed(CPU) for name in GIVEN] == list(GIVEN)
    with pytest.raises(ValueError, match="one of auto, no, bf16, fp16"):
        LoopConfig(precision="half")


@pytest.mark.skipif(not torch.cpu._is_avx2_supported(), reason="no x86 CPU")
def test_on_x86_it_takes_instructions_of_its_own():
    assert multiplies_bf16("cpu") == (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


@pytest.mark.skipif(multiplies_bf16("cpu"), reason="this CPU multiplies bf16, so nothing is slow")
def test_who_asks_for_it_where_it_is_slow_is_warned():
    with pytest.warns(UserWarning, match="converts bfloat16 number by number: float32 takes twice the memory"):
        reverie.load("atelier-llamagen", device="cpu", dtype="bfloat16")


def test_nobody_else_is():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_slow(None, "cpu")
        warn_of_slow(torch.float32, "cpu")
        warn_of_slow(torch.bfloat16, "mps")
