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
from pathlib import Path
from typing import Any

from ..png import open_picture, picture_hash
from ..vlms import VLM
from . import judging, stats
from .harness import spread
from .judged_benchmarks import Judged, find
from .outcome import Outcome
from .prompt_files import find_picture
from .protocol import Sample, checksum
from .report import write_whole


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
    samples = benchmark.samples(Path(data))
    chosen = spread(samples, limit)
    about = {
        "benchmark": name,
        "version": f"wording {judging.WORDING}",
        "checksum": checksum(samples),
        "weighting": benchmark.weighting,
        "judge": getattr(judge, "name", type(judge).__name__),
        "official": official,
        "images": str(images),
    }
    _check_place(Path(out), about)
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
    _write(Path(out), about | {"official_judge": benchmark.official_judge}, outcome, rows, limit)
    return outcome


def _check_place(out: Path, about: Mapping[str, Any]) -> None:
    """ValueError where `out` holds a run of something else, whose files ours would replace."""
    file = out / "run.json"
    there = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    for key in ("benchmark", "checksum", "judge", "images"):
        if there and there.get(key) != about[key]:
            raise ValueError(
                f"{out} holds a run with {key} {there.get(key)!r}, not {about[key]!r}: give another folder."
            )


def _row(benchmark: Judged, judge: VLM, sample: Sample, data: Path, images: Path, official: bool) -> dict[str, Any]:
    path = find_picture(images, benchmark.file(sample))
    row: dict[str, Any] = {"id": sample.id, "cluster": sample.cluster, "tag": sample.tag, "prompt": sample.prompt}
    if path is None:
        value = benchmark.missing
        score = None if value is None else benchmark.score(sample, value)
        return row | {"file": None, "outcome": "missing", "value": value, "score": score, "answers": []}
    picture = open_picture(path).convert("RGB")
    value, answers = benchmark.ask(judge, sample, picture, data, official)
    bad = [one.outcome for one in answers if one.outcome != "scored"]
    return row | {
        "file": path.relative_to(images).as_posix(),
        "sha256": picture_hash(picture),
        "outcome": bad[0] if bad else "scored",
        "value": value,
        "score": None if value is None else benchmark.score(sample, value),
        "answers": [vars(one) for one in answers],
    }


def _write(
    out: Path, about: Mapping[str, Any], outcome: Outcome, rows: Sequence[Mapping[str, Any]], limit: int | None
) -> None:
    ends = {"outcomes": dict(Counter(row["outcome"] for row in rows)), "incomplete": limit is not None}
    told = {**outcome.to_json(), **about, **ends, "wording": judging.WORDING}
    write_whole(out / "run.json", json.dumps(about, indent=1) + "\n")
    write_whole(out / "rows.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    write_whole(out / "scores.json", json.dumps(told, indent=1) + "\n")
    write_whole(out / "table.md", table(outcome, told))


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
