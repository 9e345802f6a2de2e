"""The public benchmarks that detectors, CLIP and BLIP decide, GenEval and T2I-CompBench, for the one harness."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from . import compbench, compbench_rules, evaluations, geneval_files
from .evaluations import Evaluation
from .outcome import Outcome
from .protocol import Benchmark, Judgement, Row, Sample
from .registry import Options

UNSEEN = Judgement(None, "no evaluator has looked at it", end="judge error")


def of_geneval(options: Options, long: bool = False) -> Benchmark:
    samples = geneval_files.read(options.data, long)
    by_id = {one.id: one for one in samples}
    images = options.images_per_prompt or geneval_files.IMAGES

    def judge(sample: Sample, one: Evaluation | None) -> Judgement:
        if one is None:
            return UNSEEN
        result = evaluations.judge_geneval(sample, one)
        details = json.loads(result.details)
        seen = ", ".join(f"{len(boxes)} {name}" for name, boxes in details.items()) or "nothing"
        return Judgement(float(result.correct), result.reason, seen, details)

    def results(rows: Sequence[Row]) -> list[geneval_files.Result]:
        lines = []
        for row in rows:
            if row.end == "scored":
                record = by_id[row.id].record
                told = (row.tag, record["prompt"], row.score == 1, row.reason, json.dumps(record))
                lines.append(geneval_files.Result(str(row.file), *told, json.dumps(row.value)))
        return lines

    def outcome(rows: Sequence[Row]) -> Outcome:
        return geneval_files.outcome(results(rows), long, images)

    def export(out: Path, rows: Sequence[Row]) -> None:
        geneval_files.write_results(out / "results.jsonl", results(rows))

    return Benchmark(
        "geneval-long" if long else "geneval", "1", samples, geneval_files.IMAGES, judge, geneval_files.file,
        geneval_files.metadata, "strata", eyes="evaluators", outcome=outcome, export=export,
        official_judge="Mask2Former of MMDetection and CLIP ViT-L/14", official=options.official,
        evaluators={"": "geneval-long" if long else "geneval"},
    )  # fmt: skip


def of_compbench(options: Options, name: str, categories: Sequence[str]) -> Benchmark:
    """One category, or several side by side, each in a folder of its own."""
    images = options.images_per_prompt or compbench.IMAGES
    samples = [one for category in categories for one in compbench.read(options.data, category)]
    rules = {compbench.RULES[category] for category in categories}
    nouns = compbench_rules.noun_table(compbench.nouns(options.data)) if "unidet_count" in rules else {}
    parts = compbench.complex_parts(options.data) if "three_in_one" in rules else {}

    def judge(sample: Sample, one: Evaluation | None) -> Judgement:
        if one is None:
            return UNSEEN
        kind = compbench.RULES[sample.tag]
        score = evaluations.score_compbench(kind, sample.prompt, one, options.official, nouns, parts)
        return Judgement(score, "", seen_by(one), score)

    def file(sample: Sample, index: int) -> str:
        place = compbench.file(sample, index, images)
        return place if len(categories) == 1 else f"{sample.tag}/{place}"

    def outcome(rows: Sequence[Row]) -> Outcome:
        found: dict[str, dict[str, list[float | None]]] = {}
        for row in rows:
            found.setdefault(row.tag, {}).setdefault(row.prompt, []).append(row.value)
        return compbench.outcome(found, images, options.official)

    def export(out: Path, rows: Sequence[Row]) -> None:
        for category in categories:
            there = [row for row in rows if row.tag == category and row.value is not None]
            rule = compbench.RULES[category]
            numbers = [int(Path(str(row.file)).stem.rpartition("_")[2]) for row in there]
            if there:
                compbench.write_results(out / "results" / category, rule, numbers, [row.value for row in there])

    return Benchmark(
        name, "1", samples, compbench.IMAGES, judge, file, lambda sample: None, "strata", eyes="evaluators",
        outcome=outcome, export=export, official_judge="UniDet, BLIP VQA, DPT and CLIP", official=options.official,
        evaluators={category: f"t2i-compbench-{category}" for category in categories}, nouns=nouns,
    )  # fmt: skip


def seen_by(one: Evaluation) -> str:
    """What evaluators saw, in few words."""
    words = [f"{label} {score:.2f}" for label, _, score in one.detections[:8]]
    words += [f"{phrase} {value:.2f}" for phrase, value in (one.phrases or {}).items()]
    return ", ".join(words + ([] if one.clip is None else [f"CLIP {one.clip:.3f}"]))
