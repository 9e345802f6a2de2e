"""How many pictures a minute `reverie serve` paints for one client and for many at once, and how its memory takes it.

    python speed/serve.py --seconds 60 --clients 32

Starts a server of its own over the shipped model (loopback, a temporary folder, a free port) and measures

1. the first event: from a request to `started`, when nothing else is painted;
2. one client that asks for one picture after the other;
3. CLIENTS at once, each asking again as soon as it has its picture (who is told 429 waits as it is told to).

Afterwards every run that was accepted must be done, with its picture on disk. The last line is JSON.
"""

from __future__ import annotations

import argparse
import cProfile
import http.client
import json
import os
import pstats
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

PROMPTS = [
    f"{count} {colour} {thing}"
    for count in ("one", "two")
    for colour in ("red", "blue", "green", "yellow")
    for thing in ("cats", "boats", "apples", "stars", "fish")
]


@dataclass
class Tally:
    """What the clients saw."""

    answers: Counter[str] = field(default_factory=Counter)
    runs: list[str] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    whole: list[float] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def ask(port: int, method: str, path: str, body: object = None, client: str = "") -> tuple[int, dict, dict]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"X-Client": client, "Content-Type": "application/json"}
    connection.request(method, path, None if body is None else json.dumps(body), headers)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, json.loads(content or b"{}"), dict(answer.headers)


def paint(port: int, client: str, turn: int, tally: Tally) -> float:
    """One picture, followed to its end; returns how long to wait before the next request."""
    began = time.monotonic()
    prompt = PROMPTS[(turn * 7 + sum(client.encode())) % len(PROMPTS)]
    status, answer, headers = ask(port, "POST", "/api/runs", {"prompt": prompt, "seed": turn}, client)
    with tally.lock:
        tally.answers[str(status)] += 1
    if status != 201:
        return float(headers.get("retry-after", 1)) if status == 429 else 0.0
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", f"/api/runs/{answer['id']}/events")
    last, first = "nothing", None
    for line in connection.getresponse():
        if line.startswith(b"data: "):
            last = json.loads(line[6:])["event"]
            if last == "started":
                first = time.monotonic() - began
    connection.close()
    with tally.lock:
        tally.runs.append(answer["id"])
        tally.answers[last] += 1
        tally.first += [first] if first is not None else []
        tally.whole.append(time.monotonic() - began)
    return 0.0


