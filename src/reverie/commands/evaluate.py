"""`reverie evaluate NAME --out DIR`: runs a benchmark, or the rest of one that was stopped; or judges pictures that
another program made."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.commands.cluster_options import cluster_of
from reverie.commands.generate import plan_of
from reverie.commands.outputs import check_writable
from reverie.models.registry import resolve
from reverie.painter import check_place

if TYPE_CHECKING:
    from reverie.benchmarks.protocol import Row

SHOWN_EVERY = 0.5  # seconds between two lines on a terminal


def evaluate(arguments: argparse.Namespace) -> int:
    from reverie.benchmarks.evaluators import choices_of
    from reverie.benchmarks.harness import evaluate as run
    from reverie.benchmarks.registry import find

    find(arguments.benchmark)
    out = Path(arguments.out)
    model, plan = _painter(arguments)
    check_writable(out)
    on = cluster_of(arguments)
    judge = _judge(arguments, out)
    for line in _sizes(arguments):
        print(line, file=sys.stderr)
    names = ("data", "images", "limit", "seed", "batch", "shard", "workers")
    more = {name: getattr(arguments, name) for name in names}
    run(
        arguments.benchmark,
        model,
        out,
        plan,
        images_per_prompt=arguments.per_prompt,
        judge=judge,
        evaluators=choices_of(arguments.evaluator),
        official=arguments.official_rules,
        device=arguments.device,
        dtype=arguments.dtype,
        cache=arguments.cache,
        on=on,
        on_row=progress(),
        **more,
    )
    print((out / "table.md").read_text("utf-8"))
    print(f"{out / 'report.html'} shows the images.", file=sys.stderr)
    usage = getattr(judge, "usage", None)
    if usage is not None:
        print(
            f"{usage.requests} requests ({usage.failures} failed), {usage.cached} answers from the cache, "
            f"{usage.question_tokens + usage.answer_tokens} tokens.",
            file=sys.stderr,
        )
    return 0


def _sizes(arguments: argparse.Namespace) -> list[str]:
    """How large the models are that will look and are loaded here; told before they are."""
    from reverie.benchmarks.evaluators import cast_all, choices_of
    from reverie.benchmarks.registry import PUBLIC, find
    from reverie.models.judge_names import served

    if arguments.evaluations is not None:
        return []
    if PUBLIC.get(find(arguments.benchmark), ("",))[0].startswith("detected:") and not arguments.benchmark_judge:
        parts = cast_all(arguments.benchmark, choices_of(arguments.evaluator))
        return [f"{part.role} {part.name}: {part.size}" for part in parts]
    name = arguments.benchmark_judge
    if name is None or served(name) or find(arguments.benchmark) not in PUBLIC:
        return []
    from reverie.vlms.named import check

    found = check(name)
    return [f"judge {name}: {found.size()}"] if found else []


def _painter(arguments: argparse.Namespace) -> tuple[Any, Any]:
    """Who paints and how, both None where pictures are only judged."""
    plan = plan_of(arguments)
    check_place(arguments.device, arguments.dtype)
    if arguments.images is not None:
        if arguments.model is not None:
            raise ValueError("--model paints and --images judges what was painted elsewhere: give one of them.")
        return None, None
    model = arguments.model or "atelier-janus"
    resolve(model)
    if plan.judge is not None:
        resolve(plan.judge, "judge")
    return model, plan


def _judge(arguments: argparse.Namespace, out: Path) -> Any:
    """Who judges: a file of evaluations, a model by name, or None for whoever the benchmark has."""
    if arguments.evaluations is not None:
        from reverie.benchmarks.evaluations import Recorded

        return Recorded(arguments.evaluations)
    from reverie.vlms.named import SERVED, open_vlm
    from reverie.vlms.openai import Budget

    name = arguments.benchmark_judge
    if name is None or not name.startswith(SERVED):
        return name
    for flag in ("requests", "tokens"):
        value = getattr(arguments, flag)
        if value is not None and value < 0:
            raise ValueError(f"--{flag} {value}: must not be negative.")
    return open_vlm(
        name,
        cache=arguments.cache or out / "answers",
        budget=Budget(arguments.requests, arguments.tokens),
        workers=arguments.workers,
        extra={"chat_template_kwargs": {"enable_thinking": False}} if arguments.no_thinking else None,
    )


def progress() -> Callable[[Row, int, int], None]:
    """One line that is rewritten on a terminal; elsewhere a line for each twentieth of the run. With the time left."""
    begun, terminal = time.monotonic(), sys.stderr.isatty()
    first, shown = 0, 0.0

    def show(row: Row, done: int, total: int) -> None:
        nonlocal first, shown
        first = first or done  # what was done before this start says nothing about its pace
        now = time.monotonic()
        if done < total and (now - shown < SHOWN_EVERY if terminal else done % max(1, total // 20)):
            return
        shown = now
        left = (now - begun) / (done - first + 1) * (total - done)
        told = f"{done} of {total} images" + (f", {_time(left)} left" if done < total else "")
        print(told.ljust(40) if terminal else told, end="\r" if terminal and done < total else "\n", file=sys.stderr)
        sys.stderr.flush()

    return show


def _time(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min" if minutes else f"{seconds} s"
