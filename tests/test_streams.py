"""The streams of lessons, edits and episodes: seeded, true, and without anything that is kept for benchmarks."""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections import Counter

import pytest

from reverie.atelier import edits, episodes
from reverie.atelier.draw import colour_of
from reverie.atelier.faults import cannot_become, faults, score, seen
from reverie.atelier.kinds import KINDS
from reverie.atelier.knowledge import facts
from reverie.atelier.language import canonical, describe, held_out_pair, parse
from reverie.atelier.language_parse import COUNTS, HELD_OUT_HEADS, Clause, Demand
from reverie.atelier.lessons import TASKS, Lesson, band_words, lesson, spelled_out
from reverie.atelier.sample import compose, random_demand
from reverie.atelier.scene import Scene, Thing


def drawn(task: str, count: int = 400) -> list[Lesson]:
    rng = random.Random(task)
    return [lesson(rng, task) for _ in range(count)]


# ------------------------------------------------------------------------------------------------- truth


def test_a_scene_made_for_a_demand_meets_it() -> None:
    rng = random.Random(1)
    for _ in range(2000):
        demand = random_demand(rng)
        scene = compose(demand, rng)
        assert faults(demand, scene) == [], (demand, scene)
        assert score(demand, scene) == 100
        for visible in (0.0, 0.3, 0.7, 1.0):
            assert cannot_become(demand, scene, visible) == []


@pytest.mark.parametrize(
    ("things", "reason", "points"),
    [
        ([Thing("cat", "blue"), Thing("cat", "blue", x=0.8)], [], 100),
        ([Thing("cat", "red"), Thing("cat", "blue", x=0.8)], ["The cats are red, not blue."], 67),
        ([Thing("cat", "blue")], ["There is one cat, not two."], 67),
        ([Thing("cat", "blue")] * 3, ["There are three cats, not two."], 67),
        ([Thing("dog", "blue")], ["There are no cats."], 0),
    ],
)
def test_faults_of_two_blue_cats(things: list[Thing], reason: list[str], points: int) -> None:
    demand = Demand((Clause("cat", 2, "blue"),))
    assert faults(demand, Scene(tuple(things))) == reason
    assert score(demand, Scene(tuple(things))) == points


def test_faults_of_place_state_and_background() -> None:
    pair = parse("a dog left of a cat")
    wrong = Scene((Thing("cat", x=0.2), Thing("dog", x=0.8)))
    assert faults(pair, wrong) == ["The dog is right of the cat, not left of it."]
    assert score(pair, wrong) == 80
    clock = Scene((Thing("clock", state="3"),), background="beach")
    assert faults(parse("a clock at 5 o'clock"), clock) == ["The clock shows 3 o'clock, not 5 o'clock."]
    assert faults(parse("a clock at night"), clock) == ["It is on the beach, not at night."]
    assert faults(parse("a ripe apple"), Scene((Thing("apple"),))) == []  # the usual state


def test_what_is_not_painted_yet_is_not_held_against_a_picture() -> None:
    scene = Scene((Thing("dog", y=0.2, scale=0.3), Thing("cow", y=0.8, scale=0.3)))
    demand = parse("a dog above a cat")
    assert cannot_become(demand, scene, 0.5) == []
    assert cannot_become(demand, scene, 1.0)[0] == "There is no cat."
    assert cannot_become(parse("two cats"), scene, 0.5) == ["There is a dog."]
    assert seen(scene, 0.0) == ()


def test_band_words_name_wholes_parts_and_nothing() -> None:
    tall = Scene((Thing("cat", "red", y=0.5, scale=0.9), Thing("dog", x=0.8, y=0.83, scale=0.2)))
    assert band_words(tall, 0 / 3, 1 / 3) == "the top of a red cat in the middle"
    assert band_words(tall, 1 / 3, 2 / 3) == "the middle of a red cat in the middle"
    assert band_words(tall, 2 / 3, 3 / 3) == "the bottom of a red cat in the middle and a dog on the right"
    assert band_words(Scene((Thing("cat", y=0.8, scale=0.2),)), 0, 1 / 3) == "only the background"


