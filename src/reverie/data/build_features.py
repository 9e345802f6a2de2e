"""Building features: a VLM describes pictures, and its answers are kept with the features that wrote them.

After ThinkDiff (arXiv 2502.10458): each picture meets one of 16 requests, eleven for a short description and five for a
prompt that would draw the picture again; the answer is sampled. No human caption is used. Request and draws depend on
the picture's key and the seed alone, so a build that was stopped, or split among machines, gives the same answers.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

from PIL import Image, UnidentifiedImageError

from ..vlms import IMAGE, Message
from .features import KINDS, FeatureKind, FeatureWriter, Sample

if TYPE_CHECKING:
    from ..vlms.states import FeatureStates
    from ..vlms.transformers import TransformersVLM

PICTURES = (".jpg", ".jpeg", ".png", ".webp")
REQUESTS = (
    "Describe this picture in a few words.",
    "Say briefly what can be seen here.",
    "Give a concise description of the image.",
    "Sum up this picture in one sentence.",
    "What does the image show? Answer in short.",
    "Write a compact caption for this photograph.",
    "Tell me in plain, short words what is in the picture.",
    "Provide a succinct summary of the visible content.",
    "Put the scene into one clear sentence.",
    "Describe what matters most in this image, and keep it terse.",
    "Name the main things in the picture in a short and clear description.",
    "Write the prompt with which a text-to-image model would paint this picture.",
    "Which prompt for a diffusion model describes exactly this image?",
    "Turn this picture into a detailed prompt for an image generator.",
    "Compose a text-to-image prompt that brings back subject, setting, light and style of this picture.",
    "If a diffusion model had to make this image again, what should its prompt say?",
)


@dataclass(frozen=True)
class Item:
    """A picture to be described, or several that are asked about, and the request if it brings one of its own."""

    key: str
    paths: tuple[Path, ...]
    request: str = ""


@dataclass
class FeatureBuild:
    """How answers are written. limit: of an answer, in tokens. batch: conversations at a time. part, parts: this is
    share number `part` (from 0) of `parts`, each of which fills a folder of its own."""

    kind: str = "generated"
    limit: int = 256
    temperature: float = 0.6
    top_p: float = 0.9
    batch: int = 16
    shard: int = 1024
    dtype: str = "bfloat16"
    seed: int = 0
    part: int = 0
    parts: int = 1

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r}: must be one of {', '.join(KINDS)}.")
        if self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError(f"temperature={self.temperature}: at least 0; top_p={self.top_p}: above 0 and up to 1.")
        if min(self.limit, self.batch, self.shard, self.parts) < 1 or not 0 <= self.part < self.parts:
            raise ValueError(
                f"limit={self.limit}, batch={self.batch}, shard={self.shard}: at least 1; part={self.part} of "
                f"{self.parts}: counted from 0."
            )


def read_items(*sources: str | Path) -> list[Item]:
    """The pictures of folders, in the order of their names, or the lines of JSONL files: image (path relative to the
    file), and optionally key and request; or key, images and a request that marks the place of each as `<image>`.
    ValueError names the first line that cannot be used."""
    items = [item for source in sources for item in _items(Path(source))]
    told = ", ".join(map(str, sources))
    if not items:
        raise ValueError(f"{told} holds no pictures ({', '.join(PICTURES)}).")
    seen: set[str] = set()
    for item in items:
        if item.key in seen:
            raise ValueError(f"{told} has the key {item.key} twice; give every picture a key of its own.")
        seen.add(item.key)
    return items


def _items(source: Path) -> list[Item]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.suffix.lower() in PICTURES)
        return [Item(path.relative_to(source).as_posix(), (path,)) for path in paths]
    if not source.is_file():
        raise ValueError(f"There are no pictures at {source}; give a folder of pictures or a JSONL file.")
    return [_item(source, number, line) for number, line in enumerate(source.read_text("utf-8").splitlines(), 1)]


def _item(source: Path, number: int, line: str) -> Item:
    try:
        row = json.loads(line)
        images, request = row.get("images") or [row["image"]], row.get("request", "")
        key, paths = str(row.get("key") or row["image"]), tuple(source.parent / image for image in images)
    except (json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{source}, line {number}: needs {{'image': ...}}, and may have key and request; or key, images, request."
        ) from error
    if request.count(IMAGE) != len(paths) and (request.count(IMAGE) or len(paths) > 1):
        raise ValueError(f"{source}, line {number}: the request must mark {len(paths)} times, with {IMAGE}, a picture.")
    return Item(key, paths, request)


class Described(Protocol):
    """What the record of a build says of a VLM."""

    @property
    def width(self) -> int: ...

    @property
    def states(self) -> FeatureStates: ...

    @property
    def tokenizer(self) -> Any: ...


@dataclass(frozen=True)
class Answered:
    """What a VLM said about some pictures, in their order; and the keys of those that could not be opened."""

    samples: Sequence[Sample]
    broken: Sequence[str]


Answerer = Callable[[Sequence[Sequence[Item]]], Iterable[Answered]]
"""Answers batches in their order, wherever that is done."""


def build_features(
    vlm: Described,
    name: str,
    items: Sequence[Item],
    folder: str | Path,
    build: FeatureBuild,
    on_batch: Callable[[int, int], None] | None = None,
    answers: Answerer | None = None,
) -> list[str]:
    """Fills `folder` with the features of these pictures; goes on where it was stopped.

    name: what the VLM is called in the index. The VLM's tokenizer is kept in `folder/tokenizer`, for training.
    on_batch(done, all) is told after each batch. answers: who answers in place of `vlm`, of which then only width,
    states and tokenizer count. Returns the keys of pictures that could not be opened.
    """
    items = items[build.part :: build.parts]
    writer = FeatureWriter(folder, FeatureKind(build.kind, vlm.width, name, build.dtype, vlm.states), build.shard)
    if not (Path(folder) / "tokenizer").is_dir():
        vlm.tokenizer.save_pretrained(Path(folder) / "tokenizer")
    broken: list[str] = []
    todo = [item for item in items if item.key not in writer.done]
    batches = [todo[first : first + build.batch] for first in range(0, len(todo), build.batch)]
    done = len(items) - len(todo)
    with writer:
        found = answers(batches) if answers else (answered(cast("TransformersVLM", vlm), one, build) for one in batches)
        for batch, said in zip(batches, found, strict=True):
            broken += said.broken
            for sample in said.samples:
                writer.add(sample)
            done += len(batch)
            if on_batch is not None:
                on_batch(done, len(items))
    return broken


def answered(vlm: TransformersVLM, items: Sequence[Item], build: FeatureBuild) -> Answered:
    """What the VLM says about these pictures."""
    broken: list[str] = []
    return Answered(list(_samples(vlm, list(_open(items, broken)), build)), broken)


def _open(items: Sequence[Item], broken: list[str]) -> Iterator[tuple[Item, tuple[Image.Image, ...]]]:
    for item in items:
        try:
            yield item, tuple(map(_picture, item.paths))
        except (UnidentifiedImageError, OSError):  # one of a million pictures: left out, and told at the end
            broken.append(item.key)


def _picture(path: Path) -> Image.Image:
    with Image.open(path) as picture:
        return picture.convert("RGB")


def _samples(
    vlm: TransformersVLM, opened: Sequence[tuple[Item, tuple[Image.Image, ...]]], build: FeatureBuild
) -> Iterator[Sample]:
    requests = [item.request or request_of(item.key, build.seed) for item, _ in opened]
    talks = [[Message("user", text, pictures)] for text, (_, pictures) in zip(requests, opened, strict=True)]
    seeds = [seed_of(item.key, build.seed) for item, _ in opened]
    answers = vlm.answers(talks, build.limit, build.temperature, seeds, top_p=build.top_p, min_new_tokens=1)
    features = [answer.features for answer in answers]
    if build.kind == "input":
        features = vlm.features_batch(talks) if talks else []
    for (item, _), request, answer, kept in zip(opened, requests, answers, features, strict=True):
        yield Sample(item.key, kept, answer.ids, answer.text, request)


def seed_of(key: str, seed: int) -> int:
    """63 bits that depend on the picture's key and the build's seed."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{key}".encode()).digest()[:8], "big") >> 1


def request_of(key: str, seed: int) -> str:
    return random.Random(f"{seed}/{key}").choice(REQUESTS)
