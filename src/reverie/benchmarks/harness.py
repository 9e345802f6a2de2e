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
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import claim, read_object
from ..models.registry import resolve
from ..reason import make_plan
from . import report
from .eyes import Eyes, open_eyes
from .protocol import Benchmark, Painter, Row, Sample
from .registry import Options
from .registry import load as load_benchmark
from .rows import Shard, Table, read_rows
from .sources import Case, Easel, Folder, Item, Source, Studio, key, row_of

if TYPE_CHECKING:
    from ..cluster.pool import Cluster

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
    dtype: str | None = None,
    cache: str | Path | None = None,
    on: Cluster | None = None,
    on_row: OnRow | None = None,
) -> dict[str, Any]:
    """Run a benchmark, or the rest of it, and return what scores.json holds.

    name: of a benchmark in `registry.py`, or a `protocol.Benchmark` of your own.
    model: a name or folder for `reverie.load`, or any painter; None with `images`, a folder in the official layout
    whose pictures are judged instead. plan: passed to the painter; for `reverie.load`'s a `Plan`, or the name of a
    preset. data: the folder of the benchmark's own files. limit: only so many prompts, spread evenly over the tasks;
    such a score is marked incomplete. judge, evaluators: see `eyes.open_eyes`; workers: questions at a time to a
    server; cache: of a judge's answers (None: in OUT). device: of whatever is loaded here; dtype: of the painter.
    official: repeat the bugs of the benchmark's own code. shard: "2/4", the second of four processes that share a run.
    on: paint and judge in actors of Ray, or judge here if the judge is a server; the rows are those of a run without.
    ValueError, before anything is loaded or written, for an unknown name, numbers below their least, files that are
    missing or damaged, or a folder that holds another run.
    """
    _check_numbers(seed, images_per_prompt=images_per_prompt, batch=batch, limit=limit, workers=workers)
    part = Shard.of(shard)
    model, plan = _checked_source(model, images, plan)
    benchmark, said = _load(name, Options(None if data is None else Path(data), images_per_prompt, official))
    look = partial(open_eyes, benchmark, judge, evaluators, device, workers, cache or Path(out) / "answers")
    eyes = look()
    table = Table(Path(out), part)
    folder = None if images is None else Folder(Path(images), benchmark, table.out)
    run = Run(benchmark, eyes, table, folder, spread(benchmark.samples, limit), images_per_prompt)
    about = _about(benchmark, model, plan, images, eyes, seed)
    claim(table.out / "run.json", about)
    with table.open():
        studio = Studio(Easel(_loader(model, device, dtype), plan, seed, benchmark), table)
        if on is None:
            run.go(partial(run.work, folder or studio), batch, on_row)
        else:
            from ..cluster.evaluation import judged, rows

            work = partial(judged, run, folder, on, look) if folder else partial(rows, run, studio, on, look)
            run.go(work, batch, on_row)
    with table.turn():
        return run.report(about | {"limit": limit}, said)


def _check_numbers(seed: int, **numbers: int | None) -> None:
    for flag, value in numbers.items():
        if value is not None and value < 1:
            raise ValueError(f"{flag}={value}: must be at least 1.")
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative.")


def _load(name: str | Benchmark, options: Options) -> tuple[Benchmark, list[str]]:
    """The benchmark, and what has to be said about its files: that they are of another version than is known."""
    if isinstance(name, Benchmark):
        return name, []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = load_benchmark(name, options)
    return found, [str(one.message) for one in said]


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
        "last_image": benchmark.file(benchmark.samples[-1], 0),  # some layouts number images through
    }


def _loader(model: str | Painter | None, device: str | None, dtype: str | None) -> Callable[[], Painter]:
    def load() -> Painter:
        assert model is not None
        if not isinstance(model, str):
            return model
        from ..painter import load

        return load(model, device, dtype)

    return load


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, at even distances, so that every task keeps its share."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // limit] for i in range(limit)]


