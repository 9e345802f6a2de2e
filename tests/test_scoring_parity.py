"""The scoring rules against cases recorded from the official codes, with `official=True`. The cases are data that is
not shipped: set REVERIE_FIXTURES to their folder. GenEval's own are in test_scoring.py.

Where the official code stops with an error, ours must not: it has to give some result of the right form.
"""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from reverie.benchmarks import (
    cobsat,
    compbench,
    compbench_rules,
    dpg,
    geneval2,
    genevalpp,
    oneig,
    reasonbench,
    risebench,
    uniredit,
    wise,
)
from reverie.benchmarks.protocol import Sample

ROOT = Path(__file__).resolve().parents[1]
FOLDER = (ROOT / os.environ.get("REVERIE_FIXTURES", "../shared/fixtures")).resolve() / "scoring"
BENCHMARKS = (ROOT / os.environ.get("REVERIE_BENCHMARKS", "../shared/benchmarks")).resolve()


@cache
def recorded():
    """Every case of every file, by file and kind."""
    found = {}
    for path in sorted(FOLDER.glob("*.jsonl")):
        for line in path.read_text().splitlines():
            case = json.loads(line)
            found.setdefault((path.stem, case["kind"]), []).append(case)
    return found


def cases(name, kind):
    if not recorded():
        pytest.skip(f"No recorded cases in {FOLDER}: set REVERIE_FIXTURES to the folder of the fixtures.")
    return recorded().get((name, kind), [])


def close(value, expected):
    return value is None if expected is None else value == pytest.approx(expected, abs=1e-6)


def same_table(table, expected):
    assert set(table) == set(expected)
    for name, entry in expected.items():
        assert all(map(close, table[name], entry)), (name, table[name], entry)


def test_every_kind_has_a_test():
    if not recorded():
        pytest.skip(f"No recorded cases in {FOLDER}: set REVERIE_FIXTURES to the folder of the fixtures.")
    known = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    for name, kind in recorded():
        assert name == "geneval" or f"{name}_{kind}" in known, f"nothing tests {kind} of {name}.jsonl"


# ------------------------------------------------------------------------------------------------------ WISE


def test_wise_wiscore():
    for case in cases("wise", "wiscore"):
        values = [case[name] for name in wise.FIELDS[case["protocol"]]]
        assert wise.wiscore(*values) == pytest.approx(case["expected"], abs=1e-6), case["id"]


def test_wise_extract():
    for case in cases("wise", "extract"):
        found = wise.parse(case["text"], case["protocol"], official=True)
        assert found == case["expected"]["scores"], case["id"]
        assert wise.complete(found, case["protocol"]) == case["expected"]["complete"], case["id"]


def wise_files(case):
    for file in case["files"]:
        first, last = file["id_range"]
        lines = []
        for number in range(first, last + 1):
            if number not in case["dropped_ids"]:
                scores = {name: float(case[name][number - 1]) for name in wise.FIELDS[case["protocol"]]}
                lines.append(json.dumps({"prompt_id": number, "Subcategory": "any"} | scores))
        yield [*lines, *file["extra_lines"]]


def test_wise_run():
    for case in cases("wise", "run"):
        run = wise.tally(list(wise_files(case)), case["protocol"], case["category_arg"], official=True)
        expected = case["expected"]
        assert list(run.accepted) == expected["files_accepted"], case["id"]
        assert run.aborted == expected["aborted"], case["id"]
        for mine, theirs in ((run.missing, "missing_ids_all"), (run.missing_in_file, "missing_ids_file")):
            assert (None if mine is None else list(mine)) == expected[theirs], case["id"]
        assert run.means() == pytest.approx(expected["category_means"] or {}, abs=1e-6), case["id"]
        assert run.counts() == (expected["category_counts"] or {}), case["id"]
        overall = run.overall_score()
        assert close(overall, expected["overall"]), case["id"]
        printed = None if overall is None else f"{overall:.2f}"
        assert printed == expected["overall_printed"], case["id"]


# -------------------------------------------------------------------------------------------- T2I-CompBench


