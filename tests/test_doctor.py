"""`reverie doctor` on those who look and those who only pretend to: judges behind a real server, detectors and readers
that are a few lines, random checkpoints of the real classes, the shipped inspector."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import zlib

import numpy as np
import pytest
import torch
from benchmark_toys import data_of
from evaluator_toys import save_blip, save_clip, save_dpt, save_mask2former, save_owlv2, save_tagger
from PIL import Image
from test_served_vlm import Model, serving, text_of

from reverie.atelier.inspector import Inspector
from reverie.atelier.scene import COLOURS as PAINTS
from reverie.benchmarks import costs, doctor, doctor_judges
from reverie.benchmarks.evaluators.detector import Instance
from reverie.benchmarks.known import KINDS, TEN, single_things
from reverie.benchmarks.protocol import Sample
from reverie.cli import main
from reverie.models.registry import entries
from reverie.png import picture_hash
from reverie.vlms.openai import Usage

JUDGED = (
    "wise-legacy", "wise-verified", "t2i-reasonbench", "risebench-full", "geneval++", "geneval2", "dpg-bench",
    "cobsat-4",
)  # fmt: skip
SHIPPED = entries()["atelier-inspector"].folder
KNOWN = single_things(16, 64)


# ------------------------------------------------------------------------------------------ known pictures


@pytest.mark.parametrize("number", [2, 3, 11, 16, 21, 40])
def test_a_pictures_neighbour_is_wrong_for_it(number):
    known = single_things(number, 64)
    assert len(known) == number
    for one, other in zip(known, [*known[1:], known[0]], strict=True):
        assert one.kind != other.kind
        assert one.colour != other.colour
    assert {one.kind for one in single_things(16)} == set(KINDS)
    assert {one.colour for one in single_things(16)} == set(TEN) == set(PAINTS)


def test_what_is_known_is_where_it_is_said_to_be():
    for one in KNOWN:
        rows, columns = np.nonzero(one.mask)
        x1, y1, x2, y2 = one.box
        assert x1 - 3 <= columns.min() < columns.max() <= x2 + 3
        assert y1 - 3 <= rows.min() < rows.max() <= y2 + 3
        assert one.mask.sum() > 0.3 * (x2 - x1) * (y2 - y1)


def test_how_often_guessing_passes():
    """The odds in the module's words."""

    def at_least(hits, tries):
        return sum(math.comb(tries, k) for k in range(hits, tries + 1)) / 2**tries

    assert round(1 / at_least(math.ceil(doctor.FIT * 16), 16)) == 26
    assert round(1 / at_least(math.ceil(doctor.FIT * 32), 32)) == 286


# ---------------------------------------------------------------------------------------------- detectors


class Detector:
    """Finds what `see` makes of the place of a known picture."""

    name = "toy"

    def __init__(self, see):
        self.see = see
        self.places = {picture_hash(one.picture): place for place, one in enumerate(KNOWN)}

    def look(self, pictures, names=None):
        return [self.see(self.places[picture_hash(picture)]) for picture in pictures]


def instance(kind, box):
    return Instance(kind, box, 0.9, np.ones((1, 1), bool))


@pytest.mark.parametrize(
    ("see", "verdict", "said"),
    [
        (lambda i: [instance(KNOWN[i].kind, KNOWN[i].box)], "fit", "finds 16 of 16 things, and 0 that are not there"),
        (lambda i: [instance(KNOWN[i].kind, KNOWN[i].box)] if i % 3 else [], "fit", "finds 10 of 16"),
        (lambda i: [instance(KNOWN[i].kind, KNOWN[i].box)] if i % 3 == 0 else [], "poor", "finds 6 of 16"),
        (lambda i: [], "unfit", "finds nothing in any picture"),
        (lambda i: [instance(kind, KNOWN[i].box) for kind in KINDS], "unfit", "and 16 that are not there"),
        (lambda i: [instance("cat", KNOWN[i].box)], "unfit", "finds 1 of 16"),
        (lambda i: [instance(KNOWN[i].kind, (0, 0, 9, 9))], "unfit", "its boxes lie beside the things"),
    ],
)
def test_detectors(see, verdict, said):
    found = doctor.instances(Detector(see), KNOWN)
    assert (found.verdict, found.asked) == (verdict, 32)
    assert said in found.said

    def told(place):  # the same in the frame of UniDet
        factor = 479 / 64
        return [(one.label, [edge * factor for edge in one.box], one.score) for one in see(place)]

    assert doctor.boxes(Detector(told), KNOWN).verdict == verdict


