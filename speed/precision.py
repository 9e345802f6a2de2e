"""What bfloat16 costs or saves on this machine: a training step, Muon's iterations, and a picture, beside float32.

    python speed/precision.py --repeats 3

The step is one of recipes/parm/judge.yaml from atelier-judge (24 drawn pictures, four claims each), the pictures are
of atelier-showo. In turns, medians of CPU seconds with one thread, of wall seconds with more.
`training.loop` and `training.muon` take the one that `reverie.precision` finds to be no slower.
"""

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from twig import timed

from reverie.precision import multiplies_bf16

RECIPE = Path(__file__).resolve().parent.parent / "recipes/parm/judge.yaml"
KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def ways(task, images: int) -> dict[str, dict[str, Callable[[], object]]]:
    """Of each piece of work, how it is done in either type."""
    import reverie
    from reverie.training.muon import Muon

    batch = task.batch(0)
    matrices = [p for p in task.model.parameters() if p.requires_grad and p.ndim == 2]
    muon = Muon(matrices, lr=0.0, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    painters = {name: reverie.load("atelier-showo", device="cpu", dtype=name) for name in KINDS}

    def learn(kind: torch.dtype) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=kind == torch.bfloat16):
            loss, _ = task.loss(batch)
        loss.backward()

    def step(kind: torch.dtype) -> None:
        with torch.no_grad():
            for group in muon.param_groups:
                muon._step_group(group, kind)

    def paint(name: str) -> None:
        painters[name].generate("two red apples", n=images, seed=0)

    return {
        "loss and gradients": {name: lambda kind=kind: learn(kind) for name, kind in KINDS.items()},
        "Muon": {name: lambda kind=kind: step(kind) for name, kind in KINDS.items()},
        f"{images} pictures": {name: lambda name=name: paint(name) for name in KINDS},
    }


def measure(task, images: int, repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of every piece of work in either type, in turns."""
    each = ways(task, images)
    seconds: dict[str, dict[str, list[float]]] = {work: {name: [] for name in kinds} for work, kinds in each.items()}
    for turn in range(repeats + 1):  # the first warms up
        for work, kinds in each.items():
            for name, do in kinds.items():
                spent = timed(do)
                if turn:
                    seconds[work][name].append(spent)
    return {work: {name: statistics.median(of) for name, of in kinds.items()} for work, kinds in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    from reverie.training.look import look
    from reverie.training.recipes import read

    task = look(read(RECIPE, ["model=atelier-judge"])).task
    found = measure(task, options.images, options.repeats)
    for seconds in found.values():
        seconds["bfloat16 / float32"] = seconds["bfloat16"] / seconds["float32"]
    print(json.dumps({"multiplies bf16": multiplies_bf16("cpu"), "threads": options.threads, **found}, indent=1))


if __name__ == "__main__":
    main()