def test_t2i_compbench_position_2d():
    for case in cases("t2i_compbench", "position_2d"):
        found = compbench_rules.relation_score(case["locality"], case["box1"], case["box2"], official=True)
        assert found == pytest.approx(case["expected"], abs=1e-6), case["id"]


def test_t2i_compbench_spatial_2d_image():
    for case in cases("t2i_compbench", "spatial_2d_image"):
        prompt, number = compbench_rules.split_name(case["file_name"])
        found = compbench_rules.spatial_score(prompt, case["tokens"], case["detections"], case["complex"], True)
        assert number == case["expected"]["question_id"], case["id"]
        assert found == pytest.approx(case["expected"]["answer"], abs=1e-6), case["id"]


def test_t2i_compbench_spatial_3d_image():
    for case in cases("t2i_compbench", "spatial_3d_image"):
        prompt, number = compbench_rules.split_name(case["file_name"])
        depth = np.array(case["depth"])
        found = compbench_rules.spatial_3d_score(prompt, case["tokens"], case["detections"], depth, official=True)
        assert number == case["expected"]["question_id"], case["id"]
        assert found == pytest.approx(case["expected"]["answer"], abs=1e-6), case["id"]


def test_t2i_compbench_numeracy_duplicate():
    for case in cases("t2i_compbench", "numeracy_duplicate"):
        assert compbench_rules.duplicate(case["box_a"], case["box_b"]) == bool(case["expected"]), case["id"]


def test_t2i_compbench_numeracy_image():
    found = cases("t2i_compbench", "numeracy_image")
    if not (BENCHMARKS / "t2i_compbench").is_dir():
        pytest.skip(f"No noun list in {BENCHMARKS}: set REVERIE_BENCHMARKS to the folder of the prompt files.")
    nouns = compbench_rules.noun_table(compbench.nouns(BENCHMARKS / "t2i_compbench" / "dataset"))
    for case in found:
        _, number = compbench_rules.split_name(case["file_name"])
        score = compbench_rules.numeracy_score(case["tokens"], case["detections"], nouns)
        assert number == case["expected"]["question_id"], case["id"]
        assert score == pytest.approx(case["expected"]["answer"], abs=1e-6), case["id"]


def test_t2i_compbench_blip_vqa():
    for case in cases("t2i_compbench", "blip_vqa"):
        answers = []
        for image in sorted(case["images"], key=lambda one: compbench_rules.split_name(one["file_name"])[1]):
            asked = compbench_rules.phrases(image["noun_chunks"], case["np_num"])
            answers.append(compbench_rules.attribute_score([float(p) for p in image["yes_prob"][: len(asked)]]))
        assert answers == [row["answer"] for row in case["expected"]["answers"]], case["id"]
        average = sum(map(float, answers)) / len(answers)
        assert average == pytest.approx(case["expected"]["average"], abs=1e-6), case["id"]


def test_t2i_compbench_three_in_one():
    for case in cases("t2i_compbench", "three_in_one"):
        found = compbench_rules.three_in_one(
            case["prompts"], case["spatial_prompts"], case["action_prompts"],
            case["attribute"], case["spatial"], case["action"], case["images_per_prompt"],
        )  # fmt: skip
        assert found == pytest.approx(case["expected"]["answers"], abs=1e-6), case["id"]
        assert sum(found) / len(found) == pytest.approx(case["expected"]["average"], abs=1e-6), case["id"]


# -------------------------------------------------------------------------------------------------- CoBSAT


def test_cobsat_parse():
    for case in cases("cobsat", "parse"):
        expected = case["expected"]
        mine = [cobsat.parse(case["responses"][part], official=True) for part in ("detail", "obj")]
        assert all(option == -1 or 1 <= option <= 10 for option in mine), case["id"]
        if "error" in expected:
            continue
        assert mine == [expected["answer_detail"], expected["answer_obj"]], case["id"]
        checks = [option == case["true_labels"][part] for option, part in zip(mine, ("detail", "obj"), strict=True)]
        assert [*checks, all(checks)] == [expected[k] for k in ("check_detail", "check_obj", "correct")], case["id"]


