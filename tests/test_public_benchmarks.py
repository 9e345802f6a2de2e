"""Public benchmarks through the one door: painted, judged by a real server that fails, stalls and talks nonsense, or by
an evaluator, and reported; and what a user can do wrong."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import pytest
from benchmark_toys import Toy, dab, data_of, real, reply, words_of
from evaluator_toys import save_blip, save_clip, save_dpt, save_mask2former, save_owlv2, save_tagger
from PIL import Image
from test_benchmark_readers import write_wise
from test_served_vlm import QUICK, Model, serving, text_of
from tiny import tiny_folder
from vlm_toy import toy_vlm

from reverie.benchmarks import compbench, evaluations, geneval_files, wise
from reverie.benchmarks.evaluations import Evaluation
from reverie.benchmarks.harness import evaluate, read_rows
from reverie.benchmarks.registry import find, load
from reverie.cli import main
from reverie.vlms.openai import ServedVLM

pytestmark = pytest.mark.filterwarnings("ignore:.*not the version")  # of `read` in the tests themselves
LOGPROBS = {"yes": 0.5, "Yes": 0.25, "two": 0.2}
JUDGED = (
    "wise-legacy",
    "wise-verified",
    "t2i-reasonbench",
    "risebench-full",
    "geneval2",
    "geneval++",
    "cobsat-2",
    "dpg-bench",
)


@pytest.mark.parametrize("name", JUDGED)
def test_nothing_is_lost_and_nothing_counts_twice(name, tmp_path):
    """Against a server that fails now and then: the same scores as against one that does not, in two starts."""
    data, painter = data_of(name, tmp_path / "data"), Toy()
    asked = {"data": data, "limit": 11, "batch": 4}
    calm = Model(reply=reply, logprobs=LOGPROBS)
    with serving(calm) as url:
        judge = ServedVLM("toy", url, cache=tmp_path / "calm" / "answers", patience=QUICK)
        wanted = evaluate(name, painter, tmp_path / "calm", judge=judge, **asked)
    assert sum(wanted["ends"].values()) == wanted["expected"] == len(painter.painted)
    assert wanted["scores"]
    assert not wanted["complete"]
    assert any("not comparable" in note for note in wanted["notes"])
    wild = Model(["500", "", "html", "drop", "null", "", "429", "cut", "", "", "empty"] * 2, reply, LOGPROBS)

    class Stop(Exception):
        pass

    def stop(row, done, total):
        if done == 6:
            raise Stop

    with serving(wild) as url:
        for on_row in (stop, None):
            judge = ServedVLM("toy", url, cache=tmp_path / "wild" / "answers", patience=QUICK)
            try:
                scores = evaluate(name, painter, tmp_path / "wild", judge=judge, on_row=on_row, **asked)
            except Stop:
                assert on_row
    for key in ("scores", "ends", "notes"):
        assert scores[key] == wanted[key]
    assert read_rows(tmp_path / "wild") == read_rows(tmp_path / "calm")
    questions = [{json.dumps(body, sort_keys=True) for body in model.bodies} for model in (wild, calm)]
    assert questions[0] == questions[1]
    assert len(painter.painted) == 2 * wanted["expected"], "painted once for each run"
    assert (tmp_path / "wild" / "report.html").read_text().count("<article") >= 1


def test_inputs_reach_the_painter(tmp_path):
    painter = Toy()
    with serving(Model(reply=reply)) as url:
        judge = ServedVLM("toy", url, patience=QUICK)
        evaluate("cobsat-2", painter, tmp_path / "c", data=data_of("cobsat-2", tmp_path / "d"), limit=3, judge=judge)
        (first, *_), (prompt, _) = painter.given, painter.painted[0]
        assert [type(part) is str for part in first.context] == [True, False, True, False]
        assert re.fullmatch(r"\w+: ", prompt)
        assert read_rows(tmp_path / "c")[0].prompt.endswith(prompt)
        painter.given.clear()
        evaluate(
            "risebench", painter, tmp_path / "r", data=data_of("risebench-full", tmp_path / "e"), limit=3, judge=judge
        )
        assert all(one.picture.size == (8, 8) for one in painter.given)
        assert "data:image/webp" in (tmp_path / "r" / "report.html").read_text().split('class="given"')[1]


class Seer:
    """An evaluator that finds whatever the prompt's record includes in two of three pictures."""

    name = "seer"

    def __init__(self, samples):
        self.records, self.calls = {one.prompt: one.record for one in samples}, 0

    def evaluate(self, files, prompts, images):
        self.calls += len(files)
        return [self._one(file, prompt, image) for file, prompt, image in zip(files, prompts, images, strict=True)]

    def _one(self, file, prompt, image):
        record, found, colours = self.records[prompt], [], {}
        if image.getpixel((0, 0))[0] % 3:
            for place, clause in enumerate(record.get("include", ())):
                for number in range(clause["count"]):
                    x = 100.0 * (place + number)
                    found.append((clause["class"], [x, 0.0, x + 20, 20.0], 0.95))
                    colours.setdefault(clause["class"], []).append(clause.get("color", "red"))
        tokens = [(word.strip("."), "NOUN") for word in prompt.split()]
        return Evaluation(file, "seer", found, colours, tokens, ["a cat"], {"a cat?": 0.5}, 0.25, [[0.5, 1.0]])


