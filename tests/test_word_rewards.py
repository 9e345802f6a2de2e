"""What thinkers learn from without pictures: worn riddles, and rewards for the words of a rewrite."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reverie.atelier.knowledge import facts, wise_prompts, wordings
from reverie.atelier.language import canonical
from reverie.atelier.language_parse import parse
from reverie.atelier.sample import random_demand
from reverie.atelier.worn import Wear
from reverie.data.rewriters import AtelierRewriter
from reverie.training.dual_grpo import Question
from reverie.training.questions import Asks, questions
from reverie.training.word_rewards import Rewritten, in_words, near, told


@given(st.randoms(use_true_random=False), st.sampled_from(facts()))
def test_worn_wordings_come_from_the_training_side_and_never_say_all_of_a_held_out_one(rng, fact) -> None:
    known = {word for wording in wordings(fact, "train") for word in wording.split()}
    held_out = set(wordings(fact, "held_out")[0].split())
    wording = rng.choice(wordings(fact, "train"))
    worn = Wear(mixed=1.0)(fact, wording, rng).split()
    assert worn
    assert set(worn) <= known
    assert not held_out <= set(worn)
    assert set(Wear(drop=0.5)(fact, wording, rng).split()) <= set(wording.split())
    assert Wear()(fact, wording, rng) == wording


def test_as_many_riddles_ask_for_two_facts_as_is_said() -> None:
    def share(composed: float) -> float:
        written = AtelierRewriter(1, plain=0.0, composed=composed).teach(range(200))
        return sum(one.record["cot"].count(", so ") == 2 for one in written if one) / 200

    assert share(0.0) == 0.0
    assert 0.25 < share(0.4) < 0.45
    assert share(1.0) == 1.0
    asked = questions(Asks("atelier:40", riddles=1.0, composed=1.0, mixed=1.0), 0)
    assert not {one.text for one in asked} & {row["prompt"] for row in wise_prompts()}
    assert all(len(one.truth.include) > 1 or one.truth.background != "plain" for one in asked)


@given(st.randoms(use_true_random=False))
def test_what_was_asked_for_is_told_and_anything_else_is_not(rng) -> None:
    one, other = random_demand(rng), random_demand(rng)
    assert told(one, canonical(one))
    assert near(one, canonical(one)) == 1.0
    assert told(one, canonical(other)) == (parse(canonical(one)).to_record() == parse(canonical(other)).to_record())
    assert near(one, canonical(other)) == near(other, canonical(one)) <= 1.0


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("a yellow candle right of a withered plant", 1.0),
        ("a yellow candle left of a withered plant", 0.5),  # two things of two; two places that differ
        ("a yellow candle and a withered plant", 2 / 3),
        ("a yellow candle", 1 / 3),
        ("a dog", 0.0),
        ("#!", 0.0),
    ],
)
def test_near_counts_things_and_their_places(text: str, share: float) -> None:
    wanted = parse("a yellow candle right of a withered plant")
    rewards = in_words({"k": Question("k", "a riddle", truth=wanted)})
    leaf = Rewritten({"prompt": text, "readable": False})
    assert rewards["near"](["k"], [leaf]) == [pytest.approx(share)]
    assert rewards["told"](["k"], [leaf]) == [float(share == 1.0)]
    assert rewards["readable"](["k"], [leaf]) == [0.0]


@pytest.mark.parametrize("setting", [{"composed": 2.0}, {"drop": -0.1}, {"mixed": 1.5}, {"riddles": 3.0}])
def test_what_is_no_share_is_refused(setting: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="from 0 to 1"):
        Asks("atelier:4", **setting)
