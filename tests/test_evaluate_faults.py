"""What can go wrong with an evaluation: wrong requests, files, pictures, judges and prompts. One sentence each, nothing
lost."""

from __future__ import annotations

import pytest
from benchmark_toys import Toy, data_of, reply, words_of
from test_benchmark_readers import write_wise
from test_served_vlm import QUICK, Model, serving
from tiny import tiny_folder

from reverie.benchmarks.harness import evaluate
from reverie.cli import main
from reverie.vlms.openai import ServedVLM

pytestmark = pytest.mark.filterwarnings("ignore:.*not the version")


def test_bad_requests_ask_nothing(tmp_path, capsys):
    model = Model()
    pictures = ["--images", str(tmp_path / "images")]
    (tmp_path / "data").mkdir()
    broken = tiny_folder(tmp_path / "broken")  # nobody may notice, for nothing is loaded before all else is right
    for path in broken.glob("*.safetensors"):
        path.write_bytes(b"")
    with serving(model) as url:
        for name, more, said in (
            (
                "wise",
                ["--model", str(broken), "--dtype", "float32"],
                "get it from https://github.com/PKU-YuanGroup/WISE",
            ),
            ("wize", pictures, "did you mean wise"),
            ("wise", pictures, "There is no folder"),
            ("wise", ["--workers", "0"], "workers=0"),
            ("wise", ["--requests", "-1"], "--requests -1"),
            ("wise", ["--shard", "3/2"], "shard 3/2"),
            ("wise", ["--shard", "two"], "must say which of how many"),
            ("wise", ["--judge", "openai:toy@nowhere"], "names no served model"),
            ("wise", ["--evaluator", "detector"], "must be ROLE=NAME"),
            ("wise", [], "get it from https://github.com/PKU-YuanGroup/WISE, commit eb511744 (licence: none found"),
            ("geneval", [], "get it from https://github.com/djghosh13/geneval"),
            ("atelier-wise", [], "needs no data"),
            ("wise", ["--model", "x", *pictures], "give one of them"),
        ):
            assert main(words_of(name, tmp_path, url, *more)) == 2, (name, more)
            shown = capsys.readouterr().err
            assert said in shown, (name, more)
            assert shown.count("\n") == 1
        (tmp_path / "images").mkdir()
        write_wise(tmp_path / "data", "legacy")
        assert main(words_of("wise", tmp_path, url, *pictures, "--evaluator", "detector=x")) == 2
        assert "has no evaluators to choose" in capsys.readouterr().err
        assert main(words_of("wise", tmp_path, url, *pictures)) == 2
        assert "There is no picture of wise-legacy" in capsys.readouterr().err
        (tmp_path / "images" / "1.png").write_bytes(b"no picture")
        assert main(words_of("wise", tmp_path, url, *pictures)) == 2
        assert "1.png cannot be read as a picture" in capsys.readouterr().err
        path = tmp_path / "data" / "natural_science.json"
        path.write_text(path.read_text()[:-100])
        assert main(words_of("wise", tmp_path, url, *pictures)) == 2
        assert "is no JSON" in capsys.readouterr().err
    assert not model.bodies


def test_a_judge_that_is_not_there_loses_nothing(tmp_path, capsys):
    data_of("wise-legacy", tmp_path / "data")
    painter = Toy()
    nowhere = ServedVLM("toy", "http://127.0.0.1:9/v1", cache=tmp_path / "answers", patience=QUICK)
    asked = {"data": tmp_path / "data", "limit": 5}
    with pytest.raises(OSError, match="There is no server for toy at"):
        evaluate("wise", painter, tmp_path / "out", judge=nowhere, **asked)
    assert not painter.painted, "known before anything is painted"
    words = words_of("wise", tmp_path, nowhere.url, "--model", str(tiny_folder(tmp_path / "tiny")))
    assert main([*words, "--out", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    with serving(Model(["401"] * 99)) as url:
        stranger = ServedVLM("toy", url, cache=tmp_path / "answers")
        with pytest.raises(OSError, match="gives no answer"):
            evaluate("wise", painter, tmp_path / "out", judge=stranger, **asked)
    with serving(Model(reply=reply)) as url:
        there = ServedVLM("toy", url, cache=tmp_path / "answers")
        assert evaluate("wise", painter, tmp_path / "out", judge=there, **asked)["images_scored"] == 5
    assert len(painter.painted) == 5, "what was painted before the judge failed is not painted again"


def test_a_prompt_that_the_painter_refuses_does_not_end_the_run(tmp_path):
    data_of("wise-legacy", tmp_path / "data")
    asked = {"data": tmp_path / "data", "limit": 10}
    with serving(Model(reply=reply)) as url:
        judge = ServedVLM("toy", url)
        scores = evaluate("wise", Toy(lambda prompt: prompt == "prompt 501"), tmp_path / "out", judge=judge, **asked)
        assert scores["ends"] == {"scored": 9, "not painted": 1}
        assert "1 images were refused by the painter" in " ".join(scores["notes"])
        with pytest.raises(ValueError, match="no words for"):
            evaluate("wise", Toy(lambda prompt: True), tmp_path / "none", judge=judge, **asked)
