"""Plans, thinkers, the loop and its events, over a stand-in painter of sixteen grey tokens."""

import json
import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from reverie.canvas import Canvas, Work
from reverie.events import Finished, Preview, Spent, Started, Thought, Trace, from_json, read_trace
from reverie.reason import Plan, make_plan, run
from reverie.thinkers import WORDINGS, Answer, Thinker, as_written, parse, request

STEPS = 16


class Greys:
    """A `Generator` whose tokens are its uniforms and the length of the prompt."""

    steps = STEPS

    def start(self, conditions, seeds):
        return Canvas.blank(conditions, seeds, STEPS, 0)

    def advance(self, canvas, to=None):
        to = STEPS if to is None else to
        tokens = canvas.tokens.clone()
        lengths = torch.tensor([len(prompt) for prompt in canvas.conditions.prompts])[:, None]
        tokens[:, canvas.step : to] = ((canvas.uniforms * 200).long() + lengths)[:, canvas.step : to]
        canvas.work.decoded += len(canvas) * (to - canvas.step)
        return replace(canvas, tokens=tokens, step=to)

    def preview(self, canvas):
        canvas.work.vq_decodes += len(canvas)
        return [np.repeat(row.view(4, 4, 1).numpy().astype(np.uint8), 3, 2) for row in canvas.tokens]

    def plain_work(self, conditions):
        return Work(decoded=len(conditions) * STEPS, vq_decodes=len(conditions))


@dataclass
class Parrot:
    """A VLM that gives one answer to everything, three letters at a time."""

    answer: str
    asked: list[str] = field(default_factory=list)

    def write(self, messages, max_new_tokens=512, temperature=0.0, seed=0, on_text=None):
        self.asked.append(messages[-1].text)
        for start in range(0, len(self.answer), 3):
            if on_text:
                on_text(self.answer[start : start + 3])
        return self.answer

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        return [self.write(messages) for messages in conversations]


def thinker(answer: str, check=lambda prompt: None) -> Thinker:
    return Thinker(Parrot(answer), "atelier", check, Work(decoded=5))


def painted(events) -> dict[int, bytes]:
    return {event.seed: event.picture.tobytes() for event in events if isinstance(event, Finished)}


# --- Plans.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"think": "often"}, ["think='often'", "must be one of never, before, during, after"]),
        ({"choose": "best"}, ["choose='best'", "must be one of first, orm, prm, parm"]),
        ({"rules": "mine"}, ["rules='mine'", "greedy, official"]),
        ({"assess": "never"}, ["assess='never'", "first, every"]),
        ({"correct": "me"}, ["correct='me'", "see, words, again"]),
        ({"keep": "all"}, ["keep='all'", "last, best"]),
        ({"judge": "someone"}, ["judge='someone'", "nothing to judge"]),
        ({"choose": "parm", "judge_steps": 4, "judge_from": 5}, ["judge_from=5", "only 4 looks"]),
        ({"judge_steps": 0}, ["judge_steps=0", "between 1 and"]),
        ({"reflect": -1}, ["reflect=-1", "between 0 and"]),
        ({"candidates": 0}, ["candidates=0", "between 1 and"]),
        ({"candidates": 3}, ["candidates=3", "add choose=orm, prm or parm"]),
        ({"thought_tokens": 0}, ["thought_tokens=0", "between 1 and"]),
        ({"guidance": -1.0}, ["guidance=-1.0", "at least 0"]),
        ({"guidance": float("inf")}, ["guidance=inf", "number"]),
        ({"temperature": float("nan")}, ["temperature=nan", "number"]),
        ({"colour": "red"}, ["'colour'", "think, choose"]),
    ],
)
def test_a_plan_refuses_what_does_not_exist_in_one_sentence(fields, words):
    with pytest.raises(ValueError, match=r".") as error:
        make_plan(None, **fields)
    assert all(word in str(error.value) for word in words)
    assert "\n" not in str(error.value)


def test_presets_and_what_overrules_them():
    assert make_plan() == make_plan("direct") == Plan()
    assert make_plan("t2g").think == "before"
    assert make_plan("t2g", think="never", guidance=None, temperature=0.5) == Plan(temperature=0.5)
    assert (make_plan("parm").choose, make_plan("parm").candidates, make_plan("parm++").reflect) == ("parm", 20, 3)
    assert make_plan("thinkdiff") == Plan()
    with pytest.raises(ValueError, match="did you mean t2g"):
        make_plan("t2gg")
    plan = Plan(think="before", guidance=3.0)
    assert Plan.from_json(plan.to_json()) == plan


