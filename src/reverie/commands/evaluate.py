"""`reverie evaluate NAME --model ... --out DIR`: runs a benchmark, or the rest of one that was stopped."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from reverie.commands.generate import plan_of
from reverie.commands.outputs import check_writable
from reverie.models.registry import resolve
from reverie.painter import load
from reverie.refusals import check_place

if TYPE_CHECKING:
    from reverie.benchmarks.protocol import Row


def evaluate(arguments: argparse.Namespace) -> int:
    from reverie.benchmarks.harness import evaluate as run
    from reverie.benchmarks.harness import load_benchmark

    plan = plan_of(arguments)
    check_place(arguments.device, arguments.dtype)
    resolve(arguments.model)
    if plan.judge is not None:
        resolve(plan.judge, "judge")
    load_benchmark(arguments.benchmark)
    check_writable(Path(arguments.out))
    model = arguments.model
    if arguments.device or arguments.dtype:
        model = load(model, arguments.device, arguments.dtype)
    numbers = {"images_per_prompt": arguments.per_prompt, "limit": arguments.limit, "seed": arguments.seed}
    run(arguments.benchmark, model, arguments.out, plan, on_row=progress, **numbers)
    table = Path(arguments.out) / "table.md"
    print(table.read_text("utf-8") if table.is_file() else arguments.out)
    return 0


def progress(row: Row, done: int, total: int) -> None:
    """One line that is rewritten on a terminal; elsewhere a line for each twentieth of the run."""
    terminal = sys.stderr.isatty()
    if terminal or done == total or done % max(1, total // 20) == 0:
        print(f"{done} of {total} images", end="\r" if terminal and done < total else "\n", file=sys.stderr, flush=True)
