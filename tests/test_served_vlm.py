"""The served judge against a real HTTP server on this machine that fails, stalls and talks nonsense when told to."""

from __future__ import annotations

import json
import math
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from PIL import Image

from reverie.benchmarks.asking import ask
from reverie.vlms import IMAGE, Message
from reverie.vlms.openai import Budget, BudgetSpent, NoAnswer, Patience, Pictures, ServedVLM, Unusable

QUICK = Patience(timeout=0.5, tries=4, pause=0.01, longest=0.05)


class Model:
    """What the server does: `faults` says for each request in turn what goes wrong, "" for nothing."""

    def __init__(self, faults=(), reply=lambda body: "said: " + text_of(body), logprobs=None):
        self.faults, self.reply, self.logprobs = list(faults), reply, logprobs
        self.bodies, self.headers, self.guard = [], [], threading.Lock()

    def next(self, body, headers):
        with self.guard:
            self.bodies.append(body)
            self.headers.append(headers)
            return self.faults.pop(0) if self.faults else ""


def text_of(body):
    content = body["messages"][-1]["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *args):
        pass

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        model = self.server.model
        fault = model.next(body, dict(self.headers))
        if fault == "drop":
            self.close_connection = True
            return
        if fault == "stall":
            time.sleep(0.8)
        if fault.isdigit():
            self.answer(int(fault), b'{"error": "busy"}', {"Retry-After": "30"} if fault == "429" else {})
            return
        choice = {"message": {"role": "assistant", "content": model.reply(body)}, "finish_reason": "stop"}
        if model.logprobs:
            tokens = [{"token": token, "logprob": math.log(p)} for token, p in model.logprobs.items()]
            choice["logprobs"] = {"content": [{"top_logprobs": tokens}]}
        whole = {"model": "toy", "choices": [choice], "usage": {"prompt_tokens": 10, "completion_tokens": 5}}
        data = json.dumps(whole).encode()
        nonsense = {"html": b"<html>502</html>", "empty": b"", "null": data.replace(b'"content": "', b'"contents": "')}
        if fault == "cut":
            self.answer(200, data[:-9], {"Content-Length": str(len(data))})
            return
        if fault == "drip":
            self.send_response(200)
            self.end_headers()
            for _ in range(20):
                self.wfile.write(b" ")
                time.sleep(0.1)
            return
        self.answer(200, nonsense.get(fault, data))

    def answer(self, status, data, headers=()):
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(data))} | dict(headers)).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)


class Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        pass  # clients that went away


@contextmanager
def serving(model):
    server = Quiet(("127.0.0.1", 0), Handler)
    server.model = model
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def user(text, *images):
    return [Message("user", text, images)]