# --- Thinkers.


@pytest.mark.parametrize(
    ("answer", "thought", "prompt"),
    [
        ("Wool comes from sheep.\nPicture: a sheep", "Wool comes from sheep.", "a sheep"),
        ('One.\nTwo.\n\n**Picture:** "a sheep and an apple"\n', "One.\nTwo.", "a sheep and an apple"),
        ("picture: a sheep", "", "a sheep"),
        ("Hm.\nPicture:\n  a sheep\nmore words", "Hm.", "a sheep"),
        ("Hm.\nPicture: a pig\nNo.\nPicture: a sheep", "Hm.", "a sheep"),
        ("The word Picture: is in the middle.\nPicture: a sheep", "The word Picture: is in the middle.", "a sheep"),
    ],
)
def test_answers_are_read(answer, thought, prompt):
    assert parse("atelier", answer, "typed") == Answer(thought, prompt)


@pytest.mark.parametrize(
    "answer", ["", "Only a thought.", "Hm.\nPicture:", "Hm.\nPicture:  \n \n", "Hm.\nPicture: ..."]
)
def test_useless_answers_fall_back_to_the_prompt_and_say_so(answer):
    read = parse("atelier", answer, "typed")
    assert read.prompt == "typed"
    assert "as it was typed" in (read.note or "")


def test_requests_keep_braces_and_join_lines():
    assert request("atelier", "a {box}\n and  {prompt}") == "Think about this picture: a {box} and {prompt}"
    assert all("{prompt}" in wording.request for wording in WORDINGS.values())
    with pytest.raises(ValueError, match="Unknown thinker"):
        request("nobody", "x")


def test_pieces_are_heard_while_they_are_written_and_errors_arrive():
    def failing(on_text):
        on_text("a")
        raise ValueError("broken")

    heard = as_written(failing)
    assert next(heard) == "a"
    with pytest.raises(ValueError, match="broken"):
        next(heard)


def test_writing_stops_when_nobody_listens():
    told = []

    def endless(on_text):
        while True:
            told.append(on_text("a"))

    heard = as_written(endless)
    assert [next(heard), next(heard)] == ["a", "a"]
    heard.close()
    assert not any(thread.name == "thinker" for thread in threading.enumerate())


# --- The loop.


def test_the_events_of_a_direct_run():
    events = list(run(Greys(), None, Plan(), ["x", "x"], [7, 8], about={"model": "greys"}, pieces=4))
    assert [type(event) for event in events] == [Started, *[Preview] * 4, Finished, Finished, Spent]
    assert [event.step for event in events if isinstance(event, Preview)] == [4, 8, 12, 16]
    last = events[-2]
    assert last.seed == 8
    assert last.image == 1
    assert last.recipe["model"] == "greys"
    assert last.recipe["prompt"] == "x"
    assert last.recipe["seed"] == 8
    assert "thought" not in last.recipe
    assert events[-1].work == {"prefilled": (0, 0), "decoded": (32, 32), "vq_decodes": (8, 2), "vision_encodes": (0, 0)}


@pytest.mark.parametrize("batch", [1, 2, 16])
@pytest.mark.parametrize("pieces", [1, 3, 99])
def test_neither_batches_nor_pieces_nor_previews_change_an_image(batch, pieces):
    seeds = [3, 1, 4, 1, 5]
    plain = painted(run(Greys(), None, Plan(), ["x"] * 5, seeds, pieces=1, previews=False))
    assert painted(run(Greys(), None, Plan(), ["x"] * 5, seeds, batch=batch, pieces=pieces)) == plain


def test_previews_of_batches_leave_the_others_out():
    events = list(run(Greys(), None, Plan(), ["x"] * 3, [1, 2, 3], batch=2, pieces=1))
    previews = [event for event in events if isinstance(event, Preview)]
    assert [[picture is None for picture in event.images] for event in previews] == [
        [False, False, True],
        [True, True, False],
    ]
    assert [(event.step, event.steps) for event in previews] == [(16, 32), (32, 32)]