def nearest(pictures, things):
    """Reads colours by the mean of what is inside the masks: no model, but it looks."""
    found = []
    for picture, (thing,) in zip(pictures, things, strict=True):
        inside = np.asarray(picture)[thing.mask]
        middle = np.median(inside, axis=0)
        found.append([min(PAINTS, key=lambda name: np.abs(np.array(PAINTS[name]) - middle).sum())])
    return found


def test_readers_of_colours():
    assert doctor.colours(nearest, "mean", KNOWN).verdict == "fit"
    same = doctor.colours(lambda pictures, things: [["red"]] * len(things), "red", KNOWN)
    assert (same.verdict, same.said) == ("unfit", "says red to everything")
    turn = doctor.colours(lambda pictures, things: [[TEN[(i + 5) % 10]] for i in range(len(things))], "turn", KNOWN)
    assert turn.verdict == "unfit"


# ---------------------------------------------------------------------------------------- scores and judges


@pytest.mark.parametrize(
    ("scores", "verdict", "said"),
    [
        ([(1.0, 0.0)] * 16, "fit", "prefers the right picture 16 of 16 times"),
        ([(0.31, 0.30)] * 12 + [(0.2, 0.4)] * 4, "fit", "12 of 16"),
        ([(0.3, 0.2)] * 10 + [(0.2, 0.3)] * 6, "poor", "10 of 16"),
        ([(0.3, 0.2), (0.2, 0.3)] * 8, "unfit", "8 of 16"),
        ([(1.0, 1.0)] * 16, "unfit", "always says yes (1)"),
        ([(0.0, 0.0)] * 16, "unfit", "always says no (0)"),
        ([(i / 16, i / 16) for i in range(16)], "unfit", "answers without looking"),
        ([(None, 0.0)] * 16, "unfit", "16 of 32 answers cannot be read"),
        ([(1.0, 0.0)] * 14 + [(None, 0.0)] * 2, "fit", "2 of 32 answers cannot be read"),
    ],
)
def test_scores_of_right_and_wrong_pictures(scores, verdict, said):
    found = doctor.compared("judge", "toy", scores)
    assert found.verdict == verdict
    assert said in found.said


def honest(name, side, number=16):
    """A server's reply: it knows the pictures, and answers what is asked about them in the form that is wanted."""
    known = {picture_hash(one.picture): one for one in doctor_judges.pictures_of(name, number, side)}

    def reply(body):
        text = text_of(body)
        urls = re.findall(r"base64,([^\"]+)\"", json.dumps(body["messages"]))
        pictures = [Image.open(io.BytesIO(base64.b64decode(url))).convert("RGB") for url in urls]
        shown = known.get(picture_hash(pictures[-1]))
        every = " ".join(part["text"] for m in body["messages"] for part in parts(m))
        return answer(name, text, every, shown)

    return reply


def parts(message):
    content = message["content"]
    if isinstance(content, str):
        return [{"text": content}]
    return [part for part in content if part["type"] == "text"]


def answer(name, text, every, shown):
    kind, colour = shown.kind, shown.colour
    right = f"{colour} {kind}" in every
    if name.startswith("cobsat"):
        options = {word: number for number, word in re.findall(r"(\d+)\. (\w+)", text)}
        return options[kind if kind in options else colour]
    if name == "t2i-reasonbench":
        return f"A {colour} {kind}." if "JSON" not in text else scores(f"show a {kind}?" in text, f"{colour}?" in text)
    if name.startswith("wise"):
        return f"Consistency: {2 * right}\nRealism: 1\nAesthetic Quality: 1\nScore: {int(right)}"
    if name.startswith("risebench"):
        return f"Final Score: {5 if right else 1}"
    if name == "geneval++":
        return json.dumps({"correct": int(right), "reason": ""})
    return "yes" if right else "no"


