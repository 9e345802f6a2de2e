"""What "verify and reinforce" must keep over every kind of canvas: next-token, masked-token and diffusion alike."""

import functools
import hashlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusion_toy import flux_schnell
from janus_toy import toy_janus
from llamagen_toy import toy_llamagen
from showo_toy import toy_showo

from reverie.canvas import Conditions, Work, copy_seed
from reverie.choose import STRATEGIES, Search, Task, first_look, look_steps, painted
from reverie.events import Preview, Pruned, Verdict
from reverie.generators.diffusion import DiffusionPainter
from reverie.generators.janus import JanusPainter
from reverie.generators.llamagen import LlamagenPainter
from reverie.generators.showo import ShowoPainter, temperature_at, unpack
from reverie.judges import Answer, Reflection, View
from reverie.judges.load import build, judge_by_name
from reverie.judges.manner import Manner
from reverie.judges.mixed import Ensemble, FunctionJudge
from reverie.judges.rules import GREEDY
from reverie.models.judge_names import weighed

N = 4


@functools.cache
def painter(kind: str):
    if kind == "diffusion":
        return DiffusionPainter(flux_schnell(), steps=4, height=32, width=32)
    make = {"showo": (ShowoPainter, toy_showo), "llamagen": (LlamagenPainter, toy_llamagen)}
    painter_of, toy = make.get(kind, (JanusPainter, toy_janus))
    more = {"steps": 6} if kind == "showo" else {}
    return painter_of(*toy(), guidance=1.0 if kind == "llamagen" else 2.0, **more)


KINDS = ("showo", "llamagen", "janus", "diffusion")


def redness(prompts, pictures) -> list[float]:
    return [float(np.asarray(picture, float)[..., 0].mean()) / 255 for picture in pictures]


def searched(kind: str, strategy: str, judge, batch: int = 64, looks: int = 4, seed: int = 5):
    generator = painter(kind)
    search = Search(generator, judge, GREEDY, N, look_steps(generator.steps, looks), batch=batch)
    task = Task(Conditions(("a red cat",)), (seed,), ("a red cat",), (0,))
    program, events = STRATEGIES[strategy](search, task, lambda done, shown: Preview(int(done * 100), 100)), []
    while True:
        try:
            events.append(next(program))
        except StopIteration as end:
            return events, end.value[0][0], end.value[1]


def alone(kind: str, seed: int) -> bytes:
    generator = painter(kind)
    return painted(generator, generator.advance(generator.start(Conditions(("a red cat",)), [seed])))[0].tobytes()


def halfway(kind: str, seed: int = 5) -> list[float]:
    generator = painter(kind)
    canvas = generator.start(Conditions(("a red cat",)), [seed]).fork(N)
    return redness((), painted(generator, generator.advance(canvas, to=look_steps(generator.steps, 4)[1])))


