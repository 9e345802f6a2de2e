"""Which candidate the published procedure chooses, for scripted answers (fixtures beside the repository)."""

import json
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from reverie.canvas import Canvas, Conditions, Work
from reverie.choose import STRATEGIES, Search, Task, look_steps
from reverie.events import Chosen, Preview, Pruned, Verdict
from reverie.judges import Answer
from reverie.judges.rules import GREEDY, OFFICIAL, highest, lowest

ROOT = Path(os.environ.get("REVERIE_FIXTURES", Path(__file__).parents[2] / "shared" / "fixtures"))
FILES = sorted(ROOT.glob("**/cases.jsonl"))
CASES = [
    case
    for path in FILES
    for line in path.read_text("utf-8").splitlines()
    if (case := json.loads(line)).get("method") in ("parm", "orm") and "expected" in case
]


def test_there_are_cases():
    if not CASES:
        pytest.skip(f"no parm_selection fixtures in {ROOT}; set REVERIE_FIXTURES to the folder that holds them")


@dataclass
class Numbers:
    """A `Generator` whose pictures say which candidate and which step they show, and which counts what it paints."""

    steps: int
    order: list[int] = field(default_factory=list)
    painted: Counter = field(default_factory=Counter)

    def start(self, conditions, seeds):
        return Canvas.blank(conditions, seeds, self.steps, 0)

    def advance(self, canvas, to=None):
        to = self.steps if to is None else to
        for seed in canvas.seeds:
            self.painted[seed] += to - canvas.step
        tokens = canvas.tokens.clone()
        tokens[:, canvas.step : to] = 1
        canvas.work.decoded += len(canvas) * (to - canvas.step)
        return replace(canvas, tokens=tokens, step=to)

    def preview(self, canvas):
        """(2, 1, 3): the candidate by its seed, and the step."""
        for seed in canvas.seeds:
            if seed not in self.order:
                self.order.append(seed)
        rows = [(self.order.index(seed), canvas.step) for seed in canvas.seeds]
        return [np.array([[[row] * 3], [[step] * 3]], np.uint8) for row, step in rows]

    def plain_work(self, conditions):
        return Work(decoded=len(conditions) * self.steps)


@dataclass
class Script:
    """A judge that answers from a case; candidate and step are read off the picture."""

    case: dict
    candidates: dict[int, int]
    name: str = "script"
    work: Work = field(default_factory=Work)
    asked: list[tuple[str, int, int]] = field(default_factory=list)

    def ask(self, question, views):
        return [self._answer(question, view) for view in views]

    def _answer(self, question, view):
        (row, *_), (step, *_) = np.asarray(view.picture)[:, 0]
        candidate = self.candidates[int(row)]
        self.asked.append((question, candidate, int(step)))
        if question == "orm":
            token, yes = self.case["orm"][candidate]
            return Answer(yes, 1 - yes, token)
        if question == "clarity":
            return Answer(token=self.case["clarity"][candidate][step - 1])
        token, no = self.case["potential"][candidate][step - 1]
        return Answer(1 - no, no, token)


def searched(case: dict, batch: int = 64, rules=OFFICIAL, **changes):
    """Runs the strategy of a case; events, what was kept, the script and the painter."""
    painter = Numbers(case["steps"])
    seeds = painter.start(Conditions(["x"]), [7]).fork(case["n"]).seeds
    painter.order = list(seeds)
    script = Script(case, dict(enumerate(range(case["n"]))))
    search = Search(painter, script, rules, case["n"], look_steps(case["steps"], case["steps"]), batch=batch)
    task = Task(Conditions(["x"]), (7,), ("x",), (0,))
    program = STRATEGIES[case["method"]](replace(search, **changes), task, lambda done, shown: Preview(0, 1))
    events = []
    while True:
        try:
            events.append(next(program))
        except StopIteration as end:
            return events, end.value[0][0], script, painter


