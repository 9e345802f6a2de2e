"""A run as it is told: read from its trace, live while the worker writes it, and the same years later.

The `id` of an event is its line in the trace, from 0; after a run was started again it is ATTEMPT.LINE. What the server
says itself (queued, restarted) has no id; the last event (done, failed, cancelled) has the one after the last line.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from reverie.studio.engine import Engine, Live
from reverie.studio.store import Row
from reverie.studio.tail import Tail, trace_lines

PULSE = 15.0
"""Seconds after which a word is said even if there is nothing to say: proxies close silent connections."""
Told = tuple[str | None, dict[str, Any]]
"""An event with its id, if it has one."""


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
    return attempt == row.attempt and first > len(trace_lines(engine.store.trace(row.id)))


async def told(
    engine: Engine, row: Row, last_id: str | None = None, pulse: float = PULSE
) -> AsyncIterator[Told | None]:
    """The run from where the client stopped listening, to its end; None after each `pulse` seconds of silence."""
    run = engine.live.get(row.id)
    if run is None:  # it may have ended since the caller looked
        row = engine.row(row.id) or row
    heard, first = place(last_id)
    while True:
        attempt = run.attempt if run is not None else row.attempt
        tail = Tail(engine.store.trace(row.id))
        if attempt != heard:
            heard, first = attempt, 0
            yield None, {"event": "restarted", "attempt": attempt}
        async for item in _attempt(engine, run, row.id, attempt, tail, first, pulse):
            yield item
        if run is None or run.attempt == attempt:
            break
    state, error = (row.state, row.error) if run is None else (run.state, run.error)
    yield event_id(attempt, tail.count), {"event": state} | ({"error": error} if error else {})


async def _attempt(
    engine: Engine, run: Live | None, name: str, attempt: int, tail: Tail, first: int, pulse: float
) -> AsyncIterator[Told | None]:
    """The events of one attempt, until it is over or another one begins."""
    position = -1
    while True:
        # Asked before the trace is read: what is over has nothing more to say once it was read.
        over = run is None or run.attempt != attempt or engine.live.get(name) is not run
        count, state = (0, "") if run is None else (run.events, run.state)
        for line, record in tail.new():
            if line >= first:
                yield event_id(attempt, line), with_urls(record, name)
        if over or run is None:
            return
        if run.state == "queued":
            before, position = position, engine.queue.position(run)
            if before != position:
                yield None, {"event": "queued", "position": position}
        if (run.events, run.state, run.attempt) == (count, state, attempt) and engine.live.get(name) is run:
            await run.change(pulse)
            if (run.events, run.state, run.attempt) == (count, state, attempt):
                yield None


async def server_sent(engine: Engine, row: Row, last_id: str | None) -> AsyncIterator[str]:
    """The same as the text of a stream of server-sent events."""
    async for item in told(engine, row, last_id):
        if item is None:
            yield ": still here\n\n"
        else:
            name, record = item
            head = f"id: {name}\n" if name is not None else ""
            yield f"{head}data: {json.dumps(record, ensure_ascii=False)}\n\n"


def with_urls(record: dict[str, Any], run: str) -> dict[str, Any]:
    """An event of a trace with the addresses of its pictures instead of their names."""
    if "files" not in record:
        return record
    urls = [name if name is None else url(run, name) for name in record["files"]]
    return record | {"files": urls}


def url(run: str, name: str) -> str:
    """The address of a picture of a run."""
    return f"/api/runs/{run}/files/{name}"
