"""`reverie doctor BENCHMARK`: known pictures through everybody who will look at a run's images, before the run.

Exit codes: 0 if all are fit, or poor; 1 if somebody is unfit.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reverie.benchmarks.doctor import Finding

POOR = " (better than by chance, but not by much)"


def doctor(arguments: argparse.Namespace) -> int:
    from reverie.benchmarks.costs import Prices
    from reverie.benchmarks.registry import ATELIER, PUBLIC, find
    from reverie.refusals import check_place

    name = find(arguments.benchmark)
    check_place(arguments.device)
    for flag, least in (("pictures", 4), ("side", 32), ("workers", 1)):
        if getattr(arguments, flag) < least:
            raise ValueError(f"--{flag} {getattr(arguments, flag)}: must be at least {least}.")
    prices = Prices.of(arguments.prices) if arguments.prices else None
    estimates: list[str] = []
    if name in ATELIER:
        checks = _inspector(arguments)
    elif PUBLIC[name][0].startswith("detected:"):
        checks = _evaluators(name, arguments)
    else:
        checks = _judge(name, arguments, prices, estimates)
    if arguments.verifier:
        checks = [*checks, *_verifier(arguments)]
    findings = [check() for check in _shown(checks)]
    if arguments.json:
        rows = {"benchmark": name, "findings": [one.to_json() for one in findings], "estimates": estimates}
        print(json.dumps(rows, indent=2))
    else:
        print(table(findings))
        print("\n".join(["", *(sentence(one) for one in findings), *estimates]))
    return int(any(one.verdict == "unfit" for one in findings))


Check = Callable[[], "Finding"]


def _shown(checks: list[tuple[str, Check]]) -> Iterator[Check]:
    for number, (label, check) in enumerate(checks, 1):
        print(f"{number} of {len(checks)}: {label}", file=sys.stderr, flush=True)
        yield check


def table(findings: list[Finding]) -> str:
    rows = [("role", "who", "asked", "right", "verdict")]
    for one in findings:
        share = "" if one.share is None else f"{one.share:.0%}"
        rows.append((one.role, one.who, str(one.asked), share, one.verdict))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def sentence(one: Finding) -> str:
    return f"{one.role} {one.verdict}: {one.said}{POOR if one.verdict == 'poor' else ''}."


# ------------------------------------------------------------------------------------------- who is checked


def _inspector(arguments: argparse.Namespace) -> list[tuple[str, Check]]:
    """The Atelier's inspector, the shipped one or a folder, on pictures of its own size."""
    if arguments.evaluator:
        raise ValueError(
            "the Atelier's benchmarks have no evaluators to choose; --judge names a folder of an inspector."
        )
    from reverie.benchmarks.eyes import inspector_folder

    folder = inspector_folder(arguments.judge)

    def check() -> Finding:
        from reverie.atelier.draw import SIDE
        from reverie.atelier.inspector import Inspector
        from reverie.benchmarks import doctor
        from reverie.benchmarks.known import single_things
        from reverie.judges import View
        from reverie.judges.inspector import InspectorJudge

        who = arguments.judge or "atelier-inspector"
        try:
            judge = InspectorJudge(Inspector.load(folder, _device(arguments)))
        except (ValueError, OSError) as error:
            return doctor.broken("inspector", who, error)

        def ask(texts: Any, pictures: Any) -> list[float]:
            views = [View(text, picture) for text, picture in zip(texts, pictures, strict=True)]
            return [float(bool(one.passed)) for one in judge.ask("orm", views)]

        return doctor.asked("inspector", who, ask, single_things(arguments.pictures, SIDE))

    return [(f"the inspector in {folder}", check)]


def _evaluators(name: str, arguments: argparse.Namespace) -> list[tuple[str, Check]]:
    """Each model that plays a role in a benchmark of detectors and the like, once."""
    if arguments.judge:
        raise ValueError(
            f"{name} is scored by evaluator models, not by a judge: name them with --evaluator ROLE=MODEL."
        )
    from reverie.benchmarks.evaluators import cast_all, choices_of

    parts = cast_all(name, choices_of(arguments.evaluator))
    return [(f"{part.role} {part.name} ({part.size})", _part_check(part, arguments)) for part in parts]


