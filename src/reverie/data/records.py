"""Records that judges are trained on: a picture, the questions about it, and the answers, one JSON object a line.

The form is LLaVA's, which the released training code of "verify and reinforce" (arXiv 2501.13926) reads: `image` is a
path beside the file, `conversations` alternate between human and gpt, and the first human turn holds the picture's
place. `task`, `prompt` and `answer` are ours and may be ignored.

A folder is filled shard by shard (`shards/records-000012.jsonl`); `records.jsonl` is all of them in order, written when
the last is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..files import write_atomically
from ..vlms import IMAGE

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..judges.vlm import Wording


@dataclass(frozen=True)
class Record:
    """One example. image: path below the folder. turns: what is said, user first; the last is the answer to learn."""

    id: str
    task: str
    prompt: str
    image: str
    turns: tuple[str, ...]
    extra: Mapping[str, Any]

    @property
    def answer(self) -> str:
        return self.turns[-1]

    def to_json(self) -> dict[str, Any]:
        first, *rest = self.turns
        first = first if IMAGE in first else f"{IMAGE}\n{first}"
        said = [{"from": "gpt" if place % 2 else "human", "value": text} for place, text in enumerate((first, *rest))]
        about = {"id": self.id, "image": self.image, "task": self.task, "prompt": self.prompt}
        return {**about, "conversations": said, **self.extra}


def asked(wording: Wording, question: str, prompt: str, answer: str) -> tuple[str, ...]:
    """The turns of a question in a judge's own words, and the answer behind them."""
    prompt = prompt.replace(IMAGE, "< image>")
    return (*(text.replace("{prompt}", prompt) for text in getattr(wording, question)), answer)


def save_pictures(folder: Path, found: Iterable[tuple[Record, Image | None]]) -> list[Record]:
    """Puts the pictures in their places (None: it is there already, of an earlier record) and returns the records."""
    from ..png import save_png

    records = []
    for record, picture in found:
        if picture is not None:
            path = folder / record.image
            path.parent.mkdir(parents=True, exist_ok=True)
            save_png(picture, path)
        records.append(record)
    return records


def fill(
    folder: Path,
    shards: Sequence[int],
    make: Callable[[int], list[Record]],
    on_shard: Callable[[int, int], None] | None,
) -> None:
    """Makes the shards that are not there yet."""
    for done, number in enumerate(shards, 1):
        path = _shard(folder, number)
        if not path.is_file():
            text = "".join(json.dumps(record.to_json(), ensure_ascii=False) + "\n" for record in make(number))
            write_atomically(path, lambda part, text=text: part.write_text(text, "utf-8"))  # type: ignore[misc]
        if on_shard is not None:
            on_shard(done, len(shards))


def finish(folder: Path, count: int) -> dict[str, dict[str, int]] | None:
    """Joins the shards and counts the answers of each task; None while shards are missing (other parts make them)."""
    paths = [_shard(folder, number) for number in range(count)]
    if not all(path.is_file() for path in paths):
        return None
    counts: dict[str, Counter[str]] = {}
    with_answers = (json.loads(line) for path in paths for line in path.read_text("utf-8").splitlines())
    for record in with_answers:
        said = record["conversations"][-1]["value"]
        counts.setdefault(record["task"], Counter())["yes" if said.lower().startswith("yes") else "no"] += 1

    def write(part: Path) -> None:
        with part.open("w", encoding="utf-8") as file:
            for path in paths:
                file.write(path.read_text("utf-8"))

    write_atomically(folder / "records.jsonl", write)
    return {task: dict(sorted(counted.items())) for task, counted in sorted(counts.items())}


def _shard(folder: Path, number: int) -> Path:
    return folder / "shards" / f"records-{number:06}.jsonl"


def read_records(folder: str | Path) -> list[Record]:
    """What a folder holds, or a JSON (lines) file in LLaVA's form. ValueError names the first record that is wrong."""
    path = Path(folder)
    path = path / "records.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise ValueError(f"There are no records at {path}; build them with `reverie data build`, to the end.")
    return list(_parsed(path))


def _parsed(path: Path) -> Iterator[Record]:
    text = path.read_text("utf-8")
    rows = json.loads(text) if text.lstrip().startswith("[") else (json.loads(row) for row in text.splitlines() if row)
    for number, row in enumerate(rows, 1):
        try:
            turns = tuple(turn["value"] for turn in row["conversations"])
            record = Record(
                str(row.get("id", number)), row.get("task", ""), row.get("prompt", ""), row["image"], turns, {}
            )
        except (KeyError, TypeError) as error:
            raise ValueError(
                f"{path}, record {number}: needs `image` and `conversations` as LLaVA has them."
            ) from error
        if len(turns) % 2 or turns[0].count(IMAGE) != 1:
            raise ValueError(
                f"{path}, record {number}: turns must alternate, end with an answer, and show one {IMAGE} in the first."
            )
        yield record
