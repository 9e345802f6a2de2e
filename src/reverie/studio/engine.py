"""From the queue to the worker and back: takes runs in fair order, sends them in batches, follows what becomes of them.

Everything here happens in the server's event loop; nothing blocks it but short writes to the index. A run is `Live`
from its request to its last state; after that only the index and its folder know it.
"""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reverie.studio.fair import FairQueue
from reverie.studio.metrics import Metrics
from reverie.studio.request import House, Request
from reverie.studio.store import FINAL, Row, Store
from reverie.studio.supervisor import Supervisor

MOST_ATTEMPTS = 2
"""A run whose worker died is painted once more, alone: it may have been in bad company."""
HOLD, LONGEST_HOLD = 0.03, 0.5
"""After a shared batch the next one waits this share of its time, and at most so many seconds: whoever has just been
served will often ask again, and would otherwise miss the canvas by a few milliseconds."""
CLEAN_EVERY = 3600.0
SHUT_DOWN = "the server was shut down before this run was finished; send it again."
MOST_OPENED = 2
STUCK = 20.0
"""Seconds after which a worker that does not obey is killed."""


class Full(Exception):
    """The queue takes no more; try again after so many seconds."""

    def __init__(self, message: str, seconds: int):
        super().__init__(message)
        self.seconds = seconds


class Closing(Exception):
    """The server is shutting down."""


@dataclass(eq=False)
class Live:
    """A run that is not over."""

    id: str
    request: Request
    client: str
    state: str = "queued"
    attempt: int = 1
    events: int = 0
    error: str | None = None
    since: float = field(default_factory=time.monotonic)
    waiters: set[asyncio.Future[None]] = field(default_factory=set)

    @property
    def size(self) -> int:
        return self.request.n * self.request.plan.candidates

    @property
    def together(self) -> object | None:
        return self.request.together if self.attempt == 1 else None

    async def change(self, seconds: float) -> None:
        """Returns at the next change, or after so many seconds."""
        waiter = asyncio.get_running_loop().create_future()
        self.waiters.add(waiter)
        try:
            await asyncio.wait([waiter], timeout=seconds)
        finally:
            self.waiters.discard(waiter)

    def tell(self) -> None:
        for waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)


