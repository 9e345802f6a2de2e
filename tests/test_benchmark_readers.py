"""Readers of the public prompt files, on the files themselves (REVERIE_BENCHMARKS, not shipped) and on broken ones;
official layouts written and found again; the mended rules where they differ from the official ones."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from reverie.benchmarks import (
    cobsat,
    compbench,
    compbench_rules,
    dpg,
    geneval,
    geneval2,
    geneval_files,
    genevalpp,
    prompt_files,
    reasonbench,
    risebench,
    stats,
    wise,
)

ROOT = Path(__file__).resolve().parents[1]
FOLDER = (ROOT / os.environ.get("REVERIE_BENCHMARKS", "../shared/benchmarks")).resolve()


def place(name):
    if not (FOLDER / name).is_dir():
        pytest.skip(f"No {name} in {FOLDER}: set REVERIE_BENCHMARKS to the folder of the prompt files.")
    return FOLDER / name


def read_compbench(folder):
    return compbench.read(folder, "shape")


READERS = {
    "geneval": (geneval_files.read, "evaluation_metadata.jsonl"),
    "geneval2": (geneval2.read, "geneval2_data.jsonl"),
    "genevalpp": (genevalpp.read, "Geneval++.jsonl"),
    "dpg_bench": (dpg.read, "prompts.jsonl"),
    "t2i_compbench/dataset": (read_compbench, "shape_val.txt"),
}


@pytest.mark.parametrize("name", READERS)
def test_public_files(name, tmp_path):
    read, file = READERS[name]
    folder = place(name)
    samples = read(folder)
    assert len({sample.id for sample in samples}) == len(samples)
    if name.startswith("geneval"):
        assert read(folder / file) == samples
    assert all(sample.prompt.strip() == sample.prompt and sample.prompt for sample in samples)
    with pytest.raises(ValueError, match=r"get it from https://.*licence"):
        read(tmp_path)
    lines = (folder / file).read_bytes().splitlines(keepends=True)
    for broken in (b"".join(lines[:-1]), b"".join(lines)[:-200]):
        (tmp_path / file).write_bytes(broken)
        with pytest.raises(ValueError, match=r"damaged or not the published file; get it from https://"):
            read(tmp_path)


def test_numbers_of_the_fact_sheet():
    tags = Counter(sample.tag for sample in geneval_files.read(place("geneval")))
    assert dict(tags) == geneval_files.OF_A_TAG
    long = geneval_files.read(place("geneval"), long=True)
    short = geneval_files.read(place("geneval"))
    assert all(a.record["include"] == b.record["include"] for a, b in zip(long, short, strict=True))
    found = geneval2.read(place("geneval2"))
    assert Counter(sample.record["atom_count"] for sample in found) == dict.fromkeys(geneval2.ATOMS, 100)
    skills = Counter(skill for sample in found for skill in sample.record["skills"])
    assert skills == {"count": 2025, "object": 2025, "attribute": 1214, "position": 662, "verb": 86}
    assert sum(len(s.record["vqa_list"]) > s.record["atom_count"] for s in found) == 554
    assert Counter(sample.tag for sample in genevalpp.read(place("genevalpp"))) == dict.fromkeys(genevalpp.TAGS, 40)
    for sample in genevalpp.read(place("genevalpp")):
        assert len(genevalpp.checklist(sample.record)) >= len(sample.record["include"])


def test_compbench_files():
    folder = place("t2i_compbench/dataset")
    for category in compbench.CATEGORIES:
        assert len(compbench.read(folder, category)) == 300
        assert len(compbench.read(folder, category, "train")) == 700
    parts = compbench.complex_parts(folder)
    together = {prompt for part in parts.values() for prompt in part}
    assert together == {sample.prompt for sample in compbench.read(folder, "complex")}
    relations = Counter(
        compbench_rules.relation_of(sample.prompt, compbench_rules.RELATIONS_3D)
        for sample in compbench.read(folder, "3d_spatial")
    )
    assert relations == {"hidden": 115, "in front of": 102, "behind": 83}
    nouns = compbench_rules.noun_table(compbench.nouns(folder))
    for sample in compbench.read(folder, "numeracy"):
        words = sample.prompt.replace(",", " ,").rstrip(".").split()
        asked = compbench_rules.numbers_asked(words, nouns)
        assert 1 <= len(asked) <= 5, sample.prompt


def test_format_samples():
    """What there is of the sets without licence: each record becomes a sample."""
    for entry in json.loads((place("wise") / "format_sample.json").read_text()):
        sample = wise.sample(entry["record"], entry["protocol"])
        assert int(sample.id) in wise.ids(entry["protocol"], sample.tag)
        assert sample.record["Explanation"] not in sample.prompt
    for record in json.loads((place("risebench") / "format_sample.json").read_text()):
        sample = risebench.sample(record)
        assert risebench.file(sample).startswith(f"images/{sample.tag}/")
    kinds = {kind.prompts: name for name, kind in reasonbench.DIMENSIONS.items()}
    for entry in json.loads((place("t2i_reasonbench") / "format_sample.json").read_text()):
        dimension = kinds[entry["prompt_file"]]
        assert reasonbench.DIMENSIONS[dimension].questions_file == entry["question_file"]
        sample = reasonbench.sample(entry["prompt_record"], entry["question_record"], dimension)
        sets = reasonbench.question_sets(sample)
        assert all(1 <= len(one) <= 7 and all(question and criterion for question, criterion in one) for one in sets)
    lists = json.loads((place("cobsat") / "format_sample_prompts_list_default.json").read_text())
    mine = [{"x_list": list(x), "theta_list": list(theta)} for x, theta in cobsat.index_lists()[: len(lists)]]
    assert mine == lists


def test_cobsat_lists_from_the_seed():
    import hashlib

    for name, digest in (("default", "2b9bb57fa0fbef66"), ("ft_test", "b87e7807adead499")):
        lists = [{"x_list": list(x), "theta_list": list(theta)} for x, theta in cobsat.index_lists(name)]
        text = json.dumps(lists, separators=(",", ":"))
        assert hashlib.sha256(text.encode()).hexdigest().startswith(digest)
    assert len({sample.cluster for sample in cobsat.samples(1, 2)}) == 942
    for task in cobsat.TASKS:
        one = cobsat.episode(task, 4, 17)
        assert len(one.images) == 4
        assert cobsat.check(one, one.detail, one.thing) == cobsat.Check(True, True, True, True)
        assert not cobsat.check(one, -1, one.thing).correct


def write_wise(folder, protocol, ending="", drop=0):
    for group, stem in wise.FILES.items():
        numbers = [n for category in wise.GROUPS[group] for n in wise.ids(protocol, category)]
        records = [{"Prompt": f"prompt {n}", "Explanation": f"answer {n}", "prompt_id": n} for n in numbers]
        (folder / f"{stem}{ending}.json").write_text(json.dumps(records[: len(records) - drop]))


@pytest.mark.filterwarnings("ignore:WISE.*not the version")
def test_wise_protocols_do_not_mix(tmp_path):
    write_wise(tmp_path, "legacy")
    samples = wise.read(tmp_path, "legacy")
    assert [sample.id for sample in samples] == [str(n) for n in range(1, 1001)]
    assert Counter(sample.tag for sample in samples)["TIME"] == 167
    with pytest.raises(ValueError, match="no data_verified"):
        wise.read(tmp_path, "verified")
    write_wise(tmp_path, "legacy", "_verified")
    with pytest.raises(ValueError, match="holds 300 prompts, not 240"):
        wise.read(tmp_path, "verified")
    write_wise(tmp_path, "legacy", drop=1)
    with pytest.raises(ValueError, match=r"cultural.*holds 399 prompts, not 400"):
        wise.read(tmp_path, "legacy")
    lines = [wise.score_line(sample, {"score": int(sample.id) % 2}) for sample in samples]
    score = wise.outcome(wise.tally([lines], "verified"))
    assert score.benchmark == "wise-verified"
    assert score.scores["overall"].mean == pytest.approx(0.5)
    assert score.scores["overall"].low == pytest.approx(0.47, abs=0.005)
    assert score.scores["overall"].clusters == 1000


@pytest.mark.filterwarnings("ignore:T2I-ReasonBench.*not the version")
def test_reasonbench_files(tmp_path):
    kind = reasonbench.DIMENSIONS["entity"]
    (tmp_path / "prompts").mkdir()
    (tmp_path / "deepseek_evaluation_qs").mkdir()
    prompts = [{"id": n, "prompt": f"prompt {n}"} for n in range(1, 201)]
    asked = [{"id": n, **{field: {"q1": "is it?", "c1": "1: yes"} for field in kind.questions}} for n in range(1, 201)]
    (tmp_path / "prompts" / kind.prompts).write_text(json.dumps(prompts))
    (tmp_path / "deepseek_evaluation_qs" / kind.questions_file).write_text(json.dumps(asked))
    samples = reasonbench.read(tmp_path, "entity")
    assert reasonbench.file(samples[0]) == "entity/0001.png"
    assert reasonbench.question_sets(samples[0]) == [[("is it?", "1: yes")]] * 3
    (tmp_path / "prompts" / kind.prompts).write_text(json.dumps(prompts[:-1]))
    with pytest.raises(ValueError, match="199 prompts, not 200"):
        reasonbench.read(tmp_path, "entity")


def test_reasonbench_csv(tmp_path):
    answers = ['{"score": [1, 0.5]}', '{"score": [1]}']
    averages = reasonbench.image_averages(answers)
    rows = [(f"000{n}.png", "a prompt, with comma", "a dog", answers, averages) for n in range(1, 4)]
    reasonbench.write_csv(tmp_path / "idiom.csv", "idiom", rows)
    assert reasonbench.read_csv(tmp_path / "idiom.csv", "idiom") == {name: [0.75, 1.0] for name, *_ in rows}
    found = {"idiom": reasonbench.read_csv(tmp_path / "idiom.csv", "idiom")}
    score = reasonbench.outcome(found)
    assert score.scores["accuracy"].mean == pytest.approx(75)
    assert score.scores["idiom quality"].mean == pytest.approx(100)
    assert any("3 of 200" in note for note in score.notes)
    with pytest.raises(ValueError, match="no column score_e_avg"):
        reasonbench.read_csv(tmp_path / "idiom.csv", "entity")


# --------------------------------------------------------------------------------------------------- layouts


def test_pictures_made_elsewhere_are_found(tmp_path):
    picture = Image.new("RGB", (4, 4))
    samples = geneval_files.read(place("geneval"))[:3]
    results = []
    for sample in samples:
        name, text = geneval_files.metadata(sample)
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
        path = tmp_path / geneval_files.file(sample)
        path.parent.mkdir()
        picture.save(path)
        (path.parent / "grid.png").touch()
    found = geneval_files.find_images(tmp_path)
    assert [record for _, record in found] == [sample.record for sample in samples]
    for number, (path, record) in enumerate(found):
        boxes = {record["include"][0]["class"]: [[0, 0, 9, 9, 0.9]]} if number else {}
        verdict = geneval.judge(record, boxes, lambda name, ranks: [])
        results.append(geneval_files.result(str(path), record, boxes, verdict))
    geneval_files.write_results(tmp_path / "results.jsonl", results)
    again = geneval_files.read_results(tmp_path / "results.jsonl")
    assert again == results
    score = geneval_files.outcome(again)
    assert score.scores["overall"].mean == pytest.approx(2 / 3)
    assert "3 of 2212 images" in score.notes[0]


def test_compbench_names_go_there_and_back(tmp_path):
    samples = compbench.read(place("t2i_compbench/dataset"), "complex")
    (tmp_path / "samples").mkdir()
    for sample in (samples[7], samples[2]):
        (tmp_path / compbench.file(sample, 3)).touch()
    found = compbench.find_images(tmp_path)
    assert [(prompt, number) for _, prompt, number in found] == [(samples[2].prompt, 23), (samples[7].prompt, 73)]
    path = compbench.write_results(tmp_path, "unidet_2d", [23, 73], [0.5, 0.0])
    assert compbench.read_results(path) == {23: 0.5, 73: 0.0}
    path = compbench.write_results(tmp_path, "blip_vqa", [23, 73], ["0.5000", "0.1000"])
    assert compbench.read_results(path) == {0: 0.5, 1: 0.1}
    score = compbench.outcome({"color": {"a": [0.2, 0.4], "b": [0.6, None]}}, images=2)
    assert score.scores["color"].mean == pytest.approx(0.4)
    assert score.scores["color"].clusters == 2
    assert any("3 of 600 images" in note for note in score.notes)


def test_other_suffixes_and_grids(tmp_path):
    (tmp_path / "0007.jpg").touch()
    assert prompt_files.find_picture(tmp_path, "0007.png") == tmp_path / "0007.jpg"
    assert prompt_files.find_picture(tmp_path, "0008.png") is None
    images = [Image.new("RGB", (5, 3), (n, n, n)) for n in range(4)]
    assert [np.asarray(part).max() for part in dpg.cut(dpg.grid(images))] == [0, 1, 2, 3]
    with pytest.raises(ValueError, match="4 images of one size"):
        dpg.grid(images[:3])


def test_dpg_prompts_as_text_files(tmp_path):
    folder = tmp_path / "dpg_bench" / "prompts"
    folder.mkdir(parents=True)
    for sample in dpg.read(place("dpg_bench")):
        (folder / f"{sample.id}.txt").write_text(sample.prompt + "\n")
    assert dpg.read(tmp_path) == dpg.read(place("dpg_bench"))
    table = "item_id,proposition_id,dependency,tuple,question_natural_language\n"
    table += 'a,1,0,entity - whole (it),Is it?\na,2,"1,3",global - (photo),"Is it, too?"\n'
    (tmp_path / "dpg_bench" / "dpg_bench.csv").write_text(table)
    questions = dpg.read_questions(tmp_path)
    assert questions["a"][1] == dpg.Question(2, "Is it, too?", (1, 3), "global")
    shutil.rmtree(folder)
    with pytest.raises(ValueError, match="no prompt files"):
        dpg.read(tmp_path)


# ------------------------------------------------------------------------------------------- mended rules


def test_where_the_default_differs_from_the_official_rule():
    below, above = [0, 200, 100, 300], [0, 0, 100, 100]
    assert compbench_rules.relation_score("on top of", above, below, official=True) == 0
    assert compbench_rules.relation_score("on top of", above, below) == 1
    depth = np.zeros((20, 10))
    depth[12:, :] = 1  # the lower part is nearer
    near, far = [0, 13, 8, 19], [0, 7, 8, 14]
    assert compbench_rules.depth_relation_score("in front of", near, far, depth) > 0
    assert compbench_rules.depth_relation_score("in front of", near, far, depth, official=True) == 0
    assert cobsat.parse("1.0", official=True) == 10
    assert cobsat.parse("1.0") == 1
    assert cobsat.parse("Option 3 (of three)") == 3
    assert cobsat.parse("1 or 2") == -1
    assert wise.parse("**Score:** 1", "verified", official=True) == {}
    assert wise.parse("**Score:** 1", "verified") == {"score": 1}
    bold = "**Consistency:** 2\n**Realism (0-2):** 1\n**Aesthetic Quality** : 1.5"
    assert wise.parse(bold, "legacy") == {"consistency": 2, "realism": 1}
    nested = 'I think: {"reason": {"q1": "a } sign"}, "score": [1, "0.5",]} and so on'
    assert reasonbench.scores_in(nested, 2, official=True) is None
    assert reasonbench.scores_in(nested, 2) == [1, 0.5]
    assert reasonbench.scores_in(nested, 3) is None
    assert dpg.respect_parents({1: 1, 2: 1, 3: 0}, {1: [2], 2: [3], 3: [0]}, official=True) == {1: 1, 2: 0, 3: 0}
    assert dpg.respect_parents({1: 1, 2: 1, 3: 0}, {1: [2], 2: [3], 3: [0]}) == {1: 0, 2: 0, 3: 0}


def test_one_free_sample_does_not_change_the_others():
    records = [{"index": str(n), "category": "causal_reasoning", "subtask": "any"} for n in range(2)]
    records[1]["consistency_free"] = True
    answers = {"0": {"judge1": "Final Score: 1", "judge2": "Final Score: 5", "judge3": "Final Score: 5"}}
    answers["1"] = answers["0"] | {"judge1": None}
    official, mended = (risebench.judge_all(records, answers, flag) for flag in (True, False))
    assert [row.score for row in official] == [5, 5]
    assert [row.score for row in mended] == [pytest.approx(3.8), 5]
    assert [row.passed for row in official] == [row.passed for row in mended] == [False, True]
    assert risebench.outcome(mended).scores["accuracy"].mean == 0.5


def test_dpg_bugs_are_named():
    questions = {
        "a": (dpg.Question(1, "?", (0,), "entity - whole"), dpg.Question(2, "?", (0,), "global")),
        "b": (dpg.Question(1, "?", (0,), "entity - part"), dpg.Question(2, "?", (1,), "global")),
    }
    answers = {"a": [["no", "yes"], ["yes", "yes"]], "b": [["no", "yes"], ["no", "yes"]]}
    mended, official = (dpg.outcome(answers, questions, flag) for flag in (False, True))
    assert mended.scores["total"].mean == pytest.approx(37.5)
    assert mended.scores["global"].mean == pytest.approx(50)
    assert mended.scores["entity"].mean == pytest.approx(25)
    assert mended.scores["entity - part"].mean == 0
    assert official.scores["total"].mean == pytest.approx(50)
    assert official.scores["global"].mean == pytest.approx(100)
    assert any("bugs repeated" in note for note in official.notes)
    questions["a"] = (questions["a"][0], dpg.Question(2, "?", (1,), "global"))
    assert dpg.outcome(answers, questions, True).scores["total"].clusters == 1, "it stops at the first item"


# ---------------------------------------------------------------------------------------------- properties

boxes = st.tuples(*[st.integers(0, 60)] * 2, *[st.integers(1, 60)] * 2).map(
    lambda b: [float(b[0]), float(b[1]), float(b[0] + b[2]), float(b[1] + b[3])]
)


@given(boxes, boxes, st.sampled_from([*compbench_rules.RELATIONS, "on bottom of"]))
def test_relations_are_shares_and_opposites_exclude(a, b, relation):
    for official in (True, False):
        assert 0 <= compbench_rules.relation_score(relation, a, b, official) <= 1
    for one, other in (("left", "right"), ("top", "bottom")):
        scores = [compbench_rules.relation_score(f"on the {word} of", a, b) for word in (one, other)]
        assert 0 in scores
        assert scores[0] == pytest.approx(compbench_rules.relation_score(f"on the {other} of", b, a))


@given(boxes, boxes)
def test_duplicates_are_mutual(a, b):
    assert compbench_rules.duplicate(a, b) == compbench_rules.duplicate(b, a)
    assert compbench_rules.duplicate(a, a)


@settings(deadline=None)
@given(st.text(max_size=60) | st.from_regex(r"(Final Score|Score|Consistency|\{\"score\": \[)[:* ]{0,3}\d{0,3}.*"))
def test_parsers_never_stop(text):
    for official in (True, False):
        assert -1 <= cobsat.parse(text, official) <= 10
        reasonbench.scores_in(text, 2, official)
        risebench.score_of(text, official)
        for protocol in ("legacy", "verified"):
            wise.parse(text, protocol, official)
    assert genevalpp.parse(text) in (None, 0, 1)


@given(st.integers(1, 30), st.integers(0, 10**6))
def test_weighted_strata(number, seed):
    rng = random.Random(seed)
    values = [rng.random() for _ in range(number)]
    strata = [rng.choice("ab") for _ in values]
    found = stats.estimate(values, range(number), strata, "strata", weights={"a": 0.25, "b": 0.75})
    groups = {name: [v for v, s in zip(values, strata, strict=True) if s == name] for name in set(strata)}
    share = {"a": 0.25, "b": 0.75}
    mean = sum(share[n] * sum(g) / len(g) for n, g in groups.items()) / sum(share[n] for n in groups)
    assert found.mean == pytest.approx(mean)
    assert found.low <= found.mean <= found.high
