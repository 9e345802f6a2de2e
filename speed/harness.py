"""What the evaluation harness itself costs: rows per second and memory with a painter and a judge that cost nothing.

    python speed/harness.py --rows 10000 --side 96

Every row is an image saved as PNG, hashed and judged, and a line in two tables that are flushed to disk batch by batch;
the report at the end is timed apart. Memory is the resident set of the process, after a tenth of the rows and at the
end. CPU seconds leave out what other programs on the machine took.
"""

import argparse
import json
import os
import random
import tempfile
import time
from pathlib import Path

from PIL import Image

from reverie.benchmarks import harness, report
from reverie.benchmarks.protocol import Benchmark, Judgement, Painted, Sample


class Free:
    """Paints the same noise again and again."""

    name = "free"

    def __init__(self, side: int) -> None:
        self.image = Image.frombytes("RGB", (side, side), random.Random(0).randbytes(3 * side * side))

    def paint(self, prompts, seeds, plan):
        return [Painted(self.image) for _ in prompts]

    def look(self, images):
        return [None] * len(images)


def benchmark(rows: int) -> Benchmark:
    samples = [Sample(str(n), f"prompt {n}", f"task {n % 10}", {}, str(n)) for n in range(rows)]
    return Benchmark(
        "free", "1", samples, 1, lambda sample, seen: Judgement(float(int(sample.id) % 3 == 0)),
        lambda sample, index: f"{int(sample.id) // 1000}/{sample.id}_{index}.png", lambda sample: None, "strata",
    )  # fmt: skip


def resident() -> float:
    """MB of the process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def measure(rows: int, side: int, out: str) -> dict[str, float]:
    memory: dict[str, float] = {}
    reported = 0.0

    def watch(row, done, total):
        if done == total // 10:
            memory["after a tenth"] = resident()
        if done == total:
            memory["after all"] = resident()

    def timed(*arguments):
        nonlocal reported
        begin = time.process_time()
        found = write(*arguments)
        reported = time.process_time() - begin
        return found

    write, report.write = report.write, timed
    try:
        wall, cpu = time.perf_counter(), time.process_time()
        free = Free(side)
        harness.evaluate(benchmark(rows), free, out, judge=free, on_row=watch)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    finally:
        report.write = write
    return {
        "rows": rows,
        "rows per second": rows / wall,
        "rows per CPU second": rows / (cpu - reported),
        "report, CPU seconds": reported,
        "MB after a tenth": memory["after a tenth"],
        "MB after all": memory["after all"],
        "MB after the report": resident(),
    }


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=96, help="pixels")
    args = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as out:
        found = measure(args.rows, args.side, out)
    for name, value in found.items():
        print(f"{name:24} {value:10.1f}")
    print(json.dumps(found))


if __name__ == "__main__":
    main()
