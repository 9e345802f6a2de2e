"""Products over numbers of rows that change nothing: blocks, what they are found by, and the functions inside."""

from __future__ import annotations

import threading
import time

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from reverie.generators.prefill import Turns
from reverie.models.llama import neighbours
from reverie.models.rows import WIDE, Blocks, gelu_tanh, in_blocks


@given(st.integers(1, 40), st.integers(1, 12), st.integers(0, 700))
def test_blocks_cover_every_row_once(rows, grain, count):
    grain = min(grain, rows)
    blocks = Blocks(rows, grain, WIDE * rows)
    cut = list(blocks.cut(count))
    assert [row for part, _ in cut for row in range(part.start, part.stop)] == list(range(count))
    for part, size in cut:
        assert part.stop - part.start <= size
        assert size in (rows, WIDE * rows) or (size < rows and size % grain == 0 and part.stop == count)
    assert all(size == rows for _, size in Blocks.fixed(rows).cut(count))
    for one in (blocks, Blocks.fixed(rows)):
        assert one.whole(count) == (list(one.cut(count)) == [(slice(0, count), count)])


@given(st.integers(0, 90))
def test_in_blocks_is_the_function_and_its_blocks_have_the_sizes_said(count):
    seen = []

    def double(x, y):
        assert len(x) == len(y)
        seen.append(len(x))
        return 2 * x + y

    x, y = torch.randn(2, count, 3)
    for blocks in (Blocks.fixed(8), Blocks(8, 4, 32)):
        seen.clear()
        assert torch.equal(in_blocks(double, blocks, x, y), 2 * x + y)
        assert seen == ([size for _, size in blocks.cut(count)] or [8])


@pytest.mark.parametrize("rows", [16, 48])
def test_other_numbers_of_rows_are_taken_only_if_bits_stay(rows):
    """Functions that do not know how many rows there are, that care below some number, and that care above."""
    like = torch.zeros(1)

    def among(least, most):
        def function(x, y):
            return x + y if least <= len(x) <= most else x + y * (1 + 1e-3)

        return Blocks.found(function, rows, (5, 5), like)

    free = among(0, 10**9)
    assert free == Blocks(rows, free.grain, WIDE * rows)
    assert free.grain < rows
    assert among(rows, 10**9) == Blocks(rows, rows, WIDE * rows)
    assert among(0, rows) == Blocks(rows, free.grain, rows)
    assert among(rows, rows) == Blocks.fixed(rows)

    def by_place(x, y):
        """A row at the end of a block is rounded otherwise, as by the rest of a vectorised loop."""
        out = x + y
        out[-1] += 1e-3
        return out

    assert Blocks.found(by_place, rows, (5, 5), like) == Blocks.fixed(rows)


def test_gelu_is_that_of_torch():
    x = torch.cat((torch.randn(4000) * 4, torch.tensor([-1e30, -200.0, -40.0, 0.0, 40.0, 200.0, 1e30])))
    expected = F.gelu(x.double(), approximate="tanh")
    torch.testing.assert_close(gelu_tanh(x).double(), expected, atol=1e-6, rtol=1e-6)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=12))
def test_neighbours_read_all_that_their_rows_see_and_little_more(spans):
    parts = neighbours(spans)
    rows = [(row, upto) for own, upto in parts for row in range(*own.indices(len(spans)))]
    assert [row for row, _ in rows] == list(range(len(spans)))
    assert all(upto >= spans[row] for row, upto in rows)
    read, least = sum(upto for _, upto in rows), len(spans) * max(spans)
    for cut in range(1, len(spans)):
        least = min(least, cut * max(spans[:cut]) + (len(spans) - cut) * max(spans[cut:]))
    assert len(parts) <= 2
    assert read == least or (read == len(spans) * max(spans) and least > 0.9 * read)


def test_turns_go_on_layer_by_layer():
    """Two units of a first chunk, one each of two more, on two cores: nobody enters a layer before those ahead wrote
    it, and every unit is done once."""
    turns, layers, log, lock = Turns([0, 0, 2, 3], 3), 3, [], threading.Lock()

    def core():
        for unit in turns.units():
            for layer in range(layers):
                time.sleep(0.002 * (unit == 0))  # the first is slow
                with lock:
                    log.append(("wrote", unit, layer))
                turns.reached(unit, layer + 1)
                turns.wait(unit, layer + 1)
                with lock:
                    log.append(("looks", unit, layer))

    cores = [threading.Thread(target=core) for _ in range(2)]
    for one in cores:
        one.start()
    for one in cores:
        one.join(20)
        assert not one.is_alive()
    assert sorted(log) == sorted((what, n, k) for what in ("wrote", "looks") for n in range(4) for k in range(layers))
    for unit, ahead in enumerate(turns.before):
        for layer in range(layers):
            looks = log.index(("looks", unit, layer))
            assert all(log.index(("wrote", other, layer)) < looks for other in range(ahead))


def test_turns_that_fail_let_nobody_wait():
    turns, said = Turns([0, 1], 2), []

    def second():
        try:
            turns.wait(1, 1)
        except ValueError as error:
            said.append(str(error))

    assert next(turns.units()) == 0
    waiting = threading.Thread(target=second)
    waiting.start()
    turns.fail(ValueError("too long"))
    waiting.join(20)
    assert said == ["too long"]
    assert list(turns.units()) == [], "no more work is handed out"
