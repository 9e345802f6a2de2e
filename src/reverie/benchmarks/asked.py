"""The public benchmarks that a model which reads and writes decides: how each is read, asked about and scored by the
one harness. The rules are in the benchmarks' own modules, the questions in `judging.py`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..files import write_atomically
from ..png import open_picture
from ..vlms.openai import NoAnswer, Unusable
from . import cobsat, dpg, geneval2, genevalpp, judging, reasonbench, risebench, wise
from .asking import Answer
from .eyes import Shown
from .outcome import Outcome
from .protocol import Benchmark, Grid, Inputs, Judgement, Row, Sample
from .registry import Options


def judged(value: Any, score: float | None, answers: Sequence[Answer[Any]]) -> Judgement:
    """What the rule makes of an image and of the answers about it; the first answer that failed says how it ended."""
    bad = next((one for one in answers if one.outcome != "scored"), None)
    told = tuple(vars(one) for one in answers)
    seen = "\n".join(one.text for one in answers)
    return Judgement(score, bad.text if bad else "", seen, value, bad.outcome if bad else "scored", told)


def nothing(sample: Sample) -> None:
    """No file beside the images."""


def version() -> str:
    return f"wording {judging.WORDING}"


def values_of(rows: Sequence[Row]) -> dict[str, list[Any]]:
    """Sample id to the values of its images, in order."""
    found: dict[str, list[Any]] = {}
    for row in rows:
        found.setdefault(row.id, []).append(row.value)
    return found


def write_lines(path: Path, lines: Sequence[str]) -> None:
    write_atomically(path, lambda partial: partial.write_text("".join(f"{line}\n" for line in lines), "utf-8"))


# ------------------------------------------------------------------------------------------------ benchmarks


def of_wise(options: Options, protocol: wise.Protocol, rewrite: bool = False) -> Benchmark:
    name = f"wise-{protocol}{'-rewrite' if rewrite else ''}"
    samples = wise.read(options.data, protocol, rewrite)
    by_id = {one.id: one for one in samples}

    def judge(sample: Sample, shown: Shown) -> Judgement:
        answer = judging.judge_wise(shown.vlm, sample, shown.picture, protocol, options.official)
        value = answer.value
        if value is None:
            return judged(None, None, [answer])
        return judged(value, wise.wiscore(**value) if protocol == "legacy" else value["score"], [answer])

    def lines(rows: Sequence[Row]) -> list[str]:
        return [wise.score_line(by_id[row.id], row.value) for row in rows if row.value]

    def outcome(rows: Sequence[Row]) -> Outcome:
        found = wise.outcome(wise.tally([lines(rows)], protocol, official=options.official), options.official)
        return Outcome(name, found.scores, found.notes, options.official)

    def export(out: Path, rows: Sequence[Row]) -> None:
        write_lines(out / "scores.jsonl", lines(rows))

    return Benchmark(
        name, version(), samples, 1, judge, wise.file, nothing, "items", eyes="vlm", outcome=outcome, export=export,
        official_judge=wise.JUDGES[protocol], official=options.official,
    )  # fmt: skip


def of_reasonbench(options: Options) -> Benchmark:
    samples = [one for dimension in reasonbench.DIMENSIONS for one in reasonbench.read(options.data, dimension)]

    def judge(sample: Sample, shown: Shown) -> Judgement:
        averages, answers = judging.judge_reasonbench(shown.vlm, sample, shown.picture, options.official)
        pair = reasonbench.image_scores(averages, sample.tag)
        return judged(averages, pair[0] if pair else None, answers)

    def outcome(rows: Sequence[Row]) -> Outcome:
        found: dict[str, dict[str, Any]] = {}
        for row in rows:
            found.setdefault(row.tag, {})[_numbered(row)] = row.value or [None, None]
        return reasonbench.outcome(found, options.official)

    return Benchmark(
        "t2i-reasonbench", version(), samples, 1, judge, reasonbench.file, nothing, "strata", eyes="vlm",
        outcome=outcome, official_judge=reasonbench.JUDGE, official=options.official, percent=True,
    )  # fmt: skip


def _numbered(row: Row) -> str:
    """A name for one image of a sample, where the rule knows one image of each."""
    return row.id if row.index == 0 else f"{row.id}#{row.index}"


def of_risebench(options: Options, size: str) -> Benchmark:
    samples = risebench.read(options.data, size)
    by_id = {one.id: one for one in samples}

    def own(name: str) -> Any:
        return open_picture(risebench.picture(options.data, name)).convert("RGB")

    def judge(sample: Sample, shown: Shown) -> Judgement:
        names = [name for key in ("image", "reference_img") if (name := sample.record.get(key))]
        pictures = {name: own(name) for name in names}
        answers = judging.judge_risebench(shown.vlm, sample, shown.picture, pictures, options.official)
        value = {name: one.text for name, one in answers.items()}
        passed = risebench.judge(sample.record, value, False, options.official).passed
        return judged(value, float(passed), list(answers.values()))

    def outcome(rows: Sequence[Row]) -> Outcome:
        flagged = any(one.record.get(risebench.FLAG) is not None for one in samples)
        found = [risebench.judge(by_id[row.id].record, row.value or {}, flagged, options.official) for row in rows]
        return risebench.outcome(found, size, options.official)

    for one in samples:
        risebench.picture(options.data, one.record["image"])
    return Benchmark(
        f"risebench-{size}", version(), samples, 1, judge, risebench.file, nothing, "items",
        inputs=lambda sample: Inputs(picture=own(sample.record["image"])), eyes="vlm", outcome=outcome,
        official_judge=risebench.JUDGE, missing=Judgement(0.0, end="missing"), official=options.official,
    )  # fmt: skip


def of_genevalpp(options: Options) -> Benchmark:
    def judge(sample: Sample, shown: Shown) -> Judgement:
        verdict, answer = judging.judge_genevalpp(shown.vlm, sample, shown.picture)
        return judged(verdict, float(verdict == 1), [answer] if answer else [])

    def outcome(rows: Sequence[Row]) -> Outcome:
        found: dict[str, dict[str, list[Any]]] = {}
        for row in rows:
            found.setdefault(row.tag, {}).setdefault(row.id, []).append(row.value)
        return genevalpp.outcome(found)

    return Benchmark(
        "geneval++", version(), genevalpp.read(options.data), 1, judge, genevalpp.file, nothing, "strata", eyes="vlm",
        outcome=outcome, official_judge=genevalpp.JUDGE, missing=Judgement(0.0, "", "", genevalpp.MISSING, "missing"),
        official=options.official,
    )  # fmt: skip


def of_geneval2(options: Options) -> Benchmark:
    samples = geneval2.read(options.data)

    def judge(sample: Sample, shown: Shown) -> Judgement:
        try:
            scores = judging.judge_geneval2(shown.vlm, sample, shown.picture)
        except Unusable:
            raise
        except NoAnswer as error:
            return judged(None, None, [Answer(None, str(error), 1, "judge error")])
        asked = zip(sample.record["vqa_list"], scores, strict=True)
        seen = "\n".join(f"{question} {answer}: {score:.3f}" for (question, answer), score in asked)
        return Judgement(min(1.0, geneval2.geometric(scores)), "", seen, scores)

    def outcome(rows: Sequence[Row]) -> Outcome:
        first = {row.id: row.value for row in rows if row.value and row.index == 0}
        return geneval2.outcome(samples, first, options.official)

    def export(out: Path, rows: Sequence[Row]) -> None:
        files = {row.prompt: str((out / row.file).resolve()) for row in rows if row.file and row.index == 0}
        write_lines(out / "image_paths.json", [json.dumps(files, indent=1)])

    return Benchmark(
        "geneval2", version(), samples, 1, judge, geneval2.file, nothing, "items", eyes="vlm", outcome=outcome,
        export=export, official_judge=geneval2.JUDGE, official=options.official, percent=True,
    )  # fmt: skip


def of_cobsat(options: Options, shots: int) -> Benchmark:
    def of(sample: Sample) -> cobsat.Episode:
        return cobsat.episode(sample.record["task"], shots, sample.record["index"])

    def judge(sample: Sample, shown: Shown) -> Judgement:
        check, answers = judging.judge_cobsat(shown.vlm, of(sample), shown.picture, official=options.official)
        return judged(vars(check), float(check.correct), answers)

    def inputs(sample: Sample) -> Inputs:
        one = of(sample)
        parts: list[Any] = []
        for text, name in zip(one.texts, one.images, strict=False):
            picture = cobsat.SOURCE.locate(options.data, name)
            parts += [text, open_picture(picture).convert("RGB")]
        return Inputs(context=parts, prompt=one.texts[-1])

    def outcome(rows: Sequence[Row]) -> Outcome:
        found: dict[int, dict[str, list[cobsat.Check]]] = {}
        for row in rows:
            group = found.setdefault(int(row.id.split("-")[0]), {})
            group.setdefault(row.cluster, []).append(cobsat.Check(**row.value))
        scores = cobsat.outcome(found, options.official)
        return Outcome(f"cobsat-{shots}", scores.scores, scores.notes, options.official)

    wrong = dict.fromkeys(("detail", "thing", "textual", "visual"), False)
    return Benchmark(
        f"cobsat-{shots}", version(), [one for task in cobsat.TASKS for one in cobsat.samples(task, shots)], 1, judge,
        lambda sample, index: cobsat.file(of(sample)), nothing, "strata", inputs=inputs, eyes="vlm", outcome=outcome,
        official_judge=cobsat.JUDGE, missing=Judgement(0.0, "", "", wrong, "missing"), official=options.official,
    )  # fmt: skip


def of_dpg(options: Options) -> Benchmark:
    samples, questions = dpg.read(options.data), dpg.read_questions(options.data)
    if unasked := [one.id for one in samples if one.id not in questions]:
        raise ValueError(f"DPG-Bench: dpg_bench.csv has no questions for {unasked[0]}; {dpg.SOURCE.hint()}.")

    def judge(sample: Sample, shown: Shown) -> Judgement:
        asked = questions[sample.id]
        answers = [judging.judge_dpg(shown.vlm, question.text, shown.picture) for question in asked]
        if any(one.value is None for one in answers):
            return judged(None, None, answers)
        value = [str(one.value) for one in answers]
        parents = {question.number: question.parents for question in asked}
        return judged(value, dpg.prompt_score([value], parents)[0], answers)

    def outcome(rows: Sequence[Row]) -> Outcome:
        found = {name: [one for one in group if one] for name, group in values_of(rows).items()}
        return dpg.outcome({name: group for name, group in found.items() if group}, questions, options.official)

    return Benchmark(
        "dpg-bench", version(), samples, dpg.IMAGES, judge, lambda sample, index: f"single/{sample.id}_{index}.png",
        nothing, "items", eyes="vlm", outcome=outcome, official_judge=dpg.JUDGE, official=options.official,
        grid=Grid(dpg.file, dpg.grid, dpg.cut), percent=True,
    )  # fmt: skip
