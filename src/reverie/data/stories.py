"""Stories: pictures with a thought for each region and a critique of each, what thinking while painting learns from.

The nine subtasks of TWIG-50K (Thinking-while-Generating, arXiv 2511.16671, section on supervised fine-tuning) for three
regions: think 1-3, generate 1-3, reflect 1-3; 3 K for K. The authors released neither data nor code. One record stands
for all of them, and training expands it; image codes are stored, so nothing is encoded again:

    build.json                   how it was made
    stories-000012.jsonl         id, prompt, ends, thoughts, critiques: [{score, revised, answer}]
    stories-000012.safetensors   codes (N, L): the picture; judged (N, L): the one that the critiques are about

`ends` are the steps at which regions end. `judged` equals `codes` where a picture was judged itself, and holds a flawed
one where its critiques were made about that. `answer` is a critique word for word, in the wording of the build.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from ..dialogue import Story, dialogue
from ..files import write_atomically
from .shards import OnShard, ShardedBuild, fill


@dataclass(frozen=True)
class Critique:
    """Of a region: 0 to 100, what to paint instead, and the whole answer."""

    score: float
    revised: str
    answer: str


@dataclass(frozen=True)
class Told:
    """A picture with its thoughts and critiques, one for each region."""

    id: str
    prompt: str
    ends: tuple[int, ...]
    thoughts: tuple[str, ...]
    critiques: tuple[Critique, ...]

    def story(self, wording: str, regions: int) -> Story:
        """As the painter knows it when `regions` regions are done."""
        return Story(dialogue(wording), self.prompt, len(self.ends), list(self.thoughts[:regions]))


@dataclass(frozen=True)
class Made:
    """What a teacher gives: the record and the codes of both pictures, (L,) each."""

    told: Told
    codes: Tensor
    judged: Tensor


class Teacher(Protocol):
    """Whoever writes stories. None for a prompt stands for one that did not pass the teacher's filters."""

    name: str

    def teach(self, numbers: Sequence[int]) -> list[Made | None]:
        """The stories of so many prompts, from their numbers and the build's seed alone."""


def build_stories(
    teacher: Teacher,
    folder: str | Path,
    build: ShardedBuild,
    about: dict[str, Any],
    on_shard: OnShard | None = None,
) -> dict[str, int] | None:
    """Fills `folder`, or goes on with it. Returns how many stories there are of how many prompts, and how many regions
    are good as they are; None while other parts have yet to do theirs."""
    folder = Path(folder)
    if not fill(
        folder, teacher, build, about, lambda number: _files(folder, number)[1], partial(_write, folder), on_shard
    ):
        return None
    stories = Stories(folder)
    scores = [critique.score for told in stories.told for critique in told.critiques]
    return {
        "prompts": build.count,
        "stories": len(stories),
        "regions": len(scores),
        "accepted": sum(map(_good, scores)),
    }


def _good(score: float) -> bool:
    return score >= 90  # the published threshold


def _files(folder: Path, number: int) -> tuple[Path, Path]:
    return folder / f"stories-{number:06}.safetensors", folder / f"stories-{number:06}.jsonl"


def _write(folder: Path, number: int, made: Sequence[Made]) -> None:
    """The codes first: the JSON file says that the shard is whole."""
    codes, told = _files(folder, number)
    if made:
        tensors = {name: torch.stack([getattr(m, name) for m in made]).to(torch.int32) for name in ("codes", "judged")}
        write_atomically(codes, lambda part: save_file(tensors, part))
    text = "".join(json.dumps(asdict(one.told), ensure_ascii=False) + "\n" for one in made)
    write_atomically(told, lambda part: part.write_text(text, "utf-8"))


@dataclass(frozen=True)
class Taken:
    """One story with what it shows: codes (L,), or pixels (3, H, W) uint8 that have yet to become codes."""

    told: Told
    shown: Tensor
    judged: Tensor


@dataclass
class DrawnStories:
    """Stories without end, drawn when they are wanted by a teacher that knows the truth (teachers.AtelierTeacher)."""

    teacher: Any
    """Has `draw(number)`, which returns the record and both pictures."""
    length: int
    """Codes of a picture."""
    kind = "pixels"
    folder = "the Atelier"

    @property
    def wording(self) -> str:
        return self.teacher.wording

    def __len__(self) -> int:
        return 1 << 40

    def take(self, rng: random.Random) -> Taken:
        told, picture, judged = self.teacher.draw(rng.randrange(len(self)))
        return Taken(told, picture, judged)


class Stories:
    """A folder of stories. ValueError where it is none."""

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not (self.folder / "build.json").is_file():
            raise ValueError(f"{folder} holds no stories; build them with `reverie data build thoughts`.")
        self.about = json.loads((self.folder / "build.json").read_text("utf-8"))
        self.told: list[Told] = []
        codes, judged = [], []
        for path in sorted(self.folder.glob("stories-*.jsonl")):
            rows = list(_parsed(path))
            self.told += rows
            if rows:
                held = load_file(path.with_suffix(".safetensors"))
                codes.append(held["codes"])
                judged.append(held["judged"])
        if not self.told:
            raise ValueError(f"{folder} holds no stories that passed; build more.")
        self.codes, self.judged = torch.cat(codes).long(), torch.cat(judged).long()
        if len(self.codes) != len(self.told):
            raise ValueError(f"{folder}: {len(self.told)} stories but codes of {len(self.codes)}; build it again.")

    kind = "codes"
    """What it shows of a picture."""

    @property
    def length(self) -> int:
        """Codes of a picture."""
        return self.codes.shape[1]

    def take(self, rng: random.Random) -> Taken:
        index = rng.randrange(len(self.told))
        return Taken(self.told[index], self.codes[index], self.judged[index])

    def __len__(self) -> int:
        return len(self.told)

    @property
    def wording(self) -> str:
        return self.about["wording"]


def _parsed(path: Path) -> Iterator[Told]:
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            critiques = tuple(Critique(**critique) for critique in row["critiques"])
            told = Told(row["id"], row["prompt"], tuple(row["ends"]), tuple(row["thoughts"]), critiques)
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number} is no story (id, prompt, ends, thoughts, critiques).") from error
        if not len(told.ends) == len(told.thoughts) == len(told.critiques) > 0:
            raise ValueError(f"{path}, line {number}: ends, thoughts and critiques must be as many as regions.")
        yield told
