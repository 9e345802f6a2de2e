"""What may go wrong with a server: each fault is made to happen, the server lives on, what was finished is there."""

import io
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import time
import zipfile
import zlib
from pathlib import Path

import pytest
from PIL import Image
from served import LONG, serving
from test_serve import form
from tiny import tiny_folder

from reverie.studio.request import Limits


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    with pytest.MonkeyPatch.context() as patch:
        # What is freed goes back to the system as it would by itself; or a worker could do without any more.
        patch.setenv("MALLOC_TRIM_THRESHOLD_", str(2**17))
        with serving(folder, tiny_folder(folder / "model")) as served:
            yield served


@pytest.fixture(scope="module")
def finished(served):
    """A run from before the faults."""
    run = served.run(prompt="a cat", seed=5)
    return run, served.wait(run)


@pytest.fixture(autouse=True)
def _everything_is_still_there(served, finished):
    """After each fault: the same server answers, an old run is what it was, and a new one is painted."""
    yield
    run, about = finished
    assert served.process.poll() is None, served.log.read_text()
    assert served.ask("GET", f"/api/runs/{run}")[1] == about
    assert served.ask("GET", about["files"][0])[0] == 200
    assert served.wait(served.run(prompt="a cat", seed=5))["recipes"][0]["picture"] == about["recipes"][0]["picture"]


def test_a_worker_killed_in_mid_picture_takes_nothing_with_it(served):
    """Two runs in one canvas: both are begun again, alone, and become what they would have become."""
    first = served.run(**LONG)
    served.events(first, until="verdict")
    pair = [served.run(prompt="a dog", seed=seed, preset="t2g", thought_tokens=64) for seed in (1, 2)]
    os.kill(served.worker(), signal.SIGKILL)
    heard = [event for _, event in served.events(first, until="restarted")]
    assert heard[-1] == {"event": "restarted", "attempt": 2}
    # Once more, and that was its last chance; those that waited are not touched by it.
    served.events(first, until="verdict")
    os.kill(served.worker(), signal.SIGKILL)
    about = served.wait(first)
    assert about["state"] == "failed"
    assert "was killed (SIGKILL)" in about["error"]
    assert [served.wait(run)["state"] for run in pair] == ["done", "done"]
    deaths = served.ask("GET", "/metrics")[1].decode()
    assert "reverie_worker_deaths_total 2.0" in deaths


def test_a_restarted_run_has_ids_of_its_own(served):
    run = served.run(**LONG)
    served.events(run, until="verdict")
    os.kill(served.worker(), signal.SIGKILL)
    served.events(run, last="1", until="restarted")
    heard = [
        (name, event) for name, event in served.events(run, last="1", until="verdict") if event["event"] != "queued"
    ]
    assert [event["event"] for _, event in heard[:2]] == ["restarted", "started"]
    assert [name for name, _ in heard[1:]] == [f"2.{i}" for i in range(len(heard) - 1)], "all of it, from the start"
    served.ask("DELETE", f"/api/runs/{run}")


