"""The tables of thinking while painting: every row of tables.yaml painted and judged on the Atelier's benchmarks.

    python recipes/twig/tables.py --out runs/tables --model sft=runs/twig/sft/checkpoint --only direct,sft --limit 48

Scores, rules, seeds and intervals are those of `reverie evaluate`; but no picture is written, batches are large, all
rows share the loaded models, and a row is begun only while there is time (`--minutes`). A row whose file is there is
not painted again. OUT holds ROW.BENCHMARK.json.gz: the scores with intervals, and every image's score and reason.
"""

import argparse
import gzip
import json
import multiprocessing
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import yaml
from exercises import benchmark_of

from reverie.benchmarks.protocol import image_seed
from reverie.benchmarks.report import _by_tag
from reverie.benchmarks.sources import row_of
from reverie.training.samples import sheet

HERE = Path(__file__).parent


def judged(task):
    """In a process of its own: a second look draws hundreds of pictures."""
    from reverie.benchmarks.eyes import Inspected

    name, sample, sighting, picture = task
    return benchmark_of(name).judge(sample, Inspected(sighting, picture))


def items_of(benchmark, images, limit):
    from reverie.benchmarks.harness import spread

    return [(s, i) for s in spread(benchmark.samples, limit) for i in range(images or benchmark.images_per_prompt)]


def painted(painter, plan, items, batch, seed):
    """(picture, thought, painted text) of each, batch by batch."""
    from reverie.events import Finished

    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        prompts = [sample.prompt for sample, _ in part]
        seeds = [image_seed(seed, sample.prompt, index) for sample, index in part]
        events = painter.run(plan, prompts, seeds, pieces=1, batch=batch)
        done = sorted((e for e in events if isinstance(e, Finished)), key=lambda e: e.image)
        yield part, [e.picture for e in done], [e.recipe for e in done]


def told_the_layout(painter, plan, items, batch, seed):
    """The same, but the thoughts are not the model's: they say of a scene that shows what was asked, composed as for
    training, what stands where, as the thoughts of its stories do. What then goes wrong is the painting."""
    import itertools
    import random

    from PIL import Image

    from reverie.atelier.language_parse import Demand
    from reverie.atelier.lessons import band_words
    from reverie.atelier.sample import compose
    from reverie.canvas import Conditions
    from reverie.dialogue import Story, dialogue
    from reverie.schedule import bands

    generator = painter.generator(plan)
    ends = bands((1,) * plan.regions, generator.steps, generator.row)
    shares = [0.0, *(end / generator.steps for end in ends)]
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        stories, thoughts = [], []
        for sample, index in part:
            scene = compose(Demand.from_record(sample.record["demand"]), random.Random(f"{seed}/{sample.id}/{index}"))
            thoughts.append([band_words(scene, low, high) for low, high in itertools.pairwise(shares)])
            stories.append(Story(dialogue(painter.source.dialogue), sample.prompt, plan.regions))
        canvas = None
        for region, end in enumerate(ends):
            texts = tuple(story.painting(told[region], False) for story, told in zip(stories, thoughts, strict=True))
            conditions = Conditions(texts, plan.guidance)
            if canvas is None:
                seeds = [image_seed(seed, sample.prompt, index) for sample, index in part]
                canvas = generator.start(conditions, seeds)
            else:
                canvas = generator.recondition(canvas, conditions)
            canvas = generator.advance(canvas, end)
            for story, told in zip(stories, thoughts, strict=True):
                story.keep(told[region], False)
        pictures = [Image.fromarray(picture) for picture in generator.preview(canvas)]
        yield part, pictures, [{"thought": "\n".join(told)} for told in thoughts]