def test_thinking_before_rewrites_the_prompt_and_is_kept():
    asked = thinker("Wool.\nPicture: a sheep")
    events = list(run(Greys(), asked, Plan(think="before"), ["x"] * 2, [7, 8], previews=False))
    thoughts = [event for event in events if isinstance(event, Thought)]
    assert "".join(event.fragment for event in thoughts) == "Wool.\nPicture: a sheep"
    assert thoughts[-1].whole == "Wool."
    assert thoughts[-1].prompt == "a sheep"
    assert thoughts[-1].note is None
    assert len(asked.vlm.asked) == 1
    recipe = events[-2].recipe
    assert (recipe["prompt"], recipe["thought"], recipe["rewritten"]) == ("x", "Wool.", "a sheep")
    assert painted(events) == painted(run(Greys(), None, Plan(), ["a sheep"] * 2, [7, 8]))
    assert events[-1].work["decoded"] == (37, 32)


def test_several_prompts_are_thought_about_together():
    events = list(run(Greys(), thinker("Wool.\nPicture: a sheep"), Plan(think="before"), ["x", "y", "x"], [1, 2, 3]))
    thoughts = [event for event in events if isinstance(event, Thought)]
    assert [(event.image, event.prompt) for event in thoughts] == [(0, "a sheep"), (1, "a sheep")]


def test_known_thoughts_are_not_thought_again():
    asked = thinker("unused")
    events = list(run(Greys(), asked, Plan(think="before"), ["x"], [7], thoughts={"x": Answer("Old.", "a pig")}))
    assert not asked.vlm.asked
    assert painted(events) == painted(run(Greys(), None, Plan(), ["a pig"], [7]))


def test_a_rewritten_prompt_that_cannot_be_painted_is_not_used():
    def check(prompt):
        if prompt == "a sheep":
            raise ValueError("too long")

    events = list(run(Greys(), thinker("Wool.\nPicture: a sheep", check), Plan(think="before"), ["x"], [7]))
    last = [event for event in events if isinstance(event, Thought)][-1]
    assert last.prompt == "x"
    assert "too long" in last.note
    assert events[-2].recipe["note"] == last.note


def test_thinking_needs_a_thinker_and_seeds_match_prompts():
    with pytest.raises(ValueError, match="only paints"):
        list(run(Greys(), None, Plan(think="before"), ["x"], [7]))
    with pytest.raises(ValueError, match="one seed for each"):
        list(run(Greys(), None, Plan(), ["x"], [7, 8]))


# --- Traces.


def test_a_trace_gives_the_events_back(tmp_path):
    events = list(
        run(Greys(), thinker("Wool.\nPicture: a sheep"), Plan(think="before"), ["x"] * 2, [7, 8], pieces=2, batch=1)
    )
    with Trace(tmp_path / "trace") as trace:
        for event in events:
            trace.write(event)
    back = list(read_trace(tmp_path / "trace"))
    assert [event.to_json() for event in back] == [_plain(event) for event in events]
    for old, new in zip(events, back, strict=True):
        assert [p and p.tobytes() for p in old.pictures] == [p and p.tobytes() for p in new.pictures]
    with pytest.raises(ValueError, match="already holds a trace"):
        Trace(tmp_path / "trace")


def test_a_stopped_trace_has_whole_lines(tmp_path):
    trace = Trace(tmp_path)
    events = list(run(Greys(), None, Plan(), ["x"], [7], pieces=3))
    for event in events[:3]:
        trace.write(event)
    # No close: every line is on disk already. A crash of the machine may still cut the last one.
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"event": "prev')
    assert [type(event) for event in read_trace(tmp_path)] == [Started, Preview, Preview]


def test_a_trace_cannot_name_files_elsewhere(tmp_path):
    (tmp_path / "events.jsonl").write_text('{"event": "preview", "step": 1, "steps": 2, "files": ["../secret.png"]}\n')
    with pytest.raises(ValueError, match="outside"):
        list(read_trace(tmp_path))
    with pytest.raises(ValueError, match="no trace"):
        list(read_trace(tmp_path / "nothing"))
    with pytest.raises(ValueError, match="Unknown event"):
        from_json({"event": "party"})


def _plain(event):
    return from_json(json.loads(json.dumps(event.to_json()))).to_json()
