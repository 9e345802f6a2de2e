"""From files of evaluations, written anywhere, to scores of GenEval and T2I-CompBench."""

from __future__ import annotations

import pytest

from reverie.benchmarks import compbench, compbench_rules, evaluations, geneval_files
from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.protocol import Sample

BOX, OTHER = [0.0, 0.0, 10.0, 10.0], [30.0, 0.0, 40.0, 10.0]


def test_geneval(tmp_path):
    record = {"tag": "colors", "include": [{"class": "cat", "count": 1, "color": "red"}], "prompt": "a red cat"}
    sample = Sample("00003", "a red cat", "colors", record, "00003")
    made = [
        Evaluation("00003/samples/0000.png", "toy-1", [("cat", BOX, 0.9)], {"cat": ["red"]}),
        Evaluation("00003/samples/0001.png", "toy-1", [("cat", BOX, 0.9)], {"cat": ["blue"]}),
        Evaluation("00003/samples/0002.png", "toy-1"),
    ]
    evaluations.write(tmp_path / "seen.jsonl", made)
    there = evaluations.read(tmp_path / "seen.jsonl")
    results = evaluations.geneval([sample], there)
    assert [one.correct for one in results] == [True, False, False]
    assert "found 0 red; and 1 blue" in results[1].reason
    score = evaluations.geneval_outcome([sample], there)
    assert score.scores["overall"].mean == pytest.approx(1 / 3)
    assert (score.scores["overall"].items, score.scores["overall"].clusters) == (3, 1)
    geneval_files.write_results(tmp_path / "results.jsonl", results)
    assert geneval_files.read_results(tmp_path / "results.jsonl") == results
    bare = {"00003/samples/0000.png": Evaluation("00003/samples/0000.png", "", [("cat", BOX, 0.9)])}
    with pytest.raises(ValueError, match="asks for colours"):
        evaluations.geneval([sample], bare)


def test_files_are_checked(tmp_path):
    path = tmp_path / "seen.jsonl"
    with pytest.raises(ValueError, match="There is no"):
        evaluations.read(path)
    evaluations.write(path, [Evaluation("a.png"), Evaluation("a.png")])
    with pytest.raises(ValueError, match=r"line 2: a.png comes twice"):
        evaluations.read(path)
    path.write_text('{"image": "a.png", "boxes": []}\n')
    with pytest.raises(ValueError, match="line 1 is no evaluation"):
        evaluations.read(path)


def test_every_category_of_compbench():
    tokens = [
        ("a", "DET"),
        ("cat", "NOUN"),
        ("in", "ADP"),
        ("front", "NOUN"),
        ("of", "ADP"),
        ("a", "DET"),
        ("dog", "NOUN"),
    ]
    near = [[float(x < 20) for x in range(50)]] * 20
    nouns = compbench_rules.noun_table(["cat - cats", "dog - dogs"])
    prompts = {"3d_spatial": "a cat in front of a dog", "spatial": "a cat on the left of a dog"}
    for category in compbench.CATEGORIES:
        prompt = prompts.get(category, "a cat and a dog")
        sample = Sample("x-000002", prompt, category, {"prompt": prompt, "number": 2}, prompt)
        one = Evaluation(
            compbench.file(sample, 1, 2), "toy-1", [("cat", BOX, 0.9), ("dog", OTHER, 0.7)], None, tokens,
            ["a cat", "the left", "a dog"], {"a cat?": 0.5, "a dog?": 0.8}, 0.25, near,
        )  # fmt: skip
        parts = {"spatial": (), "action": (prompt,), "spatialaction": ()}
        scores = evaluations.compbench(category, [sample], {one.image: one}, 2, nouns=nouns, parts=parts)
        expected = {
            "spatial": 0.9, "3d_spatial": 0.4, "numeracy": 1.0, "non_spatial": 0.25, "complex": (0.4 + 0.25) / 2,
        }  # fmt: skip
        assert scores == {prompt: [None, pytest.approx(expected.get(category, 0.4))]}, category
    with pytest.raises(ValueError, match="needs the noun list"):
        evaluations.compbench("numeracy", [], {})
