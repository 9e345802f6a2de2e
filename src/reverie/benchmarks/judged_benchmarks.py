"""The benchmarks that a judge decides: for each, how its samples are read, asked about and scored, as `judged.run`
needs it. The rules are in the benchmarks' own modules, the questions in `judging.py`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL.Image import Image

from ..png import open_picture
from ..reason import did_you_mean
from ..vlms import VLM
from ..vlms.openai import NoAnswer, ServedVLM, Unusable
from . import cobsat, geneval2, genevalpp, judging, reasonbench, risebench, stats, wise
from .asking import Answer
from .outcome import Outcome
from .protocol import Sample

Asked = tuple[Any, Sequence[Answer[Any]]]
"""What the rule makes of an image, None if nothing, and the answers that it comes from."""


@dataclass(frozen=True)
class Judged:
    """A benchmark that a judge decides, one image a sample."""

    name: str
    official_judge: str
    samples: Callable[[Path], Sequence[Sample]]
    """From the folder with the benchmark's files."""
    file: Callable[[Sample], str]
    ask: Callable[[VLM, Sample, Image, Path, bool], Asked]
    """Of the judge, a sample, its picture, the folder with the benchmark's files, and whether official bugs count."""
    missing: Any
    """What a missing picture counts as."""
    score: Callable[[Sample, Any], float | None]
    """Of a value that is there: the score of the image in [0, 1], for comparing runs."""
    outcome: Callable[[Mapping[str, Any], Sequence[Sample], bool], Outcome]
    """Of the values by sample id."""
    weighting: stats.Weighting = "items"
    """How the scores of the images make the overall score that runs are compared by."""


def _wise(protocol: wise.Protocol, rewrite: bool = False) -> Judged:
    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        answer = judging.judge_wise(judge, sample, picture, protocol, official)
        return answer.value, [answer]

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        lines = [wise.score_line(one, values[one.id]) for one in samples if values[one.id]]
        found = wise.outcome(wise.tally([lines], protocol, official=official), official)
        return Outcome(name, found.scores, found.notes, official)

    name = f"wise-{protocol}{'-rewrite' if rewrite else ''}"

    def samples(data: Path) -> Sequence[Sample]:
        return wise.read(data, protocol, rewrite)

    def score(sample: Sample, value: Any) -> float | None:
        return wise.wiscore(**value) if protocol == "legacy" else value["score"]

    return Judged(name, wise.JUDGES[protocol], samples, wise.file, ask, None, score, outcome)


def _reasonbench() -> Judged:
    def samples(data: Path) -> list[Sample]:
        return [one for dimension in reasonbench.DIMENSIONS for one in reasonbench.read(data, dimension)]

    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        return judging.judge_reasonbench(judge, sample, picture, official)

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        found: dict[str, dict[str, Any]] = {}
        for one in samples:
            found.setdefault(one.tag, {})[one.id] = values[one.id] or [None, None]
        return reasonbench.outcome(found, official)

    def score(sample: Sample, value: Any) -> float | None:
        pair = reasonbench.image_scores(value, sample.tag)
        return pair[0] if pair else None

    return Judged("t2i-reasonbench", reasonbench.JUDGE, samples, reasonbench.file, ask, None, score, outcome, "strata")


def _risebench(size: str) -> Judged:
    def samples(data: Path) -> Sequence[Sample]:
        found = risebench.read(data, size)
        for one in found:
            _own(data, one.record["image"])
        return found

    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        names = [name for key in ("image", "reference_img") if (name := sample.record.get(key))]
        pictures = {name: open_picture(_own(data, name)).convert("RGB") for name in names}
        answers = judging.judge_risebench(judge, sample, picture, pictures, official)
        return {name: one.text for name, one in answers.items()}, list(answers.values())

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        answers = {key: value or {} for key, value in values.items()}
        return risebench.outcome(
            risebench.judge_all([one.record for one in samples], answers, official), size, official
        )

    def score(sample: Sample, value: Any) -> float | None:
        return float(risebench.judge(sample.record, value, False).passed)

    return Judged(f"risebench-{size}", risebench.JUDGE, samples, risebench.file, ask, None, score, outcome)


def _own(data: Path, name: str) -> Path:
    """A picture of the benchmark's own, in the folder of its files or in `data` below it."""
    path = next((path for path in (data / name, data / "data" / name) if path.is_file()), None)
    if path is None:
        raise ValueError(f"RISEBench: there is no {name} in {data}; {risebench.SOURCE.hint()}.")
    return path


def _genevalpp() -> Judged:
    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        verdict, answer = judging.judge_genevalpp(judge, sample, picture)
        return verdict, [answer] if answer else []

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        found: dict[str, dict[str, list[Any]]] = {}
        for one in samples:
            found.setdefault(one.tag, {})[one.id] = [values[one.id]]
        return genevalpp.outcome(found)

    def score(sample: Sample, value: Any) -> float | None:
        return float(value == 1)

    missing = genevalpp.MISSING
    return Judged("geneval++", genevalpp.JUDGE, genevalpp.read, genevalpp.file, ask, missing, score, outcome, "strata")


def _geneval2() -> Judged:
    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        try:
            return judging.judge_geneval2(cast(ServedVLM, judge), sample, picture), []
        except Unusable:
            raise
        except NoAnswer as error:
            return None, [Answer(None, str(error), 1, "judge error")]

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        return geneval2.outcome(samples, {key: value for key, value in values.items() if value}, official)

    def score(sample: Sample, value: Any) -> float | None:
        return geneval2.geometric(value)

    return Judged("geneval2", geneval2.JUDGE, geneval2.read, geneval2.file, ask, None, score, outcome)


def _cobsat(shots: int) -> Judged:
    def samples(data: Path) -> list[Sample]:
        return [one for task in cobsat.TASKS for one in cobsat.samples(task, shots)]

    def of(sample: Sample) -> cobsat.Episode:
        return cobsat.episode(sample.record["task"], shots, sample.record["index"])

    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        check, answers = judging.judge_cobsat(judge, of(sample), picture, official=official)
        return vars(check), answers

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        found: dict[int, dict[str, list[cobsat.Check]]] = {}
        for one in samples:
            group = found.setdefault(one.record["task"], {})
            group.setdefault(one.cluster, []).append(cobsat.Check(**values[one.id]))
        scores = cobsat.outcome(found, official)
        return Outcome(f"cobsat-{shots}", scores.scores, scores.notes, official)

    wrong = {"detail": False, "thing": False, "textual": False, "visual": False}

    def file(sample: Sample) -> str:
        return cobsat.file(of(sample))

    def score(sample: Sample, value: Any) -> float | None:
        return float(cobsat.Check(**value).correct)

    return Judged(f"cobsat-{shots}", cobsat.JUDGE, samples, file, ask, wrong, score, outcome, "strata")


BENCHMARKS: dict[str, Judged] = {
    one.name: one
    for one in (
        _wise("legacy"), _wise("legacy", True), _wise("verified"), _reasonbench(), _risebench("full"),
        _risebench("small"), _genevalpp(), _geneval2(), *map(_cobsat, cobsat.SHOTS),
    )
}  # fmt: skip


def find(name: str) -> Judged:
    if name not in BENCHMARKS:
        raise ValueError(
            f"There is no benchmark {name!r} that a judge decides{did_you_mean(name, BENCHMARKS)}; there are "
            f"{', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[name]
