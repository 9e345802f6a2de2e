"""Traces as they grow: the lines that the worker has completed, without the pictures that they name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any


class Tail:
    """The whole lines of a growing trace, each once."""

    def __init__(self, trace: Path):
        self.path, self.offset, self.count = trace / "events.jsonl", 0, 0

    def new(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Lines that were completed since the last time, with their numbers."""
        if not self.path.is_file():
            return
        with self.path.open("rb") as file:
            file.seek(self.offset)
            for line in file:
                if not line.endswith(b"\n"):
                    return
                self.offset += len(line)
                self.count += 1
                yield self.count - 1, json.loads(line)


def trace_lines(trace: Path) -> list[dict[str, Any]]:
    """A trace so far."""
    return [line for _, line in Tail(trace).new()]


def finished_pictures(lines: Iterable[Mapping[str, Any]]) -> list[str]:
    """Names of the finished pictures in the lines of a trace, in the order of the images."""
    found = {line["image"]: line["files"][0] for line in lines if line["event"] == "finished" and line.get("files")}
    return [found[image] for image in sorted(found)]
