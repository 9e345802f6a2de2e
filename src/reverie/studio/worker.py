"""The process that holds the models and paints. The server starts it, talks to it over pipes, replaces it if it dies.

    python -m reverie.studio.worker MODEL [--device D] [--dtype T]

One JSON object a line. In: {"paint": job}, {"cancel": run}; the end of the input is the end of the worker. Out:
{"ready": model} or {"unready": sentence}, then for each run {"run": id, "event": name} after every event that is in its
trace, and {"run": id, "state": "done" | "failed" | "cancelled", "error": sentence}; {"idle": true} after each job.

A job is a batch of runs with one model and one plan. Cancelling takes effect between two steps: a run that is cancelled
hears nothing more, and when nobody is left to paint for, painting is interrupted.
"""

from __future__ import annotations

import _thread
import argparse
import json
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, Trace
from reverie.png import save_png
from reverie.studio.request import Request, inputs_of
from reverie.studio.split import Part, heard, parts_of

if TYPE_CHECKING:
    from reverie.painter import Painter

Tell = Callable[[Mapping[str, Any]], None]
PIECES = 24
"""Previews of a run alone; runs in a batch share them out, since every preview is decoded for itself."""
MOST_PAINTERS = 2


class Cancelled(Exception):
    """Nobody is left to paint for."""


class Outbox:
    """Lines to the server; several threads may write."""

    def __init__(self, file: Any):
        self.file, self.lock = file, threading.Lock()

    def __call__(self, message: Mapping[str, Any]) -> None:
        with self.lock:
            self.file.write(json.dumps(message, ensure_ascii=False) + "\n")
            self.file.flush()


class Cancelling:
    """Which runs are cancelled, and whether painting may be interrupted just now.

    The thread that listens calls; the main thread is interrupted by a signal, whose handler looks here.
    """

    def __init__(self) -> None:
        self.runs: set[str] = set()
        self.wanted: frozenset[str] = frozenset()
        """The runs of the job in hand."""
        self.open = False
        """Whether the main thread is inside the painting, where it may be thrown out."""

    def call(self, run: str) -> None:
        self.runs.add(run)
        if self.wanted and self.wanted <= self.runs:
            _thread.interrupt_main(signal.SIGINT)

    def handle(self, *_: object) -> None:
        """The handler of SIGINT. Ctrl-C in the server's terminal arrives here, too, and is the server's affair."""
        if self.open and self.wanted and self.wanted <= self.runs:
            self.open = False
            raise Cancelled

    def painting(self, events: Iterator[Event]) -> Iterator[Event]:
        """The events, with the gate open exactly while the next one is made."""
        while True:
            try:
                self.open = True
                if self.wanted <= self.runs:
                    raise Cancelled
                event = next(events, None)
            finally:
                self.open = False
            if event is None:
                return
            yield event


class Writer:
    """One run of a job: its trace, and what the server is told of it."""

    def __init__(self, run: str, folder: Path, part: Part, tell: Tell):
        self.run, self.folder, self.part, self.tell = run, folder, part, tell
        self.trace: Trace | None = None
        self.ended = False

    def hear(self, event: Event) -> None:
        """Writes down what the run hears of an event of the batch; a run whose trace cannot be written has failed."""
        if self.ended:
            return
        try:
            self.trace = self.trace or Trace(self.folder)
            for own in heard(event, self.part):
                self._keep(self.trace, own)
                self.tell({"run": self.run, "event": own.name})
        except OSError as error:
            self.end("failed", f"the results could not be written: {error.strerror or error}.")

    def _keep(self, trace: Trace, event: Event) -> None:
        trace.write(event)
        if isinstance(event, Finished) and event.picture is not None:
            # The same picture again, now with its recipe inside.
            path = max(self.folder.glob(f"*-{event.name}-0.png"))
            save_png(event.picture, path, event.recipe)

    def end(self, state: str, error: str | None = None, together: bool = False) -> None:
        """The run's last state; `together` if what failed was a batch, of which this run may be innocent."""
        if self.ended:
            return
        self.ended = True
        if self.trace is not None:
            with suppress(OSError):  # what could be written is there; the state says what became of the rest
                self.trace.close()
        self.tell({"run": self.run, "state": state, "error": error, "together": together})