def scores(*holds):
    return json.dumps({"reason": [""] * len(holds), "score": [float(one) for one in holds]})


def yes_sayer(name):
    """Likes everything, in the form that is wanted."""
    best = {"cobsat-4": "1", "t2i-reasonbench": scores(True, True), "geneval++": '{"correct": 1}', "dpg-bench": "yes"}
    wise = "Consistency: 2\nRealism: 2\nAesthetic Quality: 2\nScore: 1"
    return best.get(name, "Final Score: 5" if name.startswith("risebench") else wise)


def run(name, url, *more):
    return main(["doctor", name, "--judge", f"openai:toy@{url}", "--side", "64", *more])


@pytest.mark.parametrize("name", [name for name in JUDGED if name != "geneval2"])
def test_a_judge_that_looks_is_fit_and_one_that_likes_everything_is_not(name, capsys):
    with serving(Model(reply=honest(name, 64))) as url:
        assert run(name, url) == 0
    told = capsys.readouterr().out
    assert "judge fit: prefers the right picture 16 of 16 times" in told
    assert "--data with the files" in told
    with serving(Model(reply=lambda body: yes_sayer(name))) as url:
        assert run(name, url) == 1
    told = capsys.readouterr().out
    assert "judge unfit: " in told
    assert "always says yes (1)" in told or name.startswith("cobsat")


def test_geneval2_reads_the_probabilities_of_first_tokens(capsys):
    with serving(Model(logprobs={"yes": 0.9, "no": 0.1})) as url:
        assert run("geneval2", url, "--pictures", "4") == 1
    assert "always says 0.9" in capsys.readouterr().out
    with serving(Model()) as url:
        assert run("geneval2", url, "--pictures", "4") == 1
    assert "names no probabilities of tokens" in capsys.readouterr().out


def test_blind_mute_and_dead_judges(capsys):
    def blind(body):  # goes by the question alone
        return f"Score: {zlib.crc32(text_of(body).encode()) % 2}"

    with serving(Model(reply=blind)) as url:
        assert run("wise-verified", url) == 1
    assert "answers without looking" in capsys.readouterr().out
    with serving(Model(reply=lambda body: "I would rather not say.")) as url:
        assert run("wise-verified", url, "--pictures", "4", "--json") == 1
    (found,) = json.loads(capsys.readouterr().out)["findings"]
    assert (found["verdict"], found["share"]) == ("unfit", None)
    assert found["said"] == "8 of 8 answers cannot be read"
    assert run("wise-verified", "http://127.0.0.1:9/v1", "--pictures", "4") == 1
    told = capsys.readouterr().out
    assert "gives no answer" in told
    assert "check the server" in told


def test_what_a_run_will_cost(tmp_path, capsys):
    data = str(data_of("wise-verified", tmp_path / "data"))
    with serving(Model(reply=honest("wise-verified", 64))) as url:
        assert run("wise-verified", url, "--data", data, "--prices", "2/10") == 0
    told = capsys.readouterr().out  # the server reports 10 and 5 tokens for each request
    assert "asks the judge 1,000 questions, at least; at 10 tokens a question and 5 an answer" in told
    assert "15,000 tokens, 0.07 in the money of the prices." in told
    sample = Sample("0", "x", "x", {"vqa_list": [("a", "yes")] * 7}, "0")
    toy = type("Toy", (), {"name": "geneval2", "samples": [sample, sample]})
    assert costs.requests(toy, 3) == 42
    assert "told no tokens" in costs.told("x", 5, Usage(answers=3), None)


# --------------------------------------------------------------------------------------- the command line


