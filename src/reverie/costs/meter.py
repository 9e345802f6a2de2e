"""Counting what torch computes: FLOP of matrix products, convolutions and attention, and bytes that operations read and
write.

A multiplication and an addition count as two. Bytes are those of every operation's tensors, as if nothing stayed in a
cache and nothing were fused: what a chip moves at most. Threads other than the one that counts are not seen; what
usually goes on several cores (models/cores.py) is meanwhile done in this one.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from reverie.models.cores import one_after_another


def _linear(x: Tensor, *_: Any, out_val: Tensor, **__: Any) -> int:
    return 2 * x.numel() * out_val.shape[-1]


def _attention(query: Tensor, key: Tensor, value: Tensor, *_: Any, **__: Any) -> int:
    """Scores and their mixture of values. Several query heads may share a key head, which torch before 2.13 refuses to
    count."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (query.shape[-1] + value.shape[-1])


def _back(_: Tensor, query: Tensor, key: Tensor, value: Tensor, *__: Any, **___: Any) -> int:
    """Scores once more, and two products for each of the two that led forward."""
    return 2 * query.shape[:-1].numel() * key.shape[-2] * (3 * query.shape[-1] + 2 * value.shape[-1])


ATTENTION = ("flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention")
"""Names of torch's kernels behind `_scaled_dot_product_`."""


def _rules() -> dict[Any, Callable[..., int]]:
    """Those of torch, and our own of packed products and of attention."""
    own: dict[Any, Callable[..., int]] = {torch.ops.mkldnn._linear_pointwise: _linear}
    for name in ATTENTION:
        own[getattr(torch.ops.aten, f"_scaled_dot_product_{name}")] = _attention
        own[getattr(torch.ops.aten, f"_scaled_dot_product_{name}_backward")] = _back
    return {**flop_registry, **own}


class Meter(TorchDispatchMode):
    """`with Meter() as meter: ...` and then `meter.flop` and `meter.moved`."""

    def __init__(self) -> None:
        super().__init__()
        self.flop, self.moved = 0, 0
        self._known, self._alone = _rules(), list[ExitStack]()

    def __enter__(self) -> Meter:
        """It sees one thread, so nothing may go on in others."""
        self._alone.append(ExitStack())
        self._alone[-1].enter_context(one_after_another())
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._alone.pop().close()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        kwargs = kwargs or {}
        rule = self._known.get(func._overloadpacket)
        if rule is None and func is not torch.ops.prim.device.default:
            with self:  # products that arrive whole, as they do in inference mode, in their parts
                parts = func.decompose(*args, **kwargs)
            if parts is not NotImplemented:
                return parts
        out = func(*args, **kwargs)
        if rule is not None:
            self.flop += rule(*args, **kwargs, out_val=out)
        if not _is_view(func):
            self.moved += sum(_bytes(x) for x in tree_leaves((args, kwargs, out)) if isinstance(x, Tensor))
        return out


def _is_view(func: Any) -> bool:
    """Whether what comes out is the memory that went in, and nothing was written."""
    infos = [value.alias_info for value in func._schema.returns]
    return any(info is not None and not info.is_write for info in infos)


def _bytes(x: Tensor) -> int:
    return x.numel() * x.element_size()
