"""Paths: many images of each prompt, each with a label and all that is needed to see it unfinished or finish it anew.

What verifiers and preferences are learned from (arXiv 2501.13926, sections 2 to 6) begins with the same step: some
dozens of images of a prompt, each found right or wrong. A folder of them serves every kind of data:

    build.json                what was painted by whom: model, prompts, settings, judge
    paths-000012.safetensors  a saved canvas (canvas.py): codes or latents of every step, prompts, seeds
    labels-000012.jsonl       a line for each of its images: right or not, score, reason

Rows are numbered prompt by prompt, and a shard is so many rows in a row. An image depends on the build's seed, its
prompt and its number alone, so a build may be stopped, go on, or be split among machines (`part` of `parts`), and the
labels file, which is written last, says that a shard is whole.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from ..benchmarks.protocol import image_seed
from ..files import claim, write_atomically
from ..judges import View
from ..judges.rules import passes, share

if TYPE_CHECKING:
    from torch import Tensor

    from ..canvas import Canvas
    from ..canvas import Generator as GeneratorOfImages
    from ..judges import Judge
    from .prompts import Prompt

OnShard = Callable[[int, int], None]


@dataclass(frozen=True)
class PathBuild:
    """per_prompt: images of each prompt. batch: images of a shard, painted at once. part, parts: this is share number
    `part` (from 0) of `parts`; all may fill one folder."""

    per_prompt: int = 20
    batch: int = 64
    guidance: float | None = None
    seed: int = 0
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if min(self.per_prompt, self.batch, self.parts) < 1 or not 0 <= self.part < self.parts or self.seed < 0:
            raise ValueError(
                f"per_prompt={self.per_prompt}, batch={self.batch}: at least 1; seed={self.seed}: at least 0; "
                f"part={self.part} of {self.parts}: counted from 0."
            )


@dataclass(frozen=True)
class Label:
    """What a judge said about one image."""

    prompt: str
    number: int
    """Of the image among those of its prompt."""
    seed: int
    right: bool
    score: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Shard:
    """A part of the rows: where they lie, and what they are."""

    number: int
    file: Path
    labels: tuple[Label, ...]

    def canvas(self) -> Canvas:
        """All its images, finished, on the CPU."""
        return open_canvas(self.file)


class Paths:
    """A folder that `build_paths` filled. ValueError where it is none, or not whole."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        about = self.folder / "build.json"
        if not about.is_file():
            raise ValueError(f"{folder} holds no build.json, so no painted paths; give a folder that data build made.")
        self.about: dict[str, Any] = json.loads(about.read_text("utf-8"))

    @property
    def count(self) -> int:
        return math.ceil(self.about["prompts"] * self.about["per_prompt"] / self.about["batch"])

    @property
    def whole(self) -> bool:
        """Whether all shards are there."""
        return all(_files(self.folder, number)[1].is_file() for number in range(self.count))

    def shards(self) -> Iterator[Shard]:
        for number in range(self.count):
            yield self.shard(number)

    def shard(self, number: int) -> Shard:
        file, labels = _files(self.folder, number)
        if not labels.is_file():
            raise ValueError(f"{self.folder} lacks the shard {number} of {self.count}; run its build to the end first.")
        rows = [Label(**json.loads(line)) for line in labels.read_text("utf-8").splitlines()]
        return Shard(number, file, tuple(rows))


def build_paths(
    generator: GeneratorOfImages,
    judge: Judge,
    prompts: Sequence[Prompt],
    folder: str | Path,
    build: PathBuild,
    about: dict[str, Any],
    on_shard: OnShard | None = None,
) -> Paths:
    """Paints and labels what is missing of this part. `about`: of the model and the prompts, kept in build.json; a
    folder that says something else there is refused."""
    folder = Path(folder)
    settings = {name: value for name, value in asdict(build).items() if name not in ("part", "parts")}
    claim(folder / "build.json", {**about, **settings, "prompts": len(prompts), "judge": judge.name})
    paths = Paths(folder)
    mine = range(build.part, paths.count, build.parts)
    for done, number in enumerate(mine, 1):
        if not _files(folder, number)[1].is_file():
            _paint(generator, judge, prompts, folder, build, number)
        if on_shard is not None:
            on_shard(done, len(mine))
    return paths


def _paint(
    generator: GeneratorOfImages, judge: Judge, prompts: Sequence[Prompt], folder: Path, build: PathBuild, number: int
) -> None:
    from ..canvas import Conditions
    from ..choose import painted, without_cache

    rows = range(number * build.batch, min((number + 1) * build.batch, len(prompts) * build.per_prompt))
    places = [divmod(row, build.per_prompt) for row in rows]
    texts = tuple(prompts[which].text for which, _ in places)
    seeds = [image_seed(build.seed, text, copy) for text, (_, copy) in zip(texts, places, strict=True)]
    canvas = generator.advance(generator.start(Conditions(texts, build.guidance), seeds))
    answers = judge.ask("orm", [View(t, p) for t, p in zip(texts, painted(generator, canvas), strict=True)])
    labels = []
    for text, seed, (_, copy), answer in zip(texts, seeds, places, answers, strict=True):
        score = share(answer)
        labels.append(
            Label(text, copy, seed, passes(answer), None if math.isnan(score) else score, answer.reason or "")
        )
    file, said = _files(folder, number)
    without_cache(canvas).save(file)
    text = "".join(json.dumps(asdict(label), ensure_ascii=False) + "\n" for label in labels)
    write_atomically(said, lambda part: part.write_text(text, "utf-8"))


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"paths-{number:06}.safetensors", folder / f"labels-{number:06}.jsonl"


def open_canvas(path: Path) -> Canvas:
    """A saved canvas of whatever kind."""
    from ..canvas import Canvas

    try:
        with safe_open(path, framework="pt") as file:
            kind = json.loads((file.metadata() or {}).get("canvas", "{}")).get("format", "")
    except (SafetensorError, FileNotFoundError) as error:
        raise ValueError(f"{path} is missing or damaged; remove its labels file, and build again.") from error
    if "flow" in kind:
        from ..generators.flow_canvas import FlowCanvas

        return FlowCanvas.load(path)
    return Canvas.load(path)


def codes_of(generator: GeneratorOfImages, canvas: Canvas) -> Tensor:
    """(N, L) codes of finished images. ValueError for painters without codes."""
    own = getattr(generator, "codes", None)
    codes = own(canvas) if own is not None else canvas.tokens
    if not codes.numel():
        raise ValueError("This painter's images are no codes, and only codes are learned from in pairs.")
    return codes.cpu()
