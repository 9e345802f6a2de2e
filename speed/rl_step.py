"""Whole steps of reinforcement of a Janus with random weights: seconds and memory, by the code of the recipes.

    python speed/rl_step.py --shape pro-7b --device cuda      # the language model and heads of Janus-Pro-7B
    python speed/rl_step.py --shape shipped

T2I-R1 (arXiv 2505.00703) with LoRA on a bfloat16 base: a twin writes a thought and paints an image for each of
`--images` of one prompt, all segments are scored in recomputed chunks, and AdamW moves the adapters. The reward is the
mean of the red channel, so that it costs nothing and nothing else is in memory. On CUDA the most memory that tensors
held is told for each stage, beside the arithmetic of `rl_memory.py`; on other devices seconds alone.
"""

import argparse
import json
import time
from collections.abc import Sequence

import numpy as np
import torch
from rl_memory import Sizes, arithmetic
from twins import SHAPES, byte_tokenizer, our_model

from reverie.training import adapters
from reverie.training.grpo import GrpoConfig
from reverie.training.janus_grpo import JanusRl, Learning, janus_task
from reverie.training.twin import Twin


class Stage:
    """Seconds and memory of what happens while it is entered."""

    def __init__(self, found: dict[str, dict[str, float]], name: str, device: str):
        self.found, self.name, self.cuda = found, name, device.startswith("cuda")

    def __enter__(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        self.begin = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        if self.cuda:
            torch.cuda.synchronize()
        row = {"seconds": time.perf_counter() - self.begin}
        if self.cuda:
            row["GiB at most"] = torch.cuda.max_memory_allocated() / 2**30
        self.found[self.name] = row


def red(prompts: Sequence[str], images: Sequence[np.ndarray]) -> list[float]:
    return [float(image[..., 0].mean()) for image in images]


def steps(
    shape: str, device: str, rank: int, images: int, chunk: int, limit: int, count: int
) -> dict[str, dict[str, float]]:
    """By stage. A step holds its roll-out; its memory is that of scoring and learning, with all that was there."""
    found: dict[str, dict[str, float]] = {}
    sizes = SHAPES[shape]
    with Stage(found, "loading", device):
        model, words = our_model(sizes, torch.bfloat16, device=device), byte_tokenizer(sizes)
        model.requires_grad_(False)
        model.language_model.requires_grad_(True)
        wrapped = adapters.add(model, adapters.Lora(rank=rank))
        twin = Twin.of(model, wrapped)
    learning = Learning(model, words, "atelier", twin=twin, adapters=wrapped)
    how = JanusRl(images=images, limit=limit, guidance=1.0, rewards={"red": 1.0}, chunk=chunk, rows=images)
    task = janus_task(learning, ["a red cat left of a blue dog"], {"red": red}, how, GrpoConfig(prompts=1))
    explore, learns = task.explore, [p for p in wrapped.parameters() if p.requires_grad]
    found["adapters"] = {"parameters": float(sum(p.numel() for p in learns))}
    optimizer = torch.optim.AdamW(learns, lr=1e-4)
    for step in range(count):

        def rolled(prompts: Sequence[str], seeds: Sequence[int], name: str = f"roll-out {step}") -> list:
            with Stage(found, name, device):
                return list(explore(prompts, seeds))

        task.explore = rolled
        with Stage(found, f"step {step}", device):
            loss, row = task.loss(task.batch(step))  # explores first
            loss.backward()
            norm = torch.nn.utils.clip_grad_norm_(learns, 1.0)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        found[f"step {step}"] |= {"gradient": float(norm), "text tokens": float(row["janus/text/length"])}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="shipped", choices=SHAPES)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=2)
    parser.add_argument("--limit", type=int, default=64, help="tokens of a thought")
    parser.add_argument("--steps", type=int, default=2)
    a = parser.parse_args()
    found = steps(a.shape, a.device, a.rank, a.images, a.chunk, a.limit, a.steps)
    for name, row in found.items():
        print(f"{name:12}", json.dumps({key: round(value, 3) for key, value in row.items()}))
    s = SHAPES[a.shape]
    weights = 2 * s.vocabulary * s.width + s.layers * (4 * s.width**2 + 3 * s.width * s.ffn)
    sizes = Sizes(s.width, s.layers, s.heads, s.ffn, s.codes, s.image_tokens, weights)
    told = arithmetic(sizes, a.rank, a.images, a.chunk, a.limit)
    print("arithmetic, GiB", json.dumps({name: round(value, 2) for name, value in told.items()}))


if __name__ == "__main__":
    main()