def test_a_thought_names_every_part() -> None:
    demand = parse("a red dog left of two cats at night")
    assert spelled_out(demand) == (
        "The picture shows two cats. It also shows a red dog. The dog is left of the cats. It is night."
    )


# ----------------------------------------------------------------------------------------------- lessons


def test_lessons_are_a_function_of_the_seed() -> None:
    first, second = ([lesson(rng) for _ in range(200)] for rng in (random.Random(5), random.Random(5)))
    assert first == second
    assert {each.task for each in first} == set(TASKS)


def test_an_unknown_task_is_refused() -> None:
    with pytest.raises(ValueError, match="no task 'sing'"):
        lesson(random.Random(0), "sing")


def test_two_thousand_lessons_take_less_than_two_seconds() -> None:
    rng = random.Random(0)
    lesson(rng)  # loads the facts
    start = time.process_time()
    for _ in range(2000):
        lesson(rng)
    assert time.process_time() - start < 2


def test_thoughts_end_in_a_prompt_that_can_be_parsed() -> None:
    for each in drawn("think"):
        thought, rewritten = each.answer.split("\nPicture: ")
        assert each.scene is None
        assert thought.endswith(".")
        assert canonical(parse(rewritten)) == rewritten


def test_captions_tell_what_is_there() -> None:
    for each in drawn("caption"):
        if each.question == "What is in this picture?":
            demand = parse(each.answer)
            assert faults(demand, each.scene) == []
            assert sum(clause.count for clause in demand.include) == len(each.scene.things)
        else:
            wordings = {describe(each.scene, random.Random(seed)).count(".") for seed in range(3)}
            assert wordings == {each.answer.count(".")}


def test_answers_agree_with_the_scene() -> None:
    for each in drawn("question", 1500):
        kinds = Counter(thing.kind for thing in each.scene.things)
        if found := re.fullmatch(r"How many (.+) are there\?", each.question):
            counted = [kind for kind in KINDS if KINDS[kind].plural == found[1]]
            number = len(each.scene.things) if found[1] == "things" else kinds[counted[0]]
            assert each.answer == COUNTS[number]
        elif found := re.fullmatch(r"What colour is the (.+)\?", each.question):
            assert {colour_of(thing) for thing in each.scene.things if thing.kind == found[1]} == {each.answer}
        elif found := re.fullmatch(r"Is there (.+)\?", each.question):
            clause = parse(found[1]).include[0]
            fits = [t for t in each.scene.things if t.kind == clause.kind and clause.colour in (None, t.colour)]
            assert each.answer == ("yes" if fits else "no")
        elif found := re.fullmatch(r"Where is the (.+)\?", each.question):
            other = next(thing.kind for thing in each.scene.things if thing.kind != found[1])
            demand = parse(f"a {found[1]} {each.answer.removesuffix(f'the {other}')} a {other}")
            assert faults(demand, each.scene) == []


@pytest.mark.parametrize("task", ["alignment", "judge"])
def test_verdicts_agree_with_the_scene(task: str) -> None:
    answers = Counter()
    for each in drawn(task, 800):
        if found := re.fullmatch(r"(?:Does this picture show|Can this picture still become) (.+)\?", each.question):
            demand = parse(found[1])
            reasons = (
                faults(demand, each.scene) if task == "alignment" else cannot_become(demand, each.scene, each.visible)
            )
        else:
            reasons = [] if seen(each.scene, each.visible) else [""]
        assert each.answer == (f"No. {reasons[0]}".rstrip(" ") if reasons else "Yes.")
        answers[each.answer[:2]] += 1
    assert 0.35 < answers["No"] / answers.total() < 0.65


def test_critiques_score_100_where_the_demand_holds_and_only_there() -> None:
    scores = Counter()
    for each in drawn("critique", 800):
        found = re.fullmatch(r"SCORE: (\d+)\nIMPROVED_DESCRIPTION: (.+)", each.answer)
        assert found
        demand = parse(found[2])
        assert int(found[1]) == score(demand, each.scene)
        assert (int(found[1]) == 100) == (not faults(demand, each.scene))
        scores[int(found[1])] += 1
    assert len(scores) > 5
    assert scores[100] > 200


