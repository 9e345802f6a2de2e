"""Choosing and looking back over a tiny Janus: what is saved, what stays the same, what happens when nothing fits."""

import json
import math
import random
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from janus_toy import toy_janus
from PIL import Image
from tiny import tiny_folder

import reverie
from reverie.canvas import Conditions, Work, copy_seed
from reverie.choose import STRATEGIES, Search, Task, look_steps, painted
from reverie.cli import main
from reverie.events import Chosen, Finished, Preview, Pruned, Revised, Spent, Verdict, read_trace
from reverie.generators.janus import JanusPainter
from reverie.judges import Answer, Reflection, View
from reverie.judges.load import build, name_of
from reverie.judges.mixed import Ensemble, FunctionJudge
from reverie.judges.rules import GREEDY, OFFICIAL, share
from reverie.judges.vlm import NO_REASON, VLMJudge, Wording, known, reason_of
from reverie.look_back import Bench
from reverie.png import read_recipe, save_png
from reverie.reason import Plan, run
from reverie.vlms import Message, Reader
from reverie.vlms.janus import JanusEyes

MODEL, TOKENIZER = toy_janus()
STEPS, N = 16, 5
PROMPTS, SEEDS = ("a red cat", "two blue dogs"), (3, 8)


def painter() -> JanusPainter:
    return JanusPainter(MODEL, TOKENIZER, guidance=2.0)


def redness(prompts, pictures) -> list[float]:
    return [float(np.asarray(picture)[..., 0].mean()) / 255 for picture in pictures]


def searched(strategy: str, judge, batch: int = 64, looks: int = 4, n: int = N, rules=GREEDY, prompts=PROMPTS):
    """(events, what was kept, work)."""
    search = Search(painter(), judge, rules, n, look_steps(STEPS, looks), batch=batch)
    task = Task(Conditions(prompts), SEEDS[: len(prompts)], prompts, tuple(range(len(prompts))))
    program, events = STRATEGIES[strategy](search, task, lambda done, shown: Preview(int(done * 100), 100)), []
    while True:
        try:
            events.append(next(program))
        except StopIteration as end:
            return events, *end.value


def alone(prompt: str, seed: int) -> bytes:
    """The picture of a prompt and a seed, painted plainly."""
    generator = painter()
    return painted(generator, generator.advance(generator.start(Conditions([prompt]), [seed])))[0].tobytes()


# --- Search.


@pytest.mark.parametrize("strategy", ["orm", "prm", "parm"])
def test_the_same_is_kept_whatever_the_batch(strategy):
    judge = FunctionJudge(redness, threshold=0.51)
    whole = searched(strategy, judge)[1]
    for batch in (1, 2, 3) if strategy != "prm" else (2 * N,):
        kept = searched(strategy, judge, batch)[1]
        assert [(one.candidate, one.seed, one.left, one.picture.tobytes()) for one in kept] == [
            (one.candidate, one.seed, one.left, one.picture.tobytes()) for one in whole
        ]
    one = searched(strategy, judge, prompts=PROMPTS[:1])[1][0]
    assert one.picture.tobytes() == whole[0].picture.tobytes()
    if strategy == "prm":
        for batch in (1, 2, 3):
            few = searched(strategy, judge, batch, prompts=PROMPTS[:1])[1][0]
            assert (few.seed, few.picture.tobytes()) == (one.seed, one.picture.tobytes())
    else:
        for prompt, seed, kept_one in zip(PROMPTS, SEEDS, whole, strict=True):
            assert kept_one.seed == copy_seed(seed, 0, kept_one.candidate)
            assert kept_one.picture.tobytes() == alone(prompt, kept_one.seed)


def test_best_of_n_takes_the_highest_score_and_the_first_of_equals():
    events, kept, work = searched("orm", FunctionJudge(redness))
    for image in (0, 1):
        scores = [event.scores["score"] for event in events if isinstance(event, Verdict) and event.image == image]
        assert len(scores) == N
        assert kept[image].candidate == scores.index(max(scores))
    assert work.decoded == 2 * 2 * N * (STEPS - 1)
    assert [one.candidate for one in searched("orm", FunctionJudge(lambda p, v: [1.0] * len(v)))[1]] == [0, 0]