def test_pictures_and_text_arrive(tmp_path):
    red, blue = (Image.new("RGB", (40, 20), colour) for colour in ("red", "blue"))
    model = Model()
    with serving(model) as url:
        vlm = ServedVLM("toy", url, key="secret", extra={"top_k": 1}, pictures=Pictures("JPEG", side=10))
        heard = []
        assert vlm.write(user("what?", red), on_text=heard.append) == "said: what?" == heard[0]
        vlm.write([Message("system", "be brief"), *user(f"{IMAGE} against {IMAGE}", red, blue)])
    first, second = model.bodies
    assert (first["model"], first["top_k"]) == ("toy", 1)
    assert [part["type"] for part in first["messages"][0]["content"]] == ["image_url", "text"]
    assert first["messages"][0]["content"][0]["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert second["messages"][0] == {"role": "system", "content": "be brief"}
    assert [part["type"] for part in second["messages"][1]["content"]] == ["image_url", "text", "image_url"]
    assert model.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("fault", ["500", "429", "drop", "stall", "html", "empty", "null", "cut", "drip"])
def test_a_failed_request_is_sent_again(fault, tmp_path):
    model = Model([fault, fault])
    with serving(model) as url:
        vlm = ServedVLM("toy", url, cache=tmp_path, patience=QUICK, key="secret")
        assert vlm.write(user("hello")) == "said: hello"
    usage = vlm.usage
    assert (usage.requests, usage.failures, usage.answers, usage.cached) == (3, 2, 1, 0)
    assert (usage.question_tokens, usage.answer_tokens) == (10, 5)
    (file,) = tmp_path.rglob("*.json")
    assert "secret" not in file.read_text()


def test_it_gives_up_in_one_sentence(tmp_path):
    with serving(Model(["500"] * 99)) as url:
        vlm = ServedVLM("toy", url, cache=tmp_path, patience=QUICK)
        with pytest.raises(NoAnswer, match=r"toy at http.* gives no answer \(status 500: .*busy.*\)"):
            vlm.write(user("hello"))
        assert vlm.usage.requests == QUICK.tries
    assert not list(tmp_path.rglob("*.json"))
    with serving(Model(["404"] * 99)) as url:
        vlm = ServedVLM("toy", url, patience=QUICK)
        with pytest.raises(Unusable, match="status 404"):
            vlm.write(user("hello"))
        assert vlm.usage.requests == 1, "asking again does not help there"
    with pytest.raises(NoAnswer):
        ServedVLM("toy", "http://127.0.0.1:9/v1", patience=QUICK).write(user("hello"))
    with pytest.raises(ValueError, match="must start with http"):
        ServedVLM("toy", "localhost:8000")


def test_nothing_is_lost_or_asked_twice(tmp_path):
    """Many questions, some the same, over a server that fails a third of the time, in two runs."""
    questions = [f"question {n % 30}" for n in range(60)]
    faults = ["", "500", "", "", "drop", "html", "", "", "", "cut"] * 9
    model = Model(faults)
    with serving(model) as url:
        for _ in range(2):
            vlm = ServedVLM("toy", url, cache=tmp_path, patience=Patience(2, 12, 0.001, 0.01), workers=6)
            answers = vlm.write_batch([user(question) for question in questions])
            assert answers == [f"said: {question}" for question in questions]
            assert vlm.usage.answers + vlm.usage.cached == 60
            sent = vlm.usage
        assert (sent.requests, sent.answers) == (0, 0)
    assert len(list(tmp_path.rglob("*.json"))) == 30
    assert not list(tmp_path.rglob("*.partial"))
    wrong = sum(1 for fault in faults[: len(model.bodies)] if fault)
    assert len(model.bodies) == 30 + wrong


def test_what_an_answer_depends_on(tmp_path):
    model = Model()
    black, white = (Image.new("RGB", (4, 4), colour) for colour in ("black", "white"))
    with serving(model) as url:
        vlm = ServedVLM("toy", url, cache=tmp_path)
        for _ in range(2):
            vlm.write(user("a", black))
            vlm.write(user("a", white))
            vlm.write(user("b", black))
            vlm.write(user("a", black), seed=1)
            vlm.write(user("a", black), temperature=1.0)
            vlm.write(user("a", black), max_new_tokens=5)
            ServedVLM("other", url, cache=tmp_path).write(user("a", black))
        assert len(model.bodies) == 7
        next(iter(tmp_path.rglob("*.json"))).write_text('{"reply": ')
        for image in (black, white):
            vlm.write(user("a", image))
        assert len(model.bodies) <= 8


def test_the_budget_holds_and_a_stopped_run_goes_on(tmp_path):
    model = Model()
    with serving(model) as url:
        vlm = ServedVLM("toy", url, cache=tmp_path, budget=Budget(requests=5), workers=3)
        with pytest.raises(BudgetSpent, match="budget of 5 requests is spent"):
            vlm.write_batch([user(str(n)) for n in range(12)])
        assert len(model.bodies) == 5 == len(list(tmp_path.rglob("*.json")))
        vlm = ServedVLM("toy", url, cache=tmp_path, workers=3)
        assert len(vlm.write_batch([user(str(n)) for n in range(12)])) == 12
        assert (vlm.usage.cached, vlm.usage.requests) == (5, 7)
        vlm = ServedVLM("toy", url, budget=Budget(tokens=31))
        for n in range(3):
            vlm.write(user(str(n)))
        with pytest.raises(BudgetSpent, match="31 tokens"):
            vlm.write(user("more"))


def test_probabilities():
    with serving(Model(logprobs={"Yes": 0.5, " yes": 0.1, "No": 0.2, "maybe": 0.2})) as url:
        vlm = ServedVLM("toy", url)
        assert vlm.yes_probability(user("is it?")) == pytest.approx(0.75)
        assert vlm.first_tokens(user("is it?"))["maybe"] == pytest.approx(0.2)
        with pytest.raises(ValueError, match="hidden states"):
            vlm.features(user("is it?"))
    with serving(Model()) as url, pytest.raises(ValueError, match="no probabilities"):
        ServedVLM("toy", url).yes_probability(user("is it?"))


def test_an_unreadable_answer_is_asked_for_again(tmp_path):
    """Each further try is a question of its own, so a run that goes on repeats none of them."""
    said = iter(["hm", "perhaps", "7"] + ["no"] * 9)
    model = Model(reply=lambda body: next(said))

    def parse(text):
        return int(text) if text.isdigit() else None

    with serving(model) as url:
        for _ in range(2):
            vlm = ServedVLM("toy", url, cache=tmp_path)
            answer = ask(vlm, user("how many?"), parse, tries=3)
            assert (answer.value, answer.text, answer.tries, answer.outcome) == (7, "7", 3, "scored")
        assert len(model.bodies) == 3
        answer = ask(vlm, user("what else?"), parse, tries=3)
        assert (answer.value, answer.outcome) == (None, "unparsable")
        model.faults = ["500"] * 99
        answer = ask(ServedVLM("toy", url, patience=QUICK), user("broken?"), parse)
        assert (answer.value, answer.outcome) == (None, "judge error")
    with pytest.raises(Unusable, match="refused"):
        ask(ServedVLM("toy", url, patience=QUICK), user("gone?"), parse)
