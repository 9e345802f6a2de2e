"""`reverie generate` and `reverie edit`: check everything that needs no weights, then load the model, paint, and show
what happens."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Generator
from contextlib import closing
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from reverie.commands.outputs import check_writable, picture_files
from reverie.display import Display
from reverie.events import Event, Finished, Trace
from reverie.fitting import Fitting
from reverie.inputs import Inputs
from reverie.judges.load import check_judge
from reverie.models.registry import Source, check_prompt, resolve, size_text
from reverie.painter import Painter, load
from reverie.png import check_size, save_png
from reverie.reason import Plan, make_plan
from reverie.refusals import (
    check_canvas,
    check_inputs,
    check_place,
    check_request,
    check_thinks,
    in_words,
    may_be_silent,
    usual_judge,
)
from reverie.room import judge_dtype

PIECES = 24


def plan_of(arguments: argparse.Namespace) -> Plan:
    """The plan that the options of the command line describe."""
    return make_plan(arguments.preset, **{field.name: getattr(arguments, field.name) for field in fields(Plan)})


def generate(arguments: argparse.Namespace) -> int:
    """Paints `arguments.prompt`, or the picture anew as it says; prints file names, or events with --json."""
    plan = plan_of(arguments)
    if plan.choose != "first" and plan.candidates == 1 and arguments.n > 1:
        plan, arguments.n = replace(plan, candidates=arguments.n), 1
    if getattr(arguments, "prompts", None) is not None:
        from reverie.commands.generate_many import generate_many

        return generate_many(arguments, plan)
    if getattr(arguments, "on", None) is not None:
        raise ValueError("--on is for many prompts: give them with --prompts FILE.")
    if arguments.prompt is None:
        raise ValueError("there is nothing to paint: give a prompt, or a file of them with --prompts.")
    context = getattr(arguments, "context", None)
    check_prompt(arguments.prompt, silent=bool(context))
    check_place(arguments.device, arguments.dtype)
    source = resolve(arguments.model)
    fitting = Fitting.of(arguments)
    fitting.check(source)
    check_thinks(source, plan)
    check_canvas(source, plan)
    silent = may_be_silent(source, context)
    seeds = check_request(source, arguments.prompt, arguments.seed, arguments.n, silent)
    inputs = inputs_of(arguments)
    check_inputs(source, plan, inputs)
    judge = check_judge(plan, None if in_words(source, plan, inputs) else arguments.prompt)
    if plan.judges and plan.judge is None and (usual := usual_judge(source)) is not None:
        judge = check_judge(replace(plan, judge=usual), arguments.prompt)
    check_size(arguments.size)
    files = picture_files(arguments.out, arguments.prompt, arguments.n)
    if arguments.trace is not None:
        Trace.check(arguments.trace)
        check_writable(Path(arguments.trace))
    with Display(quiet=arguments.quiet or arguments.json) as display:
        display.say(loading(source, arguments.dtype))
        painter = load(arguments.model, arguments.device, arguments.dtype, **fitting.said())
        if judge is not None:
            display.say(loading(judge, judge_dtype(judge, str(painter.model.device))))
        events = _events(painter, plan, arguments, seeds, inputs, display.pictures)
        with closing(events):
            for event in events:
                display.show(event)
                name = None
                if isinstance(event, Finished) and event.picture is not None:
                    files[event.image].parent.mkdir(parents=True, exist_ok=True)
                    name = str(save_png(event.picture, files[event.image], event.recipe, arguments.size))
                if arguments.json:
                    _print_json(event, name)
    if not arguments.json:
        print(*files, sep="\n")
    return 0


def inputs_of(arguments: argparse.Namespace) -> Inputs:
    """The pictures and words that stand beside the prompt, opened and checked."""
    pairs = getattr(arguments, "context", None) or ()
    context = [part for image, *text in pairs for part in (Path(image), *text)]
    return Inputs.of(getattr(arguments, "picture", None), context)


def loading(source: Source, dtype: str | None) -> str:
    """What is about to be loaded, and how much memory it takes."""
    count = source.count()
    return f"loading {source.name}" + (f" ({size_text(source, count, dtype)})" if count else "")


def _events(
    painter: Painter, plan: Plan, arguments: argparse.Namespace, seeds: list[int], inputs: Inputs, shown: bool
) -> Generator[Event, None, None]:
    # Decoding a preview costs about as much as a tenth of an image, so they are made only where somebody looks.
    looked_at = shown or arguments.trace is not None
    pieces = max(2, PIECES // len(seeds)) if looked_at else PIECES
    prompts, given = [arguments.prompt] * len(seeds), [inputs] * len(seeds)
    events = painter.run(plan, prompts, seeds, inputs=given, pieces=pieces, previews=looked_at)
    if arguments.trace is None:
        yield from events
        return
    with Trace(arguments.trace) as trace:
        for event in events:
            yield trace.write(event)


def _print_json(event: Event, file: str | None) -> None:
    record: dict[str, Any] = event.to_json() | ({"file": file} if file else {})
    sys.stdout.write(json.dumps(record, ensure_ascii=False) + "\n")
    sys.stdout.flush()
