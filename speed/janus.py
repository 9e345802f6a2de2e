"""How fast Janus paints: ours beside the class of transformers and beside plain loops, over the same random weights.

    python speed/janus.py --shape shipped --images 16

All ways paint `--images` images with guidance 5 and are timed in turns (A B C A B C ...); the table shows medians. With
one thread the clock counts the process's own CPU seconds, so that other programs on the machine disturb little; with
more it counts wall seconds. Before timing, transformers and ours paint greedily in float32 and must agree code by code.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from memory import copy_rate, token_bytes
from torch import Tensor
from twins import PROMPTS, SHAPES, Shape, byte_tokenizer, our_model, parameters, their_codes, their_model

from reverie.canvas import Conditions
from reverie.generators.janus import JanusPainter
from reverie.models.janus import Janus
from reverie.models.janus_text import JanusTokenizer
from reverie.models.llama import KVCache

GUIDANCE = 5.0


def prompts_for(images: int) -> list[str]:
    """All different up to 16 of them."""
    return [PROMPTS[i % len(PROMPTS)] for i in range(images)]


def pieces(length: int, timed: int) -> list[tuple[int, int]]:
    """Stretches of the image that are timed: all of it, or its beginning, middle and end, where the cache is short,
    half full and full."""
    if timed >= length:
        return [(0, length)]
    part = max(timed // 3, 1)
    return [(0, part), ((length - part) // 2, (length + part) // 2), (length - part, length)]


def ours(painter: JanusPainter, prompts: list[str], timed: int, clock: Callable[[], float]) -> float:
    """Seconds for whole images: the prompts, and each stretch's rate carried over to its share of the codes."""
    begin = clock()
    canvas = painter.advance(painter.start(Conditions(prompts, GUIDANCE), range(len(prompts))), 1)
    prefill = clock() - begin
    rates = []
    for start, end in pieces(painter.steps - 1, timed):
        # Unfed slots hold zeros, which take as long as anything else.
        canvas = replace(canvas, step=start + 1, cache=canvas.release())
        begin = clock()
        canvas = painter.advance(canvas, end + 1)
        rates.append((clock() - begin) / (end - start))
    return prefill + statistics.mean(rates) * (painter.steps - 1)


def theirs(model, tokenizer: JanusTokenizer, prompts: list[str], timed: int, clock: Callable[[], float]) -> float:
    """Seconds for whole images by transformers. Its static cache costs the same at every code, so a run of few codes
    and a run of more tell both the time of the prompts and the time of a code."""
    length = model.model.vision_model.config.num_image_tokens

    def run(tokens: int) -> float:
        begin = clock()
        their_codes(model, tokenizer, prompts, greedy=False, tokens=tokens)
        return clock() - begin

    if timed >= length:
        return run(length)
    short = run(2)
    return short + (run(2 + timed) - short) / timed * (length - 2)


@torch.no_grad()
def plain_loop(
    model: Janus, tokenizer: JanusTokenizer, prompts: list[str], timed: int, clock: Callable[[], float]
) -> float:
    """Seconds for whole images by a loop on our model after the authors' script: one prompt for all rows, prefilled
    for every image, a key-value cache, no reuse of the prefix, no fixed blocks of rows."""
    ids = tokenizer.painting_ids(prompts[0])
    length, count = model.config.image_length, len(prompts)
    rows = torch.tensor([ids, tokenizer.blank_ids(ids)]).repeat(count, 1)
    begin = clock()
    cache = KVCache.empty(
        model.config.language, 2 * count, len(ids) + length, model.language_model.lm_head.weight, 2 * count
    )
    hidden = model.hidden(model.embed_text(rows), cache, span=len(ids))[:, -1:]
    prefill = clock() - begin
    rates = []
    for start, end in pieces(length - 1, timed):
        begin = clock()
        for step in range(start, end):
            conditional, blank = model.code_logits(hidden[:, 0]).float().unflatten(0, (-1, 2)).unbind(1)
            chances = (blank + GUIDANCE * (conditional - blank)).softmax(-1)
            codes = torch.multinomial(chances, 1).repeat_interleave(2, 0)
            place = torch.tensor([[len(ids) + step]])
            hidden = model.hidden(model.embed_codes(codes), cache, positions=place, span=len(ids) + step + 1)
        rates.append((clock() - begin) / (end - start))
    return prefill + statistics.mean(rates) * (length - 1)