@pytest.mark.parametrize("name", ["geneval", "geneval-long", "t2i-compbench++", "t2i-compbench-numeracy"])
def test_evaluators_on_real_prompts(name, tmp_path):
    data = real("geneval" if "geneval" in name else "t2i_compbench/dataset")
    samples = load(name, _options(data)).samples
    painter, seer = Toy(), Seer(samples)
    asked = {"data": data, "limit": 24, "judge": seer, "images_per_prompt": 2}
    scores = evaluate(name, painter, tmp_path / "out", **asked)
    assert scores["ends"] == {"scored": 48}
    assert any("seen by seer" in note for note in scores["notes"])
    assert evaluate(name, painter, tmp_path / "out", **asked)["scores"] == scores["scores"]
    assert (len(painter.painted), seer.calls) == (48, 48)
    judged = evaluate(name, None, tmp_path / "again", images=tmp_path / "out" / "images", **asked)
    assert judged["scores"] == scores["scores"], "found in the layout in which they were written"
    if "compbench" in name:
        for category in {row.tag for row in read_rows(tmp_path / "out")}:
            rule = compbench.RESULTS[compbench.RULES[category]]
            answers = compbench.read_results(tmp_path / "out" / "results" / category / rule / "vqa_result.json")
            mean = sum(answers.values()) / len(answers)
            assert mean == pytest.approx(scores["scores"][category]["mean"]), "what the official scripts read"
    if "geneval" in name:
        results = geneval_files.read_results(tmp_path / "out" / "results.jsonl")
        assert geneval_files.outcome(results).scores["overall"].mean == scores["overall"]["mean"]
        assert 0 < scores["overall"]["mean"] < 1
        assert {one.metadata for one in results} <= {json.dumps(one.record) for one in samples}


def _options(data):
    from reverie.benchmarks.registry import Options

    return Options(data)


GENEVAL = {"detector": save_mask2former, "clip": save_clip}
COMPBENCH = {"tagger": save_tagger, "vqa": save_blip, "detector": save_owlv2, "depth": save_dpt, "clip": save_clip}


@pytest.mark.parametrize(
    ("name", "parts", "limit", "replaced"),
    [
        ("geneval", GENEVAL, 6, "in place of MMDetection's Mask2Former"),
        ("t2i-compbench++", COMPBENCH, 8, "in place of UniDet, 722 classes"),
    ],
)
def test_evaluators_by_name(name, parts, limit, replaced, tmp_path, capsys):
    """From the command line, on real prompts: a tiny Janus paints, tiny evaluators of the real classes look."""
    data, models = real("geneval" if name == "geneval" else "t2i_compbench/dataset"), tmp_path / "models"
    words = ["evaluate", name, "--data", str(data), "--model", str(tiny_folder(models / "tiny"))]
    words += ["-n", "1", "--limit", str(limit), "--out", str(tmp_path / "out")]
    for role, make in parts.items():
        words += ["--evaluator", f"{role}={make(models / role)}"]
    assert main([*words, "--evaluator", "eyes=x"]) == 2
    assert re.search(f"has no role 'eyes'.*its roles are .*{sorted(parts)[0]}", capsys.readouterr().err)
    assert main(words) == 0
    assert replaced in capsys.readouterr().out
    rows = read_rows(tmp_path / "out")
    assert [row.end for row in rows] == ["scored"] * limit
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert set(scores["scores"]) >= {row.tag for row in rows}
    assert main(words) == 0
    assert json.loads((tmp_path / "out" / "scores.json").read_text()) == scores, "nothing was left to do"