@pytest.mark.parametrize("kind", KINDS)
def test_parm_prunes_and_resumes_on_every_canvas(kind):
    scores = halfway(kind)
    cut = sorted(scores)[N // 2]
    events, kept, work = searched(kind, "parm", FunctionJudge(redness, threshold=cut))
    gone = {c for event in events if isinstance(event, Pruned) for c in event.candidates}
    assert gone == {i for i, score in enumerate(scores) if score < cut}
    assert 0 < len(gone) < N
    whole = searched(kind, "orm", FunctionJudge(redness))[2]
    assert work.decoded < whole.decoded
    assert kept.candidate not in gone
    assert kept.picture.tobytes() == alone(kind, copy_seed(5, 0, kept.candidate))
    # None left: the one with the best prospects goes on from where it was stopped.
    _, kept, work = searched(kind, "parm", FunctionJudge(redness, threshold=9.0))
    assert (kept.candidate, kept.left) == (scores.index(max(scores)), 0)
    assert kept.picture.tobytes() == alone(kind, copy_seed(5, 0, kept.candidate))
    assert work.decoded < whole.decoded


@pytest.mark.parametrize("kind", KINDS)
def test_step_by_step_search_and_best_of_n_run_on_every_canvas(kind):
    events, kept, _ = searched(kind, "prm", FunctionJudge(redness))
    assert sum(isinstance(event, Verdict) for event in events) == 4 * N
    last = [e.scores["score"] for e in events if isinstance(e, Verdict)][-N:]
    assert redness((), [kept.picture])[0] == pytest.approx(max(last))
    events, kept, _ = searched(kind, "orm", FunctionJudge(redness), batch=3)
    finals = [np.frombuffer(alone(kind, copy_seed(5, 0, i)), np.uint8) for i in range(N)]
    reds = [float(x.reshape(-1, 3)[:, 0].mean()) for x in finals]
    assert kept.candidate == reds.index(max(reds))


@dataclass
class Counting:
    """Clear from look 3 of 6 on; counts what is asked."""

    asked: list[tuple[str, float]] = field(default_factory=list)
    name: str = "counting"
    work: Work = field(default_factory=Work)
    clear_from: float = 0.0

    def check(self, prompt):
        pass

    def ask(self, question, views):
        self.asked += [(question, round(view.painted, 3)) for view in views]
        if question == "clarity":
            return [Answer(score=view.painted, passed=view.painted >= 0.5) for view in views]
        return [Answer(score=score, passed=True) for score in redness((), [view.picture for view in views])]

    def reflect(self, views):
        return [Reflection(True, 1.0) for _ in views]


def test_questions_are_as_many_as_the_formula_says_and_none_before_a_judge_can_say_yes():
    counts = {}
    for least in (0.0, 0.4):
        judge = Counting(clear_from=least)
        looks = look_steps(6, 6)
        search = Search(painter("showo"), judge, GREEDY, N, looks, first_look=first_look(looks, None, judge))
        task = Task(Conditions(("a red cat",)), (5,), ("a red cat",), (0,))
        program = STRATEGIES["parm"](search, task, lambda done, shown: Preview(0, 1))
        while True:
            try:
                next(program)
            except StopIteration as end:
                counts[least] = (end.value[0][0].candidate, [q for q, _ in judge.asked], judge.asked)
                break
    first, second = counts[0.0], counts[0.4]
    assert first[0] == second[0]
    assert (first[1].count("clarity"), second[1].count("clarity")) == (3 * N, N)  # looks 1, 2, 3; look 3 alone
    assert all(each[1].count("potential") == each[1].count("orm") == N for each in (first, second))
    assert min(share for question, share in second[2] if question == "clarity") == 0.5
    assert first_look((1, 2, 3), 2, judge) == 2
    assert first_look((1, 2, 3), 9, judge) == 3
    assert first_look((1,), None, Counting(clear_from=1.0)) == 1
    assert Ensemble([(Counting(clear_from=0.4), 1), (Counting(clear_from=0.2), 1)]).clear_from == 0.2


def test_an_oracle_chooses_better_from_more_and_parm_at_less_work():
    """Right is what is redder than nine in ten; an oracle knows the end of every path from its halfway point."""
    generator = painter("showo")
    finals = {}
    for seed in range(150):
        for i in range(8):
            finals.setdefault(copy_seed(seed, 0, i), None)
    canvas = generator.advance(generator.start(Conditions(("a red cat",) * len(finals)), list(finals)))
    reds = dict(zip(finals, redness((), painted(generator, canvas)), strict=True))
    cut = float(np.quantile(list(reds.values()), 0.9))
    accuracies = []
    for n in (1, 2, 4, 8):
        best = [max(reds[copy_seed(seed, 0, i)] for i in range(n)) for seed in range(150)]
        accuracies.append(float(np.mean([red > cut for red in best])))
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] > accuracies[0] + 0.3
    right = {8: 0, "parm": 0, 4: 0}
    spent = {8: 0, "parm": 0, 4: 0}
    for seed in range(12):
        ends = {copy_seed(seed, 0, i): reds[copy_seed(seed, 0, i)] for i in range(8)}
        judge = Oracle(ends, cut)
        for name, strategy, n in ((8, "orm", 8), (4, "orm", 4), ("parm", "parm", 8)):
            search = Search(generator, judge, GREEDY, n, look_steps(6, 6), first_look=3)
            task = Task(Conditions(("a red cat",)), (seed,), ("a red cat",), (0,))
            program = STRATEGIES[strategy](search, task, lambda done, shown: Preview(0, 1))
            while True:
                try:
                    next(program)
                except StopIteration as end:
                    right[name] += reds[end.value[0][0].seed] > cut
                    spent[name] += end.value[1].decoded
                    break
    assert right["parm"] == right[8] >= right[4]
    assert spent["parm"] < spent[8]


@dataclass
class Oracle:
    """Knows how every path ends, by the picture that it shows halfway or finished."""

    ends: dict[int, float]
    cut: float
    name: str = "oracle"
    work: Work = field(default_factory=Work)

    def __post_init__(self):
        generator = painter("showo")
        self.known = {}
        canvas = generator.start(Conditions(("a red cat",) * len(self.ends)), list(self.ends))
        for step in range(1, 7):
            canvas = generator.advance(canvas, to=step)
            for seed, picture in zip(canvas.seeds, painted(generator, canvas), strict=True):
                self.known[picture.tobytes()] = self.ends[seed]

    def check(self, prompt):
        pass

    def ask(self, question, views):
        if question == "clarity":
            return [Answer(score=1.0, passed=True) for _ in views]
        ends = [self.known[view.picture.tobytes()] for view in views]
        return [Answer(score=end, passed=end > self.cut) for end in ends]

    def reflect(self, views):
        return [Reflection(True, 1.0) for _ in views]