class Worker:
    """Paints job after job; the models that were used last stay loaded."""

    def __init__(self, model: str, device: str | None, dtype: str | None, tell: Tell):
        self.first, self.device, self.dtype, self.tell = model, device, dtype, tell
        self.painters: dict[str, Painter] = {}
        self.cancelling = Cancelling()

    def painter(self, name: str) -> Painter:
        if name not in self.painters:
            from reverie.painter import load

            others = [other for other in self.painters if other != self.first]
            while others and len(self.painters) >= MOST_PAINTERS:
                del self.painters[others.pop(0)]
            self.painters[name] = load(name, self.device, self.dtype)
        return self.painters[name]

    def warm(self) -> None:
        """Loads the first model and paints a little, so that the first run does not wait for imports."""
        from reverie.reason import Plan

        try:
            with closing(
                self.painter(self.first).run(Plan(), ["a picture"], [0], pieces=1 << 20, previews=True)
            ) as events:
                for event in events:
                    if event.name == "preview":
                        break
        except ValueError as error:
            self.tell({"unready": sentence(error)})
            return
        self.tell({"ready": self.first})

    def paint(self, job: Mapping[str, Any]) -> None:
        """One batch, to its end, whatever that is."""
        requests = [Request.from_json(run["request"]) for run in job["runs"]]
        prompts = [request.prompt for request in requests for _ in range(request.n)]
        parts = parts_of(prompts, [request.n for request in requests])
        writers = [
            Writer(run["id"], Path(run["folder"]), part, self.tell)
            for run, part in zip(job["runs"], parts, strict=True)
        ]
        self.cancelling.wanted = frozenset(writer.run for writer in writers)
        try:
            with closing(self.events(requests, prompts, job)) as events:
                for event in self.cancelling.painting(events):
                    for writer in writers:
                        if writer.run in self.cancelling.runs:
                            writer.end("cancelled")
                        writer.hear(event)
                    if all(writer.ended for writer in writers):
                        break
            for writer in writers:
                writer.end("done")
        except Cancelled:
            for writer in writers:
                writer.end("cancelled")
        except Exception as error:  # whatever it is, it is the end of these runs and not of the worker
            for writer in writers:
                writer.end("failed", sentence(error), together=len(writers) > 1)
        finally:
            self.cancelling.wanted = frozenset()
            self.cancelling.runs.clear()  # the server sends no other job before it hears that this one is over
        self.tell({"idle": True})

    def events(self, requests: Sequence[Request], prompts: Sequence[str], job: Mapping[str, Any]) -> Any:
        """What all runs of a job have in common is read off the first one."""
        painter, plan = self.painter(requests[0].model), requests[0].plan
        uploads = Path(job["uploads"])
        inputs = [
            inputs_of(request.picture, request.context, lambda name: uploads / f"{name}.png")
            for request in requests
            for _ in request.seeds
        ]
        seeds = [seed for request in requests for seed in request.seeds]
        pieces = max(2, PIECES // len(seeds))
        return painter.run(plan, prompts, seeds, inputs=inputs, pieces=pieces, previews=True, batch=job["batch"])


def sentence(error: BaseException) -> str:
    """What a client is told. Errors that are not about the input are named, for whoever looks into them."""
    text = " ".join(str(error).split())
    if isinstance(error, ValueError):
        return text
    # torch says the first on a GPU and the second, as a RuntimeError, on a CPU.
    # The last is oneDNN's, which finds no room for the code of a product that it has not met before.
    signs = ("can't allocate memory", "could not create a primitive")
    none = type(error).__name__ == "OutOfMemoryError" or any(sign in text for sign in signs)
    if none or isinstance(error, MemoryError):
        return "there is not enough memory for this run; ask for fewer images or candidates."
    return f"painting failed ({type(error).__name__}: {text or 'no message'})."


def listen(lines: Iterator[str], jobs: queue.Queue[Mapping[str, Any]], cancelling: Cancelling) -> None:
    """The thread that reads what the server says. When the server is gone, so is the worker."""
    for line in lines:
        message = json.loads(line)
        if "cancel" in message:
            cancelling.call(message["cancel"])
        else:
            jobs.put(message["paint"])
    os._exit(0)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m reverie.studio.worker")
    parser.add_argument("model")
    parser.add_argument("--device")
    parser.add_argument("--dtype")
    arguments = parser.parse_args()
    # Whatever a library prints must not get between our lines.
    outbox = Outbox(os.fdopen(os.dup(1), "w", encoding="utf-8"))
    os.dup2(2, 1)
    worker = Worker(arguments.model, arguments.device, arguments.dtype, outbox)
    signal.signal(signal.SIGINT, worker.cancelling.handle)
    jobs: queue.Queue[Mapping[str, Any]] = queue.Queue()
    threading.Thread(target=listen, args=(iter(sys.stdin), jobs, worker.cancelling), daemon=True).start()
    worker.warm()
    while True:
        worker.paint(jobs.get())


if __name__ == "__main__":
    main()