def load(port: int, clients: int, seconds: float) -> tuple[Tally, float]:
    """So many clients for so many seconds; what was begun is waited for. Returns the time until the last picture."""
    tally, began = Tally(), time.monotonic()

    def client(name: str) -> None:
        turn = 0
        while time.monotonic() - began < seconds:
            time.sleep(paint(port, name, turn, tally))
            turn += 1

    threads = [threading.Thread(target=client, args=(f"client {i}",)) for i in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return tally, time.monotonic() - began


def memory(pid: int) -> float:
    """Resident MiB of a process."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def watch(pids: dict[str, int], stop: threading.Event, seen: dict[str, list[float]]) -> None:
    while not stop.wait(1.0):
        for name, pid in pids.items():
            seen[name].append(memory(pid))


def start(folder: str, options: list[str]) -> tuple[subprocess.Popen, int]:
    command = [sys.executable, "-m", "reverie", "serve", "--port", "0", "--data", folder, *options]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr is not None
    line = server.stderr.readline()
    if " at http://" not in line:
        raise SystemExit(f"the server did not start: {line}{server.stderr.read()}")
    port = int(line.split("http://")[1].split("/")[0].rsplit(":", 1)[1])
    threading.Thread(
        target=lambda: [print(text, end="", file=sys.stderr) for text in server.stderr], daemon=True
    ).start()
    while ask(port, "GET", "/readyz")[0] != 200:
        time.sleep(0.1)
    return server, port


def cpu_seconds(pid: int) -> float:
    """What a process has computed so far: on a busy machine a fairer measure than time."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def batch_sizes(port: int) -> dict[str, int]:
    """How many batches of the whole test held at most so many runs."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/metrics")
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return {
        line.split('"')[1]: round(float(line.split()[-1]))
        for line in lines
        if line.startswith("reverie_batch_runs_bucket")
    }


def lost(port: int, folder: str, runs: list[str]) -> list[str]:
    """Runs that were accepted and are not done, or whose picture is missing."""
    missing = []
    for run in runs:
        about = ask(port, "GET", f"/api/runs/{run}")[1]
        names = [Path(url).name for url in about.get("files", [])]
        whole = names and all((Path(folder) / "runs" / run / "trace" / name).stat().st_size for name in names)
        if about.get("state") != "done" or not whole:
            missing.append(run)
    return missing


def where(runs: int) -> None:
    """Paints one batch in this process and says what the time went into."""
    from reverie.reason import Plan
    from reverie.studio.request import Request
    from reverie.studio.worker import Worker

    worker = Worker("atelier-janus", None, None, lambda message: None)
    worker.warm()
    requests = [Request("generate", PROMPTS[i % len(PROMPTS)], "atelier-janus", Plan(), i) for i in range(runs)]
    with tempfile.TemporaryDirectory() as folder:
        jobs = [{"id": str(i), "folder": f"{folder}/{i}", "request": r.to_json()} for i, r in enumerate(requests)]
        profile = cProfile.Profile()
        profile.runcall(worker.paint, {"runs": jobs, "batch": runs, "uploads": folder})
    seconds: dict[str, float] = {}
    for (file, _, name), (_, _, _, cumulative, _) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        place = f"{Path(file).name}:{name}"
        seconds[place] = max(seconds.get(place, 0.0), cumulative)
    whole = seconds["worker.py:paint"]
    for label, place in (
        ("painting", "next_token.py:advance"),
        ("decoding", "next_token.py:preview"),
        ("traces", "worker.py:hear"),
    ):
        print(f"{label:10} {seconds[place] / whole:6.1%} of {whole:.1f} s for {runs} runs")


def paint_first(port: int) -> float:
    """Seconds to the first event; the run is cancelled then, and waited for."""
    began = time.monotonic()
    run = ask(port, "POST", "/api/runs", {"prompt": "a red fish below a boat", "seed": 1}, "idle")[1]["id"]
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    connection.request("GET", f"/api/runs/{run}/events")
    took = 0.0
    for line in connection.getresponse():
        if line.startswith(b"data: ") and json.loads(line[6:])["event"] == "started":
            took = time.monotonic() - began
            break
    connection.close()
    ask(port, "POST", f"/api/runs/{run}/cancel")
    time.sleep(1.0)
    return took


def measured(port: int, server: int, folder: str, clients: int, seconds: float) -> dict[str, object]:
    """All three measurements over a server that is ready, and what became of the runs."""
    idle = [paint_first(port) for _ in range(10)]
    worker = int(Path(f"/proc/{server}/task/{server}/children").read_text().split()[0])
    spent = [cpu_seconds(worker)]
    single, took = load(port, 1, seconds / 2)
    alone = len(single.whole) / took
    spent.append(cpu_seconds(worker))
    seen: dict[str, list[float]] = {"server": [], "worker": []}
    stop = threading.Event()
    watcher = threading.Thread(target=watch, args=({"server": server, "worker": worker}, stop, seen))
    watcher.start()
    many, took = load(port, clients, seconds)
    stop.set()
    watcher.join()
    together = len(many.whole) / took
    spent.append(cpu_seconds(worker))
    cpu = [(spent[1] - spent[0]) / len(single.whole), (spent[2] - spent[1]) / len(many.whole)]
    return {
        "first_event_ms": {"median": round(1000 * statistics.median(idle)), "worst": round(1000 * max(idle))},
        "alone": {"pictures": len(single.whole), "per_minute": round(60 * alone, 1)},
        "together": {
            "clients": clients,
            "pictures": len(many.whole),
            "per_minute": round(60 * together, 1),
            "answers": dict(many.answers),
            "seconds_a_picture": round(statistics.median(many.whole), 1),
        },
        "batches": batch_sizes(port),
        "gain": round(together / alone, 2),
        "cpu_seconds_a_picture": {"alone": round(cpu[0], 2), "together": round(cpu[1], 2)},
        "gain_in_cpu": round(cpu[0] / cpu[1], 2),
        "memory_mib": {
            name: {"first_third": peak(v[: len(v) // 3]), "last_third": peak(v[-len(v) // 3 :])}
            for name, v in seen.items()
        },
        "lost": lost(port, folder, single.runs + many.runs),
        "listed": len(single.runs + many.runs),
    }


def peak(values: list[float]) -> int | None:
    return round(max(values)) if values else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--model", default="atelier-janus", help="a small one shows many more runs")
    parser.add_argument("--queue", default="64", help="of the server: fewer places than clients make it refuse some")
    parser.add_argument("--batch", default="32", help="of the server")
    parser.add_argument("--where", action="store_true", help="only say what the time of a batch goes into")
    arguments = parser.parse_args()
    if arguments.where:
        where(int(arguments.batch))
        return
    with tempfile.TemporaryDirectory() as folder:
        options = ["--batch", arguments.batch, "--max-queue", arguments.queue, "--model", arguments.model]
        server, port = start(folder, options)
        try:
            report = measured(port, server.pid, folder, arguments.clients, arguments.seconds)
        finally:
            server.terminate()
            server.wait()
    for name, value in report.items():
        print(f"{name:22} {value}")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
