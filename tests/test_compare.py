"""`reverie compare` on two runs written by hand, one row an image."""

from __future__ import annotations

import json

import pytest

from reverie.benchmarks.harness import load_benchmark
from reverie.benchmarks.protocol import Row
from reverie.cli import main


def write_run(folder, right, seed=0):
    benchmark = load_benchmark("atelier-wise")
    folder.mkdir()
    run = {name: getattr(benchmark, name) for name in ("version", "checksum", "weighting")}
    run |= {"benchmark": benchmark.name, "seed": seed}
    (folder / "run.json").write_text(json.dumps(run))
    rows = []
    for number, sample in enumerate(benchmark.samples[:40]):
        said = (sample.id, 0, sample.tag, sample.cluster, sample.prompt, None, None, 0)
        rows.append(Row(*said, "x.png", "", "scored", float(right(number)), "", "", None, ()))
    (folder / "rows.jsonl").write_text("".join(json.dumps(row.to_json()) + "\n" for row in rows))
    return str(folder)


def test_compare(tmp_path, capsys):
    first = write_run(tmp_path / "a", lambda n: n % 2 == 0)
    second = write_run(tmp_path / "b", lambda n: n % 2 == 0 or n < 30, seed=1)
    assert main(["compare", first, second, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gain"]["overall"]["mean"] == pytest.approx(15 / 40)
    assert 0 < told["gain"]["overall"]["low"] < 15 / 40 < told["gain"]["overall"]["high"] < 1
    assert told["settings"] == {"seed": [0, 1]}
    assert (len(told["better"]), told["worse"]) == (15, [])
    assert main(["compare", second, first]) == 0
    shown = capsys.readouterr().out
    assert "overall" in shown
    assert "-0.375" in shown
    assert f"Worse in {first}: 15 prompts" in shown
    assert main(["compare", first, first]) == 0
    assert "+0.000  [+0.000, +0.000]" in capsys.readouterr().out


def test_runs_that_cannot_be_compared(tmp_path, capsys):
    first = write_run(tmp_path / "a", lambda n: True)
    assert main(["compare", first, str(tmp_path / "none")]) == 2
    assert "holds no run" in capsys.readouterr().err
    second = write_run(tmp_path / "b", lambda n: True)
    run = json.loads((tmp_path / "b" / "run.json").read_text())
    (tmp_path / "b" / "run.json").write_text(json.dumps(run | {"version": "v0"}))
    assert main(["compare", first, second]) == 2
    assert "differ in their version" in capsys.readouterr().err
