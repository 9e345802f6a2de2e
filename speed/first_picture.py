"""How long a command takes from cold: the answer to `reverie --help`, and the first picture of `reverie generate`.

    python speed/first_picture.py --repeats 5

Each run is a process of its own; the files of Python and of the weights are in the page cache from the second on. Wall
seconds are what a user waits; CPU seconds leave out what other programs on the machine took. Set OMP_NUM_THREADS and
the processor affinity from outside to see another number of cores.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path


def run(command: list[str]) -> tuple[float, float]:
    """(wall, CPU) seconds of a process that must succeed; its output is thrown away."""
    begin = time.perf_counter()
    pid = os.posix_spawn(
        command[0], command, os.environ, file_actions=[(os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    )
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed; run it by hand to see why.")
    return time.perf_counter() - begin, usage.ru_utime + usage.ru_stime


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--model", default="atelier-janus")
    args = parser.parse_args(arguments)
    python = [sys.executable, "-c", "from reverie.cli import main; raise SystemExit(main())"]
    with tempfile.TemporaryDirectory() as folder:
        picture = ["--model", args.model, "--seed", "1", "-q", "--out", str(Path(folder) / "first.png")]
        commands = {
            "import torch": [sys.executable, "-c", "import torch"],
            "reverie --help": [*python, "--help"],
            "reverie generate": [*python, "generate", "a red fish below a boat", *picture],
            "reverie generate --think before": [
                *python, "generate", "a red fish below a boat", *picture, "--think", "before",
            ],
        }  # fmt: skip
        runs: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(args.repeats):
            for name, command in commands.items():
                runs[name].append(run(command))
    result = {name: [statistics.median(column) for column in zip(*pairs, strict=True)] for name, pairs in runs.items()}
    for name, (wall, cpu) in result.items():
        print(f"{name:32} {wall:6.2f} s wall   {cpu:6.2f} s CPU")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
