"""Pools of candidates for the table of "verify and reinforce" (arXiv 2501.13926), painted and judged in big batches.

    python -m reverie.training.verify_pool --model atelier-showo -n 20 --judge parm=runs/parm/judge --out runs/pool.npz

A pool holds, for every prompt of atelier-geneval, N candidates: whether each is right by the benchmark's own rule, and
what each judge says about it, finished (`orm`) and at every look (`clarity`, `potential`). Each row of the table
is then a choice among them, made by `verify_table.py` in a second, since what a candidate becomes does not depend on
what is chosen. `--pictures FILE` keeps the images of all looks, so that `--add` can ask other judges about them later.
`--sweep 1.5/1.0/12 ...` (guidance/temperature/steps) paints one candidate for each setting instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ..files import write_array, write_atomically

if TYPE_CHECKING:
    from ..atelier.inspector import Inspector
    from ..benchmarks.protocol import Sample
    from ..canvas import Conditions
    from ..canvas import Generator as GeneratorOfImages
    from .qwen_judge import QuickJudge

LOOKS = ("clarity", "potential")
"""Questions about unfinished pictures."""


Judges = Mapping[str, "QuickJudge"]


def load_judges(named: Sequence[str], device: str) -> Judges:
    """`named`: NAME=MODEL each."""
    from .qwen_judge import QuickJudge

    pairs = (item.partition("=") for item in named)
    return {name: QuickJudge.load(model or name, device) for name, _, model in pairs}


@torch.no_grad()
def told(judges: Judges, prompts: Sequence[str], pixels: Tensor, questions: Sequence[str]) -> dict[str, Tensor]:
    """`judge/question` to P(yes) / (P(yes) + P(no)) about pictures (B, 3, H, W) uint8, (B,) on the CPU."""
    found = {}
    for name, judge in judges.items():
        for question, both in judge.told(questions, prompts, pixels).items():
            found[f"{name}/{question}"] = (both[:, 0] / both.sum(1).clamp(min=1e-30)).cpu()
    return found


def pixels_of(generator: GeneratorOfImages, canvas: Any, device: str) -> Tensor:
    """(B, 3, H, W) uint8 of what a canvas shows now."""
    pictures = np.stack(generator.preview(canvas))
    return torch.from_numpy(pictures).to(device).permute(0, 3, 1, 2).contiguous()


def painted(
    generator: GeneratorOfImages, conditions: Conditions, seeds: Sequence[int], looks: Sequence[int], device: str
) -> Iterator[tuple[int, Tensor]]:
    """Each look with the pictures as they are then."""
    canvas = generator.start(conditions, list(seeds))
    for step in looks:
        canvas = generator.advance(canvas, to=step)
        yield step, pixels_of(generator, canvas, device)


def truth(inspector: Inspector, samples: Sequence[Sample], pixels: Tensor) -> list[float]:
    """GenEval's verdict on each picture, 1 or 0."""
    from ..benchmarks.atelier_geneval import judge

    seen = inspector.look(pixels, batch=256)
    return [float(judge(sample, sighting).score or 0.0) for sample, sighting in zip(samples, seen, strict=True)]


