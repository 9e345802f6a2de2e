"""The one harness of all benchmarks: paint, judge, keep a row for each image, report; a stopped run goes on.

    scores = evaluate("atelier-geneval", "atelier-janus", "runs/geneval")
    scores = evaluate("atelier-wise", my_painter, "runs/wise", plan)           # any `protocol.Painter`
    scores = evaluate("atelier-geneval", None, "runs/theirs", images="their/images")     # only judge

OUT holds run.json (what is run), model.json (which weights, where the painter tells), images/ (in the layout of the
namesake), rows.jsonl (a line for each image, in blocks of a batch, never rewritten), spent.jsonl (a line for each
batch: seconds and work), and what `report.py` makes of them: scores.json, table.md, gallery.html, gallery.png. Rows
hold no times, so the rows of a run that was stopped and continued are the same as those of one that was not.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..models.registry import entries, resolve
from ..png import open_picture, picture_hash, save_png
from ..reason import make_plan
from . import report, stats
from .protocol import Benchmark, Detector, Painted, Painter, Row, Sample, image_seed
from .registry import load as load_benchmark

if TYPE_CHECKING:
    from PIL.Image import Image

OnRow = Callable[[Row, int, int], None]
"""Called after each row with the row, how many images are done, and how many the run has."""
Item = tuple[Sample, int]


def evaluate(
    name: str,
    model: str | Path | Painter | None,
    out: str | Path,
    plan: Any = None,
    *,
    images_per_prompt: int | None = None,
    batch: int = 64,
    limit: int | None = None,
    seed: int = 0,
    images: str | Path | None = None,
    detector: Detector | str | Path | None = None,
    on_row: OnRow | None = None,
) -> dict[str, Any]:
    """Run a benchmark, or the rest of it, and return what scores.json holds.

    model: a name or folder for `reverie.load`, or any painter; None with `images`, a folder in the benchmark's layout
    whose pictures are judged instead. plan: passed to the painter; for `reverie.load`'s a `Plan`, or the name of a
    preset. limit: only so many prompts, spread evenly over the tasks; such a score is marked incomplete. detector: an
    object with `look`, or the folder of an inspector.
    ValueError, before anything is loaded or written, for an unknown name, numbers below their least, or a folder that
    holds another run.
    """
    for flag, value, least in (("images_per_prompt", images_per_prompt, 1), ("batch", batch, 1), ("limit", limit, 1)):
        if value is not None and value < least:
            raise ValueError(f"{flag}={value}: must be at least {least}.")
    if seed < 0:
        raise ValueError(f"seed={seed}: must not be negative.")
    benchmark = load_benchmark(name)
    model, plan = _checked_source(model, images, plan)
    run = {
        "benchmark": benchmark.name,
        "version": benchmark.version,
        "checksum": benchmark.checksum,
        "model": model if model is None or isinstance(model, str) else model.name,
        "plan": plan.to_json() if hasattr(plan, "to_json") else plan,
        "seed": seed,
        "images": None if images is None else str(images),
        "judge": _judge_name(detector),
    }
    out = Path(out)
    _claim(out / "run.json", run)
    wanted = images_per_prompt or benchmark.images_per_prompt
    chosen = spread(benchmark.samples, limit)
    rows = {(row.id, row.index): row for row in read_rows(out)}
    items = [(sample, index) for sample in chosen for index in range(wanted)]
    todo = [item for item in items if (item[0].id, item[1]) not in rows]
    done = len(items) - len(todo)
    if todo:
        source: _Source = (
            _Folder(Path(images), benchmark)
            if images is not None
            else _Studio(_painter(model), plan, seed, benchmark, out)
        )
        for row in _work(benchmark, source, _load_detector(detector), todo, batch, out):
            rows[row.id, row.index] = row
            done += 1
            if on_row:
                on_row(row, done, len(items))
    kept = [rows[sample.id, index] for sample, index in items if (sample.id, index) in rows]
    complete = len(kept) == len(items) and len(chosen) == len(benchmark.samples)
    asked = {"prompts": len(chosen), "images_per_prompt": wanted, "expected": len(items), "complete": complete}
    return report.write(out, benchmark, run | asked | {"about": _about(out)}, kept, _spent(out))


def _checked_source(
    model: str | Path | Painter | None, images: str | Path | None, plan: Any
) -> tuple[str | Painter | None, Any]:
    """The model and the plan, once it is clear that there is such a model or folder. Loads nothing."""
    if (model is None) == (images is None):
        raise ValueError("Give either a model that paints, or with images= a folder of pictures to judge.")
    if images is not None and not Path(images).is_dir():
        raise ValueError(f"There is no folder {images}: give the one that holds the pictures.")
    if isinstance(plan, str):
        plan = make_plan(plan)
    if isinstance(model, str | Path):
        resolve(model)
        return str(model), plan or make_plan()
    return model, plan


def spread(samples: Sequence[Sample], limit: int | None) -> list[Sample]:
    """At most `limit` samples, at even distances, so that every task keeps its share."""
    if limit is None or limit >= len(samples):
        return list(samples)
    return [samples[i * len(samples) // limit] for i in range(limit)]


# ------------------------------------------------------------------------------------- where images come from


class _Source(Protocol):
    def get(self, items: Sequence[Item]) -> Iterator[tuple[Item, Painted, Path, int | None]]:
        """Of each item that can be had: the item, its image, the file that holds it, and its seed."""


def _painter(model: str | Painter | None) -> Painter:
    assert model is not None
    if not isinstance(model, str):
        return model
    from ..painter import load

    return load(model)


class _Studio:
    """Paints, and files what was painted."""

    def __init__(self, model: Painter, plan: Any, seed: int, benchmark: Benchmark, out: Path) -> None:
        self.painter, self.plan, self.seed = model, plan, seed
        self.benchmark, self.folder = benchmark, out / "images"
        about = getattr(model, "about", None)
        if about:
            # The same name may stand for other weights today; one run must not mix them.
            _claim(out / "model.json", {key: about[key] for key in ("fingerprint", "dtype", "device") if key in about})

    def get(self, items: Sequence[Item]) -> Iterator[tuple[Item, Painted, Path, int | None]]:
        seeds = [image_seed(self.seed, sample.id, index) for sample, index in items]
        prompts, more = [sample.prompt for sample, _ in items], {}
        if self.benchmark.inputs is not None:
            inputs = [self.benchmark.inputs(sample) for sample, _ in items]
            prompts = [one.prompt or prompt for one, prompt in zip(inputs, prompts, strict=True)]
            more["inputs"] = inputs
        painted = self.painter.paint(prompts, seeds, self.plan, **more)
        for item, one, seed in zip(items, painted, seeds, strict=True):
            path = self.folder / self.benchmark.file(*item)
            path.parent.mkdir(parents=True, exist_ok=True)
            extra = self.benchmark.metadata(item[0])
            if extra and not (self.folder / extra[0]).exists():
                report.write_whole(self.folder / extra[0], extra[1])
            save_png(one.image, path)
            yield item, one, path, seed


class _Folder:
    """Takes pictures that lie in the benchmark's layout; those that are missing are left out."""

    def __init__(self, folder: Path, benchmark: Benchmark) -> None:
        self.folder, self.benchmark = folder, benchmark

    def get(self, items: Sequence[Item]) -> Iterator[tuple[Item, Painted, Path, int | None]]:
        for item in items:
            path = self.folder / self.benchmark.file(*item)
            if path.is_file():
                yield item, Painted(open_picture(path)), path, None


