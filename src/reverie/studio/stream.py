"""A run as server-sent events, read from its trace: live while the worker writes it, and the same years later.

The `id` of an event is its line in the trace, from 0; after a run was started again it is ATTEMPT.LINE. What the server
says itself (queued, restarted) has no id; the last event (done, failed, cancelled) has the one after the last line.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from reverie.studio.engine import Engine, Live
from reverie.studio.store import Row

PULSE = 15.0
"""Seconds after which a word is said even if there is nothing to say: proxies close silent connections."""


class Tail:
    """The whole lines of a growing file, each once."""

    def __init__(self, path: Path):
        self.path, self.offset, self.count = path, 0, 0

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


def place(text: str | None) -> tuple[int, int]:
    """(attempt, first line that is wanted) from a Last-Event-ID; everything, if it is none of ours."""
    attempt, _, line = ("1." + text if text and "." not in text else text or "").partition(".")
    try:
        return int(attempt), int(line) + 1
    except ValueError:
        return 1, 0


def event_id(attempt: int, line: int) -> str:
    return str(line) if attempt == 1 else f"{attempt}.{line}"


def over(last_id: str | None, engine: Engine, row: Row) -> bool:
    """Whether a client has already heard the end of a run that is over."""
    if last_id is None or row.id in engine.live:
        return False
    attempt, first = place(last_id)
    lines = sum(1 for _ in Tail(engine.store.trace(row.id) / "events.jsonl").new())
    return attempt == row.attempt and first > lines


async def events(engine: Engine, row: Row, last_id: str | None) -> AsyncIterator[str]:
    """The run from where the client stopped listening, to its end."""
    run = engine.live.get(row.id)
    heard, first = place(last_id)
    while True:
        attempt = run.attempt if run is not None else row.attempt
        tail = Tail(engine.store.trace(row.id) / "events.jsonl")
        if attempt != heard:
            first = 0
            yield message({"event": "restarted", "attempt": attempt})
            heard = attempt
        async for text in _attempt(engine, run, row.id, attempt, tail, first):
            yield text
        if run is None or run.attempt == attempt:
            break
        row = engine.row(row.id) or row
    ended = engine.row(row.id)
    state, error = (ended.state, ended.error) if ended is not None else ("cancelled", "the run was deleted.")
    if run is not None:
        state, error = run.state, run.error
    last = {"event": state, "error": error} if error else {"event": state}
    yield message(last, event_id(attempt, tail.count))


async def _attempt(
    engine: Engine, run: Live | None, name: str, attempt: int, tail: Tail, first: int
) -> AsyncIterator[str]:
    """The events of one attempt, until it is over or another one begins."""
    position = -1
    while True:
        live = engine.live.get(name)
        for line, record in tail.new():
            if line >= first:
                yield message(with_urls(record, name), event_id(attempt, line))
        if run is None or live is None or run.attempt != attempt:
            return
        if run.state == "queued":
            before, position = position, engine.queue.position(run)
            if before != position:
                yield message({"event": "queued", "position": position})
        count, state = run.events, run.state
        if engine.live.get(name) is run and run.attempt == attempt and tail.count >= count:
            await run.change(PULSE)
            if (run.events, run.state) == (count, state) and run.attempt == attempt:
                yield ": still here\n\n"


def with_urls(record: dict[str, Any], run: str) -> dict[str, Any]:
    """An event of a trace with the addresses of its pictures instead of their names."""
    if "files" not in record:
        return record
    urls = [name if name is None else f"/api/runs/{run}/files/{name}" for name in record["files"]]
    return record | {"files": urls}


def message(record: dict[str, Any], name: str | None = None) -> str:
    head = f"id: {name}\n" if name is not None else ""
    return f"{head}data: {json.dumps(record, ensure_ascii=False)}\n\n"
