"""Reports: what is found, and that nothing else is."""

import json

import pytest

from reverie.studio.reports import below, found, told


@pytest.fixture
def root(tmp_path):
    run = tmp_path / "runs" / "deep" / "training"
    (run / "samples").mkdir(parents=True)
    lines = [json.dumps({"step": step, "loss": 1 / step}) for step in range(1, 1002)]
    (run / "log.jsonl").write_text("\n".join([*lines, '{"step": 1002, "loss": NaN}', '{"half'])[:-1])
    (run / "samples" / "000500.png").write_bytes(b"png")
    evaluation = tmp_path / "runs" / "wise"
    evaluation.mkdir()
    (evaluation / "scores.json").write_text('{"overall": {"mean": 0.5}}')
    (evaluation / "gallery.html").write_text("<script>")
    (tmp_path / "secret.json").write_text("{}")
    (tmp_path / "runs" / "out").symlink_to(tmp_path)
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / ".hidden" / "scores.json").write_text("{}")
    return tmp_path / "runs"


def test_reports_are_found_and_told(root):
    assert {(row["path"], row["kind"]) for row in found((root, root.parent / "nowhere"))} == {
        ("0/deep/training", "training"),
        ("0/wise", "evaluation"),
    }
    log = told(root / "deep" / "training", "0/deep/training")["log"]
    assert 300 < len(log) <= 401
    assert log[-1] == {"step": 1002, "loss": None}
    about = told(root / "wise", "0/wise")
    assert about["scores"] == {"overall": {"mean": 0.5}}
    assert about["log"] is None
    assert told(root / "deep" / "training", "0/deep/training")["pictures"] == [
        "/api/reports/0/deep/training/samples/000500.png"
    ]


@pytest.mark.parametrize(
    "path",
    ["0/../secret.json", "0//etc/passwd", "0/out/secret.json", "0/.hidden/scores.json", "1/wise", "x", "", "0/\0"],
)
def test_nothing_outside_is_reached(root, path):
    assert below((root,), path) is None


def test_what_is_inside_is_reached(root):
    assert below((root,), "0/wise/scores.json") == (root / "wise" / "scores.json").resolve()
    assert below((root,), "0") == root.resolve()