def fill(
    generator: GeneratorOfImages,
    judges: Judges,
    inspector: Inspector,
    samples: Sequence[Sample],
    n: int,
    *,
    looks: int,
    batch: int,
    seed: int,
    device: str,
    guidance: float | None = None,
    kept: list[np.ndarray] | None = None,
) -> dict[str, np.ndarray]:
    """`right` (P, N), `judge/orm` (P, N) and, of the other questions, (P, N, looks). Images of
    the looks that are asked about (rows, looks, 3, H, W) are put into `kept`."""
    from ..benchmarks.protocol import image_seed
    from ..canvas import Conditions
    from ..choose import look_steps

    steps = look_steps(generator.steps, looks) if judges else (generator.steps,)
    least = min((judge.clear_from for judge in judges.values()), default=0.0)
    asked = [step for step in steps if step >= least * steps[-1] or step == steps[-1]]
    unclear = torch.zeros(len(steps) - len(asked))  # nobody is asked before a judge ever says clear
    rows = [(which, copy) for which in range(len(samples)) for copy in range(n)]
    found: dict[str, list[Any]] = {}
    for first in range(0, len(rows), batch):
        part = [samples[which] for which, _ in rows[first : first + batch]]
        prompts = [sample.prompt for sample in part]
        seeds = [image_seed(seed, samples[which].prompt, copy) for which, copy in rows[first : first + batch]]
        looked: dict[str, list[Tensor]] = {}
        shown: list[np.ndarray] = []
        for step, pixels in painted(generator, Conditions(tuple(prompts), guidance), seeds, asked, device):
            for key, numbers in told(judges, prompts, pixels, LOOKS).items():
                looked.setdefault(key, []).append(numbers)
            if step == steps[-1]:
                for key, numbers in told(judges, prompts, pixels, ("orm",)).items():
                    found.setdefault(key, []).append(numbers.numpy())
                found.setdefault("right", []).append(np.array(truth(inspector, part, pixels)))
            shown.append(pixels.cpu().numpy())
        for key, all_looks in looked.items():
            both = torch.stack(all_looks, 1)
            found.setdefault(key, []).append(torch.cat((unclear.expand(len(both), -1), both), 1).numpy())
        if kept is not None:
            kept.append(np.stack(shown, 1))
        print(f"{min(first + batch, len(rows))} of {len(rows)}", flush=True)
    whole = {key: np.concatenate(parts) for key, parts in found.items()}
    return {key: array.reshape(len(samples), n, *array.shape[1:]) for key, array in whole.items()}


def flops(painter: Any, generator: GeneratorOfImages, judges: Judges, prompt: str, guidance: float | None) -> dict:
    """Of a painting and of a question (the mean over judges): two for each weight of the layers and token; what
    attention, heads and decoders add is left out. And from how many places a finished picture is looked at."""
    from ..canvas import Conditions

    def weights(model: Any, inside: str) -> int:
        return sum(p.numel() for name, p in model.named_parameters() if p.ndim == 2 and inside in name)

    body = weights(painter.model, ".layers.") - weights(painter.model, "vision_model")
    asked = []
    for judge in judges.values():
        student = judge.student
        read = len(student.asked(judge.wording.conversation("orm", prompt), 1))
        seen = weights(student.model, "visual.blocks") * 4 * student.grid**2
        asked.append(seen + weights(student.model, "language_model.layers") * read)
    tokens = generator.plain_work(Conditions((prompt,), guidance)).decoded
    places = max((1 + judge.manner.moves for judge in judges.values()), default=1)
    return {"painting": 2 * body * tokens, "question": 2 * sum(asked) / max(1, len(asked)), "places": places}


def save(pool: dict[str, np.ndarray], about: dict[str, Any], out: Path) -> None:
    """Arrays with `about` beside them, in one compressed file: in half precision, but for what candidates are compared
    by, of which many are close to 1."""

    def kept(name: str, array: np.ndarray) -> np.ndarray:
        return array.astype(np.uint8 if name == "right" else np.float32 if name.endswith("/orm") else np.float16)

    arrays = {name: kept(name, array) for name, array in pool.items()}
    text = np.frombuffer(json.dumps(about).encode(), np.uint8)
    out.parent.mkdir(parents=True, exist_ok=True)

    def write(part: Path) -> None:
        with part.open("wb") as file:
            np.savez_compressed(file, about=text, **arrays)  # type: ignore[arg-type]

    write_atomically(out, write)


def _chosen(given: argparse.Namespace) -> Sequence[Sample]:
    from ..benchmarks.atelier_geneval import samples

    return samples()[:: given.every][given.part :: given.parts]


