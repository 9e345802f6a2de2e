"""Matrix products over a fixed number of rows, so that rounding does not depend on the batch (docs/determinism.md)."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import _disable_current_modes

from reverie.models.registry import PACKING_LIMIT


def usual_rows(like: Tensor, cpu: int, accelerator: int) -> int:
    """Rows that a painter's products have where nobody says: as given on CPUs; on accelerators as given for weights
    (M, D) `like` with D of 4096, and 2, 4, ... 16 times as many for narrower ones, which are done with a row sooner."""
    if like.device.type == "cpu":
        return cpu
    return accelerator * min(16, 1 << max(0, (4096 // like.shape[-1]).bit_length() - 1))


def at_once(device: torch.device) -> int:
    """Pictures that are decoded together, always exactly so many: one by one on CPUs, where more are no faster."""
    return 1 if device.type == "cpu" else 64


def in_fixed_parts(function: Callable[[Tensor], Tensor], size: int, rows: Tensor) -> list[Tensor]:
    """`function` over (N, ...) in parts of exactly `size` rows, the last filled up with copies of its last row; the
    results, cut to what is real. Convolutions, too, round differently in another batch."""
    found = []
    for part in rows.split(size) if len(rows) else ():
        filled = torch.cat((part, part[-1:].expand(size - len(part), *part.shape[1:]))) if len(part) < size else part
        found.append(function(filled)[: len(part)])
    return found


def fixed_rows(function: Callable, rows: int, *inputs: Tensor) -> Any:
    """`function` over (M, ...) inputs in blocks of exactly `rows` rows; M must be a multiple of it.

    A matrix product may round a row differently when the number of rows around it changes; at a fixed number it does
    not. So this is what makes an image independent of its batch.
    """
    if inputs[0].shape[0] == rows:
        return function(*inputs)
    parts = [function(*block) for block in zip(*(x.split(rows) for x in inputs), strict=True)]
    if isinstance(parts[0], Tensor):
        return torch.cat(parts)
    return tuple(torch.cat(group) for group in zip(*parts, strict=True))


def padded_rows(function: Callable, rows: int, x: Tensor) -> Tensor:
    """`fixed_rows` for any number of rows: zeros fill the last block and are cut off again."""
    return fixed_rows(function, rows, pad_rows(x, rows))[: x.shape[0]]


def round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def pad_rows(x: Tensor, rows: int) -> Tensor:
    """(M, D) with zeros behind it up to a multiple of `rows`; the same tensor if M is one."""
    surplus = -x.shape[0] % rows
    return F.pad(x, (0, 0, 0, surplus)) if surplus else x


@dataclass(frozen=True)
class Blocks:
    """Into which numbers of rows a function is cut: `rows`; a rest of fewer is filled up to a multiple of `grain`;
    where there are `wide`, so many at once."""

    rows: int
    grain: int
    wide: int

    @classmethod
    def fixed(cls, rows: int) -> "Blocks":
        """Always exactly so many."""
        return cls(rows, rows, rows)

    @classmethod
    def found(cls, function: Callable[..., Tensor], rows: int, widths: Sequence[int], like: Tensor) -> "Blocks":
        """Fewer where few come and more where many do, if `function` gives a row the same bits among any of these
        numbers as it does among `rows`. Libraries mostly sum up a row in one order however many there are; whether
        they do here is found out with random numbers, of the kind of `like` and `widths` wide, on one core and on as
        many as there are."""
        with _disable_current_modes():  # who counts the work of a run has not asked for this
            return cls._found(function, rows, widths, like)

    @classmethod
    def _found(cls, function: Callable[..., Tensor], rows: int, widths: Sequence[int], like: Tensor) -> "Blocks":
        numbers = torch.Generator().manual_seed(0)
        inputs = [torch.randn(WIDE * rows, width, generator=numbers).to(like) for width in widths]
        whole = torch.cat([function(*block) for block in zip(*(x.split(rows) for x in inputs), strict=True)])
        grain = GRAIN if rows <= 8 * GRAIN else 4 * GRAIN

        def same(first: int, count: int) -> bool:
            part = slice(first, first + count)
            return torch.equal(function(*(x[part] for x in inputs)), whole[part])

        fewer, more, threads = True, True, torch.get_num_threads()
        for cores in {1, threads}:
            if cores != threads:
                torch.set_num_threads(cores)
            fewer = fewer and all(same(first, n) for n in range(grain, rows + 1, grain) for first in (0, rows - n))
            more = more and same(0, WIDE * rows)
            if cores != threads:
                torch.set_num_threads(threads)
        return cls(rows, grain if fewer else rows, WIDE * rows if more else rows)

    def whole(self, count: int) -> bool:
        """Whether so many rows are one block, with nothing to be filled up."""
        return count in (self.rows, self.wide) or (0 < count < self.rows and count % self.grain == 0)

    def cut(self, count: int) -> Iterator[tuple[slice, int]]:
        """The blocks of so many rows: which they are, and up to how many each is filled up."""
        begin = 0
        while begin < count:
            left = count - begin
            size = next((size for size in (self.wide, self.rows) if left >= size), round_up(left, self.grain))
            size = min(size, max(self.rows, left))  # a grain need not divide the rows
            yield slice(begin, min(begin + size, count)), size
            begin += size


class Cutting:
    """The blocks of one function, found out once for each number of rows and of threads that somebody has."""

    def __init__(self, function: Callable[..., Tensor], widths: Sequence[int], like: Tensor):
        self.function, self.widths, self.like = function, widths, like
        self.known = dict[tuple[int, int], Blocks]()

    def __call__(self, rows: int) -> Blocks:
        key = rows, torch.get_num_threads()
        if key not in self.known:
            self.known[key] = Blocks.found(self.function, rows, self.widths, self.like)
        return self.known[key]


GRAIN, WIDE = 4, 4
"""The least rows of a block that is not full, and the blocks that are joined, where that changes nothing."""


def in_blocks(function: Callable[..., Tensor], blocks: Blocks, *inputs: Tensor) -> Tensor:
    """`function` over (M, D) inputs block by block; zeros fill up what is not full and are cut off again."""
    count, whole = len(inputs[0]), None
    if blocks.whole(count):
        return function(*inputs)
    for rows, size in blocks.cut(count):
        part = function(*(pad_rows(x[rows], size) for x in inputs))
        if rows.stop - rows.start == count:
            return part[:count]
        whole = part.new_empty(count, part.shape[1]) if whole is None else whole
        whole[rows] = part[: rows.stop - rows.start]
    return function(*(x.new_zeros(blocks.rows, *x.shape[1:]) for x in inputs))[:0] if whole is None else whole


def gelu_tanh(x: Tensor) -> Tensor:
    """`F.gelu(x, approximate="tanh")` without gradient, up to rounding: 1 + tanh(u) is 2 sigmoid(2u), which processors
    without AVX-512 have in a third of the time."""
    return torch.addcmul(x, x * x, x, value=0.044715).mul_(math.sqrt(8 / math.pi)).sigmoid_().mul_(x)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x, "swish": partial(F.silu, inplace=True), "gelu": F.gelu, "gelu_tanh": gelu_tanh,
}  # fmt: skip
"""Of a product that nobody else has. By oneDNN's names, behind which one says how it is computed."""


