"""A run with a painter and an evaluator that cost nothing, in a process of its own, so that it can be killed:

    python toy_run.py DATA OUT LIMIT [SHARD]

Prints a line for each row.
"""

import hashlib
import sys
from pathlib import Path

from PIL import Image

from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.harness import evaluate
from reverie.benchmarks.protocol import Painted

NAME, CATEGORY = "t2i-compbench-color", "color"


class Dabs:
    name = "dabs"

    def paint(self, prompts, seeds, plan):
        return [Painted(dab(prompt, seed), work={"dabs": 1}) for prompt, seed in zip(prompts, seeds, strict=True)]


def dab(prompt, seed, side=16):
    data = hashlib.sha256(f"{prompt} {seed}".encode()).digest()
    return Image.frombytes("RGB", (side, side), data * (3 * side * side // 32))


class Glance:
    name = "glance"

    def evaluate(self, files, prompts, images):
        return [
            Evaluation(file, "glance", noun_chunks=["it"], phrases={"it?": image.getpixel((0, 0))[0] / 255})
            for file, image in zip(files, images, strict=True)
        ]


def write_prompts(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{CATEGORY}_val.txt").write_text("".join(f"a thing of kind {n}\n" for n in range(300)))


def run(data, out, limit, shard=None, **more):
    return evaluate(
        NAME, Dabs(), out, data=data, limit=limit, images_per_prompt=2, batch=5, judge=Glance(), shard=shard, **more
    )


if __name__ == "__main__":
    data, out, limit, *shard = sys.argv[1:]
    run(Path(data), Path(out), int(limit), *shard, on_row=lambda row, done, total: print(row.id, row.index, flush=True))
