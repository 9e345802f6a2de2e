"""Muon for accelerators: matrices of one shape are orthogonalised together.

torch's own takes one matrix after another, some forty small kernels each, for which a small network then waits. Same
arithmetic, state and state dict; in batched products bf16 may round differently. On CPUs that multiply bf16 torch's is
used as it is; on others, where it would take most of a step, the same iterations are made in float32.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..precision import multiplies_bf16


class Muon(torch.optim.Muon):
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        if closure is not None or not all(map(_plain, self._learning())):
            return super().step(closure)
        for group in self.param_groups:
            self._step_group(group)
        return None

    def _learning(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"] if p.grad is not None]

    def _step_group(self, group: dict[str, Any], kind: torch.dtype | None = None) -> None:
        """`kind`: the type of the iterations; what the device multiplies if left out."""
        shapes: dict[tuple[torch.Size, torch.dtype], list[Tensor]] = {}
        for p in group["params"]:
            if p.grad is not None:
                shapes.setdefault((p.shape, p.dtype), []).append(p)
        rate = float(group["lr"])
        for (shape, _), params in shapes.items():
            buffers = [self._buffer(p) for p in params]
            grads = [p.grad for p in params if p.grad is not None]
            torch._foreach_lerp_(buffers, grads, 1 - group["momentum"])
            updates = list(torch._foreach_lerp(grads, buffers, group["momentum"])) if group["nesterov"] else buffers
            stack = torch.stack(updates).to(kind or _multiplied(params[0].device))
            found = orthogonal(stack, group["ns_coefficients"], group["ns_steps"], group["eps"])
            torch._foreach_mul_(params, 1 - rate * group["weight_decay"])
            step = -adjusted(rate, group["adjust_lr_fn"], shape)
            torch._foreach_add_(params, [each.to(params[0].dtype) for each in found.unbind()], alpha=step)

    def _buffer(self, p: Tensor) -> Tensor:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(p)
        return state["momentum_buffer"]


def _multiplied(device: torch.device) -> torch.dtype:
    return torch.bfloat16 if multiplies_bf16(device) else torch.float32


def _plain(p: Tensor) -> bool:
    """On one device that torch's own is slow on; what is spread over several is torch's business."""
    slow = p.device.type != "cpu" or not multiplies_bf16(p.device)
    return slow and type(p) in (torch.nn.Parameter, Tensor)


def orthogonal(stack: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float) -> Tensor:
    """Newton-Schulz iterations of matrices (N, A, B), of norm at most 1, as in torch.optim.Muon, but in their type."""
    a, b, c = coefficients
    tall = stack.shape[1] > stack.shape[2]
    x = stack.transpose(1, 2) if tall else stack
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=eps)
    for _ in range(steps):
        gram = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.transpose(1, 2) if tall else x


def adjusted(rate: float, how: str | None, shape: torch.Size) -> float:
    """The rate of matrices of this shape, as in torch.optim.Muon."""
    rows, columns = shape
    if how == "match_rms_adamw":
        return rate * 0.2 * max(rows, columns) ** 0.5
    return rate * max(1, rows / columns) ** 0.5