class Run:
    """A run that is opened: what is asked of it, and where its rows go."""

    def __init__(
        self,
        benchmark: Benchmark,
        eyes: Eyes,
        table: Table,
        folder: Folder | None,
        samples: Sequence[Sample],
        images: int | None,
    ) -> None:
        self.benchmark, self.eyes, self.table, self.folder, self.samples = benchmark, eyes, table, folder, samples
        self.images = images or benchmark.images_per_prompt
        first = samples[0]
        if self.images > 1 and benchmark.file(first, 0) == benchmark.file(first, 1):
            raise ValueError(f"The layout of {benchmark.name} holds one image of each prompt, not {self.images}.")
        if benchmark.grid and self.images != benchmark.images_per_prompt:
            raise ValueError(
                f"{benchmark.name} joins {benchmark.images_per_prompt} images of each prompt, not {self.images}."
            )
        if folder is not None:
            folder.check([(sample, 0) for sample in samples])

    def items(self, samples: Sequence[Sample]) -> list[Item]:
        return [(sample, index) for sample in samples for index in range(self.images)]

    def todo(self, items: Sequence[Item]) -> list[Item]:
        """What has no judgement yet: no row, one on which the judge failed, or one about another picture than lies
        there now. Pictures that are not there are not asked for."""
        rows, todo = self.table.rows(), []
        for item in items:
            row = rows.get(key(item))
            if self.folder is not None and self.folder.find(item) is None:
                continue
            again = row is None or row.end == "judge error"
            if again or (self.folder is not None and row is not None and self.folder.changed(item, row)):
                todo.append(item)
        return todo

    def go(self, work: Callable[[Sequence[Sequence[Item]]], Iterator[Row]], batch: int, on_row: OnRow | None) -> None:
        """Do what is left of this shard; `work` makes rows of batches."""
        items = self.items(self.table.shard.part(self.samples))
        todo = self.todo(items)
        done = len(items) - len(todo)
        if todo:
            self.eyes.check()
        for row in work([todo[start : start + batch] for start in range(0, len(todo), batch)]):
            done += 1
            if on_row:
                on_row(row, done, len(items))

    def work(self, source: Source, batches: Sequence[Sequence[Item]]) -> Iterator[Row]:
        """Batch by batch: get the images, judge them, append their rows, then yield these. A judge that waits for
        others has the batch before while this one is painted."""
        if not self.eyes.waits:
            for batch in batches:
                got = source.get(batch)
                yield from self.judged(got.cases)
                yield from self.filed(got.refused)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = None
            for batch in batches:
                got = source.get(batch)
                if ahead is not None:
                    yield from ahead.result()
                yield from self.filed(got.refused)
                ahead = pool.submit(self.judged, got.cases)
            if ahead is not None:
                yield from ahead.result()

    def judged(self, cases: Sequence[Case]) -> Sequence[Row]:
        if not cases:
            return []
        begun = time.perf_counter()
        verdicts = self.eyes.judge(self.benchmark, cases)
        rows = [row_of(one.sample, one.index, one.about, said) for one, said in zip(cases, verdicts, strict=True)]
        return self.filed(rows, time.perf_counter() - begun)

    def filed(self, rows: Sequence[Row], seconds: float = 0.0) -> Sequence[Row]:
        spent = {"images": 0, "painting": 0.0, "judging": seconds, "work": {}}
        self.table.append(rows=rows, spent=[spent] if seconds else [])
        return rows

    def report(self, about: Mapping[str, Any], notes: Sequence[str]) -> dict[str, Any]:
        """Of all shards so far; an image that is not in the folder counts as the benchmark says."""
        rows, kept = self.table.rows(), []
        items = self.items(self.samples)
        for item in items:
            row = rows.get(key(item))
            if self.folder is not None and self.folder.find(item) is None:
                row = row_of(*item, None, self.benchmark.missing)
            if row is not None:
                kept.append(row)
        model = self.table.out / "model.json"
        told = {
            "prompts": len(self.samples),
            "images_per_prompt": self.images,
            "expected": len(items),
            "limited": len(self.samples) < len(self.benchmark.samples),
            "about": read_object(model) if model.exists() else {},
        }
        spent = self.table.spent()
        return report.write(self.table.out, self.benchmark, {**about, **told}, kept, spent, [*notes, *self.eyes.notes])
