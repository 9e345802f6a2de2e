"""The index: what is kept, for how long, and what happens if it cannot be written."""

import resource
import sqlite3
import time

import pytest

from reverie.reason import make_plan
from reverie.studio.request import Request
from reverie.studio.store import Store

DAY = 86400


def request(prompt: str = "a cat", **more) -> Request:
    return Request("generate", prompt, "atelier-janus", make_plan("twig"), 7, **more)


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "data")
    yield store
    store.close()


def finished(store: Store, size: int, **more) -> str:
    run = store.add(request(**more), "someone").id
    store.trace(run).mkdir(parents=True)
    (store.trace(run) / "picture.png").write_bytes(bytes(size))
    store.update(run, "done", seconds=1.5)
    return run


def upload(store: Store, name: str) -> None:
    store.upload(name).write_bytes(b"png")
    store.add_upload(name, 1, 1)


def test_what_goes_in_comes_out(store):
    asked = request(n=2, group="pair")
    run = store.add(asked, "someone")
    assert store.get(run.id) == run
    assert run.request == asked
    store.update(run.id, "failed", "it did not work.", attempt=2, seconds=3.0)
    row = store.get(run.id)
    assert (row.state, row.error, row.attempt, row.seconds) == ("failed", "it did not work.", 2, 3.0)
    assert store.get("nonesuch") is None


def test_old_runs_go_by_age_and_by_size_and_those_that_wait_stay(store):
    runs = [finished(store, 1000) for _ in range(4)]
    waiting = store.add(request(), "someone").id
    assert store.clean(None, None) == []
    assert store.clean(1, None, now=time.time() + DAY / 2) == []
    assert store.clean(None, 2500) == runs[1::-1], "the oldest go until the rest is small enough"
    assert [row.id for row in store.find()] == [waiting, *runs[:1:-1]]
    assert not store.run_folder(runs[0]).exists()
    assert store.clean(1, None, now=time.time() + 2 * DAY) == runs[2:]
    assert [row.id for row in store.find()] == [waiting]


def test_uploads_stay_as_long_as_a_run_uses_them(store):
    used, unused = "a" * 32, "b" * 32
    for name in (used, unused):
        upload(store, name)
    run = finished(store, 10, picture=used)
    store.clean(None, None, now=time.time() + 2 * DAY)
    assert (store.upload(used).exists(), store.upload(unused).exists()) == (True, False)
    with pytest.raises(ValueError, match="send the picture again"):
        store.upload_here(unused)
    assert store.upload_here(used) == store.upload(used)
    store.delete(run)
    store.clean(None, None, now=time.time() + 2 * DAY)
    assert not store.upload(used).exists()


def test_a_state_that_cannot_be_written_is_not_lost(store, tmp_path):
    """A real limit on the size of files stands in for the full disk."""
    run = store.add(request(), "someone").id
    wal = (tmp_path / "data" / "index.sqlite-wal").stat().st_size
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (wal, before[1]))
    try:
        store.update(run, "done", seconds=1.0)
        assert store.get(run).state == "done"
        with pytest.raises(sqlite3.OperationalError):
            store.add(request(), "someone")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    store.update(store.add(request(), "someone").id, "done")
    states = sqlite3.connect(tmp_path / "data" / "index.sqlite").execute("SELECT state FROM runs").fetchall()
    assert states == [("done",), ("done",)]


def test_one_server_for_one_folder(store, tmp_path):
    with pytest.raises(ValueError, match="in use by another server"):
        Store(tmp_path / "data")


def test_an_index_that_is_none(tmp_path):
    (tmp_path / "index.sqlite").write_bytes(b"no database" * 100)
    with pytest.raises(ValueError, match="move it away"):
        Store(tmp_path)
