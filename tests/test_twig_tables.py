"""The scripts beside the recipes of thinking while painting: what weights are chosen by, and paired differences."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest

from reverie.atelier.language_parse import HELD_OUT_HEADS, PLAIN_HEADS, Demand
from reverie.atelier.sample import allowed

SCRIPTS = Path(__file__).parents[1] / "recipes" / "twig"


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module(name)


def test_weights_are_chosen_by_prompts_that_no_benchmark_has(monkeypatch: pytest.MonkeyPatch) -> None:
    found = script("exercises", monkeypatch)
    practice, exercises = found.practice(count=30, heads=10), found.exercises(count=30)
    assert practice.checksum == found.practice(count=30, heads=10).checksum
    assert [sample.tag for sample in practice.samples].count("unheard") == 10
    for sample in practice.samples:
        include = Demand.from_record(sample.record["demand"]).include
        assert allowed(include)
        assert all(clause.texture == "plain" for clause in include)
    asked = [sample.prompt for sample in (*practice.samples, *exercises.samples)]
    assert not any(prompt.startswith(HELD_OUT_HEADS) for prompt in asked)
    assert not set(found.UNHEARD) & {*HELD_OUT_HEADS, *PLAIN_HEADS}


def test_differences_are_of_the_images_that_both_rows_have(monkeypatch: pytest.MonkeyPatch) -> None:
    said = script("differences", monkeypatch).said
    old = {(f"{i}", 0): ("color" if i < 10 else "complex", float(i % 2)) for i in range(30)}
    new = {key: (task, 1.0 if task == "color" else score) for key, (task, score) in old.items()}
    new |= {(f"{i}", 1): ("complex", 0.0) for i in range(30)}  # a second image that the other row lacks
    points, counts = said(new, old, "strata")
    assert points.startswith("+25.0 (+")  # half of one task of two
    assert counts == "; 5/0"
    assert said(new, old, "items")[0].startswith("+16.7 (+")
    assert said(old, new, "strata")[0].startswith("-25.0 (-")