def test_lessons_in_painting_on_show_a_third_less_than_they_ask_for() -> None:
    for each in drawn("continue"):
        assert each.visible in (0, 1 / 3, 2 / 3)
        band = round(each.visible * 3)
        assert each.answer == band_words(each.scene, band / 3, (band + 1) / 3)


def test_no_lesson_brings_what_is_held_out() -> None:
    known = {canonical(fact.demand) for fact in facts()}
    rng = random.Random(9)
    for _ in range(6000):
        each = lesson(rng)
        assert not any(head in each.question for head in HELD_OUT_HEADS)
        if each.scene is not None:
            assert edits.fair(each.scene), each
        rewritten = each.answer.split("Picture: ")[-1] if each.task == "think" else None
        if rewritten and rewritten not in known:  # a single fact may be about anything
            kinds = list(dict.fromkeys(clause.kind for clause in parse(rewritten).include))
            assert not any(held_out_pair(a, b) for i, a in enumerate(kinds) for b in kinds[i + 1 :]), rewritten


# ------------------------------------------------------------------------------------- edits and episodes


@pytest.mark.parametrize("family", edits.FAMILIES)
def test_edits_are_seeded_fair_and_change_something(family: str) -> None:
    for seed in range(300):
        each = edits.edit(random.Random(seed), family)
        assert each == edits.edit(random.Random(seed), family)
        assert each.family == family
        assert each.before != each.after
        assert edits.fair(each.before)
        assert edits.fair(each.after)
        for scene in (each.before, each.after):
            assert 1 <= len(scene.things) <= 6
            for thing in scene.things:
                assert thing.state is None or thing.state in KINDS[thing.kind].states


def test_edits_leave_alone_what_they_do_not_name() -> None:
    for seed in range(600):
        each = edits.edit(random.Random(seed))
        before, after = Counter(each.before.things), Counter(each.after.things)
        changed = {thing.kind for thing in (*(before - after), *(after - before))}
        if each.family in ("temporal", "causal"):
            assert [(t.x, t.y, t.scale) for t in each.before.things] == [(t.x, t.y, t.scale) for t in each.after.things]
            assert len(changed) <= 1
        if not each.instruction.startswith(("Remove the one", "Show the same place")):
            named = each.instruction + each.reasoning
            assert all(kind in named or KINDS[kind].plural in named for kind in changed)
        assert each.before.style == each.after.style


def test_changes_name_states_that_exist() -> None:
    for family in ("temporal", "causal"):
        for row in edits.changes(family):
            assert {row["before"], row["after"]} <= set(KINDS[row["kind"]].states)


def test_unknown_family_task_and_shots_are_refused() -> None:
    with pytest.raises(ValueError, match="no family"):
        edits.edit(random.Random(0), "magical")
    with pytest.raises(ValueError, match="no task 11"):
        episodes.episode(random.Random(0), 11, 2)
    with pytest.raises(ValueError, match="shots"):
        episodes.benchmark(5, 8)


def test_index_lists_are_those_of_cobsat() -> None:
    text = json.dumps(episodes.index_lists(), separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == (
        "2b9bb57fa0fbef66772c9c875434507619a088f331a97bc671547dfc1f2d5af1"
    )


@pytest.mark.parametrize("task", range(1, 11))
def test_episodes_share_the_hidden_value(task: int) -> None:
    for shots in (2, 4):
        fixed = episodes.benchmark(task, shots)
        assert len(fixed) == 1000
        assert fixed == episodes.benchmark(task, shots)
        fresh = [episodes.episode(random.Random(seed), task, shots) for seed in range(50)]
        for each in (*fixed[:100], *fresh):
            words = [word for word, _ in each.examples] + [each.query]
            assert len(set(words)) == shots + 1
            for word, scene in (*each.examples, (each.query, each.answer)):
                (thing,) = scene.things
                pair = {thing.kind, thing.colour, thing.action, thing.texture, scene.background, scene.style}
                assert {each.theta, {"amusement park": "park"}.get(word, word)} <= pair
            assert each.theta not in words
        assert all(edits.fair(scene) for each in fresh for _, scene in (*each.examples, ("", each.answer)))