def test_a_pruned_candidate_is_painted_no_further():
    threshold = float(np.median(_halfway_scores()))
    events, kept, work = searched("parm", FunctionJudge(redness, threshold=threshold))
    gone = [pair for e in events if isinstance(e, Pruned) for pair in zip(e.images, e.candidates, strict=True)]
    assert {event.step for event in events if isinstance(event, Pruned)} == {8}
    assert 0 < len(gone) < 2 * N
    # Code s is drawn after s codes were fed, in two rows with guidance; the two prompts enter once each.
    assert work.decoded == 2 * ((2 * N - len(gone)) * (STEPS - 1) + len(gone) * (8 - 1))
    # Who is left is decoded once more at the end, and not again to be shown.
    looked = sum(isinstance(e, Verdict) and e.question == "clarity" for e in events)
    assert work.vq_decodes == looked + 2 * N - len(gone)
    for image, one in enumerate(kept):
        assert one.left == N - sum(1 for i, _ in gone if i == image)
        assert (image, one.candidate) not in gone
        asked = [e for e in events if isinstance(e, Verdict) and e.image == image]
        assert sum(e.question == "potential" for e in asked) == N  # once for each, at the first clear look
        assert sum(e.question == "orm" for e in asked) == (one.left if one.left > 1 else 0)


def _halfway_scores() -> list[float]:
    generator = painter()
    canvas = generator.start(Conditions(PROMPTS), SEEDS).fork(N)
    return redness((), painted(generator, generator.advance(canvas, to=8)))


def test_if_none_is_left_the_best_rejected_one_goes_on_and_is_what_it_would_have_been():
    scores = _halfway_scores()
    events, kept, work = searched("parm", FunctionJudge(redness, threshold=2.0), batch=4)
    for image, (prompt, one) in enumerate(zip(PROMPTS, kept, strict=True)):
        mine = scores[image * N : (image + 1) * N]
        assert one.candidate == mine.index(max(mine))
        assert one.left == 0
        assert "gave up all 5" in one.note
        assert "from step 8" in one.note
        assert one.picture.tobytes() == alone(prompt, one.seed)
    assert not any(isinstance(e, Verdict) and e.question == "orm" for e in events)
    assert work.decoded < 2 * 2 * N * (STEPS - 1)
    assert [e.note for e in events if isinstance(e, Chosen)] == [one.note for one in kept]


def test_paths_that_are_never_clear_run_to_their_end():
    _, kept, work = searched("parm", FunctionJudge(redness, clear_from=1.5))
    assert [(one.candidate, one.left) for one in kept] == [(0, 0), (0, 0)]
    assert "from step" not in kept[0].note
    assert work.decoded == 2 * 2 * N * (STEPS - 1)
    assert work.vq_decodes == 4 * 2 * N, "once a look, of which the last is the end"


def test_one_survivor_and_one_candidate_are_not_scored():
    def only_first(prompts, pictures):
        return [1.0 if picture.tobytes() == best else 0.0 for picture in pictures]

    generator = painter()
    half = generator.advance(generator.start(Conditions(PROMPTS[:1]), SEEDS[:1]).fork(N), to=8)
    best = painted(generator, half)[2].tobytes()
    events, (kept,), _ = searched("parm", FunctionJudge(only_first), prompts=PROMPTS[:1])
    assert (kept.candidate, kept.left) == (2, 1)
    assert not any(isinstance(e, Verdict) and e.question == "orm" for e in events)
    for strategy in ("orm", "prm", "parm"):
        events, (kept,), _ = searched(strategy, FunctionJudge(redness), n=1, prompts=PROMPTS[:1])
        assert not any(isinstance(e, Verdict | Chosen) for e in events)
        assert kept.picture.tobytes() == alone(PROMPTS[0], SEEDS[0])
    assert any(isinstance(e, Verdict) for e in searched("orm", FunctionJudge(redness), n=1, rules=OFFICIAL)[0])


def test_step_by_step_keeps_one_path_and_looks_at_n_pictures_a_step():
    events, kept, work = searched("prm", FunctionJudge(redness))
    verdicts = [event for event in events if isinstance(event, Verdict)]
    assert len(verdicts) == 2 * N * 4
    assert work.vq_decodes == 2 * N * 4
    for image in (0, 1):
        last = [e.scores["score"] for e in verdicts if e.image == image and e.step == STEPS]
        assert redness((), [kept[image].picture])[0] == pytest.approx(max(last))