def _work(
    benchmark: Benchmark,
    source: _Source,
    detector: Detector,
    todo: Sequence[Item],
    batch: int,
    out: Path,
) -> Iterator[Row]:
    """Batch by batch: get the images, judge them, append their rows, then yield these."""
    for start in range(0, len(todo), batch):
        begun = time.perf_counter()
        got = list(source.get(todo[start : start + batch]))
        painted = time.perf_counter()
        pictures: list[Image] = [one.image.convert("RGB") for _, one, _, _ in got]
        sightings = detector.look(pictures) if pictures else []
        rows = []
        for ((sample, index), one, path, seed), picture, sighting in zip(got, pictures, sightings, strict=True):
            verdict = benchmark.judge(sample, sighting)
            rows.append(
                Row(
                    sample.id, index, sample.tag, sample.cluster, sample.prompt, one.text, one.thought, seed,
                    os.path.relpath(path, out), picture_hash(picture), verdict.correct, verdict.reason, verdict.seen,
                )
            )  # fmt: skip
        work: dict[str, int] = {}
        for _, one, _, _ in got:
            for counter, number in one.work.items():
                work[counter] = work.get(counter, 0) + number
        judged = time.perf_counter()
        spent = {"images": len(rows), "painting": painted - begun, "judging": judged - painted, "work": work}
        _append(out / "rows.jsonl", [row.to_json() for row in rows])
        _append(out / "spent.jsonl", [spent])
        yield from rows


