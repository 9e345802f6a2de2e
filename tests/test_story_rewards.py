"""Rewards of public runs: what the published code gets wrong is right here, one test for each; a run from a file."""

import json
from pathlib import Path

import pytest
import torch
from evaluator_toys import save_clip, save_owlv2
from PIL import Image
from tiny import tiny_folder

from reverie.benchmarks.evaluators.boxes import SHORT
from reverie.judges import Answer
from reverie.training import recipes
from reverie.training.rewards import (
    MEANS,
    NEAR,
    Facts,
    RewardChoice,
    chosen,
    detection_score,
    detector_reward,
    distinct,
    judge_reward,
    place_score,
    read_facts,
    vqa_reward,
)
from reverie.training.rollout import judge as judge_leaves
from reverie.training.tree import Branch, Credit, Tree, group_values, lessons, reward_log

PLAIN = Image.new("RGB", (64, 64))


def box(x: float, y: float, side: float = 0.2) -> list[float]:
    return [x - side / 2, y - side / 2, x + side / 2, y + side / 2]


PLACED = {"left": (0.2, 0.5), "right": (0.8, 0.5), "above": (0.5, 0.2), "below": (0.5, 0.8)}
"""Centres of a first thing around a second one in the middle."""


@pytest.mark.parametrize("wording", sorted(MEANS))
def test_every_wording_of_a_place_has_its_rule(wording):
    """Bugs 1 and 2: "above" and "on top of" match nothing, and whatever the distance, it is near."""
    middle = box(0.5, 0.5)
    scores = {side: place_score(wording, box(*PLACED[side]), middle) for side in PLACED}
    if MEANS[wording] == "near":
        assert set(scores.values()) == {1.0}  # one offset of each is 0
        far = place_score(wording, box(0.05, 0.05, 0.1), box(0.9, 0.95, 0.1))
        assert far == pytest.approx(NEAR / 0.9)
    else:
        assert scores == {side: float(side == MEANS[wording]) for side in PLACED}


def test_a_place_counts_less_where_things_overlap_and_not_on_the_diagonal():
    assert place_score("left", [0.0, 0.0, 0.6, 0.6], [0.1, 0.0, 0.7, 0.6]) == pytest.approx(0.1 / (0.5 / 0.7))
    assert place_score("left", box(0.2, 0.2), box(0.8, 0.8)) == 0.0
    assert place_score("left", box(0.5, 0.5), box(0.5, 0.5)) == 0.0


def test_one_thing_found_twice_is_one_thing():
    """Bug 3: suppression reads corners as they are, not centres and sizes."""
    twice = [(box(0.8, 0.8, 0.3), 0.9), (box(0.81, 0.8, 0.3), 0.7), (box(0.2, 0.8, 0.3), 0.8)]
    assert [score for _, score in distinct(twice)] == [0.9, 0.8]
    asked = Facts("two cats", ("cat",), counts=(("cat", 2), ("dog", 1)))
    assert detection_score(asked, {"cat": twice, "dog": [(box(0.5, 0.2), 0.5)]}) == 1.0


@pytest.mark.parametrize(("here", "plain", "kind"), [(0, 0.0, 0.0), (1, 0.0, 0.2), (2, 1.0, 1.0), (3, 0.0, 0.2)])
def test_numbers_pay_when_they_are_right(here, plain, kind):
    seen = {"cat": [(box(0.2 + 0.3 * i, 0.5), 0.9) for i in range(here)]}
    asked = Facts("two cats", counts=(("cat", 2),))
    assert detection_score(asked, seen) == plain
    assert detection_score(asked, seen, near_miss=0.2) == kind


def test_a_place_and_being_there_add_up_to_one():
    asked = Facts("a cat left of a dog", ("cat", "dog"), place=("cat", "dog", "on the left of"))
    cat, dog = [(box(0.2, 0.5), 0.9)], [(box(0.8, 0.5), 0.8)]
    assert detection_score(asked, {"cat": cat, "dog": dog}) == pytest.approx(1.0)
    assert detection_score(asked, {"cat": dog, "dog": cat}) == pytest.approx(0.4)
    assert detection_score(asked, {"cat": cat}) == pytest.approx(0.2)
    assert detection_score(Facts("a cat and a dog", ("cat", "dog")), {"dog": dog}) == 0.5