# --- Judges.


@pytest.mark.parametrize("value", [math.nan, math.inf, None, "good"])
def test_nonsense_from_a_function_is_defined_and_told(value):
    judge = FunctionJudge(lambda prompts, pictures: [value] * len(pictures), "odd")
    for strategy in ("orm", "prm", "parm"):
        events, kept, _ = searched(strategy, judge)
        assert [one.candidate for one in kept] == [0, 0]
        notes = {e.note for e in events if isinstance(e, Verdict) and e.question != "clarity"}
        assert notes == {f"the judge odd gave {value!r}, no score"}
        json.dumps([e.to_json() for e in events], allow_nan=False)


@pytest.mark.parametrize("scores", [[], [1.0], 3.0, None])
def test_too_few_scores_are_one_sentence(scores):
    with pytest.raises(ValueError, match="give one for each"):
        searched("orm", FunctionJudge(lambda prompts, pictures: scores))


def test_ensembles_weigh_and_leave_out_who_cannot_be_read():
    views = [View("x", Image.new("RGB", (4, 4), colour)) for colour in ("red", "black")]
    half, odd = FunctionJudge(lambda p, v: [0.5] * len(v), "half"), FunctionJudge(lambda p, v: [None] * len(v), "odd")
    red = FunctionJudge(redness, "red")
    answers = Ensemble([(red, 3), (half, 1), (odd, 5)]).ask("orm", views)
    assert [share(answer) for answer in answers] == pytest.approx([(3 + 0.5) / 4, 0.5 / 4])
    assert "odd gave None" in answers[0].note
    assert math.isnan(share(Ensemble([(odd, 1)]).ask("orm", views)[0]))
    said = Ensemble([(red, 3), (half, 1)]).reflect(views)
    assert [one.aligned for one in said] == [True, False]
    assert said[1].reason == NO_REASON
    for bad in ([], [(red, 0)], [(red, -1)], [(red, math.nan)]):
        with pytest.raises(ValueError, match="weight above 0"):
            Ensemble(bad)
    assert build([(redness, 1)], lambda name: red).ask("orm", views) == red.ask("orm", views)
    assert name_of([(redness, 2), ("parm", 1)]) == "python:2 python:redness + 1 parm"
    for bad in (3, ["x"], [(redness, "much")]):
        with pytest.raises(ValueError, match="a judge is a name"):
            name_of(bad)


def test_janus_reads_a_shared_beginning_once_and_to_the_last_bit():
    picture, other = Image.new("RGB", (40, 40), "red"), Image.new("RGB", (40, 40), "blue")
    eyes = JanusEyes(MODEL, TOKENIZER, chunk=16)
    assert isinstance(eyes, Reader)
    asked = [Message("user", "Is this picture clear enough to judge?", (picture,))]
    more = [Message("user", "Can this picture still become a red cat?", (picture,))]
    first = eyes.read([asked], remember=True)
    before = (eyes.work.prefilled, eyes.work.vision_encodes)
    again = eyes.read([more], first)[0]
    spent = eyes.work.prefilled - before[0]
    fresh = JanusEyes(MODEL, TOKENIZER, chunk=16)
    assert (again.logits == fresh.read([more])[0].logits).all()
    assert spent < fresh.work.prefilled
    assert eyes.work.vision_encodes == before[1]
    wrong = [Message("user", more[0].text, (other,))]
    assert (eyes.read([wrong], first)[0].logits == fresh.read([wrong])[0].logits).all()


@dataclass
class Shares:
    """A VLM that only knows how likely yes is."""

    yes: float
    asked: list = field(default_factory=list)

    def yes_probability(self, messages):
        self.asked.append(messages)
        return self.yes

    def write_batch(self, conversations, max_new_tokens=512, temperature=0.0, seeds=None):
        return ["No, the cat\nis blue."] * len(conversations)


