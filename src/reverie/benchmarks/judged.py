"""Pictures in a benchmark's official layout, judged by a VLM, to its scores: for the benchmarks that a judge decides.

    judge = ServedVLM("Qwen/Qwen3.5-35B-A3B", cache="runs/answers")
    outcome = run("wise-verified", judge, data="WISE", images="runs/wise/images", out="runs/judged")

Every sample ends as scored, missing, unparsable or judge error, in rows.jsonl with the raw answers; scores.json and
table.md follow from the rows. Nothing is kept between runs here: a run that was stopped goes on because the judge's
cache has what was answered.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from PIL.Image import Image

from ..png import open_picture, picture_hash
from ..reason import did_you_mean
from ..vlms import VLM
from ..vlms.openai import NoAnswer, ServedVLM, Unusable
from . import cobsat, geneval2, genevalpp, judging, reasonbench, risebench, stats, wise
from .asking import Answer
from .harness import spread
from .outcome import Outcome
from .prompt_files import find_picture
from .protocol import Sample
from .report import write_whole

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
    outcome: Callable[[Mapping[str, Any], Sequence[Sample], bool], Outcome]
    """Of the values by sample id."""


def run(
    name: str,
    judge: VLM,
    data: str | Path,
    images: str | Path,
    out: str | Path,
    *,
    official: bool = False,
    limit: int | None = None,
    workers: int = 8,
    on_row: Callable[[Mapping[str, Any], int, int], None] | None = None,
) -> Outcome:
    """Judge the pictures in `images` and write rows.jsonl, scores.json and table.md to `out`.

    limit: only so many samples, at even distances; the scores are marked then. ValueError, before anything is asked,
    for a name, files or a folder that there are not; Unusable where the judge's server or budget ends.
    """
    benchmark = find(name)
    if not Path(images).is_dir():
        raise ValueError(f"There is no folder {images}: give the one that holds the pictures.")
    chosen = spread(benchmark.samples(Path(data)), limit)
    with ThreadPoolExecutor(workers) as pool:
        asked = [pool.submit(_row, benchmark, judge, sample, Path(data), Path(images), official) for sample in chosen]
        rows = []
        try:
            for future in asked:
                rows.append(future.result())
                if on_row:
                    on_row(rows[-1], len(rows), len(asked))
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)  # answers under way still reach the cache
            raise
    outcome = benchmark.outcome({row["id"]: row["value"] for row in rows}, chosen, official)
    _write(Path(out), benchmark, outcome, rows, getattr(judge, "name", type(judge).__name__), limit)
    return outcome


def find(name: str) -> Judged:
    if name not in BENCHMARKS:
        raise ValueError(
            f"There is no benchmark {name!r} that a judge decides{did_you_mean(name, BENCHMARKS)}; there are "
            f"{', '.join(BENCHMARKS)}."
        )
    return BENCHMARKS[name]


def _row(benchmark: Judged, judge: VLM, sample: Sample, data: Path, images: Path, official: bool) -> dict[str, Any]:
    path = find_picture(images, benchmark.file(sample))
    row: dict[str, Any] = {"id": sample.id, "tag": sample.tag, "prompt": sample.prompt, "file": None, "sha256": None}
    if path is None:
        return row | {"outcome": "missing", "value": benchmark.missing, "answers": []}
    picture = open_picture(path).convert("RGB")
    value, answers = benchmark.ask(judge, sample, picture, data, official)
    bad = [one.outcome for one in answers if one.outcome != "scored"]
    return row | {
        "file": path.relative_to(images).as_posix(),
        "sha256": picture_hash(picture),
        "outcome": bad[0] if bad else "scored",
        "value": value,
        "answers": [vars(one) for one in answers],
    }


def _write(
    out: Path, benchmark: Judged, outcome: Outcome, rows: Sequence[Mapping[str, Any]], judge: str, limit: int | None
) -> None:
    about = {
        "judge": judge,
        "official_judge": benchmark.official_judge,
        "wording": judging.WORDING,
        "outcomes": dict(Counter(row["outcome"] for row in rows)),
        "incomplete": limit is not None,
    }
    files = {
        "rows.jsonl": "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows),
        "scores.json": json.dumps(outcome.to_json() | about, indent=1) + "\n",
        "table.md": table(outcome, about),
    }
    for name, text in files.items():
        write_whole(out / name, text)


def table(outcome: Outcome, about: Mapping[str, Any]) -> str:
    """Markdown: a line for each score, and what has to be said about them."""
    rules = "official rules, bugs included" if outcome.official else "mended rules"
    ends = ", ".join(f"{number} {what}" for what, number in about["outcomes"].items())
    lines = [
        f"## {outcome.benchmark}{', incomplete' if about['incomplete'] else ''}",
        "",
        "| score | n | mean | 95% interval |",
        "| --- | ---: | ---: | :---: |",
        *(_line(name, score) for name, score in outcome.scores.items()),
        "",
        f"Judge {about['judge']} (official: {about['official_judge']}), wording {about['wording']}, {rules}; {ends}.",
        *(f"- {note}" for note in outcome.notes),
    ]
    return "\n".join(lines) + "\n"


def _line(name: str, score: stats.Estimate) -> str:
    if score.mean is None:
        return f"| {name} | 0 | none | |"
    return f"| {name} | {score.items} | {score.mean:.3f} | {score.low:.3f} to {score.high:.3f} |"


# ------------------------------------------------------------------------------------------------ benchmarks


def _wise(protocol: wise.Protocol, rewrite: bool = False) -> Judged:
    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        answer = judging.judge_wise(judge, sample, picture, protocol, official)
        return answer.value, [answer]

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        lines = [wise.score_line(one, values[one.id]) for one in samples if values[one.id]]
        found = wise.outcome(wise.tally([lines], protocol, official=official), official)
        return Outcome(name, found.scores, found.notes, official)

    name = f"wise-{protocol}{'-rewrite' if rewrite else ''}"
    return Judged(
        name, wise.JUDGES[protocol], lambda data: wise.read(data, protocol, rewrite), wise.file, ask, None, outcome
    )


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

    return Judged("t2i-reasonbench", reasonbench.JUDGE, samples, reasonbench.file, ask, None, outcome)


def _risebench(size: str) -> Judged:
    def samples(data: Path) -> Sequence[Sample]:
        found = risebench.read(data, size)
        for one in found:
            _own(data, one.record["image"])
        return found

    def ask(judge: VLM, sample: Sample, picture: Image, data: Path, official: bool) -> Asked:
        names = [name for key in ("image", "reference_img") if (name := sample.record.get(key))]
        pictures = {name: open_picture(_own(data, name)).convert("RGB") for name in names}
        answers = judging.judge_risebench(judge, sample, picture, pictures)
        return {name: one.text for name, one in answers.items()}, list(answers.values())

    def outcome(values: Mapping[str, Any], samples: Sequence[Sample], official: bool) -> Outcome:
        answers = {key: value or {} for key, value in values.items()}
        return risebench.outcome(
            risebench.judge_all([one.record for one in samples], answers, official), size, official
        )

    return Judged(f"risebench-{size}", risebench.JUDGE, samples, risebench.file, ask, None, outcome)


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

    missing = genevalpp.MISSING
    return Judged("geneval++", genevalpp.JUDGE, genevalpp.read, genevalpp.file, ask, missing, outcome)


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

    return Judged("geneval2", geneval2.JUDGE, geneval2.read, geneval2.file, ask, None, outcome)


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
    return Judged(f"cobsat-{shots}", cobsat.JUDGE, samples, lambda sample: cobsat.file(of(sample)), ask, wrong, outcome)


BENCHMARKS: dict[str, Judged] = {
    one.name: one
    for one in (
        _wise("legacy"), _wise("legacy", True), _wise("verified"), _reasonbench(), _risebench("full"),
        _risebench("small"), _genevalpp(), _geneval2(), *map(_cobsat, cobsat.SHOTS),
    )
}  # fmt: skip