class Told:
    """A detector that notes what it was asked and finds everything in the same two places."""

    def __init__(self):
        self.asked = []

    def look(self, pictures, names):
        self.asked.append([list(row) for row in names])
        return [[(n, [e * SHORT for e in box(0.2 + 0.6 * i, 0.5)], 0.9) for i, n in enumerate(row)] for row in names]


def test_names_of_many_words_are_looked_for_as_they_stand_and_all_at_once():
    """Bugs 4 and 5: names of three words are never found; pictures are judged one by one. And boxes are shares."""
    facts = [
        Facts("a", ("fire hydrant",)),
        Facts("b", ("cell phone", "old stone garden wall"), place=("cell phone", "old stone garden wall", "left")),
        Facts("c", ("cat", "dog"), place=("cat", "dog", "near")),
    ]
    finder = Told()
    reward = detector_reward(finder, {one.prompt: one for one in facts})
    scores = reward(["a", "b", "c"], [PLAIN] * 3)
    assert finder.asked == [[["fire hydrant"], ["cell phone", "old stone garden wall"], ["cat", "dog"]]]
    assert scores == [1.0, pytest.approx(1.0), pytest.approx(1.0)]


class Eyes:
    """Says yes as often as the picture is red."""

    def __init__(self):
        self.asked = []

    def yes_probability(self, messages):
        (message,) = messages
        self.asked.append(message.text)
        return message.images[0].getpixel((0, 0))[0] / 255


def test_questions_are_about_phrases_and_nothing_to_ask_is_no_score():
    """A reward that had nothing to ask does not count, where the published code gives 1 or 0."""
    eyes = Eyes()
    facts = {"p": Facts("p", ("cat", "dog"), ("red cat", "blue dog")), "q": Facts("q", ("cat",)), "r": Facts("r")}
    scores = vqa_reward(eyes, facts)(["p", "q", "r"], [Image.new("RGB", (8, 8), (51, 0, 0))] * 3)
    assert eyes.asked == ["red cat?", "blue dog?", "cat?"]
    assert scores == [pytest.approx(0.2), pytest.approx(0.2), None]


def test_a_judge_is_asked_once_and_what_cannot_be_read_is_missing():
    class Counting:
        calls = 0

        def ask(self, question, views):
            assert question == "orm"
            self.calls += 1
            return [Answer(0.6, 0.2, "yes"), Answer(score=float("nan")), Answer(score=3.0)][: len(views)]

    judge = Counting()
    assert judge_reward(judge)(["a", "b", "c"], [PLAIN] * 3) == [pytest.approx(0.75), None, 3.0]
    assert judge.calls == 1
    leaves = [Branch([], result=None) for _ in range(3)]
    tree = Tree("a", leaves)
    judge_leaves([tree], lambda paths: [PLAIN] * 3, {"orm": judge_reward(judge)})
    log = reward_log([tree])
    assert log["reward/orm_missing"] == pytest.approx(1 / 3)
    assert log["reward/orm"] == pytest.approx((0.75 + 3.0) / 2)