def test_evaluations_made_elsewhere(tmp_path, capsys):
    data = real("geneval")
    samples = load("geneval", _options(data)).samples
    seer, made = Seer(samples), []
    for sample in samples[:4]:
        path = tmp_path / "images" / geneval_files.file(sample, 0)
        path.parent.mkdir(parents=True)
        dab(sample.id).save(path)
        made += seer.evaluate([geneval_files.file(sample, 0)], [sample.prompt], [dab(sample.id)])
    evaluations.write(tmp_path / "seen.jsonl", made[:3])
    words = ["evaluate", "geneval", "--data", str(data), "--images", str(tmp_path / "images"), "-n", "1"]
    words += ["--evaluations", str(tmp_path / "seen.jsonl"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    shown = capsys.readouterr().out
    assert "549 images are not in the folder" in shown
    assert "the judge failed on 1 images" in shown
    evaluations.write(tmp_path / "seen.jsonl", made)
    assert main(words) == 0
    assert "failed" not in capsys.readouterr().out, "what was not seen before is judged now"
    assert Counter(row.end for row in read_rows(tmp_path / "out")) == {"scored": 4}


# ------------------------------------------------------------------------------------------ the command line


def test_wise_from_folder_to_scores(tmp_path, capsys):
    (tmp_path / "data").mkdir()
    (tmp_path / "images").mkdir()
    write_wise(tmp_path / "data", "verified", "_verified")
    samples = wise.read(tmp_path / "data", "verified")
    for sample in samples[:-2:50]:
        Image.new("RGB", (4, 4), (int(sample.id) % 256, 0, 0)).save(tmp_path / "images" / wise.file(sample))

    def answer(body):
        number = int(re.search(r"The prompt: prompt (\d+)", text_of(body))[1])
        return {1: "hm", 51: "**Score:** 1"}.get(number, f"Score: {int(number > 500)}")

    images = ["--images", str(tmp_path / "images"), "--limit", "20"]
    with serving(Model(["500", ""], answer)) as url:
        assert main(words_of("wise-verified", tmp_path, url, *images)) == 0
        shown = capsys.readouterr()
        assert "wording reverie-1, incomplete" in shown.out
        assert "natural_science_verified.json is not the version that the rules were checked against" in shown.out
        assert "bugs mended: a score whose colon stands inside bold marks" in shown.out
        assert "no overall score" in shown.out
        assert "23 requests (1 failed), 0 answers from the cache" in shown.err
        assert "20 of 20 images" in shown.err
        assert re.search(r"\n10 of 20 images, \d+ s left\n", shown.err)
        scores = json.loads((tmp_path / "out" / "scores.json").read_text())
        assert scores["ends"] == {"unparsable": 1, "scored": 19}
        assert scores["rules"] == "mended"
        assert scores["scores"]["mean of what is there"]["mean"] == pytest.approx(11 / 19)
        rows = read_rows(tmp_path / "out")
        assert rows[0].answers[0]["text"] == "hm"
        assert rows[1].value == {"score": 1}
        assert main(words_of("wise-verified", tmp_path, url, *images, "--official")) == 2
        assert "holds official False, not True" in capsys.readouterr().err
        again = [
            *images,
            "--official",
            "--out",
            str(tmp_path / "official"),
            "--cache",
            str(tmp_path / "out" / "answers"),
        ]
        assert main(words_of("wise-verified", tmp_path, url, *again)) == 0
        shown = capsys.readouterr()
        assert "official, bugs included" in shown.out
        assert "bugs repeated: a score whose colon stands inside bold marks" in shown.out
        assert "2 requests" in shown.err, "the one that only the mended rule could read is asked for again"
        assert json.loads((tmp_path / "official" / "scores.json").read_text())["ends"] == {
            "unparsable": 2,
            "scored": 18,
        }
        (tmp_path / "images" / "101.png").unlink()
        Image.new("RGB", (4, 4), "white").save(tmp_path / "images" / "151.png")
        assert main(words_of("wise-verified", tmp_path, url, *images, "--requests", "0")) == 2
        assert "budget of 0 requests is spent" in capsys.readouterr().err, "a picture that was changed is judged anew"
        assert main(words_of("wise-verified", tmp_path, url, *images)) == 0
        shown = capsys.readouterr()
        assert "1 requests" in shown.err
        assert "19 scored" not in shown.out
        assert "1 missing" in shown.out
        legacy = tmp_path / "legacy"
        (legacy / "data").mkdir(parents=True)
        write_wise(legacy / "data", "legacy")
        assert main(words_of("wise", legacy, url, *images, "--out", str(tmp_path / "out"))) == 2
        assert "holds benchmark 'wise-verified', not 'wise-legacy'" in capsys.readouterr().err
    first, second = tmp_path / "out", tmp_path / "other"
    shutil.copytree(first, second)
    rows = [row.to_json() for row in read_rows(first)]
    changed = [json.dumps(row | {"score": 1.0 if row["score"] is not None else None}) for row in rows]
    (second / "rows.jsonl").write_text("\n".join(changed) + "\n")
    assert main(["compare", str(first), str(second), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["gain"]["overall"]["items"] == sum(row["score"] is not None for row in rows)
    assert len(told["better"]) == sum(row["score"] == 0 for row in rows)


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("wise", "1.png"),
        ("cobsat-2", "shot_2/default/task_1/0_car_blue_brown_orange.jpg"),
        ("risebench", "images/temporal_reasoning/temporal_reasoning_0.png"),
    ],
)
def test_a_model_by_name_paints_and_a_server_judges(name, first, tmp_path, capsys):
    """A tiny Janus, which is given what the benchmark gives: words, pictures in context, a picture to edit."""
    data_of(find(name), tmp_path / "data")
    with serving(Model(reply=reply)) as url:
        words = words_of(name, tmp_path, url, "--model", str(tiny_folder(tmp_path / "tiny")), "--limit", "3")
        assert main(words) == 0
        assert find(name) in capsys.readouterr().out
        assert main([*words, "--guidance", "2"]) == 2
        assert "holds plan" in capsys.readouterr().err
    assert (tmp_path / "out" / "images" / first).is_file()
    assert [row.end for row in read_rows(tmp_path / "out")] == ["scored"] * 3
    assert json.loads((tmp_path / "out" / "model.json").read_text())["fingerprint"]


@pytest.mark.parametrize("name", ["geneval2", "dpg-bench", "wise-verified"])
def test_a_judge_that_is_loaded_here(name, tmp_path, capsys):
    """From the command line: a tiny chat model of a real class judges; its answers are kept."""
    data, folder = data_of(name, tmp_path / "data"), tmp_path / "judge"
    vlm = toy_vlm("Qwen2VL")
    vlm.model.save_pretrained(folder)
    vlm.processor.save_pretrained(folder)
    (tmp_path / "images").mkdir()
    for sample in load(name, _options(data)).samples[:2]:
        dab(sample.id, 16).save(tmp_path / "images" / f"{sample.id}.png")
    words = ["evaluate", name, "--data", str(data), "--images", str(tmp_path / "images"), "--judge", str(folder)]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    rows = read_rows(tmp_path / "out")
    assert len(rows) == (8 if name == "dpg-bench" else 2)
    assert {row.end for row in rows} <= ({"scored"} if name == "geneval2" else {"scored", "unparsable"})
    cache = ["--cache", str(tmp_path / "out" / "answers"), "--out", str(tmp_path / "again")]
    for path in folder.glob("*.safetensors"):
        path.write_bytes(b"")  # answers are on disk, so no weights are needed any more
    assert main([*words, *cache]) == 0
    assert [row.value for row in read_rows(tmp_path / "again")] == [row.value for row in rows]


def test_every_name_is_known():
    assert find("wise") == "wise-legacy"
    assert find("genevalpp") == "geneval++"
    cobsat = load("cobsat-8")
    assert len(cobsat.samples) == 10_000
    assert Path(cobsat.file(cobsat.samples[0], 0)).suffix == ".jpg"
