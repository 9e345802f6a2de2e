"""What must hold of steps and windows of a flow, whatever the numbers are."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from rl_toys import Flow

from reverie.models.flow_sde import (
    SdeNoise,
    Window,
    flow_step,
    gaussian_kl,
    random_window,
    sliding_window,
    trained_steps,
)
from reverie.training.forward_loss import forward_loss, optimality
from reverie.training.rollout import Level, grow


def test_windows_of_a_group_and_what_lies_outside_them() -> None:
    """Each group its own window; inside it the SDE, outside the ODE; siblings may share their first noise."""
    model = Flow(steps=8)
    policy = model.policy
    policy.window = lambda path: random_window(2, 0, 6, seed=0, epoch=0, group=path.group)
    policy.same_start = True
    with torch.no_grad():
        trees = grow(list("abcdef"), range(6), [Level(3, policy.write)])
    rows = [[branch.segments[0] for branch in tree.branches] for tree in trees]
    assert len({row[0].context.first for row in rows}) > 2
    for row in rows:
        first = row[0].context.first
        assert all(s.context.first == first for s in row)
        assert all(torch.equal(s.context.start, row[0].context.start) for s in row)  # the ODE before it is shared
        assert not torch.equal(row[0].actions[0], row[1].actions[0])
        x = row[0].actions[1]
        for i in range(first + 2, 8):
            sigmas = policy.sigmas[i], policy.sigmas[i + 1]
            x = flow_step(x[None], x[None], *sigmas, SdeNoise("ode")).x_next[0]
        assert torch.equal(x, row[0].actions[-1])
        assert row[0].sampled.tolist() == [True, True, False]
    everything = [s for row in rows for s in row]
    scored = policy.log_prob(everything)
    assert torch.equal(scored.log_prob[:, :2].detach(), torch.stack([s.log_prob[:2] for s in everything]))
    policy.window = lambda path: Window(0, 1 + path.seed % 2)
    with pytest.raises(ValueError, match="windows of different sizes"):
        grow(list("abcdef"), range(6), [Level(3, policy.write)])


@pytest.mark.parametrize("shape", [(3, 6), (3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 4, 4)])
@pytest.mark.parametrize("variant", ["sde", "cps", "dance", "wan"])
def test_a_step_scored_again_is_the_step(variant: str, shape: tuple[int, ...]) -> None:
    g = torch.Generator().manual_seed(1)
    x, v, draw = (torch.randn(shape, generator=g) for _ in range(3))
    noise = SdeNoise(variant, 0.6)
    for storage in (None, torch.bfloat16):
        for sigma, following in ((1.0, 0.9), (0.5, 0.3), (0.02, 0.0)):
            first = flow_step(x, v, sigma, following, noise, second=0.9, draw=draw, storage=storage)
            stored = first.x_next.to(storage or torch.float32)
            again = flow_step(x, v, sigma, following, noise, second=0.9, x_next=stored)
            assert torch.equal(first.log_prob, again.log_prob)
            assert torch.isfinite(first.log_prob).all()
    still = flow_step(x, v, 0.5, 0.3, SdeNoise("ode"))
    assert torch.allclose(still.x_next, x - 0.2 * v, atol=1e-6)
    if variant != "wan":
        zero = flow_step(x, v, 0.5, 0.3, SdeNoise(variant, 0.0), draw=draw)
        assert torch.equal(zero.x_next, still.x_next)
        assert (zero.log_prob == 0).all()
    with pytest.raises(ValueError, match="needs `draw`"):
        flow_step(x, v, 0.5, 0.3, noise)


def test_cps_at_full_noise_draws_all_of_it_anew() -> None:
    """diffusers' stochastic sampling: predicted clean image, noised to the next level."""
    g = torch.Generator().manual_seed(1)
    x, v, draw = (torch.randn(2, 8, generator=g, dtype=torch.float64) for _ in range(3))
    step = flow_step(x, v, 0.7, 0.4, SdeNoise("cps", 1.0), draw=draw)
    assert torch.allclose(step.x_next, 0.6 * (x - 0.7 * v) + 0.4 * draw, atol=1e-12)


