"""Pictures in words, for painters that only read."""

import json
from dataclasses import replace

from pictures_toy import noise
from test_reason import Greys, Parrot

from reverie.canvas import Work
from reverie.events import Finished, Thought
from reverie.inputs import NOTHING, Inputs
from reverie.reason import Plan, run
from reverie.relay import JOINED, WORDS, Relay, Told, analogy, interleaved, joined_by_rule
from reverie.vlms import IMAGE


def relay(answer: str | None = None, **changes) -> Relay:
    writer = None if answer is None else Parrot(answer)
    seen = lambda pictures: [f"a picture of {picture.width} points" for picture in pictures]  # noqa: E731
    made = Relay("someone", seen, writer, WORDS["instruct"], False, lambda text: None, lambda text: None, Work())
    return replace(made, **changes)


def relayed(one: Relay, prompts, inputs, **more):
    return list(run(Greys(), None, Plan(), prompts, range(len(prompts)), inputs=inputs, relay=one, **more))


def test_the_writer_changes_what_the_eyes_see_and_events_tell():
    one = relay("It grows.\nPicture: a large picture")
    inputs = [Inputs.of(noise()), Inputs.of(noise()), NOTHING]
    events = relayed(one, ["Let it grow."] * 2 + ["a cat"], inputs)
    (asked,) = one.writer.asked  # equal orders are asked about once
    assert "a picture of 24 points" in asked
    assert "Let it grow." in asked
    thoughts = [event for event in events if isinstance(event, Thought)]
    assert thoughts[0].fragment == "Seen: a picture of 24 points\n"
    assert thoughts[-1].whole == "Seen: a picture of 24 points\nIt grows."
    assert thoughts[-1].prompt == "a large picture"
    first, second, third = (event.recipe for event in events if isinstance(event, Finished))
    assert first["told"]["prompt"] == second["told"]["prompt"] == "a large picture"
    assert Inputs.from_json(first["inputs"]) == inputs[0]
    assert "told" not in third
    assert "inputs" not in third
    plain = list(run(Greys(), None, Plan(), ["a large picture"], [0]))
    pictures = [next(e.picture for e in run_ if isinstance(e, Finished)) for run_ in (events, plain)]
    assert pictures[0].tobytes() == pictures[1].tobytes()
    again = relayed(relay(), ["Let it grow."], inputs[:1], told={0: relay_told(first)})
    assert next(e.picture for e in again if isinstance(e, Finished)).tobytes() == pictures[0].tobytes()


def relay_told(recipe):
    return Told.from_json(json.loads(json.dumps(recipe["told"])))


def test_without_a_writer_words_are_joined_and_said_to_be():
    (event,) = [e for e in relayed(relay(), ["Let it grow."], [Inputs.of(noise())]) if isinstance(e, Finished)]
    assert event.recipe["told"]["prompt"] == "a picture of 24 points. Let it grow."
    assert event.recipe["told"]["note"] == JOINED
    short = relay("Picture: a", fits=lambda text: (_ for _ in ()).throw(ValueError("long")))
    (event,) = [e for e in relayed(short, ["Let it grow."], [Inputs.of(noise())]) if isinstance(e, Finished)]
    assert event.recipe["told"]["note"] == JOINED
    assert short.writer.asked == []


def test_useless_words_fall_back_and_say_so():
    def refuse(text):
        raise ValueError("too long")

    (event,) = [
        e
        for e in relayed(relay("x\nPicture: y", paints=refuse), ["a"], [Inputs.of(noise())])
        if isinstance(e, Finished)
    ]
    assert event.recipe["told"]["prompt"] == "a"
    assert "too long" in event.recipe["told"]["note"]
    (event,) = [e for e in relayed(relay("no marker"), ["a"], [Inputs.of(noise())]) if isinstance(e, Finished)]
    assert event.recipe["told"]["prompt"] == "a picture of 24 points. a"
    assert "no line" in event.recipe["told"]["note"]


def test_contexts_in_words_and_in_one_turn():
    context = [noise(0), "one", noise(1), "two"]
    turned = joined_by_rule("box", Inputs.of(context=["car", noise(0), "hat", noise(1)]), ["a red car", "a red hat"])
    assert turned == "a red box"
    one = relay("They share points.\nPicture: three points")
    (event,) = [e for e in relayed(one, ["three"], [Inputs.of(context=context)]) if isinstance(e, Finished)]
    assert event.recipe["told"]["prompt"] == "three points"
    assert "goes with: one" in one.writer.asked[0]
    whole = relay("a picture of three", interleaved=True)
    (event,) = [e for e in relayed(whole, ["three"], [Inputs.of(context=context)]) if isinstance(e, Finished)]
    assert event.recipe["told"] == {"seen": [], "thought": "", "prompt": "a picture of three"}
    (message,) = interleaved([noise(), "a <image> b", "c", noise()], "d <image>")
    assert message.text.count(IMAGE) == len(message.images) == 2
    words = joined_by_rule("four", Inputs.of(context=[noise(), noise(1)]), ["a dog.", "a cat"])
    assert words == "a dog, a cat, four"


def test_analogies():
    assert analogy(["a red car", "a red hat"], ["car", "hat"], "box") == "a red box"
    assert analogy(["a flying cow", "a swimming cow"], ["fly", "swim"], "sleep") == "a sleep cow"
    assert analogy(["a cat in the park", "a white cow in the park"], ["cat", "cow"], "lion") == "a lion in the park"
    assert analogy(["a green key", "a red car"], ["old", "icon"], "pixel") == "pixel a"
