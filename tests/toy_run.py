"""A run with a painter and an evaluator that cost nothing, in a process of its own, so that it can be killed:

    python toy_run.py DATA OUT LIMIT [SHARD]        colours of T2I-CompBench, seen by the evaluator
    python toy_run.py DATA OUT LIMIT URL            WISE, judged by a server

Prints a line for each row.
"""

import hashlib
import sys
from pathlib import Path

from PIL import Image

from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.harness import evaluate
from reverie.benchmarks.protocol import Painted
from reverie.vlms.openai import Patience, ServedVLM

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


def run_served(data, out, limit, url, **more):
    patience = Patience(timeout=2.0, tries=6, pause=0.01, longest=0.05)
    judge = ServedVLM("toy", url, cache=Path(out) / "answers", patience=patience)
    return evaluate("wise-verified", Dabs(), out, data=data, limit=limit, batch=5, judge=judge, **more)


def tell(row, done, total):
    print(row.id, row.index, flush=True)


if __name__ == "__main__":
    data, out, limit, *more = sys.argv[1:]
    served = bool(more) and more[0].startswith("http")
    (run_served if served else run)(Path(data), Path(out), int(limit), *more, on_row=tell)
