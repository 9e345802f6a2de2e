"""A local model whose answers are kept: nothing is asked twice, what is new is asked together."""

import pytest

from reverie.vlms import Message
from reverie.vlms.remembering import Remembering


class Parrot:
    """Says what it was asked, and with which seed; notes every batch."""

    def __init__(self):
        self.batches = []

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        self.batches.append([messages[-1].text for messages in conversations])
        return [f"{messages[-1].text}/{seed}" for messages, seed in zip(conversations, seeds, strict=True)]


def asked(*texts):
    return [[Message("user", text)] for text in texts]


def test_only_what_is_new_is_asked_and_equal_questions_once(tmp_path):
    parrot = Parrot()
    vlm = Remembering(lambda: parrot, "parrot", tmp_path)
    assert vlm.write(asked("a")[0]) == "a/0"
    assert vlm.write_batch(asked("b", "a", "b", "c")) == ["b/0", "a/0", "b/0", "c/0"]
    assert parrot.batches == [["a"], ["b", "c"]]
    again = Remembering(lambda: pytest.fail("everything is known, so nothing is loaded"), "parrot", tmp_path)
    assert again.write_batch(asked("c", "a")) == ["c/0", "a/0"]


def test_a_seed_counts_where_something_is_drawn(tmp_path):
    parrot = Parrot()
    vlm = Remembering(lambda: parrot, "parrot", tmp_path)
    assert vlm.write_batch(asked("a", "a"), seeds=[1, 2]) == ["a/1", "a/1"]
    assert vlm.write_batch(asked("a", "a"), temperature=1.0, seeds=[1, 2]) == ["a/1", "a/2"]
    with pytest.raises(ValueError, match="Got 1 seeds for 2 conversations"):
        vlm.write_batch(asked("a", "b"), seeds=[1])
