"""Who looks at the images of a run: the Atelier's inspector, evaluator models, or a model that reads and writes.

Each `Eyes` turns images into judgements by the benchmark's rule (`Benchmark.judge`) and has a name for the record, and
notes where it is not who the benchmark's authors used, because such scores cannot stand beside published ones.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..models.registry import entries
from ..vlms.meeting import each
from .protocol import Benchmark, Detector, Judgement
from .sources import Case

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..vlms import VLM
    from .evaluations import Evaluator


class Eyes(Protocol):
    name: str
    waits: bool
    """Whether it mostly waits for others, so that painting may go on meanwhile."""
    notes: Sequence[str]

    def check(self) -> None:
        """An error, before anything is painted, where it could judge nothing."""

    def judge(self, benchmark: Benchmark, cases: Sequence[Case]) -> list[Judgement]: ...


@dataclass(frozen=True)
class Shown:
    """A picture and who can be asked about it: what the rule of a benchmark for such judges is given."""

    vlm: VLM
    picture: Image


@dataclass(frozen=True)
class Inspected:
    """A picture and what the inspector saw in it."""

    sighting: Any
    picture: Image


class Inspecting:
    """A detector of the Atelier, such as its inspector; loaded when the first picture comes."""

    waits = False
    notes: Sequence[str] = ()

    def __init__(self, detector: Detector | str | Path | None, device: str | None = None) -> None:
        self.detector, self.device = detector, device
        if detector is None or isinstance(detector, str | Path):
            self.folder = inspector_folder(detector)
            weights = (self.folder / "inspector.safetensors").read_bytes()
            self.name = f"atelier-inspector {hashlib.sha256(weights).hexdigest()[:12]}"
        else:
            self.name = getattr(detector, "name", type(detector).__name__)

    def check(self) -> None:
        """The files were looked at when it was made."""

    def judge(self, benchmark: Benchmark, cases: Sequence[Case]) -> list[Judgement]:
        if self.detector is None or isinstance(self.detector, str | Path):
            from ..atelier.inspector import Inspector

            self.detector = Inspector.load(self.folder, self.device or usual_device())
        seen = self.detector.look([case.picture for case in cases])
        shown = (
            [Inspected(one, case.picture) for case, one in zip(cases, seen, strict=True)] if benchmark.pixels else seen
        )
        return [benchmark.judge(case.sample, one) for case, one in zip(cases, shown, strict=True)]


def usual_device() -> str:
    """A GPU if there is one."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def inspector_folder(detector: str | Path | None) -> Path:
    """Of a folder, or of the shipped inspector's name; ValueError where there is no inspector."""
    folder = entries()["atelier-inspector"].folder if detector in (None, "atelier-inspector") else Path(str(detector))
    assert folder is not None
    weights = Path(folder) / "inspector.safetensors"
    if not weights.is_file():
        raise ValueError(f"There is no {weights}: give the folder of an inspector, or train one.")
    return Path(folder)


class Evaluating:
    """Evaluator models by task: detectors, taggers, BLIP, CLIP; each loaded when the first image of its task comes."""

    waits = False

    def __init__(self, load: Callable[[str], Evaluator], name: str, notes: Sequence[str] = ()) -> None:
        """load: of the tag of a sample."""
        self.load, self.name, self.notes = cache(load), name, notes

    def check(self) -> None:
        """The files were looked at when it was made."""

    def judge(self, benchmark: Benchmark, cases: Sequence[Case]) -> list[Judgement]:
        found: dict[int, Judgement] = {}
        for tag in dict.fromkeys(case.sample.tag for case in cases):
            places = [place for place, case in enumerate(cases) if case.sample.tag == tag]
            group = [cases[place] for place in places]
            seen = self.load(tag).evaluate(
                [benchmark.file(case.sample, case.index) for case in group],
                [case.sample.prompt for case in group],
                [case.picture for case in group],
            )
            for place, case, one in zip(places, group, seen, strict=True):
                found[place] = benchmark.judge(case.sample, one)
        return [found[place] for place in range(len(cases))]


class Asking:
    """A model that reads and writes; asked about `workers` images at a time (`vlms/meeting.py`)."""

    def __init__(self, vlm: VLM, workers: int = 1, notes: Sequence[str] = ()) -> None:
        self.vlm, self.workers, self.notes = vlm, workers, notes
        self.name = getattr(vlm, "name", type(vlm).__name__)
        self.waits = workers > 1 and hasattr(vlm, "url")

    def check(self) -> None:
        check: Callable[[], None] | None = getattr(self.vlm, "check", None)
        if check:
            check()

    def judge(self, benchmark: Benchmark, cases: Sequence[Case]) -> list[Judgement]:
        def one(vlm: VLM, case: Case) -> Judgement:
            return benchmark.judge(case.sample, Shown(vlm, case.picture))

        return each(cases, one, self.vlm, self.workers)


def same_model(name: str, official: str) -> bool:
    """Whether a model's name says that it is the official one, as far as names tell."""
    return official.lower() in name.lower()


def open_eyes(
    benchmark: Benchmark,
    judge: Any,
    evaluators: Mapping[str, Any] | None,
    device: str | None,
    workers: int,
    answers: str | Path,
) -> Eyes:
    """Who looks for a benchmark. ValueError, before any weights are read, for whoever cannot.

    judge: for the Atelier a detector or the folder of an inspector (None: the shipped one); where a model is asked, a
    `VLM` or its name (`openai:MODEL@URL`, a folder, a hub id); where evaluators look, None or an `Evaluator`.
    evaluators: role to the name or folder of the model that plays it. device: None takes a GPU if there is one.
    answers: the folder that keeps a judge's.
    """
    if evaluators and benchmark.eyes != "evaluators":
        raise ValueError(f"{benchmark.name} has no evaluators to choose; give judge instead.")
    if benchmark.eyes == "inspector":
        return Inspecting(judge, device)
    if benchmark.eyes == "evaluators":
        return _evaluators(benchmark, judge, evaluators or {}, device)
    if judge is None:
        official = f", {benchmark.official_judge} officially" if benchmark.official_judge else ""
        raise ValueError(f"{benchmark.name} needs a judge{official}: give one, such as openai:MODEL@URL or a folder.")
    if isinstance(judge, str | Path):
        from ..vlms.named import open_vlm

        judge = open_vlm(str(judge), device or usual_device(), cache=answers, workers=workers)
    name = getattr(judge, "name", type(judge).__name__)
    notes = []
    if benchmark.official_judge and not same_model(name, benchmark.official_judge):
        notes.append(
            f"judged by {name}, officially by {benchmark.official_judge}: not comparable with published scores"
        )
    return Asking(judge, workers, notes)


def _evaluators(benchmark: Benchmark, judge: Any, choices: Mapping[str, Any], device: str | None) -> Eyes:
    if judge is not None:
        if not hasattr(judge, "evaluate"):
            raise ValueError(f"{benchmark.name} is scored by evaluator models, not by a judge: leave judge out.")
        note = f"seen by {judge.name}, officially by {benchmark.official_judge}: not comparable unless that is the same"
        return Evaluating(lambda tag: judge, judge.name, [note])
    from . import evaluators

    every = evaluators.cast_all(benchmark.name, choices)

    def load(tag: str) -> Evaluator:
        name = benchmark.evaluators.get(tag) or benchmark.evaluators[""]
        chosen = {role: who for role, who in choices.items() if role in evaluators.roles(name)}
        return evaluators.for_benchmark(name, chosen, device or usual_device(), benchmark.nouns)

    return Evaluating(load, evaluators.versions(every), [part.note for part in every if part.note])