@torch.no_grad()
def uncached(model: Janus, tokenizer: JanusTokenizer, prompts: list[str], clock: Callable[[], float]) -> float:
    """Seconds for whole images if every code sends the whole sequence through the model again: extrapolated from one
    pass for one pair of rows at the beginning, middle and end (Simpson's rule over the length), times the images."""
    ids = tokenizer.painting_ids(prompts[0])
    rows, length = torch.tensor([ids, tokenizer.blank_ids(ids)]), model.config.image_length
    seconds = []
    for painted in (0, length // 2, length - 1):
        codes = model.embed_codes(torch.zeros(2, painted, dtype=torch.long))
        embeds = torch.cat((model.embed_text(rows), codes), 1)
        begin = clock()
        model.code_logits(model.hidden(embeds)[:, -1])
        seconds.append(clock() - begin)
    return (seconds[0] + 4 * seconds[1] + seconds[2]) / 6 * length * len(prompts)


def equal_codes(shape: Shape, images: int, tokens: int | None = None) -> tuple[Tensor, Tensor]:
    """The greedy codes (images, tokens) of transformers and of ours in float32, for different prompts."""
    model, tokenizer = our_model(shape, torch.float32), byte_tokenizer(shape)
    prompts, tokens = prompts_for(images), tokens or shape.image_tokens
    other = their_codes(their_model(model, tokenizer), tokenizer, prompts, greedy=True, tokens=tokens)
    painter = JanusPainter(model, tokenizer, temperature=0)
    canvas = painter.advance(painter.start(Conditions(prompts, GUIDANCE), range(images)), tokens)
    return other, canvas.tokens[:, :tokens]


def measure(
    shape: Shape, dtype: torch.dtype, images: int, timed: int, repeats: int, clock: Callable[[], float]
) -> dict[str, float]:
    """Median seconds of each way of painting `images` whole images."""
    model, tokenizer = our_model(shape, dtype), byte_tokenizer(shape)
    other, painter = their_model(model, tokenizer), JanusPainter(model, tokenizer, guidance=GUIDANCE)
    different, same = prompts_for(images), prompts_for(1) * images
    ways: dict[str, Callable[[], float]] = {
        "transformers, batched": lambda: theirs(other, tokenizer, different, timed, clock),
        "ours, one prompt": lambda: ours(painter, same, timed, clock),
        "ours, different prompts": lambda: ours(painter, different, timed, clock),
        "plain loop on our model": lambda: plain_loop(model, tokenizer, same, timed, clock),
    }
    ours(painter, same[:1], 3, clock)  # packs the weights and warms up
    runs: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            runs[name].append(way())
    seconds = {name: statistics.median(values) for name, values in runs.items()}
    # One image alone stands for all: one at a time, each takes as long as the first.
    seconds["transformers, one at a time"] = images * theirs(other, tokenizer, different[:1], min(timed, 48), clock)
    seconds["plain loop without a cache (extrapolated)"] = uncached(model, tokenizer, same, clock)
    return seconds


def limits(shape: Shape, dtype: torch.dtype, images: int, seconds: float, clock: Callable[[], float]) -> dict:
    """How much of the machine's copying rate and of its product rate a token step reaches."""
    from memory import product_rate

    model = our_model(shape, dtype)
    weights, cache = token_bytes(model, 2 * images, shape.image_tokens // 2 + 40)
    per_step = seconds / shape.image_tokens
    copied, product = copy_rate(clock), product_rate(dtype, shape.width, shape.ffn, clock)
    flops = 2 * 2 * images * weights / model.dtype.itemsize
    return {
        "weights_bytes": weights,
        "cache_bytes": cache,
        "bandwidth": copied,
        "share_of_bandwidth": (weights + cache) / copied / per_step,
        "products_per_second": product,
        "share_of_products": flops / product / per_step,
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="shipped")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--tokens", type=int, default=144, help="codes timed of each image (default: 144)")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    args = parser.parse_args(arguments)
    torch.set_num_threads(args.threads)
    clock = time.process_time if args.threads == 1 else time.perf_counter
    shape = SHAPES[args.shape]
    checked = min(shape.image_tokens, args.tokens)
    first, second = equal_codes(shape, args.images, checked)
    if not torch.equal(first, second):
        same = (first == second).float().mean()
        sys.exit(f"Only {same:.1%} of the greedy codes agree; without equal output there is nothing to compare.")
    result: dict = {"shape": args.shape, "images": args.images, "threads": args.threads, "equal_codes": first.numel()}
    result["parameters"] = parameters(our_model(shape, torch.float32).language_model)
    print(f"{args.shape}: {result['parameters'] / 1e6:.1f}M weights in the language model, {first.numel()} codes equal")
    for name in args.dtypes:
        dtype = getattr(torch, name)
        seconds = measure(shape, dtype, args.images, args.tokens, args.repeats, clock)
        batched = seconds["transformers, batched"]
        print(f"\n{name:44} images/s   against batched")
        for way, spent in sorted(seconds.items(), key=lambda item: -item[1]):
            print(f"{way:44} {args.images / spent:8.3f}   {batched / spent:8.2f} x")
        result[name] = {"images_per_second": {way: args.images / spent for way, spent in seconds.items()}}
        result[name]["limits"] = limits(shape, dtype, args.images, seconds["ours, one prompt"], clock)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
