"""The questions to judges, asked of a stand-in that answers by rule, through to the rules that score."""

from __future__ import annotations

import re

import pytest
from PIL import Image

from reverie.benchmarks import cobsat, geneval2, genevalpp, judging, reasonbench, risebench, wise
from reverie.benchmarks.protocol import Sample
from reverie.vlms.openai import NoAnswer

PICTURE = Image.new("RGB", (8, 8))


class Judge:
    """Answers with what `say` makes of the last question, and keeps every conversation."""

    def __init__(self, say):
        self.say, self.heard = say, []

    def write(self, messages, max_new_tokens=512, temperature=0.0, seed=0, on_text=None):
        self.heard.append(messages)
        return self.say(messages[-1].text)


def refuse(text):
    raise NoAnswer("the server is down")


def test_every_question_is_filled_in():
    for path in judging.FOLDER.glob("*.md"):
        fields = dict.fromkeys(re.findall(r"\{(\w+)\}", path.read_text()), "a value with {prompt} inside")
        text = judging.prompt(path.stem, **fields)
        assert text.count("{prompt}") == sum(text.count(value) for value in set(fields.values())), path.stem
    with pytest.raises(ValueError, match="no place"):
        judging.prompt("cobsat", nonsense="")


def test_wise():
    record = {"Prompt": "a prompt", "Explanation": "an answer", "prompt_id": 410}
    sample = wise.sample(record, "legacy")
    judge = Judge(lambda text: "**Consistency:** 2\n**Realism:** 1\n**Aesthetic Quality:** 0")
    answer = judging.judge_wise(judge, sample, PICTURE, "legacy")
    assert wise.wiscore(**answer.value) == pytest.approx(0.8)
    (message,) = judge.heard[0]
    assert "a prompt" in message.text
    assert "an answer" in message.text
    assert len(message.images) == 1
    assert judging.judge_wise(judge, sample, PICTURE, "legacy", official=True).outcome == "unparsable"
    assert len(judge.heard) == 1 + wise.TRIES
    assert judging.judge_wise(Judge(refuse), sample, PICTURE, "verified").outcome == "judge error"


def test_reasonbench():
    asked = {"q1": "is it?", "c1": "1: yes", "q2": "and that?", "c2": "1: yes"}
    questions = dict.fromkeys(reasonbench.DIMENSIONS["entity"].questions, asked)
    sample = reasonbench.sample({"id": 3, "prompt": "a prompt"}, questions, "entity")
    judge = Judge(lambda text: '{"reason": ["a", "b"], "score": [1, 0.5]}' if "JSON" in text else "A dog.")
    averages, _ = judging.judge_reasonbench(judge, sample, PICTURE)
    assert list(averages) == [0.75] * 3
    assert len(judge.heard) == 4
    turns = judge.heard[-1]
    assert [turn.role for turn in turns] == ["user", "assistant", "user"]
    assert turns[1].text == "A dog."
    assert "2. and that?" in turns[2].text
    averages, answers = judging.judge_reasonbench(Judge(refuse), sample, PICTURE)
    assert list(averages) == [None] * 3
    assert {answer.outcome for answer in answers} == {"judge error"}


@pytest.mark.parametrize(
    ("more", "pictures"),
    [
        ({}, [2, 1, 1]),
        ({"reasoning_img": True}, [2, 2, 1]),
        ({"consistency_free": True}, [1, 1]),
        ({"category": "spatial_reasoning", "reference_img": "ref.png"}, [2, 2, 1]),
        ({"category": "logical_reasoning", "reference_txt": "four"}, [2, 1]),
        ({"category": "logical_reasoning", "reference_img": "ref.png"}, [2, 2]),
    ],
)
def test_risebench(more, pictures):
    record = {"index": "a", "category": "causal_reasoning", "instruction": "roast it", "image": "in.png"}
    record |= {"reference": "a brown steak"} | more
    sample = risebench.sample(record)
    judge = Judge(lambda text: "Fine.\nFinal Score: " + ("1" if "<0 or 1>" in text else "5"))
    own = {"in.png": PICTURE.copy(), "ref.png": PICTURE.copy()}
    answers = judging.judge_risebench(judge, sample, PICTURE, own)
    assert [len(messages[0].images) for messages in judge.heard] == pictures
    assert len(answers) == len(risebench.asked(record))
    row = risebench.judge(record, {name: answer.text for name, answer in answers.items()}, False)
    shown = [messages[0].images for messages in judge.heard]
    if "judge1" in answers:
        assert shown[0][0] is own["in.png"]
        judging.judge_risebench(judge, sample, PICTURE, own, official=True)
        assert judge.heard[len(shown)][0].images[0] is own[record.get("reference_img", "in.png")]
    assert row.passed
    assert row.score == 5


def test_cobsat():
    one = cobsat.episode(3, 2, 17)  # a background is shown, an animal is hidden
    judge = Judge(lambda text: str(one.detail if "Which background" in text else one.thing))
    check, _ = judging.judge_cobsat(judge, one, PICTURE)
    assert check.correct
    assert "5. amusement park" in judge.heard[0][0].text
    wrong, _ = judging.judge_cobsat(Judge(lambda text: "none"), one, None, "a zebra in a park")
    assert wrong == cobsat.Check(False, False, False, False)


def test_genevalpp():
    include = [
        {"class": "dog", "count": 2, "color": "red", "region": "left"},
        {"class": "cat", "count": 1, "size": "larger", "position": ["left of", 0]},
    ]
    sample = Sample("1", "a prompt", "color_attr", {"include": include}, "1")
    judge = Judge(lambda text: 'Well: {"reason": "fine", "correct": 1}')
    assert judging.judge_genevalpp(judge, sample, PICTURE)[0] == 1
    text = judge.heard[0][0].text
    assert "- exactly 2 red dog, in the left part of the image" in text
    assert "- exactly 1 larger cat, left of the dog" in text
    assert judging.judge_genevalpp(Judge(lambda text: "?"), sample, PICTURE)[0] == genevalpp.FAILED
    assert judging.judge_genevalpp(judge, sample, None)[0] == genevalpp.MISSING


def test_geneval2():
    class Served:
        def first_tokens(self, messages):
            return {"Yes": 0.5, " yes": 0.25, "two": 0.125, "2": 0.5, "No": 0.1}

    sample = Sample("1", "two cats", "3 atoms", {"vqa_list": [["Are there cats?", "Yes"], ["How many?", "two"]]}, "1")
    assert judging.judge_geneval2(Served(), sample, PICTURE) == [0.75, 0.625]
    assert geneval2.geometric([0.5, 0.0]) == 0
    assert geneval2.geometric([0.25, 1.0]) == pytest.approx(0.5)