def _part_check(part: Any, arguments: argparse.Namespace) -> Check:
    def check() -> Finding:
        from reverie.benchmarks import doctor
        from reverie.benchmarks.evaluators import load_part
        from reverie.benchmarks.evaluators.colours import Colours
        from reverie.benchmarks.evaluators.roles import COLOURS, INSTANCES
        from reverie.benchmarks.known import single_things

        known = single_things(arguments.pictures, arguments.side)
        try:
            model = load_part(part, _device(arguments))
        except ValueError as error:
            return doctor.broken(part.role, part.name, error)
        if part.role == "tagger":
            return doctor.tagger(model)
        if part.role == "depth":
            return doctor.depth(model, known)
        if part.role == "vqa":
            return doctor.asked("vqa", part.name, lambda texts, pictures: _flat(model, texts, pictures), known)
        if part.role == "clip" and part.about is COLOURS:
            return doctor.colours(Colours(model).read, part.name, known)
        if part.role == "clip":
            return doctor.asked("clip", part.name, model.cosines, known)
        return doctor.instances(model, known) if part.about is INSTANCES else doctor.boxes(model, known)

    return check


def _flat(model: Any, texts: Any, pictures: Any) -> list[float]:
    from reverie.benchmarks.compbench_rules import question

    return [row[0] for row in model.answers(pictures, [[question(text)] for text in texts])]


def _judge(name: str, arguments: argparse.Namespace, prices: Any, estimates: list[str]) -> list[tuple[str, Check]]:
    """The model that reads, looks and writes, asked as the benchmark asks; its answers tell what a run will cost."""
    if arguments.evaluator:
        raise ValueError(f"{name} has no evaluators to choose; give --judge instead.")
    if arguments.judge is None:
        raise ValueError(f"{name} needs a judge: give --judge, such as openai:MODEL@URL or a folder.")
    from reverie.models.judge_names import served
    from reverie.vlms.named import check as check_name

    found = check_name(arguments.judge)
    benchmark = _read(name, arguments)

    def check() -> Finding:
        from reverie.benchmarks import costs, doctor, doctor_judges
        from reverie.vlms.named import open_vlm
        from reverie.vlms.openai import Patience

        more = {"enable_thinking": False} if arguments.no_thinking else None
        extra = {"chat_template_kwargs": more} if more else None
        try:
            vlm: Any = open_vlm(arguments.judge, _device(arguments), workers=arguments.workers, extra=extra)
            if served(arguments.judge):
                vlm.patience = Patience(timeout=60.0, tries=3, pause=0.5, longest=2.0)
            known = doctor_judges.pictures_of(name, arguments.pictures, arguments.side)
            finding = doctor_judges.judge(name, vlm, known, arguments.workers)
        except ValueError as error:
            return doctor.broken("judge", arguments.judge, error)
        if served(arguments.judge) and finding.asked:
            estimates.append(_estimate(name, benchmark, arguments, vlm.usage, prices, costs))
        return finding

    return [(f"judge {arguments.judge}" + (f" ({found.size()})" if found else ""), check)]


def _read(name: str, arguments: argparse.Namespace) -> Any:
    """The benchmark from its files, where they are given: for counting what will be asked."""
    if arguments.data is None:
        return None
    from reverie.benchmarks.registry import Options, load

    return load(name, Options(Path(arguments.data)))


def _estimate(name: str, benchmark: Any, arguments: argparse.Namespace, usage: Any, prices: Any, costs: Any) -> str:
    if benchmark is None:
        return f"--data with the files of {name} tells how many questions a run asks, and what they cost."
    questions = None
    if name == "dpg-bench":
        from reverie.benchmarks import dpg

        questions = dpg.read_questions(arguments.data)
    images = arguments.per_prompt or benchmark.images_per_prompt
    return costs.told(name, costs.requests(benchmark, images, questions), usage, prices)


def _verifier(arguments: argparse.Namespace) -> list[tuple[str, Check]]:
    """Whoever chooses among candidates (`--verifier` of evaluate, `--judge` of generate)."""
    from reverie.judges.load import check_named
    from reverie.models.registry import resolve
    from reverie.refusals import check_judges

    source = resolve(arguments.verifier, "judge")
    check_judges(source)
    check_named(source)

    def check() -> Finding:
        from reverie.atelier.draw import SIDE
        from reverie.benchmarks import doctor
        from reverie.benchmarks.known import single_things
        from reverie.canvas import Work
        from reverie.judges import View
        from reverie.judges.load import open_judge
        from reverie.judges.rules import share
        from reverie.vlms.openai import NoAnswer

        def ask(texts: Any, pictures: Any) -> list[float]:
            views = [View(text, picture) for text, picture in zip(texts, pictures, strict=True)]
            return [share(answer) for answer in judge.ask("orm", views)]

        try:
            judge = open_judge(source, _device(arguments))(Work(), False)
            side = SIDE if source.family in ("inspector", "janus") else arguments.side
            return doctor.asked("verifier", source.name, ask, single_things(arguments.pictures, side))
        except (ValueError, NoAnswer) as error:
            return doctor.broken("verifier", source.name, error)

    return [(f"verifier {source.name}", check)]


def _device(arguments: argparse.Namespace) -> str:
    from reverie.benchmarks.eyes import usual_device

    return arguments.device or usual_device()