def test_cobsat_clip():
    for case in cases("cobsat", "clip"):
        expected, labels = case["expected"], case["true_labels"]
        found = cobsat.clip_check(case["similarity"], labels["detail"], labels["obj"])
        for name, value in (("obj", found.thing), ("detail", found.detail)):
            assert value == expected[f"clip_check_{name}"], case["id"]
        assert found.correct == expected["clip_correct"], case["id"]
        wanted = [expected[f"clip_similarity_{name}"] for name in ("detail", "obj", "overall")]
        assert list(found.similarities) == pytest.approx(wanted, abs=1e-6), case["id"]


def test_cobsat_layout():
    for case in cases("cobsat", "layout"):
        one = cobsat.episode(case["task_id"], case["shot"], case["index"], case["prompt_type"])
        expected = case["expected"]
        assert list(one.texts) == expected["text_inputs"], case["id"]
        assert [cobsat.SHOWN.get(word, word) for word in one.words] == expected["x_words"], case["id"]
        assert one.theta == expected["theta"], case["id"]
        assert cobsat.index_lists()[case["index"]][0][case["shot"]] == expected["query_x_index"], case["id"]
        assert one.stem == expected["save_stem"], case["id"]


def test_cobsat_demo_image():
    for case in cases("cobsat", "demo_image"):
        assert cobsat.demo_image(case["task_id"], case["x_index"], case["theta_index"]) == case["expected"], case["id"]


def test_cobsat_run():
    for case in cases("cobsat", "run"):
        missing = set(case["missing"])
        total = len(case["answer_detail"])
        rows, clip = [], 0
        for index in range(total):
            one = cobsat.episode(case["task_id"], case["shot"], index)
            gone = index in missing
            options = (-1, -1) if gone else (case["answer_detail"][index], case["answer_obj"][index])
            rows.append(cobsat.check(one, *options))
            clip += 0 if gone else case["clip_correct"][index]
        means = {
            "check_detail": sum(row.detail for row in rows) / total,
            "check_obj": sum(row.thing for row in rows) / total,
            "check_textual": sum(row.textual for row in rows) / total,
            "check_visual": sum(row.visual for row in rows) / total,
            "correct": sum(row.correct for row in rows) / total,
            "clip_correct": clip / total,
        }
        for name, value in means.items():
            assert value == pytest.approx(case["expected"][name], abs=1e-6), (case["id"], name)
        score = cobsat.outcome({case["task_id"]: {str(i): [row] for i, row in enumerate(rows)}}).scores["overall"]
        assert score.mean == pytest.approx(case["expected"]["correct"], abs=1e-6), case["id"]


# ----------------------------------------------------------------------------------------------- RISEBench


def test_risebench_extract():
    for case in cases("risebench", "extract"):
        assert risebench.numbers(case["text"]) == case["expected"], case["id"]


def test_risebench_run():
    for case in cases("risebench", "run"):
        rows = risebench.judge_all(case["samples"], case["judges"], official=True)
        table, expected = risebench.table(rows), case["expected"]
        assert len(rows) == len(case["samples"]), case["id"]
        if "error" in expected:
            continue
        for mine, theirs in zip(rows, expected["rows"], strict=True):
            assert (mine.index, mine.passed) == (theirs["index"], bool(theirs["complete"])), case["id"]
            assert mine.failed == (theirs["match_log"] != "succeed"), case["id"]
            assert close(mine.score, theirs["score"]), case["id"]
            assert all(close(mine.scores[name], theirs[name]) for name in risebench.DIMENSIONS), case["id"]
        same_table(table, expected["table"])


# --------------------------------------------------------------------------------------- T2I-ReasonBench


def test_t2i_reasonbench_extract_json():
    for case in cases("t2i_reasonbench", "extract_json"):
        found = reasonbench.answer_object(case["text"], official=True)
        assert found == case["expected"].get("json"), case["id"]


