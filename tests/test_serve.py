"""The server from outside: runs, events, pictures, gallery, cancelling, uploads, and what it refuses."""

import io
import random
import threading
import time
import urllib.request
from shlex import split

import pytest
from PIL import Image
from served import LONG, serving
from tiny import tiny_folder

from reverie import load
from reverie.cli import main
from reverie.events import Finished, read_trace
from reverie.png import picture_hash, read_recipe
from reverie.studio.store import Store


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with serving(folder, tiny_folder(folder / "model")) as served:
        served.model = str(folder / "model")
        yield served


def test_a_run_is_what_the_library_paints(served):
    run = served.run(prompt="a cat", seed=5, n=2)
    heard = served.events(run)
    names = [event["event"] for _, event in heard if event["event"] != "queued"]
    assert names[0] == "started"
    assert names[-2:] == ["spent", "done"]
    assert names.count("finished") == 2
    assert [name for name, event in heard if event["event"] != "queued"] == [str(i) for i in range(len(names))]
    painter = load(served.model)
    expected = painter.generate("a cat", seed=5, n=2).images
    finished = [event for _, event in heard if event["event"] == "finished"]
    for event, picture in zip(finished, expected, strict=True):
        status, content = served.ask("GET", event["files"][0])
        assert status == 200
        assert picture_hash(Image.open(io.BytesIO(content))) == picture_hash(picture)
    about = served.ask("GET", f"/api/runs/{run}")[1]
    assert about["state"] == "done"
    assert about["files"] == [event["files"][0] for event in finished]
    assert about["recipes"] == [event["recipe"] for event in finished]
    # On disk it is a trace as any other, whose finished pictures know how they were made.
    trace = served.data / "runs" / run / "trace"
    assert [e.seed for e in read_trace(trace) if isinstance(e, Finished)] == [5, 6]
    assert read_recipe(trace / finished[0]["files"][0].rsplit("/", 1)[1]) == finished[0]["recipe"]


def test_a_stream_goes_on_where_it_was_left_and_is_replayed(served):
    run = served.run(prompt="a cat", seed=1)
    whole = served.events(run)
    assert served.events(run) == whole, "a run that is over is told from its trace"
    assert served.events(run, last="3") == [pair for pair in whole if int(pair[0]) > 3]
    assert served.ask("GET", f"/api/runs/{run}/events", headers={"Last-Event-ID": whole[-1][0]})[0] == 204


def test_what_is_copied_paints_the_same(served, tmp_path, monkeypatch):
    run = served.run(prompt="it's a cat", preset="t2g", thought_tokens=8, temperature=0.5, seed=2)
    about = served.wait(run)
    monkeypatch.chdir(tmp_path)
    exec(compile(about["python"], "<copied>", "exec"), {})
    assert picture_hash(Image.open("picture.png")) == about["recipes"][0]["picture"]
    assert main([*split(about["command"])[1:], "--out", "typed.png", "-q"]) == 0
    assert picture_hash(Image.open("typed.png")) == about["recipes"][0]["picture"]


def test_the_gallery_searches_and_pages(served):
    runs = [served.run(prompt=f"gallery 100% thing {i}", seed=i, group="g_1") for i in range(3)]
    for run in runs:
        served.wait(run)
    ask = lambda path: served.ask("GET", f"/api/runs?{path}")[1]  # noqa: E731
    found = ask("query=thing+gallery")["runs"]
    assert [row["id"] for row in found] == runs[::-1]
    assert [len(row["files"]) for row in found] == [1, 1, 1]
    assert [row["id"] for row in ask("query=100%25")["runs"]] == runs[::-1]
    assert not ask("query=1_0%25")["runs"]
    assert [row["id"] for row in ask("group=g_1")["runs"]] == runs[::-1]
    assert not ask("kind=edit")["runs"]
    page = ask("query=gallery&limit=2")
    assert [row["id"] for row in page["runs"]] == runs[:0:-1]
    assert [row["id"] for row in ask(f"query=gallery&limit=2&before={page['next']}")["runs"]] == runs[:1]
    assert served.ask("DELETE", f"/api/runs/{runs[0]}")[0] == 204
    assert served.ask("GET", f"/api/runs/{runs[0]}")[0] == 404
    assert not (served.data / "runs" / runs[0]).exists()
    assert served.ask("GET", "/api/runs?limit=0")[0] == 422


def test_cancelling_works_at_once_and_the_next_run_goes_on(served):
    run = served.run(**LONG)
    served.events(run, until="verdict")
    assert served.ask("POST", f"/api/runs/{run}/cancel") == (200, {"id": run, "state": "cancelled"})
    heard = [event for _, event in served.events(run)]
    assert heard[-1] == {"event": "cancelled"}
    assert all(event["event"] != "finished" for event in heard), "it was not painted to its end"
    after = served.run(prompt="a dog", seed=1)
    assert served.events(after)[-1][1] == {"event": "done"}
    assert served.ask("POST", f"/api/runs/{after}/cancel")[1]["state"] == "done"


