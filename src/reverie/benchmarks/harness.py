"""The one harness of all benchmarks: paint, judge, keep a row for each image, report; a stopped run goes on.

    scores = evaluate("atelier-geneval", "atelier-janus", "runs/geneval")
    scores = evaluate("atelier-wise", my_painter, "runs/wise", plan)               # any `protocol.Painter`
    scores = evaluate("wise", "Qwen/Qwen-Image", "runs/w", data="WISE", judge="openai:gpt-4o@https://...")
    scores = evaluate("geneval", None, "runs/theirs", data="geneval", images="their/images")         # only judge

OUT holds the table of the run (`rows.py`), images/ in the official layout, model.json (which weights, where the painter
tells), and what `report.py` makes of the rows: scores.json, table.md, report.html. Several processes may share a run,
each with a shard of its own; whoever finishes last writes the report of all.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..files import claim, read_object
from ..models.registry import resolve
from ..reason import make_plan
from . import report
from .eyes import Eyes, open_eyes
from .protocol import Benchmark, Judgement, Painter, Row, Sample
from .registry import Options
from .registry import load as load_benchmark
from .rows import Key, Shard, Table, read_rows
from .sources import Case, Folder, Item, Source, Studio, key, row_of

__all__ = ["evaluate", "load_benchmark", "read_rows", "spread"]
OnRow = Callable[[Row, int, int], None]
"""Called after each row with the row, how many images are done, and how many there are."""


def evaluate(
    name: str | Benchmark,
    model: str | Path | Painter | None,
    out: str | Path,
    plan: Any = None,
    *,
    data: str | Path | None = None,
    images: str | Path | None = None,
    images_per_prompt: int | None = None,
    batch: int = 64,
    limit: int | None = None,
    seed: int = 0,
    judge: Any = None,
    evaluators: Mapping[str, str | Path] | None = None,
    official: bool = False,
    shard: str | None = None,
    workers: int = 8,
    device: str | None = None,
    cache: str | Path | None = None,
    on_row: OnRow | None = None,
) -> dict[str, Any]:
    """Run a benchmark, or the rest of it, and return what scores.json holds.

    name: of a benchmark in `registry.py`, or a `protocol.Benchmark` of your own.
    model: a name or folder for `reverie.load`, or any painter; None with `images`, a folder in the official layout
    whose pictures are judged instead. plan: passed to the painter; for `reverie.load`'s a `Plan`, or the name of a
    preset. data: the folder of the benchmark's own files. limit: only so many prompts, spread evenly over the tasks;
    such a score is marked incomplete. judge, evaluators: see `eyes.open_eyes`; workers: questions at a time to a
    server; device: of judges that are loaded here; cache: of their answers (None: in OUT). official: repeat the bugs of
    the benchmark's own code. shard: "2/4", the second of four processes that share the run.
    ValueError, before anything is loaded or written, for an unknown name, numbers below their least, files that are
    missing or damaged, or a folder that holds another run.
    """
    numbers = {"images_per_prompt": images_per_prompt, "batch": batch, "limit": limit, "workers": workers}
    for flag, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag}={value}: must be at least 1.")
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative.")
    part = Shard.of(shard)
    model, plan = _checked_source(model, images, plan)
    options = Options(None if data is None else Path(data), images_per_prompt, official)
    with warnings.catch_warnings(record=True) as said:  # files of another version: the report has to say so
        warnings.simplefilter("always")
        benchmark = name if isinstance(name, Benchmark) else load_benchmark(name, options)
    eyes = open_eyes(benchmark, judge, evaluators, device, workers, cache or Path(out) / "answers")
    wanted = images_per_prompt or benchmark.images_per_prompt
    _check_layout(benchmark, wanted)
    chosen = spread(benchmark.samples, limit)
    run = _about(benchmark, model, plan, images, eyes, seed)
    table = Table(Path(out), part)
    folder = None if images is None else Folder(Path(images), benchmark, table.out)
    if folder is not None:
        folder.check([(sample, 0) for sample in chosen])
    claim(table.out / "run.json", run)
    with table.open():
        items = [(sample, index) for sample in part.part(chosen) for index in range(wanted)]
        todo = _todo(items, table.rows(), folder)
        done = len(items) - len(todo)
        if todo:
            eyes.check()
        source: Source = folder or Studio(_loader(model), plan, seed, benchmark, table)
        for row in _work(benchmark, source, eyes, todo, batch, table):
            done += 1
            if on_row:
                on_row(row, done, len(items))
    asked = {"prompts": len(chosen), "images_per_prompt": wanted, "limit": limit}
    notes = [*(str(one.message) for one in said), *eyes.notes]
    return _report(benchmark, table, run | asked, chosen, folder, notes)


def _checked_source(
    model: str | Path | Painter | None, images: str | Path | None, plan: Any
) -> tuple[str | Painter | None, Any]:
    """The model and the plan, once it is clear that there is such a model or folder. Loads nothing."""
    if (model is None) == (images is None):
        raise ValueError("Give either a model that paints, or with images a folder of pictures to judge.")
    if images is not None and not Path(images).is_dir():
        raise ValueError(f"There is no folder {images}: give the one that holds the pictures.")
    if isinstance(plan, str):
        plan = make_plan(plan)
    if isinstance(model, str | Path):
        resolve(model)
        return str(model), plan or make_plan()
    return model, plan


def _check_layout(benchmark: Benchmark, wanted: int) -> None:
    first = benchmark.samples[0]
    if wanted > 1 and benchmark.file(first, 0) == benchmark.file(first, 1):
        raise ValueError(f"The layout of {benchmark.name} holds one image of each prompt, not {wanted}.")
    if benchmark.grid and wanted != benchmark.images_per_prompt:
        raise ValueError(f"{benchmark.name} joins {benchmark.images_per_prompt} images of each prompt, not {wanted}.")


def _about(
    benchmark: Benchmark, model: str | Painter | None, plan: Any, images: Any, eyes: Eyes, seed: int
) -> dict[str, Any]:
    """What a run depends on; a folder is never used for two that differ in it."""
    return {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "checksum": benchmark.checksum,
        "model": model if model is None or isinstance(model, str) else model.name,
        "plan": plan.to_json() if hasattr(plan, "to_json") else plan,
        "seed": seed,
        "images": None if images is None else str(images),
        "judge": eyes.name,
        "official": benchmark.official,
        "weighting": benchmark.weighting,
    }


def _loader(model: str | Painter | None) -> Callable[[], Painter]:
    def load() -> Painter:
        assert model is not None
        if not isinstance(model, str):
            return model
        from ..painter import load

        return load(model)

    return load


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, at even distances, so that every task keeps its share."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // limit] for i in range(limit)]


def _todo(items: Sequence[Item], rows: Mapping[Key, Row], folder: Folder | None) -> list[Item]:
    """What has no judgement yet: no row, one on which the judge failed, or one about another picture than lies there
    now. Pictures that are not there are not asked for."""
    todo = []
    for item in items:
        row = rows.get(key(item))
        if folder is not None and folder.find(item) is None:
            continue
        if row is None or row.end == "judge error" or (folder is not None and folder.changed(item, row)):
            todo.append(item)
    return todo


def _work(
    benchmark: Benchmark, source: Source, eyes: Eyes, todo: Sequence[Item], batch: int, table: Table
) -> Iterator[Row]:
    """Batch by batch: get the images, judge them, append their rows, then yield these. A judge that waits for others
    has the batch before while this one is painted."""
    if not eyes.waits:
        for start in range(0, len(todo), batch):
            got = source.get(todo[start : start + batch])
            rows, seconds = _judge(benchmark, eyes, got.cases)
            yield from _file(table, [*rows, *got.refused], seconds)
        return
    with ThreadPoolExecutor(1) as pool:
        ahead = None
        for start in range(0, len(todo), batch):
            got = source.get(todo[start : start + batch])
            if ahead is not None:
                yield from _file(table, *ahead.result())
            yield from _file(table, got.refused, 0.0)
            ahead = pool.submit(_judge, benchmark, eyes, got.cases)
        if ahead is not None:
            yield from _file(table, *ahead.result())


def _judge(benchmark: Benchmark, eyes: Eyes, cases: Sequence[Case]) -> tuple[list[Row], float]:
    begun = time.perf_counter()
    verdicts: Sequence[Judgement] = eyes.judge(benchmark, cases) if cases else []
    rows = [row_of(case.sample, case.index, case.about, verdict) for case, verdict in zip(cases, verdicts, strict=True)]
    return rows, time.perf_counter() - begun


def _file(table: Table, rows: Sequence[Row], seconds: float) -> Iterator[Row]:
    spent = {"images": 0, "painting": 0.0, "judging": seconds, "work": {}}
    table.append(rows=rows, spent=[spent] if seconds else [])
    yield from rows


def _report(
    benchmark: Benchmark,
    table: Table,
    run: Mapping[str, Any],
    chosen: Sequence[Sample],
    folder: Folder | None,
    notes: Sequence[str],
) -> dict[str, Any]:
    """The report of all shards so far; an image that is not in the folder counts as the benchmark says."""
    rows, kept = table.rows(), []
    wanted = run["images_per_prompt"]
    for sample in chosen:
        for index in range(wanted):
            row = rows.get((sample.id, index))
            if folder is not None and folder.find((sample, index)) is None:
                row = row_of(sample, index, None, benchmark.missing)
            if row is not None:
                kept.append(row)
    told = {"expected": len(chosen) * wanted, "limited": len(chosen) < len(benchmark.samples)}
    model = table.out / "model.json"
    about = read_object(model) if model.exists() else {}
    return report.write(table.out, benchmark, {**run, **told, "about": about}, kept, table.spent(), notes)