def test_any_vlm_can_judge():
    view = View("a <image> of {prompt}", Image.new("RGB", (8, 8)))
    for name in known():
        vlm = Shares(0.3)
        judge = VLMJudge(vlm, Wording.of(name))
        assert [judge.ask(q, [view])[0].yes for q in ("orm", "prm", "clarity", "potential")] == [0.3] * 4
        assert judge.reflect([view]) == [Reflection(False, 0.3, "the cat is blue.")]
        assert all(messages[0].images == (view.picture,) and messages[-1].role == "user" for messages in vlm.asked)
    assert VLMJudge(Shares(0.8), Wording.of("instruct")).reflect([view]) == [Reflection(True, 0.8)]
    assert reason_of("NO.") == reason_of("") == reason_of("Yes!") == NO_REASON
    assert reason_of("Nothing is red.") == "Nothing is red."
    for bad in ("nobody", {"orm": ["x"]}, {**known()["atelier"], "orm": ["a", "b"]}, {**known()["atelier"], "zzz": 1}):
        with pytest.raises(ValueError, match="wording"):
            Wording.of(bad)


def test_the_inspector_judges_drawn_scenes():
    from reverie.atelier.draw import draw
    from reverie.atelier.language_parse import parse
    from reverie.atelier.sample import compose
    from reverie.judges.inspector import InspectorJudge
    from reverie.judges.load import open_judge
    from reverie.models.registry import resolve

    judge = open_judge(resolve("atelier-inspector", "judge"), "cpu")(Work(), False)
    assert isinstance(judge, InspectorJudge)
    drawn = {text: draw(compose(parse(text), random.Random(1))) for text in ("a red apple", "a blue car")}
    right = [View(text, picture) for text, picture in drawn.items()]
    wrong = [View(text, picture) for text, picture in zip(drawn, reversed(drawn.values()), strict=True)]
    for question in ("orm", "prm", "potential"):
        assert [answer.passed for answer in judge.ask(question, right)] == [True, True]
        assert [answer.passed for answer in judge.ask(question, wrong)] == [False, False]
    assert [one.aligned for one in judge.reflect(right)] == [True, True]
    assert judge.reflect(wrong)[0].reason == "There is no apple."
    assert judge.work.vision_encodes == 4  # every view is looked at once, however much is asked
    early = View("x", right[0].picture, 0.01)
    assert [GREEDY.clear(answer) for answer in judge.ask("clarity", [early, right[0]])] == [False, True]
    assert "cannot judge by this prompt" in judge.ask("orm", [View("xyzzy", right[0].picture)])[0].note


# --- Looking back.


@dataclass
class Critic:
    """Finds fault with the first `wrong` pictures of each prompt; each later one is a little better."""

    wrong: int
    name: str = "critic"
    work: Work = field(default_factory=Work)
    seen: list[View] = field(default_factory=list)

    def check(self, prompt):
        pass

    def ask(self, question, views):
        return [Answer(score=0.5) for _ in views]

    def reflect(self, views):
        said = []
        for view in views:
            past = sum(other.prompt == view.prompt for other in self.seen)
            self.seen.append(view)
            good = past >= self.wrong
            said.append(Reflection(good, 0.9 if good else 0.5 - 0.1 * past, "" if good else f"The cat is {past}."))
        return said


def looked_back(judge, generator=None, **fields):
    plan = Plan(**fields)
    bench = Bench(judge, "{prompt}\n{reason}", "{prompt} ({reason})")
    return list(run(generator or painter(), None, plan, list(PROMPTS), list(SEEDS), bench=bench, previews=False))


@pytest.mark.parametrize(("wrong", "rounds"), [(0, 0), (1, 1), (3, 3), (9, 3)])
def test_rounds_end_when_the_judge_is_satisfied_or_at_the_limit(wrong, rounds):
    judge = Critic(wrong)
    events = looked_back(judge, reflect=3, correct="again")
    assert len([e for e in events if isinstance(e, Revised)]) == 2 * rounds
    assert len(judge.seen) == 2 * (rounds + 1)
    finished = [e for e in events if isinstance(e, Finished)]
    assert [e.image for e in finished] == [0, 1]
    for event, prompt, seed in zip(finished, PROMPTS, SEEDS, strict=True):
        assert event.recipe["round"] == rounds
        assert len(event.recipe["rounds"]) == rounds + 1
        latest = seed if rounds == 0 else copy_seed(seed, -rounds, 1)
        assert event.picture.tobytes() == alone(prompt, latest)
        assert event.seed == event.recipe["seed"] == seed
    assert [e.reason for e in events if isinstance(e, Revised)] == [
        f"The cat is {i}." for i in range(rounds) for _ in PROMPTS
    ]