class Engine:
    def __init__(
        self,
        store: Store,
        house: House,
        *,
        device: str | None = None,
        dtype: str | None = None,
        keep_days: float | None = None,
        keep_bytes: int | None = None,
        grace: float = 30.0,
    ):
        self.store, self.house, self.metrics = store, house, Metrics()
        self.keep, self.grace = (keep_days, keep_bytes), grace
        self.queue: FairQueue[Live] = FairQueue()
        self.live: dict[str, Live] = {}
        self.hand: dict[str, Live] = {}
        """What the worker is painting, cancelled runs included until it has let go of them."""
        self.closing = False
        self.opening = asyncio.Semaphore(MOST_OPENED)
        """Held while a client's pictures are opened: a large one takes a hundred MiB."""
        self._free = False
        self._hold, self._shared = 0.0, False
        self._began = 0.0
        self._pace = 3.0
        self._overdue: asyncio.TimerHandle | None = None
        self._cleaning: asyncio.Task[None] | None = None
        command = [sys.executable, "-m", "reverie.studio.worker", house.models[0]]
        command += ["--device", device] if device else []
        command += ["--dtype", dtype] if dtype else []
        self.worker = Supervisor(command, self._heard, self._lost)

    async def start(self) -> None:
        for row in self.store.unfinished():
            self.store.update(row.id, "failed", "the server ended before this run did; send it again.", row.attempt)
        self.worker.start()
        self._cleaning = asyncio.create_task(self._clean())

    @property
    def ready(self) -> bool:
        return self.worker.ready and not self.closing

    # What clients do.

    def submit(self, request: Request, client: str) -> Live:
        """Puts a run into the queue. `Full` if there is no room, sqlite3.OperationalError if it cannot be noted."""
        limits = self.house.limits
        if self.closing:
            raise Closing
        if len(self.queue) >= limits.queue:
            self.metrics.refused.labels("queue").inc()
            raise Full(f"the queue is full ({limits.queue} runs wait); try again later.", self._patience())
        if self.queue.of(client) >= limits.per_client:
            self.metrics.refused.labels("client").inc()
            raise Full(f"{limits.per_client} of your runs wait already; try again later.", self._patience())
        row = self.store.add(request, client)
        run = self.live[row.id] = Live(row.id, request, client)
        self.queue.put(run)
        self._pump()
        return run

    def cancel(self, run: Live) -> None:
        """Ends a run at once; the worker lets go of it between two steps."""
        if run in self.queue:
            self.queue.remove(run)
        self._finish(run, "cancelled")
        if run.id in self.hand:
            self.worker.send({"cancel": run.id})
        self._pump()

    def delete(self, run: str) -> None:
        """Cancels a run if it is not over, and forgets it."""
        if run in self.live:
            self.cancel(self.live[run])
        self.store.delete(run)

    def row(self, run: str) -> Row | None:
        return self.store.get(run)

    def _patience(self) -> int:
        """Seconds after which there may be room: the time of a batch."""
        return max(1, round(self._pace))

    # What the worker says.

    def _heard(self, message: Mapping[str, Any]) -> None:
        if "idle" in message or "ready" in message or "unready" in message:
            self._idle()
            return
        run = self.hand.get(message["run"])
        if run is None:
            return
        if "event" in message:
            if run.state == "running":
                if run.events == 0:
                    self.metrics.waited.observe(time.monotonic() - run.since)
                run.events += 1
                self.metrics.images.inc(message["event"] == "finished")
                run.tell()
            return
        del self.hand[run.id]
        if run.state in FINAL:
            if self.store.get(run.id) is None:  # deleted while it was painted: the worker may have made its folder anew
                shutil.rmtree(self.store.run_folder(run.id), ignore_errors=True)
        elif message["state"] == "failed" and message["together"]:
            self._again(run, message["error"])
        else:
            self._finish(run, message["state"], message["error"])

    def _idle(self) -> None:
        if self._began:
            took = time.monotonic() - self._began
            self._pace = 0.7 * self._pace + 0.3 * took
            self._began = 0.0
            self._hold = time.monotonic() + min(LONGEST_HOLD, HOLD * took) if self._shared else 0.0
        self._settle()
        self._free = True
        self._pump()

    def _lost(self, how: str, hopeless: bool) -> None:
        """The worker died; `hopeless` if it does so before it has done anything."""
        self._free, self._began = False, 0.0
        self._settle()
        lost = [run for run in self.hand.values() if run.state not in FINAL]
        self.hand.clear()
        self.metrics.deaths.inc()
        for run in lost:
            self._again(run, f"the painting process {how}; ask for less, or look into the server's log.")
        if hopeless:
            for run in list(self.queue):
                self.queue.remove(run)
                self._finish(run, "failed", f"the painting process does not start (it {how}).")

    def _again(self, run: Live, error: str) -> None:
        """Once more and alone, or that was it."""
        if run.attempt >= MOST_ATTEMPTS or self.closing:
            self._finish(run, "failed", error)
            return
        shutil.rmtree(self.store.trace(run.id), ignore_errors=True)
        run.attempt, run.state, run.events = run.attempt + 1, "queued", 0
        self.store.update(run.id, "queued", None, run.attempt)
        self.queue.put(run, first=True)
        run.tell()

    # Work.

    def _pump(self) -> None:
        """Sends the next batch if the worker is free."""
        self.metrics.queued.set(len(self.queue))
        if not self._free or not self.queue or self.closing:
            return
        now = time.monotonic()
        if now < self._hold and self.queue.rows < self.house.limits.batch:
            asyncio.get_running_loop().call_later(self._hold - now, self._pump)
            return
        runs = self.queue.take(self.house.limits.batch)
        self._free, self._began, self._shared = False, now, len(runs) > 1
        self.hand = {run.id: run for run in runs}
        for run in runs:
            run.state = "running"
            self.store.update(run.id, "running", None, run.attempt)
            run.tell()
        jobs = [
            {"id": run.id, "folder": str(self.store.trace(run.id)), "request": run.request.to_json()} for run in runs
        ]
        job = {"runs": jobs, "batch": self.house.limits.batch, "uploads": str(self.store.folder / "uploads")}
        self.worker.send({"paint": job})
        self.metrics.batches.observe(len(runs))
        self.metrics.painting.set(len(runs))
        self.metrics.queued.set(len(self.queue))
        self._overdue = asyncio.get_running_loop().call_later(self.house.limits.seconds, self._too_long)

    def _settle(self) -> None:
        self.metrics.painting.set(0)
        if self._overdue is not None:
            self._overdue.cancel()
            self._overdue = None

    def _too_long(self) -> None:
        self._stop_hand(f"it took longer than the {self.house.limits.seconds:g} seconds that a run may take.")

    def _stop_hand(self, error: str) -> None:
        """Ends all that is being painted; kills the worker if it does not let go."""
        self._settle()
        for run in self.hand.values():
            if run.state not in FINAL:
                self._finish(run, "failed", error)
            self.worker.send({"cancel": run.id})
        self._overdue = asyncio.get_running_loop().call_later(STUCK, self.worker.kill)

    def _finish(self, run: Live, state: str, error: str | None = None) -> None:
        run.state, run.error = state, error
        self.live.pop(run.id, None)
        seconds = time.monotonic() - run.since
        self.store.update(run.id, state, error, run.attempt, round(seconds, 3))
        self.metrics.ended.labels(run.request.kind, state).inc()
        self.metrics.took.observe(seconds)
        run.tell()

    # The end.

    def drain(self) -> None:
        """Takes no more; what waits is given up, and what is being painted has `grace` seconds to finish."""
        if self.closing:
            return
        self.closing = True
        for run in list(self.queue):
            self.queue.remove(run)
            self._finish(run, "failed", "the server was shut down before this run was painted; send it again.")
        asyncio.get_running_loop().call_later(self.grace, self._stop_hand, SHUT_DOWN)

    async def close(self) -> None:
        """The same to its end: nothing is being painted any more, and the worker is gone."""
        self.drain()
        while self.live:
            await asyncio.sleep(0.05)
        self._settle()
        await self.worker.stop()
        if self._cleaning is not None:
            self._cleaning.cancel()
        self.store.close()

    async def _clean(self) -> None:
        while True:
            try:
                self.store.clean(*self.keep)
            except sqlite3.OperationalError as error:
                print(f"reverie: old runs could not be cleaned ({error}).", file=sys.stderr)
            await asyncio.sleep(CLEAN_EVERY)
