"""Reinforcement against golden numbers: advantages, the clipped loss and its gradients, stochastic flow steps.

Every case found in the fixture files is run (REVERIE_FIXTURES, or beside the repository).
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from reverie.models.flow_sde import SdeNoise, clean_image, flow_step, gaussian_kl
from reverie.training.advantage import Normalisation, group_advantages
from reverie.training.policy_loss import PolicyRule, average, policy_terms, ratio_guard
from reverie.training.tree import Branch, Credit, Segment, Tree, group_values, lessons

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))


def cases(name: str) -> list[Any]:
    """(case, its description, its tensors), or one skipped stand-in where the fixtures are not there."""
    path = ROOT / f"{name}.json"
    if not path.is_file():
        missing = pytest.mark.skip(reason=f"no {path}; set REVERIE_FIXTURES to the folder of the fixtures")
        return [pytest.param({}, {}, marks=missing, id="missing")]
    tensors = load_file(path.with_suffix(".safetensors"))
    found = json.loads(path.read_text("utf-8"))["cases"]
    return [
        pytest.param(case, {k.split("/", 1)[1]: v for k, v in tensors.items() if k.split("/", 1)[0] == title}, id=title)
        for title, case in found.items()
    ]


def close(got: Tensor, want: Tensor, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    torch.testing.assert_close(got.reshape(want.shape).to(want.dtype), want, rtol=rtol, atol=atol)


# ------------------------------------------------------------------------------------------------ token GRPO

SCALES = {"group": "group", "batch": "batch", "none": "none"}


@pytest.mark.parametrize(("case", "golden"), cases("grpo/token_grpo"))
def test_token_grpo(case: dict[str, Any], golden: dict[str, Tensor]) -> None:
    mode = case["advantage_mode"].split("_")
    rule = Normalisation(SCALES[mode[0]], ddof=0 if mode[-1] == "pop" else 1, eps=case["adv_eps"])
    advantage = group_advantages(golden["reward"], golden["group_id"], rule)
    close(advantage, golden["advantage"], atol=1e-7 if case["note"] in ("zero_var", "all_equal") else 1e-12)

    for kind in ("seq_mean", "token_mean", "const_len"):
        names = {"seq_mean": "rows", "token_mean": "tokens", "const_len": "constant"}
        limits = {"average": names[kind], "length": case["max_completion_length"]}
        policy = PolicyRule(case["eps_low"], case["eps_high"], case["beta"], **limits)
        new = golden["logp_new"].clone().requires_grad_()
        terms = policy_terms(
            new, golden["logp_old"], golden["advantage"], golden["mask"], policy, reference=golden["logp_ref"]
        )
        loss = average(terms.loss, terms.mask, policy)
        close(loss, golden[f"loss_{kind}"])
        (gradient,) = torch.autograd.grad(loss, new)
        close(gradient, golden[f"grad_logp_new_{kind}"])
    for got, name in ((terms.ratio, "ratio"), (terms.policy, "policy_per_token"), (terms.loss, "loss_per_token")):
        close(got, golden[name] * golden["mask"])
    close(terms.kl, golden["kl_k3_per_token"] * golden["mask"])
    for name, key in (("kl", "kl_mean"), ("clip_low", "clip_frac_low"), ("clip_high", "clip_frac_high")):
        close(terms.log[name], golden[key])


# ---------------------------------------------------------------------------------------------- flow policies


@pytest.mark.parametrize(("case", "golden"), cases("flow_sde/flow_policy_loss"))
def test_flow_policy_loss(case: dict[str, Any], golden: dict[str, Tensor]) -> None:
    if "global_std" in case:
        rule = Normalisation("batch" if case["global_std"] else "group", ddof=case["ddof"], eps=case["eps"])
        close(group_advantages(golden["reward"], golden["prompt_id"], rule), golden["advantage"], 1e-8, 1e-7)
        return
    rule = PolicyRule(case["clip_range"], case["clip_range"], case["beta"], advantage_limit=case["adv_clip_max"])
    std, sqrt_dt = golden["std_dev_t"], golden["sqrt_dt"]
    new, old = golden["log_prob_new"][:, None], golden["log_prob_old"][:, None]
    one = torch.ones_like(new)
    kls = {
        "without_dt": gaussian_kl(golden["mean_new"], golden["mean_ref"], std),
        "exact_mean": gaussian_kl(golden["mean_new"], golden["mean_ref"], std * sqrt_dt),
    }
    for name, kl in kls.items():
        close(kl.mean(), golden[f"kl_loss_{name}"], 1e-8)
        terms = policy_terms(new, old, golden["advantage"], one, rule, kl=kl[:, None])
        total = golden["total_loss_without_dt" if name == "without_dt" else "total_loss_exact"]
        close(average(terms.loss, one, rule), total, 1e-8)
    close(average(terms.policy, one, rule), golden["policy_loss"], 1e-8)
    close(terms.ratio, golden["ratio"], 1e-8)
    close(terms.log["approx_kl"], golden["approx_kl"], 1e-8)
    close(terms.log["clipped"], golden["clip_frac"], 1e-8)
    guard = ratio_guard(
        golden["mean_new"][:, None], golden["mean_old"][:, None], std.reshape(-1, 1), sqrt_dt.reshape(-1, 1), one
    )
    terms = policy_terms(new, old, golden["advantage"], one, rule, guard=guard)
    close(guard.bias, golden["guard_bias"], 1e-8)
    close(terms.ratio, golden["guard_ratio"], 1e-8)
    close(average(terms.policy, one, rule), golden["guard_policy_loss"], 1e-8)


@pytest.mark.parametrize(("case", "golden"), cases("flow_sde/flow_sde_step"))
def test_flow_sde_step(case: dict[str, Any], golden: dict[str, Tensor]) -> None:
    noise = SdeNoise(case["variant"], case["noise_level"])
    second = float(golden["scheduler_sigmas"][1])
    index = golden["step_index"]
    sigmas = golden["scheduler_sigmas"][index], golden["scheduler_sigmas"][index + 1]
    step = flow_step(golden["sample"], golden["model_output"], *sigmas, noise, second=second, draw=golden["noise"])
    assert step.x_next.dtype == torch.float32
    close(step.mean, golden["prev_sample_mean"], 0, 2e-5)
    close(step.x_next, golden["prev_sample"], 0, 2e-5)
    # The reference returns the rate of `sde` and the complete std of the others.
    ours = step.rate if noise.variant == "sde" else step.std
    close(ours.expand_as(golden["std_dev_t"]), golden["std_dev_t"], 1e-5, 1e-6)
    velocity = golden["replay_model_output"].clone().requires_grad_()
    replay = flow_step(golden["sample"], velocity, *sigmas, noise, second=second, x_next=golden["replay_prev_sample"])
    close(replay.mean.detach(), golden["replay_prev_sample_mean"], 0, 2e-5)
    if "pred_x0" in golden:
        close(clean_image(golden["sample"], golden["model_output"], sigmas[0]), golden["pred_x0"], 0, 2e-5)
    if not case["log_prob_defined"]:
        assert bool((step.log_prob == 0).all())
        return
    close(step.log_prob, golden["log_prob"], 1e-4, 2e-4)
    close(replay.log_prob.detach(), golden["replay_log_prob"], 1e-4, 2e-4)
    (gradient,) = torch.autograd.grad(replay.log_prob.sum(), velocity)
    close(gradient, golden["replay_grad_model_output"], 1e-3, 1e-5)


# ------------------------------------------------------------------------------------------------- Dual-GRPO


@pytest.mark.parametrize(("case", "golden"), cases("grpo/dual_grpo_advantages"))
def test_dual_grpo_advantages(case: dict[str, Any], golden: dict[str, Tensor]) -> None:
    names = ("aes", "con", "sem")

    def word(policy: str) -> Segment:
        return Segment(policy, "text", torch.zeros(1), torch.ones(1, dtype=torch.bool), torch.zeros(1))

    def image(p: int, j: int, k: int) -> Branch:
        return Branch([word("dit")], rewards={name: float(golden[f"r_{name}"][p, j, k]) for name in names})

    trees = [
        Tree(
            "one prompt for all: groups are places, not texts",
            [Branch([word("llm")], [image(p, j, k) for k in range(case["K"])]) for j in range(case["J"])],
        )
        for p in range(case["prompts"])
    ]
    rule = Normalisation("group", ddof=case["ddof"], eps=case["adv_eps"])
    for suffix, (beta1, beta2) in (("", (case["beta1"], case["beta2"])), ("_unscaled", (1.0, 1.0))):
        credits = {
            "llm": Credit({"sem": beta1}, rule),
            "dit": Credit({name: beta2 * case["weights"][name] for name in names}, rule),
        }
        found = lessons(trees, credits)
        for policy in ("llm", "dit"):
            got = torch.tensor([lesson.advantage for lesson in found[policy]], dtype=torch.float64)
            close(got, golden[f"{policy}_advantage{suffix}"], atol=1e-6 if "zero_var" in case["note"] else 1e-12)
    plain = [branch for tree in trees for branch in tree.branches]
    credit = Credit({"sem": case["beta1"]}, rule)
    close(group_values(plain, credit), golden["llm_reward"])
    leaves = [leaf for tree in trees for leaf in tree.leaves()]
    credit = Credit({name: case["beta2"] * case["weights"][name] for name in names}, rule)
    close(group_values(leaves, credit), golden["dit_reward"])