def test_a_preference_of_small_spread_is_not_drowned():
    """Bug 6: summed as they come, a detector's 0 or 1 decides alone."""
    from reverie.training.tree import Segment

    def leaf(preference: float, detector: float) -> Branch:
        one = torch.ones(1)
        word = Segment("p", "text", one.long(), one.bool(), -one)
        return Branch([word], rewards={"hps": preference, "detector": detector})

    leaves = [leaf(0.28, 1.0), leaf(0.30, 0.0), leaf(0.31, 0.0), leaf(0.27, 1.0)]
    weights = {"hps": 1.0, "detector": 1.0}
    advantages = {}
    for ensemble in ("sum", "each"):
        credit = Credit(weights, ensemble=ensemble)
        found = lessons([Tree("a", leaves)], {"p": credit})["p"]
        advantages[ensemble] = [lesson.advantage for lesson in found]
    assert sorted(advantages["sum"])[-2:] == sorted([advantages["sum"][0], advantages["sum"][3]])
    assert abs(advantages["each"][0]) < 0.5  # the two rewards disagree, and both are heard
    # The mean and the sum of an ensemble order alike.
    halves = Credit({name: weight / 2 for name, weight in weights.items()})
    assert torch.allclose(group_values(leaves, halves) * 2, group_values(leaves, Credit(weights)))


def test_facts_come_from_the_published_file(tmp_path):
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "a cat above a dog", "task_type": "spatial", "nouns": ["cat", "dog"],
         "spatial_info": {"obj1": "cat", "obj2": "dog", "locality": "Above"}},
        {"prompt": "three red cats", "nouns": ["cat"], "attr_nouns": ["red cat"],
         "numeracy_info": [{"obj_name": "cat", "num": 3}]},
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    first, second = read_facts(path)
    assert first.place == ("cat", "dog", "above")
    assert (second.counts, second.phrases) == ((("cat", 3),), ("red cat",))
    for bad, said in (
        ({"nouns": []}, "line 1 is no prompt"),
        ({"prompt": "x", "spatial_info": {"obj1": "a", "obj2": "b", "locality": "inside"}}, "the place 'inside'"),
    ):
        path.write_text(json.dumps(bad))
        with pytest.raises(ValueError, match=said):
            read_facts(path)
    with pytest.raises(ValueError, match="name exactly one"):
        RewardChoice(judge="a", vqa="b")
    with pytest.raises(ValueError, match="nothing to learn from"):
        chosen({"a": {"judge": "x", "weight": 0}})
    with pytest.raises(ValueError, match=r"rewards\.a"):
        chosen({"a": {"jugde": "x"}})


@pytest.mark.parametrize("tree", ["twig", "think"])
def test_a_janus_learns_from_an_ensemble_of_four(tmp_path: Path, tree):
    """Preference, detector, VQA and ORM, tiny models of their real classes, from prompts in a file to a checkpoint."""
    place = tiny_folder(tmp_path / "janus", thinker="instruct", context=2048)
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(
        json.dumps({"prompt": "a red cat", "nouns": ["cat"], "attr_nouns": ["red cat"]})
        + "\n"
        + json.dumps({"prompt": "a dog near a bench", "nouns": ["dog", "bench"],
                      "spatial_info": {"obj1": "dog", "obj2": "bench", "locality": "near"}})
    )  # fmt: skip
    rewards = {
        "preference": {"judge": f"pickscore:{save_clip(tmp_path / 'clip')}"},
        "detector": {"detector": str(save_owlv2(tmp_path / "owl", threshold=0.0))},
        "vqa": {"vqa": str(place)},
        "orm": {"judge": str(place), "weight": 0.5},
    }
    recipe = tmp_path / "rl.yaml"
    recipe.write_text(
        json.dumps({
            "task": "reinforce", "out": str(tmp_path / "out"), "from": str(place), "prompts": str(prompts),
            "rewards": rewards, "grpo": {"prompts": 2}, "lora": {"rank": 2},
            "tree": {"tree": tree, "images": 3, "limit": 4, "regions": 2, "guidance": 1.0, "ensemble": "each",
                     "keep_prompt": tree == "think"},
            "loop": {"steps": 1, "precision": "no", "log_every": 1, "save_every": 1},
        })
    )  # fmt: skip
    out = recipes.run(recipe)
    (row,) = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    for name in rewards:
        assert row[f"reward/{name}_missing"] == 0
        assert row[f"reward/{name}_std"] >= 0
    assert row["janus/image/ratio_gap"] == 0
    assert (out / "checkpoint" / "adapter.safetensors").is_file()
