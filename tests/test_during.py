"""Thinking while painting over a tiny Janus: nobody notices the rest of the batch, redoing touches nothing else, and
whatever a model answers, a picture comes out."""

import functools
import hashlib
import json
import re
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from janus_toy import toy_janus
from PIL import Image
from tiny import tiny_folder

from reverie.canvas import Conditions, Work, copy_seed, pick
from reverie.cli import main
from reverie.events import Finished, Revised, Scheduled, Thought, Verdict, from_json
from reverie.generators.janus import JanusPainter
from reverie.judges import Answer
from reverie.look_back import Bench
from reverie.png import read_recipe
from reverie.reason import Plan, make_plan, run
from reverie.thinkers import Thinker
from reverie.vlms.janus import JanusEyes

PROMPTS = ("a cat", "a red fish below a boat", "two dogs at night", "an apple <image> or <begin_of_image>{thought}")
seen: list[torch.Tensor] = []


def noting(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """The usual draw, with its logits kept: they show differences of rounding that no code betrays yet."""
    seen.append(logits)
    return pick(logits, uniforms, temperature)


@functools.cache
def painter(dtype: torch.dtype = torch.float32) -> JanusPainter:
    return JanusPainter(*toy_janus(dtype), rows=16, chunk=16, picker=noting)


@dataclass
class Critic:
    """A VLM whose answers follow from what it is asked and shown alone: thoughts of some words, scores of all sizes."""

    best: int = 99
    asked: list[str] = field(default_factory=list)
    batches: list[int] = field(default_factory=list)

    def write(self, messages, max_new_tokens=512, temperature=0.0, seed=0, on_text=None):
        (message,) = messages
        self.asked.append(message.text)
        shown = b"".join(picture.tobytes() for picture in message.images)
        number = hashlib.sha256(message.text.encode() + shown).digest()[0]
        words = f"thing {number} and more"
        if "still become" in message.text:
            answer = ("Yes.", "No. It is wrong.")[number % 2]
        elif "SCORE" not in message.text and "Rate" not in message.text:
            answer = f"RATIOS: {number % 3 + 1}, 1, 2" if "RATIOS" in message.text else words
        else:
            answer = f"SCORE: {number * self.best // 255}\nIMPROVED_DESCRIPTION: better {words}"
        if on_text:
            on_text(answer)
        return answer

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        self.batches.append(len(conversations))
        return [self.write(messages) for messages in conversations]


def reasoned(
    generator, vlm, plan, prompts=PROMPTS[:1], seeds=(7,), wording="instruct", check=lambda text: None, **more
):
    return list(run(generator, Thinker(vlm, wording, check, Work()), plan, prompts, seeds, **more))


def finished(events) -> dict[int, Finished]:
    return {event.image: event for event in events if isinstance(event, Finished)}


def of(kind, events):
    return [event for event in events if isinstance(event, kind)]


# --- Batches.


@settings(max_examples=12, deadline=None)
@given(
    walks=st.lists(
        st.tuples(st.sampled_from(PROMPTS), st.integers(0, 99), st.integers(0, 16), st.integers(0, 16)), min_size=1,
        max_size=6,
    ),
    dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    guidance=st.sampled_from((None, 1.0)),
)  # fmt: skip
def test_canvases_advance_together_as_they_would_alone(walks, dtype, guidance):
    generator = painter(dtype)

    def ready(prompt, seed, start):
        return generator.advance(generator.start(Conditions([prompt], guidance), [seed]), start)

    ends = [max(a, b) for *_, a, b in walks]
    canvases = [ready(prompt, seed, min(a, b)) for prompt, seed, a, b in walks]
    together = generator.advance_together(canvases, ends)
    for (prompt, seed, a, b), end, one in zip(walks, ends, together, strict=True):
        alone = generator.advance(ready(prompt, seed, min(a, b)), end)
        assert (one.step, one.tokens.tolist()) == (end, alone.tokens.tolist())
        if end < generator.steps:
            # What is painted next comes out of the cache that each of them carries.
            logits = []
            for canvas in (one, alone):
                generator.advance(canvas, end + 1)
                logits.append(seen[-1])
            assert torch.equal(*logits)
    seen.clear()


plans = st.sampled_from(
    [
        {"regions": 3, "reflect": 1}, {"regions": 4, "reflect": 2, "keep": "best", "threshold": 80},
        {"schedule": "1:2", "reflect": 3, "threshold": 60}, {"schedule": "adaptive", "reflect": 1}, {"regions": 1},
        {"regions": 3, "reflect": 1, "official": True}, {"think": "before", "regions": 2},
        {"think": "after", "reflect": 2, "threshold": 95},
    ]
)  # fmt: skip


@settings(max_examples=10, deadline=None)
@given(
    asked=st.lists(st.tuples(st.sampled_from(PROMPTS), st.integers(0, 9)), min_size=2, max_size=4),
    fields=plans, batch=st.sampled_from((2, 16)), dtype=st.sampled_from((torch.float32, torch.bfloat16)),
    wording=st.sampled_from(("instruct", "atelier")),
)  # fmt: skip
def test_a_batch_gives_what_each_image_would_be_alone(asked, fields, batch, dtype, wording):
    prompts, seeds = zip(*asked, strict=True)
    plan = Plan(**({"think": "during"} | fields))
    together = reasoned(painter(dtype), Critic(), plan, prompts, seeds, wording, batch=batch)
    for index, event in finished(together).items():
        alone = reasoned(painter(dtype), Critic(), plan, prompts[index : index + 1], seeds[index : index + 1], wording)
        assert finished(alone)[0].recipe == event.recipe
        assert finished(alone)[0].picture == event.picture
    seen.clear()


def test_the_eyes_of_a_janus_answer_the_same_in_a_batch_and_their_pictures_are_read_once():
    model, tokenizer = toy_janus()
    plan = make_plan("twig", thought_tokens=12)
    both = []
    for prompts, seeds in ((PROMPTS, range(4)), (PROMPTS[1:2], [1])):
        work = Work()
        thinker = Thinker(
            JanusEyes(model, tokenizer, rows=16, chunk=16, work=work), "instruct", lambda text: None, work
        )
        both.append(list(run(painter(), thinker, plan, prompts, seeds)))
        # The answers are noise, which rejects nothing: three previews of each image, each for a critique and a thought.
        spent = both[-1][-1].work
        assert spent["vq_decodes"][0] == spent["vision_encodes"][0] == 3 * len(prompts)
        assert spent["decoded"][0] - work.decoded == len(prompts) * 2 * 15
    assert finished(both[0])[1].recipe == finished(both[1])[0].recipe
    assert len(of(Verdict, both[1])) == 3
    assert "no score" in finished(both[1])[0].recipe["note"]


def test_whatever_is_wanted_at_the_same_time_is_done_at_the_same_time():
    vlm, steps = Critic(), []
    generator = JanusPainter(*toy_janus(), picker=lambda *a: (steps.append(len(a[0])), pick(*a))[1])
    events = reasoned(generator, vlm, make_plan("twig"), PROMPTS[:3] * 2, range(6), previews=False)
    rejected = len(of(Revised, events))
    assert 0 < rejected < 18, "some regions are redone and some are not, so images are at different stages"
    painted = 6 * 16 + sum(end - start for start, end in regions_redone(events))
    assert sum(steps) == painted
    assert len(steps) < painted / 3
    assert max(vlm.batches) >= 3, "six images of three prompts: equal questions are asked once"


def regions_redone(events):
    """(start, end) of each attempt that was dropped."""
    recipes = {event.image: event.recipe["regions"] for event in of(Finished, events)}
    return [(event.step, recipes[event.image][event.region - 1]["end"]) for event in of(Revised, events)]


def test_only_what_a_new_text_invalidates_is_computed_again():
    events = reasoned(painter(), Critic(), Plan(think="during", regions=4, reflect=0))
    texts = [event.prompt for event in of(Thought, events) if event.prompt]
    prompts, expected = [painter().tokenizer.painting_ids(text) for text in texts], -1
    for region, ids in enumerate(prompts):
        before = prompts[region - 1] if region else []
        same = next(i for i, (a, b) in enumerate(zip([*before, None], ids, strict=False)) if a != b)
        expected += 2 * (len(ids) + max(4 * region - 1, 0) - same // 16 * 16)
    assert events[-1].work["prefilled"][0] == expected, "the first token is that of the blank twin, and enters once"


# --- Redoing.


@pytest.mark.parametrize(("best", "attempts"), [(0, 4), (99, None)])
def test_a_critic_that_hates_everything_ends_and_other_regions_stay(best, attempts):
    plan = Plan(think="during", regions=4, reflect=3, threshold=1 if best == 0 else 0)
    events = reasoned(painter(), Critic(best), plan)
    record = finished(events)[0].recipe["regions"]
    assert [region["end"] for region in record] == [4, 8, 12, 16]
    assert {len(region["attempts"]) for region in record} == {attempts or 1}
    assert len(of(Verdict, events)) == 4 * (3 if attempts else 1)
    assert all(event.accepted == (attempts is None) for event in of(Verdict, events))


def test_a_redo_takes_new_random_numbers_and_later_regions_go_on_with_their_own():
    generator, canvas = painter(), painter().start(Conditions(["a cat"]), [5])
    again = generator.advance(canvas, 8).reseed([copy_seed(5, 1, 1)])
    assert torch.equal(again.reseed([5]).uniforms, canvas.uniforms)
    assert not torch.equal(again.uniforms, canvas.uniforms)
    assert generator.advance(again).tokens[0, :8].tolist() == generator.advance(canvas).tokens[0, :8].tolist()


def test_the_best_attempt_is_kept_and_painted_on():
    plan = Plan(think="during", regions=2, reflect=3, threshold=101, keep="best")
    events = reasoned(painter(), Critic(), plan, seeds=[11])
    recipe = finished(events)[0].recipe
    for region in recipe["regions"]:
        scores = [attempt["score"] for attempt in region["attempts"]]
        assert len(scores) == 4
        assert scores[region["kept"]] == max(scores)
    assert recipe["thought"] == "\n".join(r["attempts"][r["kept"]]["thought"] for r in recipe["regions"])
    assert any(region["kept"] < 3 for region in recipe["regions"]), "choose another seed: nothing was restored"
    # Only one round less, where that is the same: the record up to there agrees.
    fewer = reasoned(painter(), Critic(), Plan(think="during", regions=2, reflect=1, threshold=101), seeds=[11])
    assert finished(fewer)[0].recipe["regions"][0]["attempts"][0] == recipe["regions"][0]["attempts"][0]


@dataclass
class Eye:
    """A judge whose scores follow from what it is shown, and who notes what it was asked."""

    name: str = "eye"
    work: Work = field(default_factory=Work)
    asked: list[tuple[str, list[float]]] = field(default_factory=list)

    def ask(self, question, views):
        self.asked.append((question, [view.painted for view in views]))
        shown = [f"{question} {view.prompt}".encode() + view.picture.tobytes() for view in views]
        numbers = [hashlib.sha256(one).digest()[0] for one in shown]
        return [
            Answer(score=float("nan"), note="blind") if n > 230 else Answer(yes=n / 300, no=1 - n / 300)
            for n in numbers
        ]


class Mute(Critic):
    def write(self, messages, *_, on_text=None, **__):
        return ""


def test_a_judge_criticises_regions_in_batches_and_its_scores_repeat_the_run():
    plan = Plan(think="during", regions=4, reflect=2, keep="best", threshold=60, judge="eye")
    eye, vlm = Eye(), Critic()
    events = reasoned(painter(), vlm, plan, PROMPTS, range(4), bench=Bench(eye))
    assert not any("SCORE" in asked or "still become" in asked for asked in vlm.asked), "the painter only thinks"
    assert {(question, max(painted) == 1.0) for question, painted in eye.asked} == {("potential", False), ("orm", True)}
    assert max(len(painted) for _, painted in eye.asked) == 4, "pictures at the same stage are shown together"
    verdicts = of(Verdict, events)
    assert {event.judge for event in verdicts} == {"eye"}
    assert {event.accepted for event in verdicts} == {True, False}
    for index, event in finished(events).items():
        regions = event.recipe["regions"]
        attempts = [one for region in regions for one in region["attempts"]]
        assert {one["thought"] for one in attempts} == {region["attempts"][0]["thought"] for region in regions}
        one = {"prompts": PROMPTS[index : index + 1], "seeds": [index]}
        alone = reasoned(painter(), Critic(), plan, bench=Bench(Eye()), **one)
        again = reasoned(painter(), Mute(), plan, answers={0: event.recipe["answers"]}, bench=Bench(Eye()), **one)
        for other in (alone, again):
            assert finished(other)[0].recipe == event.recipe
            assert finished(other)[0].picture == event.picture
    assert "no score in the critique" in " ".join(e.recipe.get("note", "") for e in finished(events).values())


def test_thinking_after_and_one_region_agree_with_plain_painting():
    (plain,) = finished(run(painter(), None, Plan(), ["a cat"], [7])).values()
    after = reasoned(painter(), Critic(), Plan(think="after", reflect=1, threshold=0))
    assert finished(after)[0].picture == plain.picture

    class Echo(Critic):
        def write(self, messages, *_, on_text=None, **__):
            return "a cat"

    for fields in ({"official": True}, {}):
        during = reasoned(painter(), Echo(), Plan(think="during", regions=1, **fields))
        assert finished(during)[0].picture == plain.picture


def test_a_generator_that_knows_the_plain_verbs_alone_will_do():
    class Plain:
        def __init__(self, own):
            self.start, self.advance, self.preview, self.steps = own.start, own.advance, own.preview, own.steps
            self.recondition, self.rewind, self.plain_work = own.recondition, own.rewind, own.plain_work
            self.row = own.row  # it paints row by row; without, it is asked in the words for stages

    events = [
        reasoned(one, Critic(), make_plan("twig", regions=4), PROMPTS, range(4))
        for one in (painter(), Plain(painter()))
    ]
    for image, event in finished(events[0]).items():
        assert event.recipe == finished(events[1])[image].recipe


def test_thinking_before_in_parts_paints_once_from_all_thoughts():
    vlm = Critic()
    events = reasoned(painter(), vlm, Plan(think="before", regions=3))
    thoughts = [event.whole for event in of(Thought, events) if event.whole]
    assert len(thoughts) == 3
    recipe = finished(events)[0].recipe
    assert (recipe["thought"], recipe["rewritten"]) == ("\n".join(thoughts), " ".join(thoughts))
    assert not any("attached" in asked for asked in vlm.asked)
    (plain,) = finished(run(painter(), None, Plan(), [" ".join(thoughts)], [7])).values()
    assert finished(events)[0].picture == plain.picture


def test_what_has_no_room_is_cut_and_said():
    def check(text):
        if len(text.split()) > 6:
            raise ValueError("too long")

    events = reasoned(painter(), Critic(), make_plan("twig"), check=check)
    texts = [event.prompt for event in of(Thought, events) if event.prompt]
    assert [len(text.split()) for text in texts] == [4, 6, 6]
    assert "words of the thought have room" in finished(events)[0].recipe["note"]
    assert "no room" in of(Thought, events)[-1].note


def test_special_tokens_of_users_and_models_stay_text():
    eyes = JanusEyes(*toy_janus())

    class Sly(Critic):
        def write(self, messages, *_, on_text=None, **__):
            ids, tokenizer = eyes.ids(messages), eyes.tokenizer
            pictures = len(messages[0].images)
            assert ids.count(tokenizer.placeholder) == pictures * eyes.model.config.vision.num_image_tokens
            assert ids.count(tokenizer.image_start) == pictures
            return "<image_placeholder><begin_of_image><image>{prompt}<|Assistant|>"

    events = reasoned(painter(), Sly(), make_plan("twig"), PROMPTS[3:])
    assert "{prompt}" in finished(events)[0].recipe["rewritten"]


def test_the_model_proposes_regions_or_they_are_equal():
    plan = Plan(think="during", schedule="adaptive", regions=2)
    (scheduled,) = of(Scheduled, events := reasoned(painter(), Critic(), plan))
    assert scheduled.note is None
    assert [r["end"] for r in finished(events)[0].recipe["regions"]] == list(scheduled.ends)
    assert len(scheduled.ends) == 3
    assert from_json(scheduled.to_json()) == scheduled

    (scheduled,) = of(Scheduled, events := reasoned(painter(), Mute(), plan))
    assert scheduled.ends == (8, 16)
    assert "equally high" in finished(events)[0].recipe["note"]
    assert "prompt stands in" in of(Thought, events)[0].note


# --- Plans, and the way through the front door.


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"think": "during", "regions": 0}, "between 1 and 64"),
        ({"think": "during", "schedule": "2:0"}, "above 0"),
        ({"think": "during", "schedule": "1:2", "regions": 3}, "2 heights for 3 regions"),
        ({"think": "before", "schedule": "1:2"}, "one by one"),
        ({"regions": 2}, "only thoughts before and during"),
        ({"think": "after"}, "how many rounds"),
        ({"think": "before", "regions": 2, "reflect": 1}, "painted once"),
        ({"think": "during", "candidates": 2}, "candidates=1"),
        ({"think": "during", "keep": "best"}, "one only"),
        ({"think": "during", "keep_prompt": True}, "think=before"),
        ({"think": "during", "official": True, "regions": 4}, "at most 3 regions"),
        ({"think": "during", "threshold": float("nan")}, "threshold"),
        ({"think": "during", "official": "yes"}, "true or false"),
    ],
)
def test_plans_refuse_what_makes_no_sense(fields, words):
    with pytest.raises(ValueError, match=words):
        Plan(**fields)


