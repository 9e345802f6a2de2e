"""A real server in a process of its own, over a tiny Janus or any other model, for tests that speak HTTP to it."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FINAL = ("done", "failed", "cancelled")
LONG = {"prompt": "a cat", "seed": 1, "choose": "prm", "candidates": 64, "judge_steps": 16}
"""A run that nobody waits for: more than a thousand questions to the judge."""


class Served:
    """Talks to the server; every answer is (status, JSON or bytes)."""

    def __init__(self, process: subprocess.Popen, address: str, data: Path, log: Path):
        self.process, self.address, self.data, self.log = process, address, data, log

    def ask(self, method: str, path: str, body=None, headers=None, timeout: float = 60.0):
        payload = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, payload, headers or {}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                return answer.status, _read(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.status, _read(error)

    def run(self, **fields) -> str:
        status, answer = self.ask("POST", "/api/runs", fields)
        assert status == 201, answer
        return answer["id"]

    def events(self, run: str, last: str | None = None, until: str | None = None) -> list[tuple[str | None, dict]]:
        """(id, event) of a run, to the end of the stream or to the first event that is called `until`."""
        headers = {} if last is None else {"Last-Event-ID": last}
        request = urllib.request.Request(f"{self.address}/api/runs/{run}/events", headers=headers)
        heard, name = [], None
        with urllib.request.urlopen(request, timeout=60) as answer:
            for line in answer:
                text = line.decode().rstrip("\n")
                if text.startswith("id: "):
                    name = text[4:]
                elif text.startswith("data: "):
                    heard.append((name, json.loads(text[6:])))
                    name = None
                    if heard[-1][1]["event"] == until:
                        break
        return heard

    def state(self, run: str) -> str:
        return self.ask("GET", f"/api/runs/{run}")[1]["state"]

    def wait(self, run: str, seconds: float = 60.0, headers=None) -> dict:
        """The run once it is over."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            about = self.ask("GET", f"/api/runs/{run}", headers=headers)[1]
            if about["state"] in FINAL:
                return about
            time.sleep(0.05)
        raise AssertionError(f"{run} is still {about['state']} after {seconds} s; {self.log.read_text()[-2000:]}")

    def worker(self) -> int:
        """The process that paints."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        (pid,) = (int(child) for child in children)
        return pid

    def stop(self, how: int = signal.SIGTERM) -> int:
        self.process.send_signal(how)
        return self.process.wait(timeout=30)


def _read(answer):
    content = answer.read()
    return json.loads(content) if "json" in answer.headers.get("content-type", "") else content


@contextmanager
def serving(
    folder: Path, model: str | Path, *options: str, verb: str = "serve", data: Path | None = None, ready: bool = True
) -> Iterator[Served]:
    """A server over `model`, ready to paint if it is to be; killed in the end if it is still there."""
    data, log = data or folder / "data", folder / "server.log"
    command = [sys.executable, "-m", "reverie", verb, "--port", "0", "--model", str(model), "--data", str(data)]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    with log.open("ab") as file:
        begin = log.stat().st_size
        process = subprocess.Popen([*command, *options], stderr=file, stdout=file, env=environment)
    try:
        served = Served(process, _address(process, log, begin), data, log)
        until = time.monotonic() + 90
        while ready and served.ask("GET", "/readyz")[0] != 200:
            assert time.monotonic() < until, log.read_text()
            assert process.poll() is None, log.read_text()
            time.sleep(0.05)
        yield served
    finally:
        process.kill()
        process.wait()


def _address(process: subprocess.Popen, log: Path, begin: int) -> str:
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        found = re.search(r"at (http://\S+)/ ", log.read_text()[begin:])
        if found:
            return found[1]
        time.sleep(0.02)
    raise AssertionError(f"the server did not start: {log.read_text()}")
