"""Pictures in a folder to scores, through the command line and a toy server on this machine."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter

import pytest
from PIL import Image
from test_benchmark_readers import write_wise
from test_served_vlm import Model, serving, text_of

from reverie.benchmarks import cobsat, judged_benchmarks, risebench, wise
from reverie.cli import main

pytestmark = pytest.mark.filterwarnings("ignore:.*not the version")


def rest(folder, url):
    where = ["--images", str(folder / "images"), "--out", str(folder / "out")]
    return [*where, "--judge", "toy", "--server", url]


def go(name, url, folder, *more):
    return main(["judge", name, "--data", str(folder / "data"), *rest(folder, url), *more])


def test_wise_from_folder_to_scores(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "images").mkdir()
    write_wise(tmp_path / "data", "verified", "_verified")
    legacy = tmp_path / "legacy"
    legacy.mkdir()
    write_wise(legacy, "legacy")
    samples = wise.read(tmp_path / "data", "verified")
    for sample in samples[:-2:50]:
        Image.new("RGB", (4, 4), (int(sample.id) % 256, 0, 0)).save(tmp_path / "images" / wise.file(sample))

    def reply(body):
        number = int(re.search(r"The prompt: prompt (\d+)", text_of(body))[1])
        return {1: "hm", 51: "**Score:** 1"}.get(number, f"Score: {int(number > 500)}")

    with serving(Model(["500", ""], reply)) as url:
        assert go("wise-verified", url, tmp_path, "--limit", "20") == 0
        shown = capsys.readouterr()
        assert "wise-verified, incomplete" in shown.out
        assert "no overall score" in shown.out
        assert "23 requests (1 failed), 0 answers from the cache" in shown.err
        scores = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert scores["outcomes"] == {"unparsable": 1, "scored": 19}
        assert scores["rules"] == "mended"
        assert scores["scores"]["mean of what is there"]["mean"] == pytest.approx(11 / 19)
        rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
        assert rows[0]["answers"][0]["text"] == "hm"
        assert rows[1]["value"] == {"score": 1}
        assert go("wise-verified", url, tmp_path, "--limit", "20", "--official") == 0
        shown = capsys.readouterr()
        assert "official rules" in shown.out
        assert "2 requests" in shown.err, "the one that only the mended rule could read is asked for again"
        assert json.loads((tmp_path / "out" / "scores.json").read_text())["outcomes"] == {"unparsable": 2, "scored": 18}
        (tmp_path / "images" / "101.png").unlink()
        assert go("wise-verified", url, tmp_path, "--limit", "20", "--requests", "0") == 0
        assert "0 requests (0 failed), 21 answers from the cache" in capsys.readouterr().err
        rows = [json.loads(line) for line in (tmp_path / "out" / "rows.jsonl").read_text().splitlines()]
        assert Counter(row["outcome"] for row in rows) == {"unparsable": 1, "scored": 18, "missing": 1}
        assert main(["judge", "wise-legacy", "--data", str(legacy), *rest(tmp_path, url)]) == 2
        assert "holds a run with benchmark 'wise-verified'" in capsys.readouterr().err
    first, second = tmp_path / "out", tmp_path / "other"
    shutil.copytree(first, second)
    changed = [json.dumps(row | {"score": 1.0 if row["score"] is not None else None}) for row in rows]
    (second / "rows.jsonl").write_text("\n".join(changed) + "\n")
    assert main(["compare", str(first), str(second), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gain"]["overall"]["items"] == 18
    assert told["gain"]["overall"]["mean"] == pytest.approx(sum(row["score"] == 0 for row in rows) / 18)
    assert len(told["better"]) == sum(row["score"] == 0 for row in rows)


def test_bad_requests_ask_nothing(tmp_path, capsys):
    model = Model()
    with serving(model) as url:
        for name, more, said in (
            ("wise", [], "There is no benchmark 'wise'"),
            ("wise-legacy", [], "There is no folder"),
            ("wise-legacy", ["--workers", "0"], "--workers 0"),
        ):
            assert go(name, url, tmp_path, *more) == 2
            assert said in capsys.readouterr().err
        (tmp_path / "images").mkdir()
        assert go("wise-legacy", url, tmp_path) == 2
        assert "get it from https://github.com/PKU-YuanGroup/WISE" in capsys.readouterr().err
    assert not model.bodies


def test_risebench_and_a_budget(tmp_path, capsys):
    data, images = tmp_path / "data", tmp_path / "images"
    records = []
    for number in range(360):
        category = list(risebench.CATEGORIES)[number % 4]
        record = {"index": f"{category}_{number}", "category": category, "instruction": f"do {number}"}
        records.append(record | {"image": "in.png", "reference": "it"})
    data.mkdir()
    (data / risebench.SIZES["full"][0]).write_text(json.dumps(records))
    for sample in map(risebench.sample, records[:8:2]):
        path = images / risebench.file(sample)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (int(sample.prompt[3:]), 0, 0)).save(path)
    model = Model(reply=lambda body: "Final Score: " + ("1" if "0 or 1" in text_of(body) else "5"))
    with serving(model) as url:
        assert go("risebench-full", url, tmp_path) == 2
        assert "there is no in.png" in capsys.readouterr().err
        Image.new("RGB", (4, 4)).save(data / "in.png")
        assert go("risebench-full", url, tmp_path, "--requests", "3") == 2
        assert "budget of 3 requests is spent" in capsys.readouterr().err
        assert go("risebench-full", url, tmp_path) == 0
    assert len(model.bodies) == 12
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["scores"]["accuracy"]["mean"] == pytest.approx(4 / 360)
    assert scores["scores"]["score (%)"]["mean"] == 100
    assert scores["outcomes"] == {"scored": 4, "missing": 356}


def test_every_name_has_a_layout():
    assert set(judged_benchmarks.BENCHMARKS) >= {
        "wise-legacy",
        "wise-verified",
        "t2i-reasonbench",
        "geneval++",
        "geneval2",
    }
    benchmark = judged_benchmarks.find("cobsat-4")
    sample = cobsat.samples(3, 4, number=2)[1]
    assert benchmark.file(sample) == cobsat.file(cobsat.episode(3, 4, 1))