def test_the_best_round_can_be_kept_instead_of_the_last():
    for keep, expected in (("last", 2), ("best", 0)):
        events = looked_back(Critic(9), reflect=2, correct="again", keep=keep)
        assert [e.recipe["round"] for e in events if isinstance(e, Finished)] == [expected] * 2


def test_the_painter_sees_the_flawed_picture_and_the_reason():
    events = looked_back(Critic(1), reflect=1)
    revised = [e for e in events if isinstance(e, Revised)]
    assert [e.prompt for e in revised] == [f"{prompt}\nThe cat is 0." for prompt in PROMPTS]
    generator = painter()
    flawed = painted(generator, generator.advance(generator.start(Conditions(PROMPTS), SEEDS)))
    told = Conditions([e.prompt for e in revised], None, flawed)
    canvas = generator.start(told, [copy_seed(seed, -1, 1) for seed in SEEDS])
    expected = painted(generator, generator.advance(canvas))
    assert [e.picture.tobytes() for e in events if isinstance(e, Finished)] == [p.tobytes() for p in expected]
    blind = looked_back(Critic(1), reflect=1, correct="words")
    assert [e.prompt for e in blind if isinstance(e, Revised)] == [f"{prompt} (The cat is 0.)" for prompt in PROMPTS]


def test_a_painter_that_cannot_look_is_told_in_words_and_this_is_said():
    generator = painter()
    generator.sees = False
    revised = [e for e in looked_back(Critic(1), generator, reflect=1) if isinstance(e, Revised)]
    assert [e.prompt for e in revised] == [f"{prompt} (The cat is 0.)" for prompt in PROMPTS]
    assert all("cannot look at a picture" in e.note for e in revised)


def test_a_correction_that_is_too_long_is_left_out_and_this_is_said():
    def check(prompt, seen):
        raise ValueError("too long")

    bench = Bench(Critic(1), check=check)
    events = list(run(painter(), None, Plan(reflect=1), list(PROMPTS), list(SEEDS), bench=bench, previews=False))
    assert [(e.prompt, e.note) for e in events if isinstance(e, Revised)] == [
        (prompt, "the painter could not be told what was wrong: too long") for prompt in PROMPTS
    ]


def test_pictures_in_prompts_are_looked_at_and_cached_like_everything_else():
    red, blue = Image.new("RGB", (20, 20), "red"), Image.new("RGB", (30, 20), "blue")
    generator, seeds = painter(), (1, 2, 3)
    conditions = Conditions(["a cat"] * 3, None, (red, blue, None))
    whole = generator.advance(generator.start(conditions, seeds))
    codes = whole.tokens.tolist()
    assert len({tuple(row) for row in codes}) == 3
    for i, seed in enumerate(seeds):
        one = generator.advance(generator.start(conditions.select([i]), [seed]), to=5)
        one.cache = None  # rebuilt from the tokens
        assert generator.advance(one).tokens[0].tolist() == codes[i]
        other = generator.advance(generator.start(Conditions(["a cat"], None, (blue,)), [seed]), to=5)
        changed = generator.recondition(other, conditions.select([i]))
        changed.cache = changed.cache if i == 1 else None
        assert changed.conditions.picture(0) is conditions.picture(i)
    asked = [Message("system", ""), Message("user", "a cat", (red,))]
    ids = [max(index, -1) for index in generator._prompt_ids(conditions, 0)]
    placeholders = [TOKENIZER.placeholder if index < 0 else index for index in ids]
    assert placeholders == [*JanusEyes(MODEL, TOKENIZER).ids(asked), TOKENIZER.image_start]
    assert whole.work.vision_encodes == 2
    with pytest.raises(ValueError, match="cannot be saved"):
        whole.save("nowhere")
    with pytest.raises(ValueError, match="2 pictures for 1 prompts"):
        Conditions(["x"], None, (red, blue))


# --- Through the front door.


