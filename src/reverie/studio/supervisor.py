"""Keeps one worker process alive: starts it, passes lines both ways, and starts it again when it dies."""

from __future__ import annotations

import asyncio
import json
import signal
from asyncio.subprocess import PIPE, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

LONGEST_LINE = 1 << 24
HOPELESS = 3
"""So many deaths in a row before a word was said, and the worker is not expected to come up."""
PAUSES = (0.0, 1.0, 5.0, 30.0)
"""Seconds before it is started again, after so many deaths in a row."""


class Supervisor:
    """heard: called with each message of the worker. lost: called with how it ended, and whether that is hopeless."""

    def __init__(
        self,
        command: Sequence[str],
        heard: Callable[[Mapping[str, Any]], None],
        lost: Callable[[str, bool], None],
    ):
        self.command, self.heard, self.lost = command, heard, lost
        self.ready = False
        self.unready: str | None = None
        """Why the first model could not be loaded."""
        self.process: Process | None = None
        self._deaths = 0
        self._stopping = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._run())

    def send(self, message: Mapping[str, Any]) -> None:
        """Nothing is lost if the worker is just dying: what it had in hand is dealt with by `lost`."""
        if self.process is not None and self.process.stdin is not None and not self.process.stdin.is_closing():
            self.process.stdin.write((json.dumps(message, ensure_ascii=False) + "\n").encode())

    def kill(self) -> None:
        if self.process is not None and self.process.returncode is None:
            self.process.kill()

    async def stop(self) -> None:
        """Ends the worker: politely by closing its input, then by force."""
        self._stopping = True
        if self.process is not None and self.process.stdin is not None:
            self.process.stdin.close()
        if self._task is not None:
            await asyncio.wait([self._task], timeout=3)
            self.kill()
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while not self._stopping:
            await asyncio.sleep(PAUSES[min(self._deaths, len(PAUSES) - 1)])
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=PIPE, stdout=PIPE, limit=LONGEST_LINE
            )
            await self._listen(self.process)
            code = await self.process.wait()
            self.ready = False
            self._deaths += 1
            if not self._stopping:
                self.lost(_how(code), self._deaths >= HOPELESS)

    async def _listen(self, process: Process) -> None:
        assert process.stdout is not None
        async for line in process.stdout:
            message = json.loads(line)
            self._deaths = 0
            if "ready" in message or "unready" in message:
                self.ready, self.unready = "ready" in message, message.get("unready")
            self.heard(message)


def _how(code: int) -> str:
    if code < 0:
        with suppress(ValueError):
            return f"was killed ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"
