"""A model that is loaded here answers what several conversations ask in batches, each as it would alone."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus

from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes
from reverie.vlms.meeting import each


class Counting:
    """Answers with the length of the question; notes the sizes of its batches."""

    name = "counting"

    def __init__(self):
        self.sizes = []

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        self.sizes.append(len(conversations))
        pairs = zip(conversations, seeds, strict=True)
        return [f"{len(messages[-1].text)} {max_new_tokens} {seed}" for messages, seed in pairs]

    def yes_probability(self, messages):
        return len(messages[-1].text) / 100


def interview(vlm, case):
    """As many questions as the case says, each made of the answer before; lengths and seeds differ."""
    text, told = f"case {case}", []
    for number in range(case % 5):
        text = vlm.write([Message("user", text)], 8 + case % 2, 0.0, number)
        told.append(text)
    return told, vlm.yes_probability([Message("user", text)])


class Alone:
    def __init__(self, vlm):
        self.vlm, self.yes_probability = vlm, vlm.yes_probability

    def write(self, messages, longest, temperature, seed):
        return self.vlm.write_batch([messages], longest, temperature, [seed])[0]


@settings(max_examples=60, deadline=None)
@given(cases=st.lists(st.integers(0, 40), max_size=12), workers=st.integers(2, 6))
def test_answers_are_those_of_one_after_the_other_in_fewer_batches(cases, workers):
    vlm = Counting()
    assert each(cases, interview, vlm, workers) == [interview(Alone(Counting()), case) for case in cases]
    assert max(vlm.sizes, default=0) <= workers
    assert sum(vlm.sizes) == sum(case % 5 for case in cases)


def test_equal_interviews_are_answered_in_full_batches():
    vlm = Counting()
    each([2] * 12, interview, vlm, 4)
    assert vlm.sizes == [4] * 6


def test_the_first_error_ends_it():
    begun = []

    class Failing(Counting):
        def write_batch(self, conversations, *how):
            raise MemoryError("too many pictures")

    def run(vlm, case):
        begun.append(case)
        return interview(vlm, case)

    with pytest.raises(MemoryError, match="too many"):
        each([1] * 50, run, Failing(), 4)
    assert len(begun) <= 4

    def broken(vlm, case):
        if case == 3:
            raise RuntimeError("no such case")
        return interview(vlm, case)

    with pytest.raises(RuntimeError, match="no such case"):
        each(list(range(50)), broken, Counting(), 4)


def test_a_janus_writes_the_same_in_company():
    eyes = JanusEyes(*toy_janus())

    def two(vlm, case):
        first = vlm.write([Message("user", f"what is {case}?")], 6, 1.0, case)
        return first, vlm.write([Message("user", first), Message("user", "and now?")], 5, 0.0, 0)

    assert each(range(5), two, eyes, 3) == [two(eyes, case) for case in range(5)]