def test_the_temperature_is_set_back_for_every_image_unless_the_published_leak_is_wanted():
    """The published loop ends its first image at temperature 0 and starts all others with it."""
    usual = painter("showo")
    leaking = ShowoPainter(*toy_showo(), guidance=2.0, steps=6, official=True)
    cold = ShowoPainter(*toy_showo(), guidance=2.0, steps=6)
    canvas = leaking.advance(leaking.start(Conditions(("a red cat",)), [5]).fork(3))
    fresh = usual.advance(usual.start(Conditions(("a red cat",)), [5]).fork(3))
    assert torch.equal(canvas.tokens[0], fresh.tokens[0])
    for i in (1, 2):
        assert not torch.equal(canvas.tokens[i], fresh.tokens[i])
        # Without noise the surest of the drawn codes are kept.
        _, masked = unpack(leaking.record(canvas)[i : i + 1])
        assert masked[0, 1].sum() == leaking.counts[0]
    later = leaking.advance(leaking.start(Conditions(("a red cat",)), [7]))
    assert not torch.equal(later.tokens, cold.advance(cold.start(Conditions(("a red cat",)), [7])).tokens)
    assert [round(temperature_at(1.0, step, 18), 3) for step in (0, 1, 2, 3, 10)] == [0.944, 0.840, 0.700, 0.544, 0.008]
    assert temperature_at(1.0, 17, 18) == 0


def test_the_same_seed_gives_the_same_image_in_another_process():
    there = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from test_verify_checklist import alone\n"
        "import hashlib; print(hashlib.sha256(alone('showo', 11)).hexdigest())"
    )
    told = subprocess.run(
        [sys.executable, "-c", there, str(Path(__file__).parent)], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == hashlib.sha256(alone("showo", 11)).hexdigest()


def test_a_judge_that_answers_nonsense_still_keeps_one_and_says_so():
    judge = FunctionJudge(lambda prompts, pictures: ["?"] * len(pictures), "odd")
    for kind in KINDS[:2]:
        events, kept, _ = searched(kind, "parm", judge)
        assert kept.candidate == 0
        assert "gave up all 4" in kept.note
        assert any("no score" in (event.note or "") for event in events if isinstance(event, Verdict))
        json.dumps([event.to_json() for event in events], allow_nan=False)


def test_several_judges_by_name_and_on_one_scale():
    assert weighed("atelier-inspector") == [("atelier-inspector", 1.0)]
    assert weighed("2 clipscore:x + atelier-inspector + 0.5 a/b") == [
        ("clipscore:x", 2.0), ("atelier-inspector", 1.0), ("a/b", 0.5)
    ]  # fmt: skip
    with pytest.raises(ValueError, match="no name"):
        weighed("a + ")
    judge = judge_by_name("3 atelier-inspector + 1 atelier-inspector", "cpu")
    assert judge.name == "3 atelier-inspector + 1 atelier-inspector"
    hundred = build([(lambda p, v: [75.0] * len(v), 1, (50, 100)), (lambda p, v: [0.1] * len(v), 3)], judge_by_name)
    view = View("x", painted(painter("showo"), painter("showo").start(Conditions(("x",)), [1]))[0])
    assert hundred.ask("orm", [view])[0].score == pytest.approx((0.5 + 3 * 0.1) / 4)
    for bad in ([("atelier-inspector", 1, (0, 1))], [(redness, 1, (1, 0))], [(redness, 1, 3)]):
        with pytest.raises(ValueError, match="a judge is a name"):
            build(bad, judge_by_name)
    silent = Ensemble([(Silent(), 5), (FunctionJudge(redness, threshold=2.0), 1)])
    said = silent.reflect([view])[0]
    assert not said.aligned
    assert said.score == pytest.approx(redness((), [view.picture])[0])


def test_the_shipped_judge_says_what_is_wrong_and_one_without_reasons_writes_none():
    from reverie.atelier.draw import draw
    from reverie.atelier.scene import Scene, Thing
    from reverie.judges.vlm import NO_REASON

    judge = judge_by_name("atelier-judge", "cpu")
    apple = draw(Scene((Thing("apple", "red"),)))
    views = [View("a photo of a red apple", apple), View("a photo of a blue apple", apple)]
    right, wrong = judge.reflect(views)
    assert (right.aligned, right.reason) == (True, "")
    assert not wrong.aligned
    assert "apple" in wrong.reason, "it speaks of what was asked for, though seldom as exactly as the inspector"
    judge.manner, written = Manner(reasons=False), judge.work.decoded
    assert [said.reason for said in judge.reflect(views)] == ["", NO_REASON]
    assert judge.work.decoded == written


class Silent:
    """Cannot judge, and lets everything pass."""

    name, work = "silent", Work()

    def reflect(self, views):
        return [Reflection(True, float("nan"), note="cannot judge") for _ in views]
