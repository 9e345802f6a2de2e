"""Tables and curves of aligners from what reports and logs hold."""

import json

import pytest

from reverie.atelier.episodes import benchmark
from reverie.training import align_table, curves
from reverie.training.drawn_report import by_task


def told(right):
    """A row where in every task the first `right` of five episodes are right."""
    episodes = [one for task in range(1, 11) for one in benchmark(task, 2, 5)]
    results = [(True, number % 5 < right) for number in range(50)]
    return by_task(results, episodes)


def test_reports_become_one_table(tmp_path, capsys):
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    first.write_text(json.dumps({"2-shot": {"VLM text": {"text": told(5)}, "full": {"drawn": told(4)}}}))
    second.write_text(json.dumps({"2-shot": {"full": {"drawn": told(0)}, "input": {"drawn": told(0)}}}))
    align_table.main([str(first), str(second), "--way", "drawn", "text"])
    lines = capsys.readouterr().out.splitlines()
    full = next(line for line in lines if line.startswith("| full"))
    assert full == "| full | 100 | 80 | **80** (67 to 89) | " + " | ".join(["80"] * 10) + " |"
    assert sum(line.startswith("| input | 100 | 0 | **0**") for line in lines) == 1
    assert sum(line.startswith("| VLM text | 100 | 100 | **100**") for line in lines) == 1


def test_curves_are_drawn_on_a_logarithmic_scale(tmp_path):
    for name, factor in (("calm", 1.0), ("wild", 10.0)):
        rows = [{"step": step, "loss": factor * 2.0 ** (-step / 10)} for step in range(1, 41)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    runs = [f"{name} & more={tmp_path / f'{name}.jsonl'}" for name in ("calm", "wild")]
    curves.main([*runs, "--out", str(tmp_path / "c.svg")])
    text = (tmp_path / "c.svg").read_text()
    assert text.count("<polyline") == 4
    assert "calm &amp; more" in text
    lines = [line.split('points="')[1].split('"')[0] for line in text.splitlines() if "<polyline" in line]
    calm, wild = ([tuple(map(float, point.split(","))) for point in line.split()] for line in (lines[0], lines[2]))
    drops = [a[1] - b[1] for a, b in zip(calm, wild, strict=True)]
    assert max(drops) - min(drops) < 0.3  # a factor is a distance
    assert min(drops) > 20
    assert calm[0][1] < calm[-1][1]
    flat = [(step, 3.0) for step in range(5)]
    assert curves.smooth(flat) == [(step, pytest.approx(3.0)) for step in range(5)]
    (tmp_path / "none.jsonl").write_text('{"step": 1, "loss": 0}')
    with pytest.raises(ValueError, match="nothing to draw"):
        curves.read_curve(tmp_path / "none.jsonl", "loss")
