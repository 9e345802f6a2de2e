"""`reverie judge NAME --data DIR --images DIR --judge MODEL --out DIR`: pictures in a benchmark's layout, judged by a
served model, to the benchmark's scores."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reverie.commands.outputs import check_writable


def judge(arguments: argparse.Namespace) -> int:
    from reverie.benchmarks.judged import run
    from reverie.benchmarks.judged_benchmarks import find
    from reverie.vlms.openai import Budget, ServedVLM

    for flag, least in (("limit", 1), ("requests", 0), ("workers", 1)):
        value = getattr(arguments, flag)
        if value is not None and value < least:
            raise ValueError(f"--{flag} {value}: must be at least {least}.")
    find(arguments.benchmark)
    out = Path(arguments.out)
    check_writable(out)
    served = ServedVLM(
        arguments.judge,
        arguments.server,
        cache=arguments.cache or out / "answers",
        budget=Budget(requests=arguments.requests),
        workers=arguments.workers,
        extra={"chat_template_kwargs": {"enable_thinking": False}} if arguments.no_thinking else None,
    )
    run(
        arguments.benchmark,
        served,
        arguments.data,
        arguments.images,
        out,
        official=arguments.official,
        limit=arguments.limit,
        workers=arguments.workers,
        on_row=progress,
    )
    print((out / "table.md").read_text("utf-8"))
    usage = served.usage
    print(
        f"{usage.requests} requests ({usage.failures} failed), {usage.cached} answers from the cache, "
        f"{usage.question_tokens + usage.answer_tokens} tokens.",
        file=sys.stderr,
    )
    return 0


def progress(row: Mapping[str, Any], done: int, total: int) -> None:
    terminal = sys.stderr.isatty()
    if terminal or done == total or done % max(1, total // 20) == 0:
        end = "\r" if terminal and done < total else "\n"
        print(f"{done} of {total} pictures", end=end, file=sys.stderr, flush=True)