class Packed:
    """x to x @ cat(weights)' + bias, without gradient, the weights laid out beforehand as the library likes them best.

    An ordinary product reads its weights across, or rearranges them on every call. oneDNN's own layout, made for `rows`
    rows, saves that (other numbers work, more slowly), and takes what follows the product along. In float32 the
    transpose is read faster still on processors with AMX, which are Intel's, and on those without AVX-512, where what
    oneDNN takes along costs more than by itself; on an AMD EPYC with AVX-512 it takes 1.15 (width 256) to 1.4 times as
    long (width 768).
    """

    def __init__(self, weights: Sequence[Tensor], rows: int, bias: Tensor | None = None):
        whole = torch.cat([weight.detach() for weight in weights])
        onednn = torch.backends.mkldnn.is_available()
        plain = torch.cpu._is_amx_tile_supported() or torch.backends.cpu.get_cpu_capability() == "AVX2"
        self.transposed = whole.dtype == torch.float32 and (plain or not onednn)
        self.weight = whole.T.contiguous() if self.transposed else torch.ops.mkldnn._reorder_linear_weight(whole, rows)
        self.bias = None if bias is None else bias.detach()

    def __call__(self, x: Tensor, activation: str = "none") -> Tensor:
        """The product, and one of `ACTIVATIONS` of it."""
        if not self.transposed:
            name, _, how = activation.partition("_")
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, name, [], how or "none")
        product = x @ self.weight if self.bias is None else torch.addmm(self.bias, x, self.weight)
        return ACTIVATIONS[activation](product)

    def added(self, base: Tensor, x: Tensor) -> Tensor:
        """base + the product."""
        if not self.transposed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, base, self.weight, self.bias, "add")
        product = torch.addmm(base, x, self.weight)
        return product if self.bias is None else product.add_(self.bias)

    def times(self, other: Tensor, x: Tensor) -> Tensor:
        """other * the product, which takes no bias."""
        if not self.transposed:
            return torch.ops.mkldnn._linear_pointwise.binary(x, other, self.weight, None, "mul")
        return (x @ self.weight).mul_(other)

    @staticmethod
    def possible(weight: Tensor) -> bool:
        if weight.device.type != "cpu" or torch.is_grad_enabled():
            return False
        bfloat = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
        return weight.dtype == torch.float32 or (weight.dtype == torch.bfloat16 and bfloat)


M = TypeVar("M", bound=nn.Module)
# Beside the modules rather than in them: packed tensors can be neither copied nor saved.
_PACKED: WeakKeyDictionary[nn.Module, tuple[tuple, Any]] = WeakKeyDictionary()


def packed(module: M, rows: int, pack: Callable[[M, int], Any]) -> Any:
    """pack(module, rows), kept until a weight changes; None where packing is not possible, where its copy of the
    weights would be larger than PACKING_LIMIT, and where adapters stand beside the weights: it would leave them out."""
    matrices = sum(p.nbytes for p in module.parameters() if p.dim() == 2)
    if not Packed.possible(next(module.parameters())) or matrices > PACKING_LIMIT:
        return None
    if any(hasattr(part, "base_layer") for part in module.modules()):
        return None
    state = (rows, *((p.data_ptr(), 0 if p.is_inference() else p._version) for p in module.parameters()))
    known = _PACKED.get(module)
    if known is None or known[0] != state:
        known = _PACKED[module] = state, pack(module, rows)
    return known[1]
