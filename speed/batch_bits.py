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


def different(shape: Shape, dtype: torch.dtype, codes: int) -> list[str]:
    """Which batches differ from the large one."""
    painter = JanusPainter(our_model(shape, dtype), byte_tokenizer(shape))
    prompts = [*PROMPTS[:11], f"{PROMPTS[0]} and {PROMPTS[3]}"]
    whole = logits_of(painter, prompts, list(range(len(prompts))), codes)
    batches = [[0], [3], [7], [11], [3, 4, 5]]
    apart = [logits_of(painter, [prompts[i] for i in images], images, codes) for images in batches]
    return [str(images) for images, own in zip(batches, apart, strict=True) if not torch.equal(whole[images], own)]


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="shipped")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--codes", type=int, default=24, help="at each of the two places of the image")
    args = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if found := different(SHAPES[args.shape], getattr(torch, args.dtype), args.codes):
        sys.exit(f"The logits of {', '.join(found)} are not those of the large batch.")
    print(f"{args.shape}, {args.dtype}: the same bits alone and in every batch")


if __name__ == "__main__":
    main()
