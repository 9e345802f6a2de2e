"""Adapters of one base that were learnt apart, as one: a weighted sum in weight space (model soups, arXiv 2203.05482;
task arithmetic, 2212.04089), to go on learning from. What one of them can and the other cannot, the sum can in part.

    python -m reverie.training.blend_adapters runs/twig/think=0.7 runs/twig/paint=0.4 --rank 64 --out runs/twig/blend

A layer that only one of them has taught is taken from it whole. Else the sum is a matrix of at most the sum of their
ranks; singular values beyond `--rank` are left out, and what that loses is said. The first folder names base and
settings. For adapters of diffusers that stand on top of each other see join_adapters.py.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from ..models.low_rank import base_of, read_adapter, save_adapter
from .join_adapters import joined


def blend(folders: Sequence[Path], weights: Sequence[float], rank: int, out: Path) -> float:
    """Writes the weighted sum; returns the largest share of a layer's squares that is lost. ValueError for adapters of
    different bases, and for parts that are not of low rank."""
    if rank < 1:
        raise ValueError(f"rank={rank}: at least 1.")
    bases = [base_of(folder) for folder in folders]
    if None in bases or len({base.resolve() for base in bases if base}) > 1:
        raise ValueError("these are not adapters of one base, and only such can be added up.")
    stack = [_factors(folder) for folder in folders]
    parts: dict[str, Tensor] = {}
    most = 0.0
    for name in sorted({name for one in stack for name in one}):
        taught = [(weight, *one[name]) for weight, one in zip(weights, stack, strict=True) if name in one]
        if len(taught) == 1:
            taught = [(1.0, *taught[0][1:])]
        up, down, lost = joined([(weight * up, down) for weight, up, down in taught], rank)
        parts[f"{name}.lora_B"], parts[f"{name}.lora_A"] = up, down
        most = max(most, lost)
    config = json.loads((folders[0] / "config.json").read_text("utf-8"))
    base = config["reverie"]["adapter"]["base"]
    beside = folders[0] / base
    save_adapter(out, str(beside.resolve()) if beside.is_dir() else base, config, 1.0, parts)
    return most


def _factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each layer that was taught: `up` (out, r), scaled, and `down` (r, in)."""
    held = read_adapter(folder)
    if other := [name for name in held if not name.endswith((".lora_A", ".lora_B"))]:
        raise ValueError(f"{folder} holds {other[0]}, which is not of low rank; only adapters of LoRA can be added up.")
    scale = float(json.loads((folder / "config.json").read_text("utf-8"))["reverie"]["adapter"].get("scale", 1.0))
    names = {name.rpartition(".")[0] for name in held}
    return {
        name: (scale * held[f"{name}.lora_B"].float(), held[f"{name}.lora_A"].float())
        for name in names
        if held[f"{name}.lora_B"].any()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Adds up adapters of one base that were learnt apart.")
    parser.add_argument("adapters", nargs="+", metavar="FOLDER=WEIGHT")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    pairs = [text.rpartition("=") for text in given.adapters]
    try:
        weights = [float(weight) for _, _, weight in pairs]
        lost = blend([Path(folder) for folder, _, _ in pairs], weights, given.rank, given.out)
    except ValueError as error:
        parser.error(str(error))
    print(f"{given.out}: at most {100 * lost:.2f} % of the squares of a layer's change lost")


if __name__ == "__main__":
    main()
