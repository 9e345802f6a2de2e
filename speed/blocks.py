"""What it brings that products may have fewer and more rows than usual, where that changes no bit (models/rows.py).

    python speed/blocks.py --pictures 1 --repeats 8 --threads 2
    python speed/blocks.py --pictures 16 --repeats 3 --threads 2

Thinking while painting by `atelier-janus` as in speed/twig.py, in turns: with blocks of exactly the usual number of
rows, with smaller ones where few rows come, with larger ones where many do, and with both. Pictures and answers must be
equal, or the script stops. Wall seconds a picture, medians.
"""

import argparse
import json
import statistics

import torch
import twig

import reverie
from reverie.models.rows import Blocks, Cutting


def ways() -> dict:
    """Names to what `Cutting` says in their turn."""
    found = Cutting.__call__

    def only(fewer: bool, more: bool):
        def cut(self, rows: int) -> Blocks:
            free = found(self, rows)
            return Blocks(rows, free.grain if fewer else rows, free.wide if more else rows)

        return cut

    return {"usual": only(False, False), "fewer": only(True, False), "more": only(False, True), "both": found}


def measure(model, words, own: dict, pictures: int, repeats: int, tokens: int = 48) -> dict[str, float]:
    """Median seconds a picture of each way; ValueError where they paint or write different things."""
    literal = twig.Literal(model, words, own.get("guidance", 5.0), own.get("temperature", 1.0), tokens)
    prompts = [twig.PROMPTS[i % len(twig.PROMPTS)] for i in range(pictures)]
    sizes = twig.ONE if pictures == 1 else twig.MANY
    each, usual, first = ways(), Cutting.__call__, None
    seconds: dict[str, list[float]] = {name: [] for name in each}
    try:
        for turn in range(repeats + 1):  # in the first it is found out what is free
            for name, cut in each.items():
                Cutting.__call__, made = cut, []

                def paint(made=made):
                    made += twig.ours(model, words, literal, prompts, list(range(pictures)), *sizes)

                spent = twig.timed(paint) / pictures
                first = first or made
                if made != first:
                    raise ValueError(f"blocks of {name} rows paint or write something else")
                if turn:
                    seconds[name].append(spent)
    finally:
        Cutting.__call__ = usual
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-janus")
    parser.add_argument("--pictures", type=int, default=1, help="at once")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    loaded = reverie.load(options.model, device="cpu", dtype="float32")
    own = loaded.model.config.raw.get("reverie", {})
    found = measure(loaded.model, loaded.tokenizer, own, options.pictures, options.repeats)
    print(json.dumps({name: round(value, 3) for name, value in found.items()}))


if __name__ == "__main__":
    main()
