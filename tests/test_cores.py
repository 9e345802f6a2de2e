"""Parts of a batch on cores of their own: the same pictures, the same threads afterwards; memory that is kept."""

import platform
import subprocess
import sys
import threading

import pytest
import torch
from janus_toy import toy_janus
from showo_toy import toy_showo

from reverie.canvas import Conditions
from reverie.generators.showo import ShowoPainter
from reverie.models.cores import shares, side_by_side
from reverie.models.heap import OWN_WISHES
from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes


@pytest.fixture
def three_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def test_rows_are_shared_out_evenly_and_in_order(three_threads):
    cpu = torch.device("cpu")
    for count in range(8):
        parts = shares(count, cpu)
        rows = list(range(count))
        assert [row for part in parts for row in rows[part]] == rows
        sizes = [part.stop - part.start for part in parts]
        assert max(sizes) - min(sizes) <= 1
        assert len(parts) == max(1, min(3, count))
    assert shares(7, torch.device("meta")) == [slice(0, 7)]


def test_parts_run_at_once_on_one_thread_each_and_all_is_as_before(three_threads):
    together = threading.Barrier(3, timeout=20)

    def part(number: int) -> tuple[int, int, bool]:
        together.wait()  # nobody passes unless all three are here
        x = torch.randn(64, 64) @ torch.randn(64, 64)
        return number, torch.get_num_threads(), x.requires_grad or torch.is_grad_enabled()

    with torch.no_grad():
        assert side_by_side(part, [5, 6, 7]) == [(5, 1, False), (6, 1, False), (7, 1, False)]
    assert torch.get_num_threads() == 3
    # A part that calls again goes through its own parts one after another.
    assert side_by_side(lambda x: sum(side_by_side(lambda y: x * y, [1, 2])), [1, 2]) == [3, 6]
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda x: 1 // x, [1, 0])
    assert torch.get_num_threads() == 3
    assert side_by_side(lambda x: x, [1, 2]) == [1, 2]


def test_prompts_that_share_no_token_enter_on_cores_of_their_own(three_threads):
    """The work is that of one core, whoever shares what; two of these four begin alike behind their first chunk."""
    eyes = JanusEyes(*toy_janus(), rows=16, chunk=16)
    long = "a red cat left of two blue dogs and below a yellow boat beside an old tree"
    asked = [[Message("user", f"{n} {long}")] for n in range(3)] + [[Message("user", f"0 {long}, too")]]
    found = []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        before = eyes.work.prefilled
        cache, last, told = eyes._enter(asked, 1)
        lengths = list(map(len, told))
        real = [cache.keys[:, row, :, :length] for row, length in enumerate(lengths)]
        found.append(([*real, last], eyes.work.prefilled - before))
        assert min(lengths) > 2 * eyes.chunk
    for mine, theirs in zip(found[0][0], found[1][0], strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=0)
    assert found[0][1] == found[1][1] < sum(lengths)


def test_show_o_paints_the_same_on_one_core_and_on_three(three_threads):
    found = []
    for threads in (3, 1):
        torch.set_num_threads(threads)
        generator = ShowoPainter(*toy_showo(), rows=16, steps=4, guidance=2.0)
        canvas = generator.start(Conditions(("a red cat", "two blue dogs below a boat")), [1, 2]).fork(3)
        canvas = generator.advance(canvas)
        found.append((canvas.tokens, [picture.tobytes() for picture in generator.preview(canvas)]))
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]


FAULTS = """
import resource, sys
import torch
from reverie.models.heap import keep_memory
kept = keep_memory() if sys.argv[1] == "keep" else False
blocks = 40, 12 * 2**20  # of 48 MiB in float32: above every threshold of glibc
for _ in range(blocks[0]):  # the heap finds its size
    torch.ones(blocks[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(blocks[0]):
    torch.ones(blocks[1])
print(kept, resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the system's malloc is not that of glibc")
def test_a_process_keeps_what_it_has_freed(monkeypatch):
    for name in ("GLIBC_TUNABLES", *OWN_WISHES):
        monkeypatch.delenv(name, raising=False)

    def faults(way: str) -> tuple[str, int]:
        told = subprocess.run([sys.executable, "-c", FAULTS, way], capture_output=True, text=True, check=True).stdout
        kept, count = told.split()
        return kept, int(count)

    kept, few = faults("keep")
    usual, many = faults("leave")
    assert (kept, usual) == ("True", "False")
    assert few < many / 10
    monkeypatch.setenv("MALLOC_TOP_PAD_", "0")
    assert faults("keep")[0] == "False", "whoever has set it has a reason"