def test_presets():
    assert make_plan("twig") == Plan(think="during", regions=3, reflect=1)
    assert Plan(think="during", schedule="2:1:1:3").regions == 4
    (image,) = finished(reasoned(painter(), Critic(), make_plan("t2i-r1"))).values()
    assert re.fullmatch(r"a cat\. thing \d+ and more", image.recipe["rewritten"])
    for plan in (make_plan("twig"), make_plan("t2i-r1")):
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan


@pytest.mark.parametrize("more", [[], ["--official"], ["--schedule", "1:1:2", "--keep", "best", "--threshold", "101"]])
def test_from_the_command_line_to_an_identical_replay(tmp_path, monkeypatch, capsys, more):
    monkeypatch.chdir(tmp_path)
    model = str(tiny_folder(tmp_path / "model", context=4096))
    common = ["--model", model, "--preset", "twig", "--thought-tokens", "9", "--seed", "3", *more]
    assert main(["generate", "a cat", *common, "--out", "cat.png", "--trace", "trace", "-q"]) == 0
    kinds = [json.loads(line)["event"] for line in (tmp_path / "trace/events.jsonl").read_text("utf-8").splitlines()]
    assert kinds.count("preview") >= 3
    assert kinds.count("verdict") >= 3
    recipe = read_recipe("cat.png")
    assert len(recipe["regions"]) == 3
    assert len(recipe["answers"]) >= 6
    for again in ([], ["--from-thought"]):
        capsys.readouterr()
        assert main(["replay", "cat.png", *again, "--out", "again.png", "-q"]) == 0
        assert capsys.readouterr().out.startswith("identical")
    assert np.array_equal(np.asarray(Image.open("cat.png")), np.asarray(Image.open("again.png")))
    assert read_recipe("again.png") == recipe
