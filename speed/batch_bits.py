"""Whether an image's logits are the same bits alone and in a batch, at the shapes of the speed measurements.

    python speed/batch_bits.py --shape shipped --dtype float32

Twelve prompts of different lengths are painted together, some of them alone and three as a batch of their own, for a
few codes at the beginning and near the end of the image. Exits with 1 if any logit differs.
"""

import argparse
import sys
from dataclasses import replace

import torch
from torch import Tensor
from twins import PROMPTS, SHAPES, Shape, byte_tokenizer, our_model

from reverie.canvas import Conditions, pick
from reverie.generators.janus import JanusPainter


def logits_of(painter: JanusPainter, prompts: list[str], seeds: list[int], codes: int) -> Tensor:
    """(N, draws, V): everything that codes were drawn from."""
    seen: list[Tensor] = []

    def noting(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        seen.append(logits.clone())
        return pick(logits, uniforms, temperature)

    painter.picker = noting
    canvas = painter.advance(painter.start(Conditions(prompts), seeds), codes)
    late = painter.steps - codes
    # Slots in between stay empty, which computes as well as anything else.
    painter.advance(replace(canvas, step=late, cache=canvas.release()))
    return torch.stack(seen, 1)


def different(shape: Shape, dtype: torch.dtype, codes: int, device: str = "cpu") -> dict[str, float]:
    """Which batches differ from the large one, and by how much at most in the logits of the first code."""
    painter = JanusPainter(our_model(shape, dtype, device=device), byte_tokenizer(shape))
    prompts = [*PROMPTS[:11], f"{PROMPTS[0]} and {PROMPTS[3]}"]
    whole = logits_of(painter, prompts, list(range(len(prompts))), codes)
    batches = [[0], [3], [7], [11], [3, 4, 5]]
    apart = [logits_of(painter, [prompts[i] for i in images], images, codes) for images in batches]
    return {
        str(images): float((whole[images, 0] - own[:, 0]).abs().max())
        for images, own in zip(batches, apart, strict=True)
        if not torch.equal(whole[images], own)
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="shipped")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--codes", type=int, default=24, help="at each of the two places of the image")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    what = f"{args.shape}, {args.dtype}, {args.device}"
    if found := different(SHAPES[args.shape], getattr(torch, args.dtype), args.codes, args.device):
        told = ", ".join(f"{images} (first code: by {most:.2g})" for images, most in found.items())
        sys.exit(f"{what}: the logits of {told} are not those of the large batch.")
    print(f"{what}: the same bits alone and in every batch")


if __name__ == "__main__":
    main()