def test_t2i_reasonbench_run():
    for case in cases("t2i_reasonbench", "run"):
        names, expected = sorted(case["images"]), case["expected"]
        assert list(filter(reasonbench.is_picture, sorted([*names, *case["other_files"]]))) == names, case["id"]
        averages = [reasonbench.image_averages(answers, official=True) for answers in case["judge_answers"]]
        scores = reasonbench.dimension_scores(averages, case["dimension"])
        if "error" in expected:
            assert any(None in row for row in averages), case["id"]
            continue
        assert reasonbench.DIMENSIONS[case["dimension"]].header == expected["header"], case["id"]
        for name, mine, (file, *theirs) in zip(case["images"], averages, expected["rows"], strict=True):
            assert name == file, case["id"]
            assert list(mine) == pytest.approx(theirs, abs=1e-6), case["id"]
        assert scores == tuple(expected["final"].values()), case["id"]


def test_t2i_reasonbench_aggregate():
    for case in cases("t2i_reasonbench", "aggregate"):
        dimension = "idiom" if case["layout"] == "reason+quality" else "scientific"
        rows = [[reasonbench.cell(value) for value in row] for row in case["rows"]]
        expected = case["expected"]
        wanted = None if "error" in expected else (expected["reasoning_accuracy"], expected["image_quality"])
        assert reasonbench.dimension_scores(rows, dimension) == wanted, case["id"]


# --------------------------------------------------------------------------------------------- successors


def test_successors_geneval2():
    for case in cases("successors", "geneval2"):
        samples, scores = [], {}
        for number, (atoms, skills) in enumerate(zip(case["atom_counts"], case["skills"], strict=True)):
            samples.append(Sample(str(number), "any", "any", {"atom_count": atoms, "skills": skills}, str(number)))
            scores[str(number)] = case["scores"][number]
        found, expected = geneval2.outcome(samples, scores, official=True).scores, case["expected"]
        for name in ("soft_tifa_am", "soft_tifa_gm"):
            assert found[name].mean == pytest.approx(expected[name], abs=1e-6), case["id"]
        for atoms, value in expected["per_atomicity_gm"].items():
            assert found[f"{atoms} atoms"].mean == pytest.approx(value, abs=1e-6), case["id"]
        skills = {name: found[name].mean for name in geneval2.SKILLS if name in found}
        assert skills == pytest.approx(expected["per_skill_am"] or {}, abs=1e-6), case["id"]


def test_successors_dpg():
    for case in cases("successors", "dpg"):
        parents = {int(number): ids for number, ids in case["dependencies"].items()}
        scores = dpg.prompt_score(case["answers"], parents, official=True)
        expected = case["expected"]
        assert sum(scores) / len(scores) == pytest.approx(expected["score"], abs=1e-6), case["id"]
        last = dpg.answered(case["answers"][-1], list(parents))
        wanted = {int(number): value for number, value in expected["last_image_scores_before_dependency"].items()}
        assert last == wanted, case["id"]


def test_successors_oneig_alignment():
    for case in cases("successors", "oneig_alignment"):
        parents = {int(number): ids for number, ids in case["dependencies"].items()}
        answers = {int(number): row for number, row in case["answers"].items()}
        assert oneig.prompt_score(answers, parents) == pytest.approx(case["expected"], abs=1e-6), case["id"]


def test_successors_uniredit():
    for case in cases("successors", "uniredit"):
        samples = case["samples"]
        rows = [uniredit.judge(one["name"], case["judges"][f"{one['name']}#{one['idx']}"]) for one in samples]
        same_table(uniredit.table(rows), case["expected"])


def test_successors_genevalpp():
    for case in cases("successors", "genevalpp"):
        tags, overall, everything = genevalpp.accuracies(case["results"])
        expected = case["expected"]
        assert tags == pytest.approx(expected["tag_accuracy"], abs=1e-6), case["id"]
        assert overall == pytest.approx(expected["overall_mean_of_tags"], abs=1e-6), case["id"]
        assert everything == pytest.approx(expected["overall_all_samples"], abs=1e-6), case["id"]
