"""Where the images of a run come from: a painter at work here, or a folder in the benchmark's official layout."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..files import claim, write_atomically
from ..png import open_picture, picture_hash, save_png
from .prompt_files import find_picture
from .protocol import Benchmark, Judgement, Painted, Painter, Row, Sample, image_seed
from .rows import Key, Picture, Table

if TYPE_CHECKING:
    from PIL.Image import Image

Item = tuple[Sample, int]
MOST_THREADS = 8


@dataclass(frozen=True)
class Case:
    """An image that is there to be judged."""

    sample: Sample
    index: int
    picture: Image
    about: Picture


@dataclass(frozen=True)
class Got:
    """What became of some items: images, and rows of those that a painter refused."""

    cases: Sequence[Case]
    refused: Sequence[Row] = ()


class Source(Protocol):
    def get(self, items: Sequence[Item]) -> Got: ...


def key(item: Item) -> Key:
    return item[0].id, item[1]


def row_of(sample: Sample, index: int, about: Picture | None, judged: Judgement) -> Row:
    """A row from what was painted and what was judged."""
    text, thought, seed, file, digest = (
        (about.text, about.thought, about.seed, about.file, about.sha256) if about else (None,) * 5
    )
    return Row(
        sample.id, index, sample.tag, sample.cluster, sample.prompt, text, thought, seed, file, digest, **vars(judged)
    )


class Easel:
    """Paints samples, and keeps nothing."""

    def __init__(self, painter: Callable[[], Painter], plan: Any, seed: int, benchmark: Benchmark) -> None:
        self._load = painter
        self._painter: Painter | None = None
        self.plan, self.seed, self.benchmark = plan, seed, benchmark

    @property
    def painter(self) -> Painter:
        if self._painter is None:
            self._painter = self._load()
        return self._painter

    def told(self) -> dict[str, Any]:
        """Which weights paint, and how, where the painter says so."""
        about = getattr(self.painter, "about", None) or {}
        return {name: about[name] for name in ("fingerprint", "dtype", "device") if name in about}

    def paint(self, items: Sequence[Item]) -> tuple[list[tuple[Item, Painted]], list[tuple[Item, str]]]:
        """What was painted, and what the painter refused, and why. All at once; where the painter refuses that, one by
        one, so that a single prompt does not end the run."""
        try:
            return list(zip(items, self._ask(items), strict=True)), []
        except ValueError as error:
            if len(items) == 1:
                return [], [(items[0], str(error))]
        each = [self.paint([item]) for item in items]
        return [one for painted, _ in each for one in painted], [one for _, refused in each for one in refused]

    def seed_of(self, item: Item) -> int:
        return image_seed(self.seed, item[0].id, item[1])

    def _ask(self, items: Sequence[Item]) -> Sequence[Painted]:
        prompts, more = [sample.prompt for sample, _ in items], {}
        if self.benchmark.inputs is not None:
            inputs = [self.benchmark.inputs(sample) for sample, _ in items]
            prompts = [one.prompt or prompt for one, prompt in zip(inputs, prompts, strict=True)]
            more["inputs"] = inputs
        paint: Callable[..., Sequence[Painted]] = self.painter.paint
        return paint(prompts, [self.seed_of(item) for item in items], self.plan, **more)


class Studio:
    """Paints, and files what was painted. What lies there from an earlier start is not painted again."""

    def __init__(self, easel: Easel, table: Table) -> None:
        self.easel, self.benchmark, self.table = easel, easel.benchmark, table
        self.folder = table.out / "images"
        self.there = table.painted()

    def get(self, items: Sequence[Item]) -> Got:
        kept = {key(item): case for item in items if (case := self.kept(item)) is not None}
        todo = [item for item in items if key(item) not in kept]
        refused: list[Row] = []
        if todo:
            begun = time.perf_counter()
            self.claim(self.easel.told())
            painted, reasons = self.easel.paint(todo)
            # compressing takes longer than all else here and lets other threads run
            with ThreadPoolExecutor(min(MOST_THREADS, os.cpu_count() or 1)) as pool:
                filed = pool.map(lambda pair: self._file(*pair), painted)
                kept |= {key(item): case for (item, _), case in zip(painted, filed, strict=True)}
            work = added([one.work for _, one in painted])
            fresh = [(item[0], kept[key(item)].about) for item, _ in painted]
            self.filed(fresh, time.perf_counter() - begun, work)
            refused = self.refused(reasons)
        return Got([kept[key(item)] for item in items if key(item) in kept], refused)

    def claim(self, told: Mapping[str, Any]) -> None:
        """The same name may stand for other weights today; one run must not mix them."""
        if told:
            claim(self.table.out / "model.json", told)

    def kept(self, item: Item) -> Case | None:
        about = self.there.get(key(item))
        path = self.table.out / about.file if about else None
        if about is None or path is None or not path.is_file():
            return None
        picture = open_picture(path).convert("RGB")
        return Case(*item, picture, about) if picture_hash(picture) == about.sha256 else None

    def refused(self, reasons: Sequence[tuple[Item, str]]) -> list[Row]:
        """Rows of what the painter refused. If it has not painted anything yet, that is a mistake in the request:
        ValueError."""
        if reasons and not self.there:
            raise ValueError(reasons[0][1])
        missing = self.benchmark.missing
        return [row_of(*item, None, replace(missing, end="not painted", reason=why)) for item, why in reasons]

    def filed(self, made: Sequence[tuple[Sample, Picture]], seconds: float, work: Mapping[str, int]) -> None:
        """Puts images that lie in their places into the table, with what they cost."""
        samples = [sample for sample, _ in made]
        self._describe(samples)
        spent = {"images": len(made), "painting": seconds, "judging": 0.0, "work": work}
        self.table.append(painted=[about for _, about in made], spent=[spent])
        self.there |= {(about.id, about.index): about for _, about in made}
        self._join(samples)

    def _describe(self, samples: Sequence[Sample]) -> None:
        """Write the files that the layout wants beside the images."""
        for sample in {one.id: one for one in samples}.values():
            name, text = self.benchmark.metadata(sample) or ("", "")
            if name and not (self.folder / name).exists():
                write_atomically(self.folder / name, partial(_write_text, text))

    def _file(self, item: Item, one: Painted) -> Case:
        picture = save(one.image, self.path(item))
        return Case(*item, picture, self.about(item, one.text, one.thought, picture_hash(picture)))

    def path(self, item: Item) -> Path:
        return self.folder / self.benchmark.file(*item)

    def about(self, item: Item, text: str | None, thought: str | None, digest: str) -> Picture:
        """The line of an image that lies in its place."""
        place = self.path(item).relative_to(self.table.out).as_posix()
        return Picture(*key(item), text, thought, self.easel.seed_of(item), place, digest)

    def _join(self, samples: Sequence[Sample]) -> None:
        """Put the images of each prompt that has them all into one picture, where the layout wants that."""
        grid = self.benchmark.grid
        if grid is None:
            return
        for sample in {one.id: one for one in samples}.values():
            files = [self.there.get((sample.id, i)) for i in range(self.benchmark.images_per_prompt)]
            if all(files):
                pictures = [open_picture(self.table.out / one.file) for one in files if one]
                save(grid.join(pictures), self.folder / grid.file(sample))


def _write_text(text: str, path: Path) -> None:
    path.write_text(text, "utf-8")


def save(image: Image, path: Path) -> Image:
    """Write a picture under the name that a layout gives it, and return what can be read from there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = image.convert("RGB")
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        save_png(picture, path)
        return picture
    write_atomically(path, lambda part: picture.save(part, "JPEG", quality=95, subsampling=0))
    return open_picture(path).convert("RGB")


