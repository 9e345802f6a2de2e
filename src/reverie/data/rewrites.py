"""Rewrites: a prompt, the reasoning about it, and the prompt that it arrives at. What thinking before painting learns
from (Think-then-Generate, arXiv 2601.10332, section on supervised fine-tuning; the authors released no data).

One JSON object a line, in a `.jsonl` file, or in the `rewrites-*.jsonl` of a folder:

    {"id": "000012", "prompt": "the animal that gives us wool", "cot": "Wool is shorn from sheep, so it is a sheep.",
     "refined_prompt": "a sheep", "source": "atelier"}

`image`, beside these, names the picture that an edit is about, relative to the file. `demand`, `before` and `after` are
what the Atelier knows of the right picture; training ignores them. A folder that `reverie data build rewrites` filled
also holds `build.json`, which says how.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..files import write_atomically
from ..thinkers import WORDINGS
from .shards import OnShard, ShardedBuild, fill

if TYPE_CHECKING:
    from PIL.Image import Image

FIELDS = ("id", "prompt", "cot", "refined_prompt", "source")


@dataclass(frozen=True)
class Rewrite:
    """One record. image: of an edit."""

    id: str
    prompt: str
    cot: str
    refined_prompt: str
    source: str = ""
    image: Path | None = None

    def answer(self, wording: str, tags: bool = False) -> str:
        """What the thinker is to write; `thinkers.parse` reads the refined prompt out of it again. tags: the reasoning
        stands in think tags, as in the paper's figure."""
        words = WORDINGS[wording]
        thought = f"<think>{self.cot}</think>" if tags else self.cot
        if words.to_end:
            return f"{thought}\n\n{words.marker}\n{self.refined_prompt}"
        return f"{thought}\n{words.marker} {self.refined_prompt}"


def read_rewrites(source: str | Path) -> list[Rewrite]:
    """All records of a file or folder. ValueError, naming file and line, for what is none."""
    source = Path(source)
    files = sorted(source.glob("rewrites-*.jsonl")) if source.is_dir() else [source]
    if not files or not files[0].is_file():
        raise ValueError(f"{source} holds no rewrites; build them with `reverie data build rewrites`.")
    found = [rewrite for file in files for rewrite in _parsed(file)]
    if not found:
        raise ValueError(f"{source} holds no rewrites that passed; build more.")
    return found


def _parsed(file: Path) -> Iterator[Rewrite]:
    for number, line in enumerate(file.read_text("utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            texts = [row[name] for name in FIELDS[:-1]]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{file}, line {number} is no rewrite ({', '.join(FIELDS[:-1])}).") from error
        if not all(isinstance(text, str) and text.strip() for text in texts):
            raise ValueError(f"{file}, line {number}: {', '.join(FIELDS[:-1])} must be texts with something in them.")
        image = file.parent / row["image"] if row.get("image") else None
        if image is not None and not image.is_file():
            raise ValueError(f"{file}, line {number}: there is no picture {image}.")
        key, prompt, cot, refined = texts
        yield Rewrite(key, prompt, cot, refined, str(row.get("source", "")), image)


@dataclass(frozen=True)
class Written:
    """What a teacher gives: the record, and the picture that goes with it."""

    record: dict[str, Any]
    picture: Image | None = None


class Teacher(Protocol):
    """Whoever writes rewrites. None stands for an answer that could not be read."""

    name: str

    def teach(self, numbers: Sequence[int]) -> list[Written | None]:
        """The records of so many prompts, from their numbers and the build's seed alone."""


@dataclass(frozen=True)
class RewriteBuild(ShardedBuild):
    shard: int = 256


def build_rewrites(
    teacher: Teacher, folder: str | Path, build: RewriteBuild, about: dict[str, Any], on_shard: OnShard | None = None
) -> dict[str, int] | None:
    """Fills `folder`, or goes on with it. Returns how many rewrites there are of how many prompts; None while other
    parts have yet to do theirs."""
    folder = Path(folder)
    if not fill(folder, teacher, build, about, partial(_file, folder), partial(_write, folder), on_shard):
        return None
    kept = sum(len(_file(folder, number).read_text("utf-8").splitlines()) for number in build.shards)
    return {"prompts": build.count, "rewrites": kept}


def _file(folder: Path, number: int) -> Path:
    return folder / f"rewrites-{number:06}.jsonl"


def _write(folder: Path, number: int, made: Sequence[Written]) -> None:
    """The pictures first: the JSON file says that the shard is whole."""
    for one in made:
        if one.picture is not None:
            picture = one.picture
            write_atomically(folder / one.record["image"], lambda part, picture=picture: picture.save(part, "PNG"))  # type: ignore[misc]
    text = "".join(json.dumps(one.record, ensure_ascii=False) + "\n" for one in made)
    write_atomically(_file(folder, number), lambda part: part.write_text(text, "utf-8"))