@pytest.fixture(scope="module")
def tiny(tmp_path_factory) -> str:
    return str(tiny_folder(tmp_path_factory.mktemp("models") / "tiny"))


def test_the_command_line_end_to_end(capsys, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    options = ["--choose", "parm", "--candidates", "3", "--reflect", "1", "--judge-steps", "4", "--rules", "official"]
    assert main(["generate", "a red cat", "--model", tiny, "--seed", "5", *options, "--trace", "run"]) == 0
    out, err = capsys.readouterr()
    assert out == "a-red-cat.png\n"
    assert "judge: " in err
    assert "neither yes nor no" in err
    events = list(read_trace("run"))
    verdicts = [e for e in events if isinstance(e, Verdict)]
    assert verdicts
    assert all(e.picture is not None for e in verdicts)
    recipe = read_recipe("a-red-cat.png")
    assert recipe["plan"]["choose"] == "parm"
    assert len(recipe["rounds"]) == 2
    assert main(["replay", "a-red-cat.png", "-q"]) == 0
    assert capsys.readouterr().out.startswith("identical\n")
    assert main(["replay", "a-red-cat.png", "-q", "--from-choice"]) == 2
    assert "cannot be repeated without its judge" in capsys.readouterr().err
    assert main(["generate", "a cat", "--model", tiny, "--choose", "orm", "--candidates", "3", "--json"]) == 0
    names = [json.loads(line)["event"] for line in capsys.readouterr().out.splitlines()]
    assert names.count("verdict") == 3
    assert names[-3:] == ["chosen", "preview", "finished"] or names[-2:] == ["finished", "spent"]
    assert main(["replay", "a-cat.png", "-q", "--from-choice"]) == 0
    assert capsys.readouterr().out.startswith("identical\n")


def test_the_inspector_is_a_judge_for_any_painter(capsys, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    options = ["--choose", "parm", "--candidates", "2", "--judge-steps", "4", "--judge", "atelier-inspector"]
    assert main(["generate", "a red cat", "--model", tiny, "--seed", "1", *options, "--json"]) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    asked = {r["question"] for r in records if r["event"] == "verdict"}
    assert asked <= {"clarity", "potential", "orm"}
    assert {r["judge"] for r in records if r["event"] == "verdict"} == {"atelier-inspector"}
    with pytest.raises(ValueError, match="Atelier's language"):
        reverie.load(tiny).generate("a xylophonist", choose="orm", judge="atelier-inspector")


def test_python_judges_go_into_recipes_by_name(capsys, tmp_path, monkeypatch, tiny):
    monkeypatch.chdir(tmp_path)
    painter_of_all = reverie.load(tiny)
    result = painter_of_all.generate("a cat", choose="orm", candidates=4, judge=redness, seed=2)
    scores = [e.scores["score"] for e in result.trace if isinstance(e, Verdict)]
    assert redness((), [result.image])[0] == pytest.approx(max(scores))
    assert result.recipes[0]["plan"]["judge"] == "python:redness"
    spent = result.trace[-1]
    assert isinstance(spent, Spent)
    assert spent.work["decoded"][0] == 4 * spent.work["decoded"][1]
    save_png(result.image, Path("cat.png"), result.recipes[0])
    assert main(["replay", "cat.png", "-q"]) == 2
    assert "redness, is a Python object" in capsys.readouterr().err
    assert main(["replay", "cat.png", "-q", "--from-choice"]) == 0
    mixed = painter_of_all.generate("a cat", "parm", candidates=3, judge=[(redness, 1), (tiny, 2.5)], seed=2)
    assert mixed.recipes[0]["judge"] == f"1 redness + 2.5 {tiny}"


def test_judges_are_refused_as_painters(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llava", "architectures": ["LlavaQwenForCausalLM"]}')
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match="does not paint; name it with --judge"):
        reverie.load(tmp_path)
    with pytest.raises(ValueError, match="is a judge and does not paint"):
        reverie.load("llava-onevision-7b")


def test_a_strategy_knows_no_world():
    script = (
        "import sys, reverie.choose, reverie.look_back, reverie.judges.vlm, reverie.judges.load, reverie.judges.mixed"
    )
    script += "; print([name for name in sys.modules if name.startswith('reverie.atelier')])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