def test_random_checkpoints_are_not_fit(tmp_path, capsys):
    folders = {"detector": save_mask2former(tmp_path / "detector"), "clip": save_clip(tmp_path / "clip")}
    choices = [word for role, folder in folders.items() for word in ("--evaluator", f"{role}={folder}")]
    capsys.readouterr()  # of saving: DeepSpeed, where it is installed, tells stdout of the accelerator that it found
    assert main(["doctor", "geneval", *choices, "--pictures", "8", "--side", "64"]) == 1
    told, progress = capsys.readouterr()
    rows = [line.split() for line in told.splitlines()[1:3]]
    assert [(row[0], row[1], row[-1]) for row in rows] == [(r, str(f), "unfit") for r, f in folders.items()]
    assert "parameters" in progress  # memory is told before anything is loaded
    damaged = save_clip(tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no")
    choices[-1] = f"clip={damaged}"
    assert main(["doctor", "geneval", *choices, "--pictures", "4", "--side", "64"]) == 1
    assert f"clip unfit: the weights of {damaged} cannot be read" in capsys.readouterr().out


def test_every_role_of_compbench_is_checked_once(tmp_path, capsys):
    folders = {
        "vqa": save_blip(tmp_path / "vqa"), "clip": save_clip(tmp_path / "clip"), "depth": save_dpt(tmp_path / "depth"),
        "detector": save_owlv2(tmp_path / "detector"), "tagger": save_tagger(tmp_path / "tagger"),
    }  # fmt: skip
    choices = [word for role, folder in folders.items() for word in ("--evaluator", f"{role}={folder}")]
    capsys.readouterr()  # as above
    assert main(["doctor", "t2i-compbench++", *choices, "--pictures", "6", "--side", "64", "--json"]) == 1
    found = {one["role"]: one for one in json.loads(capsys.readouterr().out)["findings"]}
    assert set(found) == set(folders)
    assert found["depth"]["verdict"] == "fit"  # it looks; more cannot be said
    assert found["tagger"]["asked"] == 12
    assert "unfit" in {found[role]["verdict"] for role in ("vqa", "clip", "detector")}


@pytest.mark.skipif(SHIPPED is None or not SHIPPED.is_dir(), reason="no inspector weights installed")
def test_the_inspector_and_one_that_has_forgotten_everything(tmp_path, capsys):
    assert main(["doctor", "atelier-geneval", "--verifier", "atelier-inspector"]) == 0
    told = capsys.readouterr().out
    assert "inspector fit: " in told
    assert "verifier fit: " in told
    inspector = Inspector.load(SHIPPED)
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in inspector.net.parameters():
            weight.normal_(0, 0.02)
    inspector.save(tmp_path)
    assert main(["doctor", "atelier-wise", "--judge", str(tmp_path)]) == 1
    assert "inspector unfit: " in capsys.readouterr().out


def test_whoever_will_choose_is_checked_too(tmp_path, capsys):
    folder = save_clip(tmp_path / "clip")
    with serving(Model(reply=honest("wise-verified", 64))) as url:
        code = run("wise-verified", url, "--verifier", f"clipscore:{folder}")
    told = capsys.readouterr().out
    assert "judge fit: " in told
    assert f"clipscore:{folder}" in told
    assert code == int("verifier unfit" in told)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["geneva"], "There is no benchmark 'geneva'"),
        (["wise-verified"], "needs a judge"),
        (["wise-verified", "--judge", "openai:@x"], "names no served model"),
        (["wise-verified", "--judge", "nowhere"], "no folder nowhere for the judge"),
        (["wise-verified", "--judge", "openai:m", "--prices", "cheap"], "--prices cheap"),
        (["wise-verified", "--judge", "openai:m", "--evaluator", "a=b"], "has no evaluators"),
        (["geneval", "--judge", "openai:m"], "scored by evaluator models"),
        (["geneval", "--evaluator", "eyes=x"], "has no role 'eyes'"),
        (["geneval", "--pictures", "1"], "--pictures 1: must be at least 4"),
        (["atelier-geneval", "--judge", "nowhere"], "There is no nowhere/inspector.safetensors"),
        (["atelier-geneval", "--verifier", "clipscore:nowhere"], "no folder nowhere"),
    ],
)
def test_what_cannot_be_is_one_sentence(arguments, message, capsys):
    assert main(["doctor", *arguments]) == 2
    out, err = capsys.readouterr()
    assert not out
    assert err.count("\n") == 1
    assert message in err
