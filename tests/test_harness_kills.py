"""A run that is killed, shared or started twice ends like one that was left alone."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from benchmark_toys import reply
from test_benchmark_readers import write_wise
from test_served_vlm import Model, serving
from toy_run import NAME, Dabs, Glance, run, run_served, write_prompts

from reverie.benchmarks.harness import evaluate, load_benchmark, read_rows
from reverie.benchmarks.registry import Options
from reverie.benchmarks.rows import Shard

HERE = Path(__file__).parent
LIMIT = 60


def start(*words):
    command = [sys.executable, str(HERE / "toy_run.py"), *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    )


@pytest.fixture
def data(tmp_path):
    write_prompts(tmp_path / "data")
    return tmp_path / "data"


def lines(out, name):
    return [json.loads(line) for path in out.glob(f"{name}*.jsonl") for line in path.read_text().splitlines()]


def same(first, second):
    """Whether two runs have the same rows in the same order, the same scores and the same pictures."""
    one, other = (json.loads((folder / "scores.json").read_text()) for folder in (first, second))
    for key in ("scores", "overall", "ends", "notes", "complete", "expected"):
        assert one[key] == other[key], key
    assert {(row.id, row.index): row for row in read_rows(first)} == {(r.id, r.index): r for r in read_rows(second)}
    pictures = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")} for folder in (first, second)
    ]
    assert pictures[0] == pictures[1]


def killed(times, rows, words):
    """Start a run again and again and kill it by how far it came, not by the clock, so that a slow machine gets as far;
    and then anywhere in a batch."""
    rng = random.Random(20261127)
    for _ in range(times):
        process = start(*words)
        for _ in range(rng.randrange(1, rows)):
            if not process.stdout.readline():
                break
        time.sleep(rng.random() * 0.01)
        process.kill()
        process.wait()
        process.stdout.close()


def test_killed_ten_times(tmp_path, data):
    out = tmp_path / "killed"
    killed(10, 12, (data, out, LIMIT))
    before = len(read_rows(out))
    assert 10 <= before < 2 * LIMIT, "it was killed while at work"
    finished = run(data, out, LIMIT)
    run(data, tmp_path / "whole", LIMIT)
    same(out, tmp_path / "whole")
    assert finished["images_scored"] == 2 * LIMIT
    assert len(lines(out, "rows")) == 2 * LIMIT, "no image was judged twice"
    assert len(lines(out, "painted")) == 2 * LIMIT, "no image that was there was painted again"


def test_killed_while_a_server_judges(tmp_path):
    """One that fails now and then; what it has answered before a kill is not asked again."""
    data, out = tmp_path / "data", tmp_path / "killed"
    data.mkdir()
    write_wise(data, "verified", "_verified")
    given = []

    def counted(body):
        given.append(body)
        return reply(body)

    calm, wild = Model(reply=reply), Model(["", "500", "", "drop", "", "429"] * 20, counted)
    with serving(calm) as url:
        run_served(data, tmp_path / "whole", LIMIT, url)
    with serving(wild) as url:
        killed(4, 20, (data, out, LIMIT, url))
        before = len(read_rows(out))
        run_served(data, out, LIMIT, url)
    assert 4 <= before < LIMIT
    same(out, tmp_path / "whole")
    assert len(list((out / "answers").rglob("*.json"))) == LIMIT == len(calm.bodies)
    assert len(given) <= LIMIT + 4 * 5, "what has been answered is asked again only if it was under way at a kill"


def test_shards_add_up(tmp_path, data):
    out = tmp_path / "shared"
    both = [start(data, out, LIMIT, f"{place}/3") for place in (1, 2)]
    for process in both:
        process.communicate()
        assert process.returncode == 0
    scores = json.loads((out / "scores.json").read_text())
    assert not scores["complete"]
    assert "40 of 120 images are not judged yet" in scores["notes"][0]
    run(data, out, LIMIT, "3/3")
    run(data, tmp_path / "whole", LIMIT)
    same(out, tmp_path / "whole")
    assert len(lines(out, "rows")) == 2 * LIMIT
    assert {path.name for path in out.glob("rows*")} == {f"rows-{place}-of-3.jsonl" for place in (1, 2, 3)}


def test_the_last_report_is_of_all_rows(tmp_path, data):
    """One shard reads the rows, and before it writes its report the other ends as well."""
    out, ended = tmp_path / "out", threading.Event()
    usual = load_benchmark(NAME, Options(data, 2, False))
    assert usual.outcome is not None

    def slow(rows):
        if len(rows) < 2 * LIMIT:
            assert ended.wait(60)
            time.sleep(0.3)  # as long as the other would need to write, if it did not wait
        return usual.outcome(rows)

    def part(shard, on_row=None):
        settings = {"limit": LIMIT, "images_per_prompt": 2, "batch": 5, "judge": Glance(), "shard": shard}
        evaluate(replace(usual, outcome=slow), Dabs(), out, on_row=on_row, **settings)

    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(part, "1/2")
        while len(lines(out, "rows-1-of-2")) < LIMIT:
            assert not first.done()
            time.sleep(0.01)
        time.sleep(0.1)  # now it has read them
        part("2/2", lambda row, done, total: ended.set() if done == total else None)
        first.result()
    assert json.loads((out / "scores.json").read_text())["images_scored"] == 2 * LIMIT


def test_two_processes_on_one_part_are_refused(tmp_path, data):
    out = tmp_path / "out"

    def second(row, done, total):
        with pytest.raises(ValueError, match="Another process is at work on this part"):
            run(data, out, LIMIT)
        run(data, out, LIMIT, "2/2")  # another part may go on

    run(data, out, 1, on_row=second)


def test_what_was_asked_again_counts_whoever_asked(tmp_path, data):
    """A judge fails on an image in one process; another shard of the next start asks again."""
    out = tmp_path / "out"
    scores = run(data, out, 6)
    path = out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    rows[0] |= {"end": "judge error", "score": None, "value": None}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    os.utime(path, (1, 1))
    again = run(data, out, 6, "1/2")
    assert again["scores"] == scores["scores"]
    assert again["ends"] == {"scored": 12}
    assert len(lines(out, "rows-1-of-2")) == 1
    run(data, out, 6, "1/2")
    assert len(lines(out, "rows-1-of-2")) == 1, "it was asked once"


def test_layouts_that_number_through_keep_their_number(tmp_path, data):
    run(data, tmp_path / "out", 3)
    with pytest.raises(ValueError, match=r"holds last_image .*000598.png', not .*000299.png'"):
        evaluate(NAME, Dabs(), tmp_path / "out", data=data, limit=3, images_per_prompt=1, judge=Glance())


@pytest.mark.parametrize("number", [1, 2, 7])
def test_every_sample_is_in_one_shard(number):
    parts = [Shard(place, number).part(range(50)) for place in range(1, number + 1)]
    assert sorted(place for part in parts for place in part) == list(range(50))


def test_damaged_rows_are_named(tmp_path, data):
    run(data, tmp_path / "out", 3)
    path = tmp_path / "out" / "rows.jsonl"
    kept = path.read_text().splitlines()
    path.write_text("\n".join([kept[0], "{broken", *kept[2:]]) + "\n")
    with pytest.raises(ValueError, match=r"rows.jsonl, line 2 is damaged"):
        run(data, tmp_path / "out", 3)
    path.write_text("\n".join([kept[0], *kept[2:], kept[1][:-9]]))  # cut short
    scores = run(data, tmp_path / "out", 3)
    assert scores["images_scored"] == 6
    assert sorted(path.read_text().splitlines()) == sorted(kept)
    (tmp_path / "out" / "run.json").write_text("[]")
    with pytest.raises(ValueError, match="damaged"):
        run(data, tmp_path / "out", 3)