def test_one_of_a_batch_is_cancelled_and_deleted_and_a_waiting_one_too(served):
    blocking = served.run(**LONG)
    served.events(blocking, until="verdict")
    pair = [served.run(prompt="a cat", preset="t2g", thought_tokens=64, seed=i) for i in range(2)]
    waiting = served.run(prompt="a dog", seed=1)
    about = served.ask("GET", f"/api/runs/{waiting}")[1]
    assert about["state"] == "queued"
    assert about["position"] == 2
    assert served.ask("POST", f"/api/runs/{waiting}/cancel")[1]["state"] == "cancelled"
    served.ask("DELETE", f"/api/runs/{blocking}")
    served.events(pair[0], until="thought")
    assert served.ask("DELETE", f"/api/runs/{pair[0]}")[0] == 204
    assert served.wait(pair[1])["state"] == "done"
    for gone in (blocking, pair[0]):
        assert not (served.data / "runs" / gone).exists()


BAD = [
    ({"prompt": ""}, "the prompt is empty"),
    ({"prompt": 5}, "must be text"),
    ({"prompt": "x" * 5000}, "at most 4000"),
    ({"prompt": "a cat", "presett": "twig"}, "did you mean preset"),
    ({"prompt": "a cat", "preset": "twigg"}, "did you mean twig"),
    ({"prompt": "a cat", "think": ["before"]}, "must be text"),
    ({"prompt": "a cat", "candidates": 2.5, "choose": "orm"}, "whole number"),
    ({"prompt": "a cat", "candidates": True, "choose": "orm"}, "whole number"),
    ({"prompt": "a cat", "keep_prompt": "false"}, "true or false"),
    ({"prompt": "a cat", "guidance": float("nan")}, "at least 0"),
    ({"prompt": "a cat", "seed": -1}, "whole number between"),
    ({"prompt": "a cat", "n": 1000}, "at most 10"),
    ({"prompt": "a cat", "n": 8, "candidates": 20, "choose": "orm"}, "at most 64 pictures"),
    ({"prompt": "a cat", "model": "/etc"}, "not served here"),
    ({"prompt": "a cat", "model": "someone/else"}, "not served here"),
    ({"prompt": "a cat", "choose": "orm", "candidates": 2, "judge": "someone/else"}, "not served here"),
    ({"prompt": "a cat", "kind": "dance"}, "must be one of"),
    ({"prompt": "a cat", "kind": "edit"}, "needs a picture"),
    ({"prompt": "a cat", "kind": "context", "context": [{"image": "../../etc/passwd"}]}, "not the id of an upload"),
    ([], "a JSON object"),
]


@pytest.mark.parametrize(("body", "said"), BAD, ids=[said for _, said in BAD])
def test_what_cannot_be_painted_is_refused_in_one_sentence(served, body, said):
    status, answer = served.ask("POST", "/api/runs", body)
    assert status == 422
    assert set(answer) == {"error"}
    assert said in answer["error"]
    assert "\n" not in answer["error"]
    assert answer["error"].endswith(".")


def test_bodies_paths_and_origins(served):
    assert served.ask("POST", "/api/runs", b"{")[0] == 422
    assert served.ask("POST", "/api/runs", b"\xff\xfe")[0] == 422
    assert served.ask("POST", "/api/runs", b" " * (2 << 20))[0] == 413
    assert served.ask("GET", "/api/nothing")[0] == 404
    run = served.run(prompt="a cat", seed=1)
    served.wait(run)
    for name in (
        "..%2f..%2findex.sqlite",
        "events.jsonl",
        "..%2fevents.jsonl",
        ".hidden.png",
        "%00.png",
        "a" * 300 + ".png",
    ):
        status, answer = served.ask("GET", f"/api/runs/{run}/files/{name}")
        assert status == 404
        assert "error" in answer
    assert served.ask("GET", "/api/runs/..%2f..%2fuploads")[0] == 404
    assert served.ask("GET", "/api/uploads/..%2findex.sqlite")[0] == 404
    assert served.ask("GET", "/healthz", headers={"Host": "evil.example"})[0] == 403
    assert served.ask("POST", "/api/runs", {"prompt": "x"}, headers={"Origin": "http://evil.example"})[0] == 403
    assert served.ask("GET", "/healthz", headers={"Origin": served.address})[0] == 200
    with urllib.request.urlopen(served.address + "/healthz") as answer:
        assert "default-src 'self'" in answer.headers["content-security-policy"]


def form(content: bytes, name: str = "picture.png") -> tuple[bytes, dict]:
    head = f'--x\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: image/png\r\n\r\n'
    return head.encode() + content + b"\r\n--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


def test_an_upload_is_decoded_and_its_name_ignored(served):
    buffer = io.BytesIO()
    exif = Image.Exif()
    exif[0x0112] = 6  # lies on its side
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG", exif=exif)
    status, answer = served.ask("POST", "/api/uploads", *form(buffer.getvalue(), "../../../etc/passwd"))
    assert status == 201
    assert (answer["width"], answer["height"]) == (10, 20)
    assert sorted(path.name for path in (served.data / "uploads").iterdir()) == [f"{answer['id']}.png"]
    status, content = served.ask("GET", f"/api/uploads/{answer['id']}")
    assert status == 200
    assert Image.open(io.BytesIO(content)).size == (10, 20)
    assert served.ask("POST", "/api/uploads", *form(buffer.getvalue()))[1]["id"] == answer["id"]


