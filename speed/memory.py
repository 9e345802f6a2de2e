"""What the machine could do at best: bytes copied and products made in a second, and what a token step needs of both.

python speed/memory.py
"""

import time
from collections.abc import Callable

import torch

from reverie.models.janus import Janus
from reverie.models.rows import Packed

Clock = Callable[[], float]


def copy_rate(clock: Clock = time.process_time, size: int = 1 << 30) -> float:
    """Bytes read or written in a second while one large block is copied to another; the best of five."""
    source = torch.ones(size // 4)
    target = torch.empty_like(source)

    def once() -> float:
        begin = clock()
        target.copy_(source)
        return clock() - begin

    return 2 * size / min(once() for _ in range(5))


@torch.no_grad()
def product_rate(dtype: torch.dtype, width: int, ffn: int, clock: Clock = time.process_time, rows: int = 32) -> float:
    """Floating-point operations a second of `rows` x width times width x 2 ffn, on weights that stay in the cache."""
    x, weight = torch.randn(rows, width, dtype=dtype), torch.randn(2 * ffn, width, dtype=dtype)
    product = Packed([weight], rows) if Packed.possible(weight) else (lambda x: x @ weight.T)
    repeats = max(1, int(2e9) // (2 * rows * weight.numel()))

    def once() -> float:
        begin = clock()
        for _ in range(repeats):
            product(x)
        return (clock() - begin) / repeats

    return 2 * rows * weight.numel() / min(once() for _ in range(5))


def token_bytes(model: Janus, rows: int, slots: int) -> tuple[int, int]:
    """Bytes of weights, and of keys and values of `slots` tokens, that one code of `rows` rows has to read."""
    parts = (model.language_model.model.layers, model.generation_head, model.generation_aligner)
    weights = sum(p.nbytes for part in parts for p in part.parameters())
    language = model.config.language
    width = language.num_key_value_heads * language.head_dim
    return weights, 2 * language.num_hidden_layers * rows * slots * width * model.dtype.itemsize


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(f"copying, read and written: {copy_rate() / 1e9:.1f} GB/s")
    for dtype in (torch.float32, torch.bfloat16):
        for width, ffn in ((256, 768), (768, 2048)):
            print(
                f"32 x {width} times {width} x {2 * ffn}, {dtype}: {product_rate(dtype, width, ffn) / 1e9:.0f} GFLOP/s"
            )