def _judge_name(detector: Detector | str | Path | None) -> str:
    """For an inspector, with the beginning of the SHA-256 of its weights."""
    if detector is not None and not isinstance(detector, str | Path):
        return getattr(detector, "name", type(detector).__name__)
    weights = _inspector_folder(detector) / "inspector.safetensors"
    if not weights.is_file():
        raise ValueError(f"There is no {weights}: give the folder of an inspector, or train one.")
    return f"atelier-inspector {hashlib.sha256(weights.read_bytes()).hexdigest()[:12]}"


def _inspector_folder(detector: str | Path | None) -> Path:
    folder = detector or entries()["atelier-inspector"].folder
    assert folder is not None
    return Path(folder)


def _load_detector(detector: Detector | str | Path | None) -> Detector:
    if detector is not None and not isinstance(detector, str | Path):
        return detector
    import torch

    from ..atelier.inspector import Inspector

    return Inspector.load(_inspector_folder(detector), "cuda" if torch.cuda.is_available() else "cpu")


# --------------------------------------------------------------------------------------------- files of a run


def _claim(file: Path, run: dict[str, Any]) -> None:
    """Write what is run, or check that the file that is there says the same; ValueError if it does not."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            report.write_whole(file, json.dumps(run, indent=1) + "\n")
            return
        there = json.loads(file.read_text("utf-8"))
    except OSError as error:
        said = error.strerror or error
        raise ValueError(f"The folder {file.parent} cannot be used ({said}): give one that is writable.") from error
    for key, value in json.loads(json.dumps(run)).items():
        if there.get(key) != value:
            raise ValueError(
                f"{file.parent} holds a run with {key} {there.get(key)!r}, not {value!r}: give another folder."
            )


def _about(out: Path) -> dict[str, Any]:
    file = out / "model.json"
    return json.loads(file.read_text("utf-8")) if file.exists() else {}


def read_rows(out: str | Path) -> list[Row]:
    """The rows of a run so far. A last line that was cut short is removed from the file, so that more can follow."""
    return [Row(**record) for record in _read(Path(out) / "rows.jsonl")]


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    data = path.read_bytes()
    whole = data.rfind(b"\n") + 1
    if whole < len(data):
        os.truncate(path, whole)
    return [json.loads(line) for line in data[:whole].splitlines()]


def _append(path: Path, records: Sequence[dict[str, Any]]) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))
        file.flush()
        os.fsync(file.fileno())


def _spent(out: Path) -> dict[str, Any]:
    """The sum over all batches, those of earlier starts of the run included."""
    total: dict[str, Any] = {"images": 0, "painting": 0.0, "judging": 0.0, "work": {}}
    for entry in _read(out / "spent.jsonl"):
        for key in ("images", "painting", "judging"):
            total[key] += entry[key]
        for counter, number in entry["work"].items():
            total["work"][counter] = total["work"].get(counter, 0) + number
    return total


@dataclass(frozen=True)
class Scored:
    """One image of a run, painted here or judged elsewhere (`judged.run`), with its score."""

    id: str
    cluster: str
    tag: str
    value: float
    prompt: str


def scored_rows(out: str | Path) -> list[Scored]:
    """The images of a run that have a score."""
    found = []
    for record in _read(Path(out) / "rows.jsonl"):
        value = record["correct"] if "correct" in record else record["score"]
        if value is not None:
            found.append(Scored(record["id"], record["cluster"], record["tag"], float(value), record["prompt"]))
    return found


def compare(first: str | Path, second: str | Path) -> dict[str, stats.Estimate]:
    """By how much the run in `second` is better than that in `first`: overall and per tag, paired by prompt.

    ValueError where the two are not runs of the same list of prompts.
    """
    about = []
    for folder in (first, second):
        file = Path(folder) / "run.json"
        if not file.is_file():
            raise ValueError(
                f"{folder} holds no run of a benchmark (no run.json): give a folder that evaluate or judge wrote."
            )
        about.append(json.loads(file.read_text("utf-8")))
    for key in ("benchmark", "version", "checksum"):
        if about[0][key] != about[1][key]:
            raise ValueError(f"{first} and {second} differ in their {key}: only runs of one list can be compared.")
    before, after = (
        [(row.id, row.cluster, row.tag, row.value) for row in scored_rows(folder)] for folder in (first, second)
    )
    weighting = about[0].get("weighting") or load_benchmark(about[0]["benchmark"]).weighting
    found = {"overall": stats.compare(before, after, weighting)}
    common = {entry[0] for entry in before} & {entry[0] for entry in after}
    for tag in dict.fromkeys(tag for prompt, _, tag, _ in before if prompt in common):
        mine, theirs = ([entry for entry in run if entry[2] == tag] for run in (before, after))
        found[tag] = stats.compare(mine, theirs)
    return found