def test_the_plan_the_models_and_the_numbers(served):
    form = served.ask("GET", "/api/plan")[1]
    fields = {field["name"]: field for field in form["fields"]}
    assert fields["think"]["values"] == ["never", "before", "during", "after"]
    assert all(field["help"] for field in form["fields"])
    assert form["presets"]["twig"]["think"] == "during"
    assert served.ask("GET", "/api/models")[1]["models"][0]["name"] == served.model
    served.wait(served.run(prompt="a cat"))
    numbers = served.ask("GET", "/metrics")[1].decode()
    assert 'reverie_runs_total{kind="generate",state="done"}' in numbers
    assert "reverie_batch_runs_sum" in numbers
    assert served.ask("GET", "/healthz")[0] == 200


def test_a_full_queue_says_when_to_come_back(tmp_path):
    with serving(tmp_path, tiny_folder(tmp_path / "model"), "--max-queue", "2", "--grace", "0") as served:
        served.events(served.run(**LONG), until="verdict")
        answers: list[tuple[int, dict]] = []

        def send() -> None:
            answers.append(served.ask("POST", "/api/runs", {"prompt": "a cat"}))

        threads = [threading.Thread(target=send) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(status for status, _ in answers) == [201, 201, 429, 429, 429, 429]
        assert all("queue is full" in answer["error"] for status, answer in answers if status == 429)
        rows = served.ask("GET", "/api/runs")[1]["runs"]
        assert served.stop() in (0, -15)
    store = Store(tmp_path / "data")
    assert len(rows) == 3
    for row in rows:
        kept = store.get(row["id"])
        assert kept.state == "failed", kept
        assert "shut down" in kept.error
    store.close()


def noise(served, seed: int) -> str:
    """An upload."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (32, 32), random.Random(seed).randbytes(32 * 32 * 3)).save(buffer, "PNG")
    return served.ask("POST", "/api/uploads", *form(buffer.getvalue()))[1]["id"]


def test_an_edit_and_a_context_are_what_the_library_paints(served, tmp_path, monkeypatch):
    one, two = noise(served, 1), noise(served, 2)
    asked = {
        "edit": {"picture": one},
        "context": {"context": [{"image": one}, {"text": "a cat"}, {"image": two}]},
    }
    monkeypatch.chdir(tmp_path)
    for name in (one, two):
        (tmp_path / f"{name}.png").write_bytes(served.ask("GET", f"/api/uploads/{name}")[1])
    for kind, more in asked.items():
        about = served.wait(served.run(kind=kind, prompt="make it red", seed=3, n=2, guidance=2.0, **more))
        assert about["state"] == "done", about["error"]
        pictures = [recipe["picture"] for recipe in about["recipes"]]
        exec(compile(about["python"], "<copied>", "exec"), {})
        assert picture_hash(Image.open("picture.png")) == pictures[0]
        assert main([*split(about["command"])[1:], "--out", "typed.png", "-q"]) == 0
        assert [picture_hash(Image.open(f"typed-{i}.png")) for i in (1, 2)] == pictures
    status, answer = served.ask("POST", "/api/runs", {"kind": "edit", "prompt": "x", "picture": "0" * 32})
    assert status == 422
    assert "send the picture again" in answer["error"]


def test_the_studio_opens_the_page_it_serves_and_takes_its_key_from_the_environment(tmp_path, monkeypatch):
    browser = tmp_path / "browser"
    browser.write_text(f"#!/bin/sh\necho $1 > {tmp_path}/opened\n")
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    monkeypatch.setenv("REVERIE_KEY", "s3cret")
    with serving(tmp_path, tiny_folder(tmp_path / "model"), verb="studio") as studio:
        opened = tmp_path / "opened"
        while not (opened.exists() and opened.read_text().endswith("\n")):
            time.sleep(0.05)
        assert opened.read_text().strip() == studio.address + "/"
        assert studio.ask("GET", "/")[0] in (200, 404), "the page is public, if it is built"
        assert studio.ask("GET", "/api/runs")[0] == 401
        assert studio.ask("GET", "/api/runs", headers={"Authorization": "Bearer s3cret"})[0] == 200


WRONG = [
    (["--port", "70000"], "between 0 and 65535"),
    (["--model", "nonesuch"], "unknown model"),
    (["--batch", "0"], "at least 1"),
    (["--keep-days", "-1"], "must not be negative"),
    (["--host", "256.1.1.1"], "cannot listen"),
    (["--dtype", "int3"], "must be one of"),
]


@pytest.mark.parametrize(("options", "said"), WRONG, ids=[said for _, said in WRONG])
def test_settings_that_cannot_be_are_refused_at_once(options, said, tmp_path, capsys):
    assert main(["serve", "--data", str(tmp_path / "data"), *options]) == 2
    assert said in capsys.readouterr().err
