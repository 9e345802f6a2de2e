"""A run in a batch hears what it would have heard alone."""

import pytest
from tiny import tiny_folder

from reverie import load
from reverie.events import Finished, Preview, Pruned, Spent, Thought
from reverie.reason import make_plan
from reverie.studio.split import heard, parts_of

RUNS = [("a cat", [3, 4]), ("a dog", [9]), ("a cat", [5])]


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    return load(tiny_folder(tmp_path_factory.mktemp("model")))


def batch_of(painter, plan):
    prompts = [prompt for prompt, seeds in RUNS for _ in seeds]
    parts = parts_of(prompts, [len(seeds) for _, seeds in RUNS])
    events = list(painter.run(plan, prompts, [s for _, seeds in RUNS for s in seeds], pieces=4, previews=True))
    return [[own for event in events for own in heard(event, part)] for part in parts], events


def comparable(events):
    """Without what a batch is allowed to change: words in pieces, and the account."""
    kept = []
    for event in events:
        if isinstance(event, Thought) and event.fragment:
            continue
        record = event.to_json()
        if isinstance(event, Spent):
            record = {"event": "spent", "names": sorted(record["work"])}
        kept.append((record, [picture and picture.tobytes() for picture in event.pictures]))
    return kept


@pytest.mark.parametrize(
    "fields", [{}, {"think": "before", "thought_tokens": 8}, {"preset": "twig", "thought_tokens": 8}]
)
def test_alone_and_in_a_batch(painter, fields):
    plan = make_plan(**fields)
    apart, whole = batch_of(painter, plan)
    for (prompt, seeds), events in zip(RUNS, apart, strict=True):
        alone = list(painter.run(plan, [prompt] * len(seeds), seeds, pieces=4, previews=True))
        if plan.interleaved:  # in a batch of several prompts, programs take their turns in another order
            alone, events = ([e for e in each if isinstance(e, Finished)] for each in (alone, events))
        assert comparable(events) == comparable(alone)
    spent = {name: sum(events[-1].work[name][0] for events in apart) for name in whole[-1].work}
    assert spent == {name: count for name, (count, _) in whole[-1].work.items()}, "the shares add up"


def test_only_ones_own_candidates_are_pruned():
    first, second = parts_of(["a", "b"], [1, 1])
    event = Pruned((0, 1, 1), 4, (2, 0, 3))
    assert list(heard(event, first)) == [Pruned((0,), 4, (2,))]
    assert list(heard(event, second)) == [Pruned((0, 0), 4, (0, 3))]
    assert list(heard(Pruned((0,), 4, (2,)), second)) == []
    assert list(heard(Preview(1, 2, ("x", "y")), second)) == [Preview(1, 2, ("y",))]
