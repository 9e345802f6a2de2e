"""What guesses of codes save where a picture or a few are painted (generators/next_token_draws.py).

    python speed/guesses.py --model atelier-janus --pictures 1 4 8

The same painter with guesses and without (a picker of one's own does without), in turns, one thread; CPU seconds a
picture, medians. The codes must be equal, or the script stops.
"""

import argparse
import functools
import statistics
import time

import torch

import reverie
from reverie.canvas import Conditions, pick
from reverie.generators.janus import JanusPainter

PROMPTS = (
    "a red cat left of a blue dog", "two green apples and a yellow boat", "a wooden clock", "three white birds",
    "a purple fish below a star", "an orange car", "four black hats", "a pink house beside a tree",
)  # fmt: skip


class Counting(JanusPainter):
    fed = 0
    """Steps of the language model."""

    def _fed_rows(self, *inputs, **keywords):
        self.fed += 1
        return super()._fed_rows(*inputs, **keywords)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-janus")
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--pictures", type=int, nargs="+", default=[1, 4, 8])
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    loaded = reverie.load(arguments.model, device="cpu", dtype=arguments.dtype)
    own = loaded.model.config.raw.get("reverie", {})
    settings = {name: own[name] for name in ("guidance", "temperature") if name in own} | {"rows": arguments.rows}
    painters = [
        Counting(loaded.model, loaded.tokenizer, picker=picker, **settings)
        for picker in (functools.partial(pick), pick)
    ]
    print("| pictures at once | without: seconds, steps | with guesses: seconds, steps |\n|---|---|---|")
    for count in arguments.pictures:
        seconds: list[list[float]] = [[], []]
        steps: list[list[int]] = [[], []]
        for turn in range(arguments.repeats):
            prompts = [PROMPTS[(turn + i) % len(PROMPTS)] for i in range(count)]
            codes = []
            for way, painter in enumerate(painters):
                painter.fed, begin = 0, time.process_time()
                canvas = painter.advance(painter.start(Conditions(prompts), range(turn, turn + count)))
                seconds[way].append((time.process_time() - begin) / count)
                steps[way].append(painter.fed)
                codes.append(canvas.tokens)
            if not torch.equal(*codes):
                raise ValueError("guesses changed a code")
        cells = [f"{statistics.median(s):.2f}, {statistics.median(n):g}" for s, n in zip(seconds, steps, strict=True)]
        print(f"| {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