def main(given: argparse.Namespace) -> None:
    from ..atelier.inspector import Inspector
    from ..loading import here
    from ..painter import load
    from ..reason import Plan
    from .recipes import shipped

    device = here(given.device)
    if given.add:
        return add(given.add, given.pictures, load_judges(given.judge, device), _chosen(given), device)
    painter, chosen = load(given.model, device, given.dtype), _chosen(given)
    inspector = Inspector.load(shipped("atelier-inspector"), device)
    settings = {"looks": given.looks, "batch": given.batch, "seed": given.seed, "device": device}
    if given.sweep:
        for text in given.sweep:
            guidance, temperature, steps = (float(value) for value in text.split("/"))
            if steps:
                painter.model.config.own["steps"] = int(steps)
            generator = painter.generator(Plan(temperature=temperature))
            pool = fill(generator, {}, inspector, chosen, given.n, guidance=guidance, **settings)
            line = {"setting": text, "right": float(pool["right"].mean()), "images": pool["right"].size}
            print(json.dumps(line), flush=True)
            given.out.parent.mkdir(parents=True, exist_ok=True)
            with given.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
        return
    generator, judges = painter.generator(Plan(temperature=given.temperature)), load_judges(given.judge, device)
    kept: list[np.ndarray] | None = [] if given.pictures else None
    pool = fill(generator, judges, inspector, chosen, given.n, guidance=given.guidance, kept=kept, **settings)
    if kept is not None:
        pictures = np.concatenate(kept)
        write_array(given.pictures, pictures)
    about = {"model": painter.about, "judges": given.judge, "every": given.every, "seed": given.seed, "n": given.n}
    about |= {"part": given.part, "parts": given.parts, "looks": min(given.looks, generator.steps)}
    about |= {"flops": flops(painter, generator, judges, chosen[0].prompt, given.guidance)}
    save(pool, about | {"steps": generator.steps, "guidance": given.guidance}, given.out)
    print(given.out, float(pool["right"].mean()))
    return None


def add(out: Path, pictures: Path, judges: Judges, samples: Sequence[Sample], device: str) -> None:
    """Asks more judges about the images of a pool, and puts the answers into it."""
    with np.load(out) as file:
        pool = {name: file[name] for name in file.files if name != "about"}
        about = json.loads(file["about"].tobytes().decode())
    shown, n = np.load(pictures, mmap_mode="r"), pool["right"].shape[1]
    if len(shown) != pool["right"].size or shown.ndim != 5 or len(samples) != len(pool["right"]):
        raise ValueError(
            f"{pictures} holds {len(shown)} images, but {out} {pool['right'].size}; give those of the pool."
        )
    answers: dict[str, list[np.ndarray]] = {}
    before = about["looks"] - shown.shape[1]
    for begin in range(0, len(shown), 256):
        part = torch.from_numpy(np.array(shown[begin : begin + 256])).to(device)
        prompts = [samples[row // n].prompt for row in range(begin, begin + len(part))]
        looked: dict[str, list[np.ndarray]] = {}
        for look in range(part.shape[1]):
            last = look == part.shape[1] - 1
            for key, numbers in told(judges, prompts, part[:, look], (*LOOKS, "orm") if last else LOOKS).items():
                looked.setdefault(key, []).append(numbers.numpy())
        for key, all_looks in looked.items():
            early = [np.zeros(len(part))] * before
            one = all_looks[0] if key.endswith("/orm") else np.stack([*early, *all_looks], 1)
            answers.setdefault(key, []).append(one)
    whole = {key: np.concatenate(parts) for key, parts in answers.items()}
    pool |= {key: array.reshape(-1, n, *array.shape[1:]) for key, array in whole.items()}
    save(pool, about | {"added": sorted(judges)}, out)


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Paints and judges N candidates of every prompt of atelier-geneval.")
    parser.add_argument("--model", default="atelier-showo")
    parser.add_argument("--judge", action="append", default=[], metavar="NAME=MODEL")
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--every", type=int, default=1, help="take each so-many-th prompt only")
    parser.add_argument("--part", type=int, default=0, help="which share of the prompts, from 0")
    parser.add_argument("--parts", type=int, default=1, help="shares; the table takes all their files together")
    parser.add_argument("--looks", type=int, default=18)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--temperature", type=float)
    parser.add_argument("--sweep", nargs="*", metavar="GUIDANCE/TEMPERATURE/STEPS")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    parser.add_argument("--pictures", type=Path, help="for the finished images, or with --add, of them")
    parser.add_argument("--add", type=Path, metavar="POOL", help="ask other judges about the images of this pool")
    parser.add_argument("--out", type=Path, default=Path("runs/pool.npz"))
    return parser


if __name__ == "__main__":
    main(arguments().parse_args())