def row(name, benchmark, painter, plan, inspector, pool, arguments, images=None, way=painted):
    """Paints one row, and has it judged meanwhile; what gives its file's contents once they are wanted."""
    begun = time.time()
    items = items_of(benchmark, arguments.images or images, arguments.limit)
    rows, waiting, thoughts = [], [], []
    for part, pictures, recipes in way(painter, plan, items, arguments.batch, arguments.seed):
        seen = inspector.look(pictures, batch=256)
        if not thoughts:
            sheet([np.asarray(picture) for picture in pictures[:: max(1, len(pictures) // 40)][:40]], 10).save(
                arguments.out / f"{name}.{benchmark.name}.png"
            )
        thoughts += [recipe.get("thought") for recipe in recipes]
        if benchmark.pixels:
            tasks = [
                (benchmark.name, sample, one, picture)
                for (sample, _), one, picture in zip(part, seen, pictures, strict=True)
            ]
            waiting.append((part, pool.map_async(judged, tasks, chunksize=8)))
        else:
            rows += [row_of(s, i, None, benchmark.judge(s, one)) for (s, i), one in zip(part, seen, strict=True)]
    spent = time.time() - begun
    return lambda: told_of(name, benchmark, plan, rows, waiting, thoughts, spent)


def told_of(name, benchmark, plan, rows, waiting, thoughts, spent):
    for part, verdicts in waiting:
        rows += [row_of(s, i, None, verdict) for (s, i), verdict in zip(part, verdicts.get(), strict=True)]
    scores = (benchmark.outcome or _by_tag(benchmark))(rows).scores
    told = [
        {"id": r.id, "index": r.index, "tag": r.tag, "score": r.score, "reason": r.reason, "thought": thought}
        for r, thought in zip(rows, thoughts, strict=True)
    ]
    return {
        "row": name, "benchmark": benchmark.name, "plan": plan.to_json(), "seconds": round(spent, 1),
        "scores": {key: vars(value) for key, value in scores.items()}, "images": told,
    }  # fmt: skip


def parse():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", action="append", default=[], metavar="NAME=FOLDER")
    parser.add_argument("--rows", type=Path, default=HERE / "tables.yaml")
    parser.add_argument("--only", default="", help="rows, with commas between")
    parser.add_argument("--benchmarks", default="atelier-compbench,atelier-geneval")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--images", type=int)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--matrix-rows", type=int, default=32, help="about twice the batch on a GPU")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--workers", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def main():
    begun, arguments = time.time(), parse()
    pool = multiprocessing.get_context("fork").Pool(arguments.workers)  # before a GPU is touched
    models = {"base": "atelier-janus"} | dict(pair.split("=", 1) for pair in arguments.model)
    wanted = yaml.safe_load(arguments.rows.read_text())
    chosen = arguments.only.split(",") if arguments.only else list(wanted)
    arguments.out.mkdir(parents=True, exist_ok=True)

    import reverie
    from reverie.atelier.inspector import Inspector
    from reverie.benchmarks.eyes import inspector_folder, usual_device
    from reverie.painter import load
    from reverie.reason import make_plan

    inspector = Inspector.load(inspector_folder(None), usual_device())
    painters, unwritten = {}, None
    for name in chosen:
        about = wanted[name]
        if about["model"] not in models:
            continue
        for named in about.get("benchmarks") or arguments.benchmarks.split(","):
            benchmark = benchmark_of(named)
            path = arguments.out / f"{name}.{benchmark.name}.json.gz"
            if path.exists():
                continue
            if (time.time() - begun) / 60 > arguments.minutes:
                print(f"no time for {name} on {benchmark.name}", flush=True)
                continue
            if about["model"] not in painters:
                painters[about["model"]] = load(models[about["model"]], dtype="bfloat16")
                painters[about["model"]].rows = arguments.matrix_rows
            source = painters[about["model"]].source
            painters[about["model"]].source = replace(source, dialogue=about.get("dialogue", source.dialogue))
            plan = make_plan(about.get("preset"), **about.get("plan", {}))
            judging = row(
                name, benchmark, painters[about["model"]], plan, inspector, pool, arguments, about.get("images"),
                told_the_layout if about.get("told") else painted,
            )  # fmt: skip
            painters[about["model"]].source = source
            facts = {"model": models[about["model"]], "version": reverie.__version__, "limit": arguments.limit}
            keep(unwritten)  # the row before was judged while this one was painted
            unwritten = (path, judging, facts)
    keep(unwritten)
    pool.close()


def keep(unwritten):
    """Writes a row's file once all of it is judged, and says how it did."""
    if unwritten is None:
        return
    path, judging, facts = unwritten
    found = judging() | facts
    part = path.with_suffix(".partial")
    part.write_bytes(gzip.compress(json.dumps(found).encode()))
    part.replace(path)
    shown = {key: f"{100 * s['mean']:.1f}" for key, s in found["scores"].items() if s["mean"] is not None}
    print(found["row"], found["benchmark"], found["seconds"], "s", shown, flush=True)


if __name__ == "__main__":
    main()
