"""Adapters that were learnt one on top of another, as one: fine-tuning, then reinforcement. Their sum is a matrix of at
most the sum of their ranks; singular values beyond `--rank` are left out, and what that loses is said.

    python -m reverie.training.join_adapters runs/t2g/sft/adapters runs/t2g/dual-grpo/adapters --rank 44 --out joined

The last folder's `adapters.json` names the base and the settings; the folders themselves are not changed.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ..files import write_atomically
from ..models.diffusion_adapters import ADAPTERS, CONFIG, PARTS, WEIGHTS, check_adapters


def factors(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Of each layer: `up` (out, r), scaled, and `down` (r, in), so that up @ down is added to its weight."""
    from safetensors.torch import load_file

    config, tensors = json.loads((folder / CONFIG).read_text("utf-8")), load_file(folder / WEIGHTS)
    scale = config["lora_alpha"] / config["r"]
    return {
        target: (scale * tensors[f"{target}.lora_B.weight"].float(), tensors[f"{target}.lora_A.weight"].float())
        for target in config["target_modules"]
    }


def joined(pairs: Sequence[tuple[Tensor, Tensor]], rank: int) -> tuple[Tensor, Tensor, float]:
    """up (out, rank) and down (rank, in) of the sum of products, and the share of its squares that is lost. The sum
    itself is never made: singular values are those of a small square between two orthonormal bases."""
    up, down = torch.cat([one for one, _ in pairs], 1), torch.cat([other for _, other in pairs], 0)
    left, small = torch.linalg.qr(up)
    right, other = torch.linalg.qr(down.T)
    u, sizes, v = torch.linalg.svd(small @ other.T)
    kept = min(rank, len(sizes))
    root = sizes[:kept].sqrt()
    lost = float(sizes[kept:].square().sum() / sizes.square().sum().clamp(min=1e-30))
    return left @ u[:, :kept] * root, (root[:, None] * v[:kept]) @ right.T, lost


def join(folders: Sequence[Path], rank: int, out: Path) -> dict[str, float]:
    """Writes the joined adapters; returns the largest share lost of a layer, for each part. ValueError for folders that
    hold none, and for ranks below 1."""
    from safetensors.torch import save_file

    if rank < 1:
        raise ValueError(f"rank={rank}: at least 1.")
    for folder in folders:
        check_adapters(folder)
    told: dict[str, float] = {}
    for part in PARTS:
        stack = [factors(folder / part) for folder in folders if (folder / part / CONFIG).is_file()]
        if not stack:
            continue
        tensors: dict[str, Tensor] = {}
        most = min(rank, sum(max(up.shape[1] for up, _ in one.values()) for one in stack))
        targets = sorted({target for one in stack for target in one})
        for target in targets:
            up, down, lost = joined([one[target] for one in stack if target in one], most)
            wide = most - up.shape[1]  # a peft adapter has one rank for all its layers
            up, down = torch.nn.functional.pad(up, (0, wide)), torch.nn.functional.pad(down, (0, 0, 0, wide))
            tensors[f"{target}.lora_A.weight"] = down.to(torch.bfloat16).contiguous()
            tensors[f"{target}.lora_B.weight"] = up.to(torch.bfloat16).contiguous()
            told[part] = max(told.get(part, 0.0), lost)
        config = {"peft_type": "LORA", "r": most, "lora_alpha": most, "bias": "none", "target_modules": targets}
        text = json.dumps(config, indent=1) + "\n"

        def write(path: Path, tensors: dict[str, Tensor] = tensors) -> None:
            save_file(tensors, path)
            path.chmod(0o644)  # safetensors lets only the owner read

        write_atomically(out / part / WEIGHTS, write)
        write_atomically(out / part / CONFIG, lambda path, text=text: path.write_text(text, "utf-8"))  # type: ignore[misc]
    about = json.loads((folders[-1] / ADAPTERS).read_text("utf-8"))
    text = json.dumps(about | {"before": []}, indent=1) + "\n"
    write_atomically(out / ADAPTERS, lambda path: path.write_text(text, "utf-8"))
    return told


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Joins adapters that were learnt one on top of another.")
    parser.add_argument("folders", nargs="+", type=Path, help="`adapters` folders of runs, in their order")
    parser.add_argument("--rank", type=int, required=True)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    for part, lost in join(given.folders, given.rank, given.out).items():
        print(f"{part}: at most {100 * lost:.2f} % of the squares of a layer's change lost")


if __name__ == "__main__":
    main()