@pytest.mark.parametrize("noise", [SdeNoise("sde", 0.7), SdeNoise("dance", 0.5), SdeNoise("wan")])
def test_sampling_keeps_the_marginals_of_a_known_flow(noise: SdeNoise) -> None:
    """Data N(m, s^2): the exact velocity is known, and sampling must end at its mean and standard deviation. Not so for
    `cps`, which takes predicted noise and image for the true ones and so loses variance at every step."""
    m, s, steps, count = 0.8, 0.5, 200, 20000
    sigmas = torch.linspace(1, 0, steps + 1, dtype=torch.float64)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(count, 1, generator=g, dtype=torch.float64)
    for now, then in itertools.pairwise(sigmas):
        variance = (1 - now) ** 2 * s**2 + now**2
        pull = (x - (1 - now) * m) / variance
        v = now * pull - (m + (1 - now) * s**2 * pull)  # E[noise | x] - E[x0 | x]
        draw = torch.randn(count, 1, generator=g, dtype=torch.float64)
        x = flow_step(x, v, now, then, noise, second=float(sigmas[1]), draw=draw).x_next
    assert float(x.mean()) == pytest.approx(m, abs=0.02)
    assert float(x.std()) == pytest.approx(s, abs=0.03)


def test_gaussian_kl_is_the_textbook_one() -> None:
    a, b = torch.randn(2, 3, 4, dtype=torch.float64).unbind(0)
    std = torch.full((3, 1), 0.3, dtype=torch.float64)
    textbook = torch.distributions.kl_divergence(
        torch.distributions.Normal(a, std.expand(3, 4)), torch.distributions.Normal(b, std.expand(3, 4))
    )
    assert torch.allclose(gaussian_kl(a, b, std), textbook.mean(1))


def test_windows_cover_their_range_and_come_again_from_their_key() -> None:
    windows = [random_window(2, 0, 5, seed=1, epoch=e, group=g) for e in range(40) for g in range(3)]
    assert Counter(w.start for w in windows).keys() == {0, 1, 2, 3}
    assert windows == [random_window(2, 0, 5, seed=1, epoch=e, group=g) for e in range(40) for g in range(3)]
    assert Window(1, 2).sampled(5).tolist() == [False, True, True, False, False]
    assert [step in Window(1, 2) for step in range(5)] == Window(1, 2).sampled(5).tolist()
    moves = [sliding_window(4, 10, i, every=5, stride=2).start for i in range(0, 40, 5)]
    assert moves == [0, 2, 4, 6, 6, 6, 6, 6]
    assert [sliding_window(4, 10, i, every=5, stride=2, wrap=True).start for i in range(0, 40, 5)] == [0, 2, 4, 6] * 2
    assert (trained_steps(10), trained_steps(1)) == (Window(0, 9), Window(0, 1))
    with pytest.raises(ValueError, match="does not fit"):
        random_window(6, 0, 5, seed=1, epoch=0, group=0)


def test_the_forward_loss_pulls_to_good_images_and_away_from_bad_ones() -> None:
    g = torch.Generator().manual_seed(2)
    x0, noise = torch.randn(3, 6, generator=g), torch.randn(3, 6, generator=g)
    sigma = torch.tensor([0.3, 0.5, 0.8])
    x = (1 - sigma[:, None]) * x0 + sigma[:, None] * noise
    truth = noise - x0
    old = truth + 0.1 * torch.randn(3, 6, generator=g)
    for good, sign in ((1.0, 1), (0.0, -1)):
        velocity = old.clone().requires_grad_()
        forward_loss(velocity, old, x, x0, sigma, torch.full((3,), good), mix=0.5).sum().backward()
        assert (sign * ((truth - old) * -velocity.grad).sum(1) > 0).all()
    even = old.clone().requires_grad_()
    forward_loss(even, old, x, x0, sigma, torch.full((3,), 0.5)).sum().backward()
    assert even.grad.abs().max() < 1e-6  # nothing known: no pull at the policy that painted
    assert optimality(torch.tensor([-9.0, 0.0, 2.5, 9.0]), 5.0).tolist() == [0.0, 0.5, 0.75, 1.0]
