"""What reinforcement takes of memory: arithmetic for a model that is not here, and the same arithmetic measured on one.

    python speed/rl_memory.py                      # Janus-Pro-7B with LoRA, and a small Janus measured

The arithmetic counts weights (bfloat16), the twin that paints (training/twin.py), adapters with their gradients, Adam
moments and mean, the cache of a roll-out, and what a chunk of segments keeps for the way back. The last is measured
on a small Janus with layers of the same kind: bytes of all tensors that autograd saves, each storage once, for segments
all at once and in recomputed chunks, beside what the formula says, which is meant to be above.
"""

import argparse
import json
from dataclasses import dataclass

import torch
from twins import SHAPES, byte_tokenizer, our_model

from reverie.generators.janus import JanusPainter
from reverie.training import adapters
from reverie.training.janus_policy import JanusPolicy, Shown
from reverie.training.learner import PolicyLearner
from reverie.training.policy_loss import PolicyRule
from reverie.training.tree import Credit, Lesson, Segment
from reverie.vlms.janus import JanusEyes


@dataclass(frozen=True)
class Sizes:
    """Of a Janus."""

    width: int
    layers: int
    heads: int
    ffn: int
    codes: int
    image: int
    parameters: float


PRO_7B = Sizes(4096, 30, 32, 11008, 16384, 576, 7.41e9)


def adapter_parameters(s: Sizes, rank: int) -> int:
    """Of LoRA on all seven matrices of every layer."""
    return rank * s.layers * (4 * 2 * s.width + 3 * (s.width + s.ffn))


def kept_per_token(s: Sizes, wide: int = 2, rank: int = 16) -> float:
    """Bytes that one token of a sequence keeps for the way back, all layers: the stream, two norms, queries, keys and
    values before and after turning, attention's output, gate, up, silu and their product, and the adapters' inner
    products."""
    stream, inner = 14 * s.width, 5 * s.ffn
    return s.layers * (wide * (stream + inner) + 4 * 7 * rank)


def head_per_token(s: Sizes) -> float:
    """Bytes of the image head for one token: logits, log-probabilities and entropy's products, in float32."""
    return 4 * 4 * s.codes


def arithmetic(s: Sizes, rank: int, images: int, chunk: int, text: int, guided: int = 1) -> dict[str, float]:
    """GiB of each part."""
    learning = adapter_parameters(s, rank)
    tokens = text + s.image
    parts = {
        "weights, bfloat16": 2 * s.parameters,
        "twin that paints, bfloat16": 2 * s.parameters,
        "adapters, gradients, Adam, mean (float32)": 4 * 5 * learning,
        f"cache of {images} pictures in the making": images * guided * tokens * s.layers * 2 * s.width * 2,
        f"a chunk of {chunk} segments on the way back": chunk
        * (tokens * kept_per_token(s) + s.image * head_per_token(s)),
        "decoder, vision tower, kernels, fragmentation (allowed for)": 6 * 2**30,
    }
    return {name: value / 2**30 for name, value in parts.items()} | {"total": sum(parts.values()) / 2**30}


class Kept:
    """Bytes that autograd saves while this is entered: each storage once, weights left out."""

    def __init__(self, model) -> None:
        self.weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
        self.seen: dict[int, int] = {}

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda tensor: tensor)
        self.hooks.__enter__()
        return self

    def pack(self, tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self.weights:
            self.seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    def __exit__(self, *error):
        self.hooks.__exit__(*error)

    @property
    def bytes(self) -> int:
        return sum(self.seen.values())


def measured(shape: str, segments: int, rank: int = 4) -> dict[str, float]:
    """Bytes kept for the way back by so many image segments: all at once, and in recomputed chunks of one."""
    sizes = SHAPES[shape]
    model, words = our_model(sizes, torch.float32), byte_tokenizer(sizes)
    model.requires_grad_(False)
    model.language_model.requires_grad_(True)
    wrapped = adapters.add(model, adapters.Lora(rank=rank))
    policy = JanusPolicy(JanusPainter(model, words, guidance=1.0), JanusEyes(model, words), learns=model)
    ids, length = tuple(words.painting_ids("a red cat left of a blue dog")), sizes.image_tokens
    blank = torch.ones(length, dtype=torch.bool)
    made = []
    for number in range(segments):
        codes = torch.randint(sizes.codes, (length,), generator=torch.Generator().manual_seed(number))
        segment = Segment("janus", "image", codes, blank, torch.zeros(length), Shown(ids, codes[:0]))
        made.append(Lesson(segment, 1.0 - 2 * (number % 2), 0))
    found: dict[str, float] = {}
    for name, chunk in (("all at once", 0), ("in chunks of 1", 1)):
        learner = PolicyLearner(policy, Credit({"r": 1.0}), {"image": PolicyRule()}, rescore=True, chunk=chunk)
        with Kept(wrapped) as kept:
            loss, _ = learner.loss(made, 0)
        found[name] = kept.bytes
        loss.backward()  # with chunks, one at a time is computed again here
        found[f"gradient, {name}"] = float(sum(p.grad.norm() ** 2 for p in wrapped.parameters() if p.grad is not None))
        wrapped.zero_grad()
    tokens = len(ids) + length - 1
    s = Sizes(sizes.width, sizes.layers, sizes.heads, sizes.ffn, sizes.codes, length, 0)
    found["formula"] = segments * (tokens * kept_per_token(s, 4, rank) + length * head_per_token(s))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", default="shipped", choices=SHAPES)
    parser.add_argument("--segments", type=int, default=4)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--chunk", type=int, default=2)
    parser.add_argument("--text", type=int, default=200, help="tokens before the codes")
    arguments = parser.parse_args()
    seven = arithmetic(PRO_7B, arguments.rank, arguments.images, arguments.chunk, arguments.text)
    print("Janus-Pro-7B, GiB:", json.dumps({name: round(value, 2) for name, value in seven.items()}, indent=1))
    found = measured(arguments.shape, arguments.segments)
    print(f"{arguments.shape}, MiB:", json.dumps({k: round(v / 2**20, 2) for k, v in found.items() if "grad" not in k}))
    print("gradients agree to", abs(found["gradient, all at once"] / found["gradient, in chunks of 1"] - 1))


if __name__ == "__main__":
    main()
