"""The table of a run on disk: what is run, what was painted, what was judged; safe to stop at any moment.

    run.json          what is run; a folder that holds another run is refused
    painted.jsonl     a line for each image painted: what from, seed, file, hash
    rows.jsonl        a line for each image judged (`protocol.Row`)
    spent.jsonl       a line for each batch: seconds and work

A shard of a run writes files of its own (`rows-2-of-4.jsonl`) and reads all. Lines are only ever appended; of an image
that comes twice the last line counts. A last line that was cut short does not count and is removed by the process that
owns the file. Rows hold no times, so those of a run that was stopped are the same as those of one that was not.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..files import locked, read_object
from .protocol import Row

Key = tuple[str, int]
"""An image: the id of its sample, and its number."""


@dataclass(frozen=True)
class Shard:
    """One of `number` processes that share a run, counted from 1."""

    place: int = 1
    number: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.place <= self.number:
            raise ValueError(f"shard {self.place}/{self.number}: must be one of 1/{self.number} to N/N.")

    @classmethod
    def of(cls, text: str | None) -> Shard:
        """Of "2/4"; of None the only one. ValueError for another text."""
        place, _, number = (text or "1/1").partition("/")
        if not (place.isdecimal() and number.isdecimal()):
            raise ValueError(f"shard {text!r}: must say which of how many, such as 2/4.")
        return cls(int(place), int(number))

    @property
    def ending(self) -> str:
        return "" if self.number == 1 else f"-{self.place}-of-{self.number}"

    def part(self, samples: Sequence[Any]) -> Sequence[Any]:
        """Its share: every so many-th, so that each shard has some of every task."""
        return samples[self.place - 1 :: self.number]


@dataclass(frozen=True)
class Picture:
    """One image that was painted: a line of painted.jsonl."""

    id: str
    index: int
    text: str | None
    thought: str | None
    seed: int | None
    file: str
    sha256: str


class Table:
    """The files of one run, as one process sees them."""

    def __init__(self, out: Path, shard: Shard = Shard()) -> None:
        self.out, self.shard = out, shard

    def open(self) -> AbstractContextManager[None]:
        """For writing: ValueError where another process writes the same files. Removes lines that were cut short."""
        busy = f"Another process is at work on this part of {self.out}: wait for it, or give each a --shard of its own."
        return locked(self._own("rows"), busy, self._mend)

    def turn(self) -> AbstractContextManager[None]:
        """For what is made of the rows of all shards: one process after another, so that the last one to write has
        read what all before it have appended."""
        return locked(self.out / ".report.lock")

    def _mend(self) -> None:
        for name in ("painted", "rows", "spent"):
            path = self._own(name)
            if path.exists():
                data = path.read_bytes()
                os.truncate(path, data.rfind(b"\n") + 1)

    def _own(self, name: str) -> Path:
        return self.out / f"{name}{self.shard.ending}.jsonl"

    def _all(self, name: str) -> list[Path]:
        """The files of all shards, the latest written last, so that what it says counts."""
        return sorted(self.out.glob(f"{name}*.jsonl"), key=lambda path: (path.stat().st_mtime_ns, path.name))

    def append(
        self, rows: Sequence[Row] = (), painted: Sequence[Picture] = (), spent: Sequence[Mapping[str, Any]] = ()
    ) -> None:
        for name, records in (
            ("painted", [asdict(one) for one in painted]), ("rows", [row.to_json() for row in rows]), ("spent", spent)
        ):  # fmt: skip
            if records:
                _append(self._own(name), records)

    def rows(self) -> dict[Key, Row]:
        """All rows so far, of every shard."""
        found: dict[Key, Row] = {}
        for path in self._all("rows"):
            for record in _read(path):
                row = _as_row(path, record)
                found[row.id, row.index] = row
        return found

    def painted(self) -> dict[Key, Picture]:
        found = (Picture(**one) for path in self._all("painted") for one in _read(path))
        return {(one.id, one.index): one for one in found}

    def spent(self) -> dict[str, Any]:
        """The sum over all batches of all shards, those of earlier starts included."""
        total: dict[str, Any] = {"images": 0, "painting": 0.0, "judging": 0.0, "work": {}}
        for path in self._all("spent"):
            for entry in _read(path):
                for key in ("images", "painting", "judging"):
                    total[key] += entry[key]
                for counter, number in entry["work"].items():
                    total["work"][counter] = total["work"].get(counter, 0) + number
        return total


def _as_row(path: Path, record: Mapping[str, Any]) -> Row:
    try:
        return Row(**record)
    except TypeError as error:
        raise ValueError(f"{path} was written by another version of reverie: give another folder.") from error


def read_rows(out: str | Path) -> list[Row]:
    """The rows of a run so far."""
    return list(Table(Path(out)).rows().values())


def _read(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return  # cut short, or being written by another shard
            try:
                yield json.loads(line)
            except ValueError as error:
                raise ValueError(f"{path}, line {number} is damaged: remove that line, its image is redone.") from error


def _append(path: Path, records: Sequence[Mapping[str, Any]]) -> None:
    """In one piece, so that threads of this process do not write into each other's lines."""
    data = "".join(json.dumps(record) + "\n" for record in records).encode()
    with path.open("ab", buffering=0) as file:
        if file.write(data) != len(data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.fsync(file.fileno())


def about(out: str | Path) -> dict[str, Any]:
    """What the folder of a run says that it holds; ValueError if it holds none."""
    file = Path(out) / "run.json"
    if not file.is_file():
        raise ValueError(f"{out} holds no run of a benchmark (no run.json): give a folder that evaluate wrote.")
    return read_object(file)
