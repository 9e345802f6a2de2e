"""Reports of thinking side by side: categories, intervals, paired differences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from reverie.training.think_table import better, main, rows_of


def report(path: Path, scores: dict[str, list[float]], **value: float) -> Path:
    rows = [
        {"id": key, "cluster": key, "tag": "time" if int(key) % 2 else "space", "index": index, "score": score}
        | ({"value": value} if value else {})
        for key, values in scores.items()
        for index, score in enumerate(values)
    ]
    path.write_text(json.dumps({"about": {}, "atelier-wise/think": {"rows": rows, "scores": {}}}))
    return path


def test_the_same_prompts_are_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    worse = report(tmp_path / "worse.json", {str(i): [0.0, float(i % 3 == 0)] for i in range(60)})
    good = report(tmp_path / "good.json", {str(i): [1.0, float(i % 3 == 0)] for i in range(60)})
    main([f"before={worse}", f"after={good}"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| category | before | after |"
    assert [line.split(" | ")[0] for line in lines[2:]] == [
        "| space",
        "| time",
        "| **overall**",
        "| better than before by",
    ]
    assert "**66.7 (" in lines[4]
    assert lines[5] == "| better than before by | | +50.0 (+50.0 to +50.0) * |"

    main([f"before={worse}", f"after={good}", "--images", "1"])
    assert "**0.0 (0.0 to " in capsys.readouterr().out
    judged = report(tmp_path / "judged.json", {"1": [0.0], "2": [0.0]}, reasoning=1.0)
    assert [row["score"] for row in rows_of(judged, None, None, "reasoning")] == [1.0, 1.0]
    gap = better(rows_of(worse, None, None), rows_of(worse, None, None))
    assert (gap.mean, gap.low, gap.high) == (0, 0, 0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{file}"], "not of the form NAME=FILE"),
        (["a={file}", "--entry", "atelier-wise/raw"], "holds atelier-wise/think; give --entry"),
        (["a={file}", "--images", "3"], "fewer than 3 pictures"),
        (["a={file}.txt"], "is no report"),
        (["a={file}", "--value", "reasoning"], "no reasoning is told"),
    ],
)
def test_what_cannot_be_compared_is_said(arguments: list[str], said: str, tmp_path: Path, capsys) -> None:
    file = report(tmp_path / "one.json", {"1": [1.0, 0.0]})
    with pytest.raises(SystemExit) as stopped:
        main([argument.format(file=file) for argument in arguments])
    assert stopped.value.code == 2
    assert said in capsys.readouterr().err