def test_the_published_choice_with_real_truncation():
    for case in CASES:
        expected, name = case["expected"], case["id"]
        events, kept, script, painter = searched(case)
        assert kept.candidate == expected["winner"], name
        assert [candidate for question, candidate, _ in script.asked if question == "orm"] == expected["orm_asked"], (
            name
        )
        verdicts = [event for event in events if isinstance(event, Verdict) and event.question == "orm"]
        assert len(verdicts) == len(expected["orm_asked"]), name
        if case["method"] == "parm":
            check_path(case, events, kept, script, painter)


def check_path(case, events, kept, script, painter) -> None:
    """Which questions were asked when, and how far each candidate was painted."""
    expected, name = case["expected"], case["id"]
    assert kept.left == sum(expected["potential_passed"]), name
    assert (kept.left > 0) == (expected["pool"] == "survivors"), name
    clarity = Counter(candidate for question, candidate, _ in script.asked if question == "clarity")
    assert [clarity[i] for i in range(case["n"])] == expected["clarity_calls"], name
    potential = {candidate: step - 1 for question, candidate, step in script.asked if question == "potential"}
    assert [potential.get(i) for i in range(case["n"])] == expected["first_clear"], name
    # Truncation: a rejected path is painted up to its first clear step and no further, unless it is the one resumed.
    for i, passed in enumerate(expected["potential_passed"]):
        clear = expected["first_clear"][i]
        stopped = case["steps"] if passed or clear is None or i == kept.candidate else clear + 1
        assert painter.painted[painter.order[i]] == stopped, name
    gone = {candidate for event in events if isinstance(event, Pruned) for candidate in event.candidates}
    passed = expected["potential_passed"]
    assert gone == {i for i, clear in enumerate(expected["first_clear"]) if clear is not None and not passed[i]}, name


@pytest.mark.parametrize("batch", [1, 3])
def test_batches_change_nothing(batch):
    for case in CASES[::7]:
        assert searched(case, batch)[1].candidate == case["expected"]["winner"], case["id"]
        greedy = [searched(case, size, GREEDY)[1] for size in (batch, 64)]
        assert len({(kept.candidate, kept.seed, kept.left) for kept in greedy}) == 1, case["id"]


def test_the_rules_alone():
    """The pure functions, without any canvas."""
    for case in CASES:
        expected = case["expected"]
        answers = [Answer(yes, 1 - yes, token) for token, yes in case["orm"]]
        scores = [OFFICIAL.score(answers[i]) for i in expected["orm_asked"]]
        assert scores == expected["orm_scores"], case["id"]
        if expected["orm_asked"]:
            assert expected["orm_asked"][highest(scores)] == expected["winner"], case["id"]
        else:
            assert lowest(expected["no_score"]) == expected["winner"], case["id"]
        for i, clear in enumerate(expected.get("first_clear", ())):
            token, no = case["potential"][i][clear or 0]
            found = OFFICIAL.potential(None if clear is None else Answer(0, no, token))
            assert found == (expected["potential_passed"][i], expected["no_score"][i]), case["id"]
            steps = [OFFICIAL.clear(Answer(token=token)) for token in case["clarity"][i]]
            assert next((step for step, ok in enumerate(steps) if ok), None) == clear, case["id"]


def test_questions_are_fewer_from_a_later_look_on():
    case = next((c for c in CASES if c["method"] == "parm" and c["kind"] == "typical" and c["steps"] >= 9), None)
    if case is None:
        pytest.skip("no case of that kind")
    script = searched(case, first_look=8)[2]
    assert min(step for question, _, step in script.asked if question == "clarity") == 8
    every = searched(case, every=True)[2]
    assert len(every.asked) >= len(searched(case)[2].asked)


def test_greedy_reading_of_unreadable_answers():
    nonsense = Answer(0.0, 0.0, "the")
    assert GREEDY.score(nonsense) == -torch.inf
    assert GREEDY.potential(nonsense) == (False, 50.0)
    assert not GREEDY.clear(nonsense)
    assert GREEDY.potential(None) == OFFICIAL.potential(None) == (False, 1.0)
    assert isinstance(Chosen(0, 1, 2, 3).to_json(), dict)
