"""Judges by name, hub id or folder, as the registry knows them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.models.judge_names import weighed
from reverie.models.registry import Source, resolve
from reverie.reason import PYTHON, Plan
from reverie.refusals import check_judges

if TYPE_CHECKING:
    import torch

    from reverie.canvas import Work
    from reverie.judges import Judge
    from reverie.judges.manner import Manner

Anyone = Any
"""What can be turned into a judge: a name or folder, a `Judge`, a function, or pairs of these with weights."""
Opened = Callable[["Work", bool], "Judge"]
"""Makes a loaded judge anew for a run, with the run's account; the flag asks for official sampling."""


def name_of(judge: Anyone) -> str | None:
    """What a plan calls this judge; judges that exist in Python only are marked as such."""
    if judge is None or isinstance(judge, str):
        return judge
    if isinstance(judge, Path):
        return str(judge)
    if hasattr(judge, "ask"):
        return PYTHON + judge.name
    if callable(judge):
        return PYTHON + getattr(judge, "__name__", type(judge).__name__)
    return PYTHON + " + ".join(f"{weight:g} {name_of(one)}" for one, weight in _weighted(judge))


def build(judge: Anyone, by_name: Callable[[str], Judge]) -> Judge:
    """A judge out of anything that can be one; `by_name` loads those that are only named."""
    from reverie.judges.mixed import Ensemble, FunctionJudge

    if isinstance(judge, str | Path):
        if str(judge).startswith(PYTHON):
            raise ValueError(f"the judge {judge!s} is a Python object and is not here; pass it as judge=.")
        parts = weighed(str(judge))
        return by_name(str(judge)) if len(parts) == 1 else Ensemble([(by_name(name), w) for name, w in parts])
    if hasattr(judge, "ask"):
        return judge
    if callable(judge):
        return FunctionJudge(judge, str(name_of(judge)).removeprefix(PYTHON))
    return Ensemble([(build(one, by_name), weight) for one, weight in _weighted(judge)])


def _weighted(judge: Anyone) -> list[tuple[Anyone, float]]:
    try:
        return [(_scaled(one, span), float(weight)) for one, weight, *span in judge]
    except (TypeError, ValueError) as error:
        raise ValueError(
            "a judge is a name, a folder, a function (prompts, pictures) -> scores, or a list of (judge, weight); "
            "scores of a function may be brought to one scale: (function, weight, (lowest, highest))."
        ) from error


def _scaled(judge: Anyone, span: list[tuple[float, float]]) -> Anyone:
    """A function whose scores go from 0 to 1, by the scores that stand for these; ValueError for anything else."""
    from reverie.judges.mixed import FunctionJudge

    if not span:
        return judge
    ((low, high),) = span
    if not callable(judge) or hasattr(judge, "ask") or not low < high:
        raise ValueError("only scores of functions are scaled, from a lower to a higher one")
    return FunctionJudge(judge, str(name_of(judge)).removeprefix(PYTHON), span=(low, high))


def check_judge(plan: Plan, prompt: str | None) -> Source | None:
    """What the plan's judge stands for, None for the painter's own eyes, several or none; checked without loading.

    prompt: by which it will judge; None where that is only known after pictures were put into words."""
    if plan.judge is None or plan.judge.startswith(PYTHON):
        return None
    parts = weighed(plan.judge)
    if len(parts) > 1:
        for name, _ in parts:
            check_judge(replace(plan, judge=name), prompt)
        return None
    source = resolve(plan.judge, "judge")
    check_judges(source)
    check_named(source)
    by_prompt = plan.think == "never" or plan.interleaved
    if source.family == "inspector" and by_prompt and prompt is not None:
        check_atelier(prompt)
    return source


def check_named(source: Source) -> None:
    """ValueError for a reward model or a chat model whose files cannot be what it needs. Loads nothing."""
    if source.family == "reward":
        from reverie.judges.rewards import check

        check(source.name)
    if source.family == "chat":
        from reverie.vlms.named import check as check_vlm

        check_vlm(source.name)


def check_atelier(prompt: str) -> None:
    """ValueError for a prompt that the inspector cannot judge by."""
    from reverie.atelier.language_parse import parse

    try:
        parse(prompt)
    except ValueError as error:
        raise ValueError(f"atelier-inspector judges by the Atelier's language only: {error}") from error


def open_judge(source: Source, device: str, dtype: torch.dtype | None = None) -> Opened:
    """Loads a judge. ValueError if its files are not complete."""
    if source.family == "inspector":
        from reverie.atelier.inspector import Inspector
        from reverie.judges.inspector import InspectorJudge

        assert source.folder is not None
        inspector = Inspector.load(source.folder, device)
        return lambda work, official: InspectorJudge(inspector, source.name, work)
    check_judges(source)
    check_named(source)
    if source.family == "reward":
        return _open_reward(source, device)
    import torch

    from reverie.judges.vlm import VLMJudge, Wording
    from reverie.room import judge_dtype
    from reverie.vlms.named import load_vlm, open_vlm

    name = source.name
    if source.family == "served":
        served, plain = open_vlm(name), Wording.of("instruct")
        return lambda work, official: VLMJudge(served, plain, name, official, work)
    kind = dtype or judge_dtype(source, device)
    source, make = load_vlm(source, device, getattr(torch, kind) if isinstance(kind, str) else kind)
    wording, manner = Wording.of(source.judge), manner_of(source)
    return lambda work, official: VLMJudge(make(work), wording, name, official, work, manner)


def manner_of(source: Source) -> Manner:
    """What a judge's config.json says about how it is asked. ValueError where it says what cannot be."""
    from reverie.judges.manner import Manner

    return Manner.of(source.config.get("reverie") or {}, f"{source.name}, config.json")


def judge_by_name(name: str, device: str) -> Judge:
    """A judge that is loaded now and keeps an account of its own: for building data and training, outside of runs."""
    from reverie.canvas import Work

    return build(name, lambda one: open_judge(resolve(one, "judge"), device)(Work(), False))


def _open_reward(source: Source, device: str) -> Opened:
    from reverie.judges import rewards
    from reverie.judges.mixed import FunctionJudge

    judged = rewards.as_judge_function(rewards.load(source.name, device))
    return lambda work, official: FunctionJudge(judged, source.name, work=work)