def added(counters: Sequence[Mapping[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for one in counters:
        for name, number in one.items():
            total[name] = total.get(name, 0) + number
    return total


class Folder:
    """Takes pictures that lie in the official layout; those that are missing are left out."""

    def __init__(self, folder: Path, benchmark: Benchmark, out: Path) -> None:
        self.folder, self.benchmark, self.out = folder, benchmark, out
        self._read = lru_cache(maxsize=1)(open_picture)  # neighbours may stand in one picture

    def find(self, item: Item) -> Path | None:
        grid = self.benchmark.grid
        return find_picture(self.folder, grid.file(item[0]) if grid else self.benchmark.file(*item))

    def check(self, items: Sequence[Item]) -> None:
        """ValueError where there is not one picture of those that are asked for."""
        if not any(self.find(item) for item in items):
            grid = self.benchmark.grid
            name = grid.file(items[0][0]) if grid else self.benchmark.file(*items[0])
            raise ValueError(
                f"There is no picture of {self.benchmark.name} in {self.folder}, such as {name}: give the folder that "
                "holds them in the benchmark's layout."
            )

    def changed(self, item: Item, row: Row) -> bool:
        """Whether the picture is no longer the one that was judged."""
        path = self.find(item)
        return path is None or picture_hash(self._open(item, path)) != row.sha256

    def get(self, items: Sequence[Item]) -> Got:
        cases = []
        for item in items:
            path = self.find(item)
            if path is not None:
                picture = self._open(item, path)
                place = Path(os.path.relpath(path, self.out)).as_posix()
                cases.append(Case(*item, picture, Picture(*key(item), None, None, None, place, picture_hash(picture))))
        return Got(cases)

    def _open(self, item: Item, path: Path) -> Image:
        picture = self._read(path)
        grid = self.benchmark.grid
        if grid is None:
            return picture.convert("RGB")
        try:
            return grid.cut(picture.convert("RGB"))[item[1]]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
