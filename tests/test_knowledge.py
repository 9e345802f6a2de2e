"""The Atelier's facts: true to the world's names, split for good, and composable."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from importlib import resources

import pytest

from reverie.atelier import knowledge
from reverie.atelier.knowledge import CATEGORIES, facts, riddle, wise_prompts, wordings
from reverie.atelier.language import canonical
from reverie.atelier.language_parse import Demand, parse

BY_ID = {fact.id: fact for fact in facts()}


def fact_of(wording: str) -> knowledge.Fact:
    return next(fact for fact in facts() if wording in fact.wordings)


def content_words(text: str) -> set[str]:
    return {re.sub(r"'s?$", "", word) for word in re.findall(r"[a-z0-9'-]+", text.lower())}


def test_there_are_enough_facts_in_every_category() -> None:
    counts = Counter(fact.category for fact in facts())
    assert len(facts()) >= 320
    assert len(BY_ID) == len(facts())
    assert set(counts) == set(CATEGORIES)
    assert min(counts.values()) >= 35


def test_data_is_one_ascii_json_object_a_line() -> None:
    data = resources.files("reverie.atelier").joinpath("data/facts.jsonl").read_bytes()
    assert data.isascii()
    assert data.endswith(b"\n")
    assert all(isinstance(json.loads(line), dict) for line in data.splitlines())


def test_answer_says_what_is_demanded() -> None:
    for fact in facts():
        assert parse(fact.answer) == fact.demand, fact.id
        assert canonical(fact.demand) == fact.answer, fact.id
        assert Demand.from_record(fact.demand.to_record()) == fact.demand, fact.id


def test_thought_is_short_and_ends_in_the_answer() -> None:
    for fact in facts():
        assert fact.thought.endswith(f"{fact.answer}."), fact.id
        assert len(fact.thought.split()) <= 16, fact.id


def test_split_keeps_one_wording_back() -> None:
    for fact in facts():
        train, held_out = wordings(fact, "train"), wordings(fact, "held_out")
        assert len(train) >= 3, fact.id
        assert len(held_out) == 1, fact.id
        assert sorted(train + held_out) == sorted(fact.wordings), fact.id


def test_wordings_are_apart_and_linkable() -> None:
    """None stands within another one (the split would leak), and none has a comma, the mark of a composition."""
    every = [wording for fact in facts() for wording in fact.wordings]
    spaced = [f" {' '.join(re.findall(r'[a-z0-9]+', wording.lower()))} " for wording in every]
    text = "|".join(spaced)
    assert not any("," in wording for wording in every)
    assert [wording for wording in spaced if text.count(wording) > 1] == []


def test_wordings_do_not_name_a_bare_answer() -> None:
    for fact in facts():
        bare = fact.answer.split()
        if len(bare) == 2 and bare[0] in ("a", "an"):
            assert not any({bare[1], bare[1] + "s"} & content_words(wording) for wording in fact.wordings), fact.id


def test_held_out_wordings_can_be_told_from_the_train_side() -> None:
    """The words seen in training, weighted by how few facts use them, point to the right answer."""
    train = {fact.id: set().union(*map(content_words, wordings(fact, "train"))) for fact in facts()}
    spread = Counter(word for words in train.values() for word in words)
    right = 0
    for fact in facts():
        asked = content_words(wordings(fact, "held_out")[0])
        best = max(facts(), key=lambda other: sum(1 / spread[word] for word in asked & train[other.id]))
        right += best.answer == fact.answer
    assert right / len(facts()) >= 0.9


def test_wool_beside_what_newton_saw_fall() -> None:
    wool, fall = "the animal that gives us wool", "what Newton saw fall"
    first, second = fact_of(wool), fact_of(fall)
    beside, left = knowledge.LINKS[1], knowledge.LINKS[2]
    found = knowledge.composed_riddle(first, second, (wool, fall), beside)
    assert found.prompt == "the animal that gives us wool, beside what Newton saw fall"
    assert found.thought == "Wool is shorn from sheep, so it is a sheep. Newton saw an apple fall, so it is an apple."
    assert found.rewritten == "a sheep and an apple"
    assert found.demand == {"include": [{"class": "sheep", "count": 1}, {"class": "apple", "count": 1}], "exclude": []}
    placed = knowledge.composed_riddle(first, second, (wool, fall), left)
    assert placed.rewritten == "a sheep left of an apple"
    assert placed.demand["include"] == [
        {"class": "apple", "count": 1},
        {"class": "sheep", "count": 1, "position": ["left of", 0]},
    ]


@pytest.mark.parametrize("split", knowledge.SPLITS)
def test_riddles_stay_on_their_side(split: str) -> None:
    stream = random.Random(7)
    other = {"train": "held_out", "held_out": "train"}[split]
    seen = [riddle(stream, split) for _ in range(500)]
    for found in seen:
        asked = [BY_ID[name] for name in found.facts]
        assert any(wording in found.prompt for wording in wordings(asked[0], split))
        assert not any(re.search(f"(^| ){re.escape(w)}($|[,?])", found.prompt) for w in wordings(asked[0], other))
        assert len(asked) == 1 or knowledge.pair_split(*asked) == split
        assert parse(found.rewritten).to_record() == found.demand
    assert 0.3 < sum(len(found.facts) == 2 for found in seen) / len(seen) < 0.5
    stream = random.Random(7)
    assert seen == [riddle(stream, split) for _ in range(500)]


def test_a_tenth_of_the_pairs_is_held_out() -> None:
    some = facts()[:100]
    held_out = sum(knowledge.pair_split(a, b) == "held_out" for a in some for b in some)
    assert held_out / len(some) ** 2 == pytest.approx(0.1, abs=0.01)


def test_benchmark_is_fixed_and_held_out() -> None:
    prompts = wise_prompts()
    assert [prompt["prompt_id"] for prompt in prompts] == list(range(1, len(facts()) + 61))
    assert prompts == wise_prompts("v1")
    assert len({prompt["prompt"] for prompt in prompts}) == len(prompts)
    assert Counter(prompt["subcategory"] for prompt in prompts) == {"single": len(facts()), "composed": 60}
    assert len({json.dumps(prompt["demand"]) for prompt in prompts}) > 250
    for prompt in prompts:
        assert parse(prompt["rewritten"]).to_record() == prompt["demand"]
    for prompt, fact in zip(prompts, facts(), strict=False):
        assert wordings(fact, "held_out")[0] in prompt["prompt"]
        assert not any(f"{wording}?" in f"{prompt['prompt']}?" for wording in wordings(fact, "train"))


def test_mistakes_are_told() -> None:
    with pytest.raises(ValueError, match="train, held_out"):
        wordings(facts()[0], "test")
    with pytest.raises(ValueError, match="no version 'v0'"):
        wise_prompts("v0")
    with pytest.raises(ValueError, match=r"'odd-1' in facts\.jsonl is malformed"):
        knowledge._fact({"id": "odd-1", "category": "space"})
