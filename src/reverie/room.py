"""Room in memory: how much is free, what a model would take, how many images or conversations fit at once.

Nothing here changes what an image becomes: canvases keep their promise in any batch. It only keeps a run of 20
candidates, or a judge of 7 billion weights, from ending in the middle for want of memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from reverie.canvas import Conditions
    from reverie.models.registry import Source

USUAL = 16
"""Rows that are painted at once where nothing is known about their size."""
MOST = {"cpu": 40}
"""Rows beyond which nothing is gained, by device; 256 on others."""
SHARE = 0.5
"""Of the free memory, for what is painted or read at once; the rest is for decoding, pictures and other programs."""


def free(device: Any = "cpu") -> int | None:
    """Bytes that can still be had on a device; None where that cannot be known."""
    kind = str(device).partition(":")[0]
    if kind == "cuda":
        import torch

        return torch.cuda.mem_get_info(device)[0]
    if kind not in ("cpu", "mps"):
        return None
    known = [bytes_left for bytes_left in (_system(), _group()) if bytes_left is not None]
    return min(known) if known else None


def _system() -> int | None:
    """What Linux says is available, page cache that can be dropped included."""
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        return None
    found = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(found[0][1]) * 1024 if found else None


def _group() -> int | None:
    """What the control group of this process (a container) leaves."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = (folder / "memory.max").read_text("ascii").strip()
        spent = int((folder / "memory.current").read_text("ascii"))
        stat = (folder / "memory.stat").read_text("ascii").split()
    except (OSError, ValueError):
        return None
    if most == "max":
        return None
    cached = int(stat[stat.index("inactive_file") + 1]) if "inactive_file" in stat else 0
    return max(0, int(most) - spent + cached)


def at_once(each: int, device: Any, most: int) -> int:
    """How many things of `each` bytes are taken at once: as many as fit, at least 1 and at most `most`."""
    left = free(device)
    return most if left is None else max(1, min(most, int(left * SHARE) // max(1, each)))


def rows_at_once(generator: Any, conditions: Conditions) -> int:
    """Images that a generator should paint at once."""
    size = getattr(generator, "row_bytes", None)
    if size is None:
        return USUAL
    device = generator.model.device
    return at_once(size(conditions), device, MOST.get(device.type, 256))


def needed(source: Source, dtype: str, device: str) -> int | None:
    """Bytes of a model's weights, and on a CPU of the second copy that fast products keep; None if nobody knows."""
    from reverie.models.registry import BYTES

    count = source.count()
    if count is None:
        return None
    return count * BYTES[dtype] + (source.packing(dtype) if device == "cpu" else 0)


def check_room(source: Source, dtype: str | torch.dtype | None, device: str) -> None:
    """ValueError for a model that cannot fit, before it is loaded."""
    from reverie.models.registry import memory_text

    kind = str(dtype).removeprefix("torch.") if dtype else ("float32" if device == "cpu" else "bfloat16")
    left, need = free(device), needed(source, kind, device)
    if left is None or need is None or need <= left:
        return
    small = needed(source, "bfloat16", device)
    advice = "free some memory, or take a smaller model or another device"
    if kind == "float32" and small is not None and small <= left:
        advice = f"in bfloat16 it takes {memory_text(small)}: --dtype bfloat16"
    raise ValueError(
        f"{source.name} takes {memory_text(need)} in {kind}, and {memory_text(left)} are free on {device}; {advice}."
    )


def judge_dtype(source: Source, device: str) -> str | None:
    """The type in which a judge is loaded: the usual one (None), or bfloat16 on a CPU where float32 would not fit.
    ValueError where neither does."""
    if device != "cpu":
        check_room(source, None, device)
        return None
    left, need = free(device), needed(source, "float32", device)
    if left is None or need is None or need <= left:
        return None
    check_room(source, "bfloat16", device)
    return "bfloat16"
