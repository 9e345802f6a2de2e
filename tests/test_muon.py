"""Muon with matrices of one shape taken together: torch's own, matrix by matrix, is the reference."""

import pytest
import torch

from reverie.precision import multiplies_bf16
from reverie.training.muon import Muon, orthogonal

NEWTON = (3.4445, -4.7750, 2.0315)
SHAPES = ((8, 8), (8, 8), (24, 8), (8, 24), (24, 8), (5, 7))


def made(kind) -> tuple[list[torch.nn.Parameter], torch.optim.Optimizer]:
    torch.manual_seed(0)
    params = [torch.nn.Parameter(torch.randn(shape)) for shape in SHAPES]
    return params, kind(params, lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")


def test_it_steps_as_torchs_own_and_shares_its_state():
    (mine, ours), (theirs, torchs) = made(Muon), made(torch.optim.Muon)
    for turn in range(3):
        torch.manual_seed(10 + turn)
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        mine[-1].grad = theirs[-1].grad = None if turn == 1 else mine[-1].grad
        before = [p.detach().clone() for p in mine]
        with torch.no_grad():
            ours._step_group(ours.param_groups[0], torch.bfloat16)
        torchs.step()
        for one, other, old in zip(mine, theirs, before, strict=True):
            torch.testing.assert_close(one - old, other - old, atol=2e-4, rtol=0.02)
    states = [optimizer.state_dict()["state"] for optimizer in (ours, torchs)]
    assert states[0].keys() == states[1].keys()
    for place, state in states[0].items():
        torch.testing.assert_close(state["momentum_buffer"], states[1][place]["momentum_buffer"])


@pytest.mark.skipif(not multiplies_bf16("cpu"), reason="this CPU multiplies no bf16, so the step is made in float32")
def test_on_a_cpu_with_bf16_nothing_changes_at_all():
    (mine, ours), (theirs, torchs) = made(Muon), made(torch.optim.Muon)
    for one, other in zip(mine, theirs, strict=True):
        one.grad = other.grad = torch.ones_like(one)
    ours.step()
    torchs.step()
    assert all(torch.equal(one, other) for one, other in zip(mine, theirs, strict=True))


def test_the_result_is_nearly_orthogonal():
    torch.manual_seed(1)
    stack = torch.randn(4, 16, 40)
    exact, rounded = (orthogonal(stack.to(kind), NEWTON, 5, 1e-7).float() for kind in (torch.float32, torch.bfloat16))
    for found in (exact, rounded):
        values = torch.linalg.svdvals(found)
        assert 0.5 < values.min() < values.max() < 1.3
    torch.testing.assert_close(exact, rounded, atol=0.05, rtol=0)
