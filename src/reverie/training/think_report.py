"""What thinking before painting is worth, measured in large batches: whole benchmarks of the Atelier in a minute on a
GPU. Pictures are painted, looked at and thrown away; what stays are the rows and the scores with their intervals.

    python -m reverie.training.think_report MODEL --adapters runs/sft/adapters --ways raw think --out think.json

Ways: `raw` paints from the prompt as it stands, `think` from what the text encoder makes of it, `oracle` from the
rewritten prompt that the benchmark knows (atelier-wise), or the change in plain words (atelier-rise). Seeds, prompts
and rules are those of `reverie evaluate`; images go through the networks in batches, which round differently than one
by one. With `--words` nothing is painted: a rewrite of atelier-wise is right if it demands what the riddle demands.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from .. import thinkers
from ..atelier.language_parse import Demand
from ..benchmarks.eyes import Inspected
from ..benchmarks.protocol import Benchmark, Sample, image_seed
from ..benchmarks.registry import load
from ..benchmarks.stats import estimate
from ..files import write_atomically
from ..generators.diffusion import DiffusionPainter, Guided
from ..models.prompt_states import Asked, read_prompts
from ..vlms import Message
from ..vlms.text_encoder import TextEncoderWriter
from .picture_rewards import stacked
from .qwen_report import plain_rise
from .word_rewards import told

WAYS = ("raw", "think", "oracle")
ORACLES: dict[str, Callable[[Sample], str]] = {
    "atelier-wise": lambda sample: sample.record["rewritten"],
    "atelier-rise": plain_rise,
}
"""What the perfect thinker would say."""


@dataclass
class Case:
    """One image to be painted."""

    sample: Sample
    index: int
    asked: Asked
    thought: str = ""
    note: str | None = None


def cases(benchmark: Benchmark, limit: int | None, images: int | None) -> Iterator[Case]:
    """limit: so many samples, spread over the list."""
    samples = list(benchmark.samples)
    if limit is not None and limit < len(samples):
        samples = [samples[i * len(samples) // limit] for i in range(limit)]
    for sample in samples:
        given = benchmark.inputs(sample) if benchmark.inputs is not None else None
        pictures = (given.picture,) if given is not None and given.picture is not None else ()
        for index in range(images or benchmark.images_per_prompt):
            yield Case(sample, index, (sample.prompt, pictures))


def think(writer: TextEncoderWriter, wording: str, found: Sequence[Case], tokens: int) -> None:
    """Lets the encoder reason about each different prompt, and paints from what it arrives at."""
    different = {case.sample.id: case for case in found}
    asked = [
        [Message("user", thinkers.request(wording, prompt, edit=bool(pictures)), pictures)]
        for prompt, pictures in (case.asked for case in different.values())
    ]
    answers = dict(zip(different, writer.write_batch(asked, tokens), strict=True))
    for case in found:
        read = thinkers.parse(wording, answers[case.sample.id], case.sample.prompt)
        case.asked, case.thought, case.note = (read.prompt, case.asked[1]), read.thought, read.note


@torch.no_grad()
def paint(painter: DiffusionPainter, found: Sequence[Case], rows: int) -> list[Any]:
    """PIL pictures, as the painter's own `advance` paints them up to rounding."""
    from PIL import Image

    family, size = painter.family, painter.size or (painter.family.side, painter.family.side)
    sigmas, weight = painter.sigmas(size), painter.guidance
    ways = 1 if family.embedded or weight <= 1 else 2
    pictures = []
    for first in range(0, len(found), rows):
        part = found[first : first + rows]
        asked = [case.asked for case in part]
        blanks = [(painter.negative, seen) for _, seen in asked] if ways == 2 else []
        texts = read_prompts(painter, [*asked, *blanks], rows)
        other: list[Any] = texts[len(part) :] or [None] * len(part)
        guided = [Guided(text, blank, weight, size) for text, blank in zip(texts[: len(part)], other, strict=True)]
        seeds = [image_seed(0, case.sample.prompt, case.index) for case in part]
        x: Tensor = family.noise([torch.Generator().manual_seed(seed) for seed in seeds], size)
        for step in range(len(sigmas) - 1):
            v = painter.velocity(x, sigmas[step].expand(len(x)), guided)
            x = (x.float() + (sigmas[step + 1] - sigmas[step]) * v.float()).to(x.dtype)
        pixels = family.decode(x, size).float().clamp(-1, 1)
        shown = ((pixels + 1) * 127.5).round().byte().permute(0, 2, 3, 1).cpu().numpy()
        pictures += [Image.fromarray(picture) for picture in shown]
    return pictures


def judged(
    benchmark: Benchmark, inspector: Any, found: Sequence[Case], pictures: Sequence[Any]
) -> list[dict[str, Any]]:
    rows = []
    for case, picture, seen in zip(found, pictures, inspector.look(stacked(pictures), batch=256), strict=True):
        verdict = benchmark.judge(case.sample, Inspected(seen, picture) if benchmark.pixels else seen)
        rows.append(
            {
                "id": case.sample.id, "index": case.index, "tag": case.sample.tag, "cluster": case.sample.cluster,
                "score": verdict.score, "text": case.asked[0], "thought": case.thought, "note": case.note,
                "reason": verdict.reason, "value": verdict.value,
            }
        )  # fmt: skip
    return rows


def _told(case: Case) -> bool:
    """Whether a rewritten riddle of atelier-wise says in the Atelier's language what was asked for, and no more."""
    record, text = case.sample.record, case.asked[0]
    return text == record["rewritten"] or told(Demand.from_record(record["demand"]), text)