def test_a_worker_without_memory_fails_its_run_only(served):
    """No new address space for the worker: a real MemoryError, and the worker itself goes on."""
    worker = served.worker()
    resource.prlimit(worker, resource.RLIMIT_AS, (1 << 20, resource.RLIM_INFINITY))
    about = served.wait(served.run(prompt="a cat", seed=1, n=8, candidates=8, choose="orm"))
    resource.prlimit(served.worker(), resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert about["state"] == "failed"
    assert "not enough memory" in about["error"]
    assert served.worker() == worker


def test_a_client_that_goes_in_mid_stream(served):
    run = served.run(prompt="a cat", seed=1, preset="t2g", thought_tokens=64)
    host, port = served.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /api/runs/{run}/events HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        connection.recv(100)
        # A reset instead of a goodbye.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert served.wait(run)["state"] == "done", "the run is not the stream's"


def test_a_client_that_goes_in_mid_body(served):
    host, port = served.address.removeprefix("http://").split(":")
    for path in ("/api/runs", "/api/uploads", "/v1/images/generations"):
        with socket.create_connection((host, int(port))) as connection:
            head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
            connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x".encode())


def png_of(width: int, height: int, rows: bytes) -> bytes:
    """A PNG that says it has so many pixels, with this as its compressed rows."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(64 << 20))
    return buffer.getvalue()


def text_bomb() -> bytes:
    """A small PNG whose text would unpack to 64 MiB."""
    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    content = b"Comment\0\0" + zlib.compress(bytes(64 << 20))
    chunk = struct.pack(">I", len(content)) + b"zTXt" + content + struct.pack(">I", zlib.crc32(b"zTXt" + content))
    return picture.getvalue()[:33] + chunk + picture.getvalue()[33:]


UPLOADS = {
    "100 megapixels": (lambda: png_of(10_000, 10_000, zlib.compress(bytes(1000))), 422, "at most 24 million"),
    "a billion megapixels": (lambda: png_of(2**31 - 1, 2**31 - 1, b"x"), 422, "million pixels"),
    "a zip bomb": (zip_bomb, 422, "cannot be read as a picture"),
    "a text bomb": (text_bomb, 422, "damaged"),
    "cut short": (lambda: png_of(64, 64, zlib.compress(bytes(64)))[:-20], 422, "cannot be read as a picture"),
    "nothing": (lambda: b"", 422, "cannot be read as a picture"),
    "svg": (lambda: b'<svg xmlns="http://www.w3.org/2000/svg"/>', 422, "cannot be read as a picture"),
    "too many bytes": (lambda: bytes(Limits().upload_bytes + (2 << 20)), 413, "larger than"),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_that_are_no_pictures(served, name):
    make, status, said = UPLOADS[name]
    before = memory(served.process.pid)
    answer = served.ask("POST", "/api/uploads", *form(make(), "innocent.png"))
    assert answer[0] == status
    assert said in answer[1]["error"]
    assert "\n" not in answer[1]["error"]
    assert memory(served.process.pid) < before + 64, "nothing large was unpacked"
    assert not list((served.data / "uploads").iterdir())


FORMS = {
    "no form": (b"{}", {"Content-Type": "application/json"}),
    "no boundary": (b"--x", {"Content-Type": "multipart/form-data"}),
    "half a form": (b"--x\r\nContent-Dis", {"Content-Type": "multipart/form-data; boundary=x"}),
    "another field": (form(b"x")[0].replace(b'"file"', b'"other"'), form(b"")[1]),
    "a text": (b'--x\r\nContent-Disposition: form-data; name="file"\r\n\r\nhello\r\n--x--\r\n', form(b"")[1]),
}


@pytest.mark.parametrize("name", FORMS)
def test_forms_that_are_none(served, name):
    for path in ("/api/uploads", "/v1/images/edits"):
        status, answer = served.ask("POST", path, *FORMS[name])
        assert status in (400, 422)
        assert "error" in answer


def memory(pid: int) -> float:
    """Resident MiB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small disk needs root")
def test_a_full_disk_fails_the_run_and_not_the_server(served, tmp_path):
    """A disk of 1 MiB: runs fail in one sentence while it is full, and are painted again once there is room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], check=False).returncode:
        pytest.skip("this machine does not let us mount a disk")
    try:
        with serving(tmp_path, tiny_folder(tmp_path / "model"), data=disk) as small:
            done = small.wait(small.run(prompt="a cat", seed=5))
            filler = disk / "filler"
            with filler.open("wb", buffering=0) as file:
                try:
                    while file.write(bytes(4096)):
                        pass
                except OSError:
                    pass
            status, answer = small.ask("POST", "/api/runs", {"prompt": "a cat"})
            if status == 201:  # the index had room; the trace has not
                about = small.wait(answer["id"])
                assert about["state"] == "failed"
                assert "could not be written: No space left on device" in about["error"]
            else:
                assert status == 507
                assert "make room" in answer["error"]
            buffer = io.BytesIO()
            Image.effect_noise((200, 200), 50).save(buffer, "PNG")
            assert small.ask("POST", "/api/uploads", *form(buffer.getvalue()))[0] == 507
            assert small.ask("GET", f"/api/runs/{done['id']}")[1] == done
            filler.unlink()
            assert small.wait(small.run(prompt="a cat", seed=5))["state"] == "done"
            assert small.stop() in (0, -15)
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_runs_whose_files_may_not_grow_fail_in_one_sentence(served):
    """The same without root: the worker may write no more than 100 bytes into a file."""
    limit = (100, resource.RLIM_INFINITY)
    resource.prlimit(served.worker(), resource.RLIMIT_FSIZE, limit)
    about = served.wait(served.run(prompt="a cat", seed=1))
    assert about["state"] == "failed"
    assert about["error"].startswith("the results could not be written: File too large")
    resource.prlimit(served.worker(), resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_stopping_finishes_what_is_being_painted_and_says_so_of_the_rest(served, tmp_path):
    from reverie.studio.store import Store

    with serving(tmp_path, tiny_folder(tmp_path / "model"), "--grace", "60") as other:
        running = other.run(prompt="a cat", seed=1, preset="t2g", thought_tokens=200)
        other.events(running, until="thought")
        waiting = other.run(prompt="a dog", seed=1, guidance=2)
        assert other.stop() in (0, -15)
    store = Store(tmp_path / "data")
    assert store.get(running).state == "done"
    assert store.get(waiting).state == "failed"
    assert "send it again" in store.get(waiting).error
    # A server that was killed leaves the same truth behind for the next one.
    killed = store.add(store.get(running).request, "someone")
    assert [row.id for row in store.unfinished()] == [killed.id]
    store.close()


def test_a_worker_that_cannot_load_its_model_says_why(tmp_path):
    model = tiny_folder(tmp_path / "model")
    weights = next(model.glob("*.safetensors"))
    weights.write_bytes(weights.read_bytes()[:100])
    with serving(tmp_path, model, ready=False) as broken:
        about = broken.wait(broken.run(prompt="a cat"))
        assert about["state"] == "failed"
        status, answer = broken.ask("GET", "/readyz")
        assert status == 503
        for said in (about["error"], answer["error"]):
            assert str(weights) in said or weights.name in said, said


def test_a_run_that_takes_too_long_is_ended(tmp_path):
    with serving(tmp_path, tiny_folder(tmp_path / "model"), "--max-seconds", "2") as other:
        about = other.wait(other.run(**LONG))
        assert about["state"] == "failed"
        assert "longer than the 2 seconds" in about["error"]
        worker = other.worker()
        assert other.wait(other.run(prompt="a cat", seed=1))["state"] == "done"
        assert other.worker() == worker, "it was interrupted and not killed"


def test_a_server_that_is_killed_leaves_no_worker_behind_and_the_next_one_knows(tmp_path):
    model = tiny_folder(tmp_path / "model")
    with serving(tmp_path, model) as first:
        done = first.wait(first.run(prompt="a cat", seed=5))
        running = first.run(**LONG)
        first.events(running, until="verdict")
        waiting = first.run(prompt="a dog", seed=1)
        worker = Path(f"/proc/{first.worker()}")
        first.stop(signal.SIGKILL)
        until = time.monotonic() + 20
        while worker.exists() and "zombie" not in (worker / "status").read_text():
            assert time.monotonic() < until, "the worker outlives its server"
            time.sleep(0.05)
    with serving(tmp_path, model, data=tmp_path / "data") as second:
        assert second.ask("GET", f"/api/runs/{done['id']}")[1] == done
        for run in (running, waiting):
            about = second.ask("GET", f"/api/runs/{run}")[1]
            assert about["state"] == "failed"
            assert "the server ended before this run did" in about["error"]
        heard = [event["event"] for _, event in second.events(running)]
        assert heard[0] == "started", "what was painted until then is there"
        assert heard[-1] == "failed"
