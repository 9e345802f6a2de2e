"""The Atelier's grammar: what is said is read back, and the English is right."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reverie.atelier.kinds import KINDS
from reverie.atelier.language import (
    Clause,
    Demand,
    canonical,
    demand_of,
    describe,
    held_out_colour,
    held_out_count,
    held_out_pair,
    parse,
    say,
)
from reverie.atelier.scene import ACTIONS, BACKGROUNDS, COLOURS, RELATIONS, SIZES, STYLES, TEXTURES, Scene, Thing


@st.composite
def clauses(draw, index=0):
    kind = draw(st.sampled_from(sorted(KINDS)))
    position = None
    if index and draw(st.booleans()):
        position = (draw(st.sampled_from(RELATIONS)), index - 1)
    return Clause(
        kind,
        draw(st.integers(1, 8)),
        draw(st.sampled_from([None, *COLOURS])),
        position,
        draw(st.sampled_from(TEXTURES)),
        draw(st.sampled_from([None, *SIZES])),
        draw(st.sampled_from([None, *ACTIONS])),
        draw(st.sampled_from([None, *KINDS[kind].states])),
    )


@st.composite
def demands(draw):
    include = tuple(draw(clauses(index)) for index in range(draw(st.integers(0, 4))))
    kinds = draw(st.lists(st.sampled_from(sorted(KINDS)), max_size=2))
    exclude = tuple(Clause(kind, draw(st.integers(1, 5))) for kind in kinds)
    return Demand(include, exclude, draw(st.sampled_from(BACKGROUNDS)), draw(st.sampled_from(STYLES)))


@settings(max_examples=300, deadline=None)
@given(
    demands(), st.integers(0, 2**32), st.sampled_from(["terse", "plain"]), st.sampled_from(["train", "held_out", "any"])
)
def test_what_is_said_is_read_back(demand, seed, richness, split):
    assert parse(say(demand, random.Random(seed), richness, split)) == demand


@settings(max_examples=200, deadline=None)
@given(demands(), st.integers(0, 2**32))
def test_canonical_and_records_come_back(demand, seed):
    assert parse(canonical(demand)) == demand
    assert parse(canonical(demand).upper()) == demand
    assert Demand.from_record(demand.to_record()) == demand
    assert say(demand, random.Random(seed)) == say(demand, random.Random(seed))
    assert say(demand, random.Random(seed), "rich").count(".") >= 2


def test_every_state_and_attribute_comes_back_alone():
    for kind in KINDS:
        for state in (None, *KINDS[kind].states):
            for count in (1, 2):
                demand = Demand((Clause(kind, count, state=state),))
                for text in [canonical(demand)] + [say(demand, random.Random(seed)) for seed in range(12)]:
                    assert parse(text) == demand, text


@pytest.mark.parametrize(
    ("clause", "text"),
    [
        (Clause("orange"), "an orange"),
        (Clause("orange", colour="orange"), "an orange orange"),
        (Clause("cat", colour="orange"), "an orange cat"),
        (Clause("orange", 2), "two oranges"),
        (Clause("hat"), "a hat"),
        (Clause("banana", state="rotten"), "a rotten banana"),
        (Clause("egg", state="fried"), "a fried egg"),
        (Clause("tree", state="winter"), "a winter tree"),
        (Clause("book", state="open"), "an open book"),
        (Clause("traffic light", state="red"), "a traffic light showing red"),
        (Clause("traffic light", colour="red"), "a red traffic light"),
        (Clause("dice", 2, state="6"), "two dice showing 6"),
        (Clause("clock", state="4"), "a clock at 4 o'clock"),
        (Clause("flag", state="Japan"), "a Japan flag"),
        (Clause("flag", state="Italy"), "an Italy flag"),
        (Clause("flag", state="Ukraine"), "a Ukraine flag"),
        (Clause("ice cube", state="melted"), "a melted ice cube"),
        (Clause("chair", texture="wood"), "a wooden chair"),
        (Clause("dog", action="swim"), "a swimming dog"),
        (Clause("orange", colour="red", texture="metal", size="large"), "a large red metal orange"),
        (Clause("orange", action="fly"), "a flying orange"),
    ],
)
def test_canonical_english(clause, text):
    assert canonical(Demand((clause,))) == text
    assert parse(text) == Demand((clause,))


def test_canonical_sentences():
    assert canonical(Demand((Clause("cat", 3, "blue"),), background="night")) == "three blue cats at night"
    pair = Demand((Clause("apple"), Clause("sheep", position=("left of", 0))))
    assert canonical(pair) == "a sheep left of an apple"
    assert canonical(Demand((Clause("cat"), Clause("dog")), style="icon")) == "an icon of a cat and a dog"
    assert canonical(Demand((Clause("cat"),), (Clause("dog"), Clause("cat", 2)))) == (
        "a cat without dogs with fewer than two cats"
    )


@pytest.mark.parametrize(
    ("prompt", "include"),
    [
        ("a photo of a bell", [{"class": "bell", "count": 1}]),
        ("a photo of a red car", [{"class": "car", "count": 1, "color": "red"}]),
        ("a photo of two clocks", [{"class": "clock", "count": 2}]),
        ("A photo of a dog and a cake.", [{"class": "dog", "count": 1}, {"class": "cake", "count": 1}]),
        (
            "a photo of a dog right of a bird",
            [{"class": "bird", "count": 1}, {"class": "dog", "count": 1, "position": ["right of", 0]}],
        ),
        (
            "on the left is a cat, on the right a dog",
            [{"class": "dog", "count": 1}, {"class": "cat", "count": 1, "position": ["left of", 0]}],
        ),
        ("an orange flying", [{"class": "orange", "count": 1, "action": "fly"}]),
        ("an orange flying cat", [{"class": "cat", "count": 1, "color": "orange", "action": "fly"}]),
        ("A red cat, a box, and a hat", [{"class": "cat", "count": 1, "color": "red"}]
         + [{"class": kind, "count": 1} for kind in ("box", "hat")]),
    ],
)  # fmt: skip
def test_prompts_as_geneval_writes_them(prompt, include):
    assert parse(prompt).to_record() == {"include": include, "exclude": []}


def test_backgrounds_and_relations_share_words():
    assert parse("a cat on the beach").background == "beach"
    assert parse("a cat on a box on the beach").include[1].position == ("on", 0)
    assert parse("a cat inside a box inside a cave").background == "cave"
    assert parse("In an amusement park, there are two cats").background == "park"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a photo of a teddy bear", "teddy"),
        ("", "empty"),
        ("a red", "the end"),
        ("cats", "cats"),
        ("a rotten cat", "cat"),
    ],
)
def test_errors_name_the_word(text, word):
    with pytest.raises(ValueError, match=word):
        parse(text)


def test_unsayable_and_malformed_demands_are_refused():
    far = Demand((Clause("cat"), Clause("dog"), Clause("box", position=("above", 0))))
    with pytest.raises(ValueError, match="Clause 2"):
        canonical(far)
    assert Demand.from_record(far.to_record()) == far
    with pytest.raises(ValueError, match="excluded dog"):
        canonical(Demand((Clause("cat"),), (Clause("dog", colour="red"),)))
    for record, word in [
        ({"include": [{"count": 1}]}, "class"),
        ({"include": [{"class": "teddy", "count": 1}]}, "teddy"),
        ({"include": [{"class": "cat", "color": "mauve"}]}, "mauve"),
        ({"include": [{"class": "cat", "position": ["above", 0]}]}, "position"),
        ({"include": [{"class": "cat", "count": 0}]}, "count"),
        ({"includes": []}, "includes"),
    ]:
        with pytest.raises(ValueError, match=word):
            Demand.from_record(record)


def test_demand_of_a_scene():
    cat, dog = Thing("cat", "red", x=0.2, y=0.5), Thing("dog", x=0.8, y=0.6, action="run")
    demand = demand_of(Scene((cat, dog), "night", "sketch"))
    assert demand.include == (Clause("cat", colour="red"), Clause("dog", action="run", position=("right of", 0)))
    assert (demand.background, demand.style) == ("night", "sketch")
    assert demand_of(Scene((cat, dog)), relations=False).include[1].position is None
    assert demand_of(Scene((cat, cat, dog))).include == (Clause("cat", 2, "red"), Clause("dog", action="run"))
    assert demand_of(Scene((Thing("cat", scale=0.5),)), sizes=True).include == (Clause("cat", size="large"),)
    above = demand_of(Scene((Thing("cat", y=0.8), Thing("sun", x=0.6, y=0.1))))
    assert above.include[1].position == ("above", 0)


def test_descriptions_go_from_top_left_to_bottom_right():
    scene = Scene((Thing("dog", x=0.8, y=0.8), Thing("cat", "red", x=0.8, y=0.2), Thing("sun", x=0.1, y=0.1)), "beach")
    texts = {describe(scene, random.Random(seed)) for seed in range(30)}
    assert len(texts) > 10
    for text in texts:
        assert text.index("sun") < text.index("cat") < text.index("dog")
        assert all(words in text for words in ("pper left", "pper right", "ower right", "three things"))
    assert "nothing" in describe(Scene(), random.Random(0))


def test_held_out_shares_and_symmetry():
    kinds = sorted(KINDS)
    pairs = [held_out_pair(a, b) for a in kinds for b in kinds if a < b]
    colours = [held_out_colour(colour, kind) for colour in COLOURS for kind in kinds]
    counts = [held_out_count(n, kind) for n in range(2, 7) for kind in kinds]
    for rule in (pairs, colours, counts):
        assert 0.06 < sum(rule) / len(rule) < 0.15
    assert all(held_out_pair(a, b) == held_out_pair(b, a) for a in kinds for b in kinds)
    assert not any(held_out_count(1, kind) for kind in kinds)


def test_wordings_are_split():
    demand = Demand((Clause("cat"), Clause("dog")))
    ways = {split: {say(demand, random.Random(s), split=split) for s in range(80)} for split in ("train", "held_out")}
    assert ways["train"].isdisjoint(ways["held_out"])
    assert all(text.startswith(("an image of", "please show me")) for text in ways["held_out"])
    assert "a photo of a cat and a dog" in ways["train"]
    with pytest.raises(ValueError, match="split"):
        say(demand, random.Random(0), split="test")