def in_words(found: Sequence[Case]) -> list[dict[str, Any]]:
    """Rows of rewrites as such."""
    return [
        {
            "id": case.sample.id, "tag": case.sample.tag, "cluster": case.sample.cluster, "prompt": case.sample.prompt,
            "score": float(_told(case)), "text": case.asked[0], "thought": case.thought,
            "note": case.note,
        }
        for case in found
    ]  # fmt: skip


def summary(rows: Sequence[dict[str, Any]], weighting: Any) -> dict[str, dict[str, float | None]]:
    """Mean and 95% interval of all and of each category."""
    groups = {"all": list(rows)}
    for row in rows:
        groups.setdefault(row["tag"], []).append(row)
    found = {}
    for name, part in groups.items():
        tags = [row["tag"] for row in part]
        score = estimate([row["score"] for row in part], [row["cluster"] for row in part], tags, weighting)
        found[name] = vars(score)
    return found


def report(
    pipeline: Any,
    wording: str,
    inspector: Any,
    names: Sequence[str],
    ways: Sequence[str],
    *,
    settings: dict[str, Any],
    limit: int | None = None,
    images: int | None = None,
    tokens: int = 128,
    rows: int = 256,
    sheet: Path | None = None,
) -> dict[str, Any]:
    """Rows and scores of every benchmark in every way."""
    painter = DiffusionPainter(pipeline, **settings)
    painter.size = painter.size or (painter.family.side, painter.family.side)
    writer = TextEncoderWriter(pipeline, together=rows)
    found: dict[str, Any] = {}
    for name in names:
        benchmark = load(name)
        for way in ways:
            if way == "oracle" and name not in ORACLES:
                continue
            start, todo = time.monotonic(), list(cases(benchmark, limit, images))
            if way == "think":
                think(writer, wording, todo, tokens)
            if way == "oracle":
                for case in todo:
                    case.asked = (ORACLES[name](case.sample), case.asked[1])
            pictures = paint(painter, todo, rows)
            verdicts = judged(benchmark, inspector, todo, pictures)
            if sheet is not None:
                _sheet(pictures, sheet.with_name(f"{sheet.stem}-{name}-{way}.png"))
            scores = summary(verdicts, benchmark.weighting)
            seconds = round(time.monotonic() - start, 1)
            found[f"{name}/{way}"] = {"scores": scores, "seconds": seconds, "rows": verdicts}
            print(f"{name} {way}: {100 * (scores['all']['mean'] or 0):.1f} % of {len(todo)} in {seconds} s", flush=True)
    return found


def words(pipeline: Any, wording: str, limit: int | None, tokens: int, rows: int) -> dict[str, Any]:
    """How many riddles are rewritten rightly; nothing is painted."""
    todo = list(cases(load("atelier-wise"), limit, 1))
    think(TextEncoderWriter(pipeline, together=rows), wording, todo, tokens)
    verdicts = in_words(todo)
    scores = summary(verdicts, "items")
    print(f"atelier-wise in words: {100 * (scores['all']['mean'] or 0):.1f} % of {len(todo)}", flush=True)
    return {"scores": scores, "rows": verdicts}


def _sheet(pictures: Sequence[Any], path: Path, rows: int = 4, columns: int = 12) -> None:
    """Pictures spread over the list, whole rows of them."""
    import numpy as np

    from .samples import sheet

    columns = min(columns, len(pictures))
    count = min(rows, len(pictures) // columns) * columns
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet([np.asarray(pictures[i * len(pictures) // count]) for i in range(count)], columns).save(path)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Scores of thinking before painting, in large batches.")
    parser.add_argument("model")
    parser.add_argument("--adapters", nargs="*", default=[], type=Path, help="folders of finished runs, in their order")
    parser.add_argument("--benchmarks", nargs="+", default=["atelier-wise"])
    parser.add_argument("--ways", nargs="+", default=["raw", "think"], choices=WAYS)
    parser.add_argument("--wording", help="by default the model's own")
    parser.add_argument("--limit", type=int, help="samples of each benchmark")
    parser.add_argument("--images", type=int, help="of each sample")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--tokens", type=int, default=128, help="of a thought at most")
    parser.add_argument("--rows", type=int, default=256, help="images at once")
    parser.add_argument("--words", action="store_true", help="score the rewrites of atelier-wise, and paint nothing")
    parser.add_argument("--sheet", type=Path, help="a contact sheet of each, with names that begin so")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    from ..atelier.inspector import Inspector
    from ..generators.family import own_steps
    from .recipes import shipped
    from .t2g_recipes import opened, wording

    source, pipeline = opened({"model": given.model, "adapters": given.adapters})
    own = own_steps(source.config)
    own |= {k: v for k, v in (("steps", given.steps), ("guidance", given.guidance)) if v is not None}
    chosen, found = wording({"wording": given.wording}, source), {}
    device = str(pipeline._execution_device)
    with torch.autocast(pipeline._execution_device.type, torch.bfloat16, enabled=device != "cpu"):
        if given.words:
            found["atelier-wise/words"] = words(pipeline, chosen, given.limit, given.tokens, given.rows)
        else:
            inspector = Inspector.load(shipped("atelier-inspector"), device, fast=device != "cpu")
            found = report(
                pipeline, chosen, inspector, given.benchmarks, given.ways, settings=own, limit=given.limit,
                images=given.images, tokens=given.tokens, rows=given.rows, sheet=given.sheet,
            )  # fmt: skip
    about = {"model": given.model, "adapters": [str(folder) for folder in given.adapters], "settings": own}
    text = json.dumps({"about": about, **found}) + "\n"
    write_atomically(given.out, lambda part: part.write_text(text, "utf-8"))


if __name__ == "__main__":
    main()
