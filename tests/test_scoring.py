"""GenEval's rule against cases recorded from its official code. The cases are data that is not shipped: set
REVERIE_FIXTURES to their folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from reverie.benchmarks.geneval import Options, colour_crop, iou, judge, relations, summarise

ROOT = Path(__file__).resolve().parents[1]
FIXTURES = (ROOT / os.environ.get("REVERIE_FIXTURES", "../shared/fixtures")).resolve()
BACKGROUNDS = {"#999": (0x99, 0x99, 0x99), "#000": (0, 0, 0), "original": None}


def cases(kind):
    path = FIXTURES / "scoring" / "geneval.jsonl"
    if not path.is_file():
        pytest.skip(f"No recorded cases at {path}: set REVERIE_FIXTURES to the folder of the fixtures.")
    found = [case for line in path.read_text().splitlines() if (case := json.loads(line))["kind"] == kind]
    assert found, f"{path} holds no case of kind {kind}"
    return found


def test_images():
    for case in cases("evaluate_image"):
        calls = []

        def colours(name, indices, case=case, calls=calls):
            calls.append([name, indices])
            return [case["colors"][name][i] for i in indices]

        verdict = judge(
            {**case["metadata"], "tag": case["tag"]}, case["detections"], colours, Options(**case["options"])
        )
        expected = case["expected"]
        assert verdict.correct == expected["correct"], case["id"]
        assert verdict.reason in expected["reason_accepted"], case["id"]
        assert verdict.kept == expected["kept"], case["id"]
        assert calls == expected["color_calls"], case["id"]
        details = {name: [case["detections"][name][i] for i in ranks] for name, ranks in verdict.kept.items()}
        assert details == expected["details"], case["id"]


def test_relations():
    for case in cases("relative_position"):
        assert relations(case["box_a"], case["box_b"], case["position_threshold"]) == case["expected"], case["id"]


def test_overlap():
    for case in cases("iou"):
        assert iou(case["box_a"], case["box_b"]) == pytest.approx(case["expected"], abs=1e-6), case["id"]


def test_colour_crop():
    for case in cases("color_crop"):
        options = case["options"]
        mask = None if case["mask"] is None else np.array(case["mask"])
        background = BACKGROUNDS[options.get("bgcolor", "#999")]
        cut = colour_crop(np.array(case["pixels"]), mask, case["box"], background, options.get("crop", "1") == "1")
        assert cut.tolist() == case["expected"], case["id"]


def test_summary():
    for case in cases("summary"):
        summary, expected = summarise(case["results"]), case["expected"]
        for name in ("total_images", "total_prompts"):
            assert getattr(summary, name) == expected[name], case["id"]
        for name in ("image_accuracy", "prompt_accuracy", "overall"):
            assert getattr(summary, name) == pytest.approx(expected[name], abs=1e-6), case["id"]
        assert list(summary.tag_scores) == expected["tag_order"], case["id"]
        assert summary.tag_scores == pytest.approx(expected["tag_scores"], abs=1e-6), case["id"]
        assert f"{summary.overall:.5f}" == expected["printed_overall"], case["id"]
