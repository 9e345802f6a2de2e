"""A benchmark on a cluster: actors paint and judge, this process alone writes files and rows.

An actor gets a batch and hands back files as they will lie on disk, with judgements. What it made is a function of the
batch, so rows and pictures are those of a run without a cluster, whoever was lost on the way. A judge behind a server
is asked from here, where its cache and its budget are. Of pictures that were made elsewhere actors judge alone; these
must lie where all machines see them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from ..benchmarks.protocol import Benchmark, Judgement, Row
from ..benchmarks.rows import Picture
from ..benchmarks.sources import Case, Easel, Folder, Item, Studio, added, key, row_of, save
from ..files import write_atomically
from ..png import open_picture, picture_hash
from .pool import Cluster, Pool

if TYPE_CHECKING:
    from ..benchmarks.eyes import Eyes
    from ..benchmarks.harness import Run


@dataclass(frozen=True)
class File:
    """A painted image as it will lie on disk."""

    item: Item
    data: bytes
    digest: str
    text: str | None
    thought: str | None


@dataclass(frozen=True)
class Made:
    """What an actor made of a batch. judged: for each file; None where that is done elsewhere."""

    files: Sequence[File]
    refused: Sequence[tuple[Item, str]]
    judged: Sequence[Judgement] | None
    told: Mapping[str, Any]
    work: Mapping[str, int]
    painting: float
    judging: float


@dataclass(frozen=True)
class Maker:
    """Makes what an actor does: painter and judge are loaded there."""

    easel: Easel
    look: Callable[[], Eyes] | None

    def __call__(self) -> Callable[[Sequence[Item]], Made]:
        eyes = self.look() if self.look else None
        told = self.easel.told()

        def make(items: Sequence[Item]) -> Made:
            begun = time.perf_counter()
            painted, refused = self.easel.paint(items)
            files, cases = [], []
            with TemporaryDirectory() as folder:
                for item, one in painted:
                    path = Path(folder) / f"picture{Path(self.easel.benchmark.file(*item)).suffix}"
                    picture = save(one.image, path)
                    files.append(File(item, path.read_bytes(), picture_hash(picture), one.text, one.thought))
                    about = Picture(*key(item), one.text, one.thought, None, "", files[-1].digest)
                    cases.append(Case(*item, picture, about))
            middle = time.perf_counter()
            judged = eyes.judge(self.easel.benchmark, cases) if eyes and cases else None if eyes is None else []
            work = added([one.work for _, one in painted])
            return Made(files, refused, judged, told, work, middle - begun, time.perf_counter() - middle)

        return make


@dataclass(frozen=True)
class Looker:
    """Makes what an actor does that only judges: pictures are read where they lie."""

    benchmark: Benchmark
    folder: Path
    out: Path
    look: Callable[[], Eyes]

    def __call__(self) -> Callable[[Sequence[Item]], tuple[list[Row], float]]:
        source, eyes = Folder(self.folder, self.benchmark, self.out), self.look()

        def judge(items: Sequence[Item]) -> tuple[list[Row], float]:
            begun, cases = time.perf_counter(), source.get(items).cases
            said = eyes.judge(self.benchmark, cases) if cases else []
            found = [row_of(one.sample, one.index, one.about, judged) for one, judged in zip(cases, said, strict=True)]
            return found, time.perf_counter() - begun

        return judge


def judged(
    run: Run, folder: Folder, cluster: Cluster, look: Callable[[], Eyes], batches: Sequence[Sequence[Item]]
) -> Iterator[Row]:
    """The rows of pictures that were made elsewhere, as they are done. A judge behind a server is asked from here."""
    if run.eyes.waits:
        yield from run.work(folder, batches)
        return
    with Pool(cluster, Looker(run.benchmark, folder.folder.resolve(), folder.out.resolve(), look)) as pool:
        for _, (found, seconds) in pool.each(batches):
            yield from run.filed(found, seconds)


def rows(
    run: Run, studio: Studio, cluster: Cluster, look: Callable[[], Eyes], batches: Sequence[Sequence[Item]]
) -> Iterator[Row]:
    """The rows of all batches, each once it is on disk, in the order in which they are done."""
    fresh: list[list[Item]] = []
    for batch in batches:
        kept = [item for item in batch if studio.kept(item) is not None]
        if kept:  # painted at an earlier start, and not judged
            yield from run.judged(studio.get(kept).cases)
        there = {key(item) for item in kept}
        fresh.append([item for item in batch if key(item) not in there])
    fresh = [batch for batch in fresh if batch]
    if not fresh:
        return
    here = run.eyes.waits
    with Pool(cluster, Maker(studio.easel, None if here else look)) as pool:
        for _, made in pool.each(fresh):
            studio.claim(made.told)
            abouts = [_filed(studio, file) for file in made.files]
            samples = [file.item[0] for file in made.files]
            studio.filed(list(zip(samples, abouts, strict=True)), made.painting, made.work)
            if made.judged is None:
                pictures = [open_picture(studio.path(file.item)).convert("RGB") for file in made.files]
                cases = [Case(f.item[0], f.item[1], p, a) for f, p, a in zip(made.files, pictures, abouts, strict=True)]
                yield from run.judged(cases)
            else:
                found = zip(made.files, abouts, made.judged, strict=True)
                yield from run.filed(
                    [row_of(f.item[0], f.item[1], about, said) for f, about, said in found], made.judging
                )
            yield from run.filed(studio.refused(made.refused))


def _filed(studio: Studio, file: File) -> Picture:
    write_atomically(studio.path(file.item), lambda part: part.write_bytes(file.data))
    return studio.about(file.item, file.text, file.thought, file.digest)
