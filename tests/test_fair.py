"""The queue: clients take turns, batches hold what fits, nobody is forgotten."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from reverie.studio.fair import FairQueue


@dataclass(eq=False)
class Run:
    client: str
    together: object = "plan"
    size: int = 1


def queue_of(*runs: Run) -> FairQueue[Run]:
    queue = FairQueue[Run]()
    for run in runs:
        queue.put(run)
    return queue


def test_clients_take_turns():
    greedy = [Run("a") for _ in range(3)]
    modest = Run("b")
    queue = queue_of(*greedy, modest)
    assert [queue.position(run) for run in (*greedy, modest)] == [0, 2, 3, 1]
    assert [queue.take(1)[0].client for _ in range(4)] == ["a", "b", "a", "a"]


def test_a_batch_takes_one_of_each_client_in_turn_and_only_what_fits():
    runs = [Run("a"), Run("a"), Run("b"), Run("c", together="another"), Run("d", size=4)]
    queue = queue_of(*runs)
    assert queue.take(3) == [runs[0], runs[2], runs[1]]
    assert queue.take(3) == [runs[3]]
    assert queue.take(3) == [runs[4]], "the next in turn goes even if it is larger than a batch"
    assert queue.take(3) == []


def test_who_stays_alone_and_who_is_first():
    alone, other, again = Run("a", together=None), Run("b", together=None), Run("c", together=None)
    queue = queue_of(alone, other)
    queue.put(again, first=True)
    assert [queue.take(8) for _ in range(3)] == [[again], [alone], [other]]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xy"), st.integers(1, 5))), st.integers(1, 8))
def test_everybody_is_served_once_and_next_in_turn_is_never_passed_over(specs, room):
    queue = queue_of(*(Run(*spec) for spec in specs))
    waiting = list(queue)
    while waiting:
        leader = next(iter(queue))
        batch = queue.take(room)
        assert batch[0] is leader
        assert len({run.together for run in batch}) == 1
        assert len(batch) == 1 or sum(run.size for run in batch) <= room
        for run in batch:
            waiting.remove(run)
    assert len(queue) == 0
