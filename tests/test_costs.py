"""What a method is said to cost before it is run is what a run costs: tokens, pictures, FLOP and bytes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import parallel_run
import pytest
import torch
from diffusion_toy import qwen_image, save_thinker
from llamagen_toy import toy_llamagen
from PIL import Image
from showo_toy import toy_showo
from test_swap import saved  # noqa: F401 (a fixture)
from tiny import tiny_folder
from torch import nn

import reverie
from reverie.canvas import Work
from reverie.cli import main
from reverie.costs.meter import Meter
from reverie.costs.methods import METHODS, Outcome, cost, total
from reverie.costs.units import Cost, Rig
from reverie.events import Spent
from reverie.inputs import Inputs
from reverie.judges import Answer, Reflection, View
from reverie.judges.vlm import VLMJudge, Wording
from reverie.models.llamagen_checkpoint import save_llamagen
from reverie.models.showo_checkpoint import save_showo
from reverie.reason import make_plan

PROMPT = "a red cat"
TOKENS = ("prefilled", "decoded", "vq_decodes", "vision_encodes")


class Scripted(VLMJudge):
    """Reads and answers as tiny eyes do, and then says what the script says: pictures are clear from the fourth part
    on, and the first half of them has no prospects; no picture is what was asked for."""

    clear_from = 0.25

    def ask(self, question: str, views: list[View]) -> list[Answer]:
        super().ask(question, views)
        good = [question != "potential" or i >= len(views) // 2 for i in range(len(views))]
        return [Answer(yes=0.9 if one else 0.1, no=0.1 if one else 0.9, token="yes" if one else "no") for one in good]

    def reflect(self, views: list[View]) -> list[Reflection]:
        super().ask("reflection", views)
        return [Reflection(False, 0.1, "it is blue") for _ in views]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    tiny_folder(folder / "janus")
    save_showo(*toy_showo(), folder / "showo")
    save_llamagen(*toy_llamagen(), folder / "llamagen")
    save_thinker(qwen_image(), folder / "qwen")
    return folder


def scripted(folder: Path) -> VLMJudge:
    eyes = reverie.load(folder, device="cpu")
    eyes.rows = 1
    work = Work()
    return Scripted(eyes.vlm(work), Wording.of(eyes.source.judge), "scripted", False, work)


def measured(painter: Any, plan: Any, judge: Any) -> Cost:
    """What a run really costs. A thought about one picture is written in a thread, where the meter does not see it."""
    with Meter() as meter:
        events = list(painter.run(plan, [PROMPT], [0], pieces=1, judge=judge))
    work = next(event for event in events if isinstance(event, Spent)).work
    return Cost(meter.flop, meter.moved, 0.0, *(work[name][0] for name in TOKENS))


@pytest.mark.parametrize(
    ("model", "method", "fields", "outcome"),
    [
        ("janus", "direct", {}, {}),
        ("janus", "t2g", {"thought_tokens": 6}, {}),
        ("janus", "twig", {"thought_tokens": 6, "regions": 2, "reflect": 0}, {}),
        ("janus", "twig", {"thought_tokens": 6, "regions": 2, "reflect": 1}, {"rounds": 0}),
        ("janus", "orm", {"candidates": 4}, {}),
        ("janus", "prm", {"candidates": 3, "judge_steps": 4}, {}),
        ("janus", "parm", {"candidates": 4, "judge_steps": 4}, {"stopped": 0.5}),
        ("janus", "parm++", {"candidates": 4, "judge_steps": 4, "reflect": 1}, {"stopped": 0.5}),
        ("showo", "direct", {}, {}),
        ("showo", "parm", {"candidates": 4, "judge_steps": 4}, {"stopped": 0.5}),
        ("llamagen", "direct", {}, {}),
        # So many leave no room for guesses of codes, whose luck nobody foresees.
        ("llamagen", "orm", {"candidates": 17}, {}),
        ("qwen", "direct", {}, {}),
        ("qwen", "t2g", {"thought_tokens": 6}, {}),
        ("qwen", "orm", {"candidates": 4}, {}),
    ],
)
def test_a_method_costs_what_is_said(folders: Path, model: str, method: str, fields: dict, outcome: dict) -> None:
    painter = reverie.load(folders / model, device="cpu")
    painter.rows = 1
    plan = make_plan(None if method in METHODS else method, **{**METHODS.get(method, {}), **fields})
    judge = scripted(folders / "janus") if plan.judges else None
    told = cost(Rig.of(painter, plan, PROMPT, judge), plan, Outcome(**outcome))
    said, found = total(told.usual), measured(painter, plan, judge)
    for name in TOKENS:
        assert getattr(said, name) == pytest.approx(getattr(found, name), rel=0.1, abs=2), name
    here = total([line for line in told.usual if line.part != "think"])
    assert here.flop == pytest.approx(found.flop, rel=0.1)
    assert here.moved == pytest.approx(found.moved, rel=0.15)
    assert told.least.flop <= said.flop * 1.001
    assert said.flop <= told.most.flop * 1.001
    assert (told.direct.flop == pytest.approx(said.flop)) == (method == "direct")


def test_a_context_costs_what_is_said(saved: Path) -> None:  # noqa: F811
    """Pictures and words before the prompt, read by a VLM whose vectors are painted from."""
    painter, plan = reverie.load(saved, device="cpu"), make_plan("direct")
    told = cost(Rig.of(painter, plan, PROMPT), plan)
    given = [Inputs.of(None, (Image.new("RGB", (96, 96), "gray"), "a thing"))]
    with Meter() as meter:
        events = list(painter.run(plan, [PROMPT], [0], inputs=given, pieces=1))
    work = next(event for event in events if isinstance(event, Spent)).work
    said = total(told.usual)
    assert [getattr(said, name) for name in TOKENS] == [work[name][0] for name in TOKENS]
    assert said.decoded - told.direct.decoded == 6, "so long is an answer of this model"
    assert said.vision_encodes == 1
    assert said.flop == pytest.approx(meter.flop, rel=0.1)
    assert said.moved == pytest.approx(meter.moved, rel=0.15)
    assert said.flop > told.direct.flop


def test_the_meter_counts_products_and_their_bytes() -> None:
    layer, x = nn.Linear(8, 4, bias=False), torch.ones(3, 8)
    for frozen in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        with frozen(), Meter() as meter:
            layer(x)
        assert meter.flop == 2 * 3 * 8 * 4
        assert meter.moved == 4 * (3 * 8 + 8 * 4 + 3 * 4)
    q = torch.ones(1, 2, 5, 8)
    with torch.no_grad(), Meter() as meter:
        nn.functional.scaled_dot_product_attention(q, q, q)
    assert meter.flop == 2 * 2 * (2 * 5 * 5 * 8)


def spent(work: Callable[[], Any]) -> int:
    with Meter() as meter:
        work()
    return meter.flop


def test_a_step_of_dpo_is_four_times_reading_its_pairs() -> None:
    """Forward and twice as much back, and once by the frozen copy."""
    torch.manual_seed(0)
    task = parallel_run.dpo()
    batch = task.batch(0)

    def read() -> None:
        with torch.no_grad():
            task.loss(batch)

    once = spent(read) / 2
    assert spent(lambda: task.loss(batch)[0].backward()) == pytest.approx(4 * once, rel=0.1)


@pytest.mark.parametrize("dual", [False, True])
def test_a_step_of_grpo_is_its_roll_out_and_what_is_learnt_from_it(dual: bool) -> None:
    """Thoughts and pictures are written once, and scored: forward, again on the way back, twice as much back, and once
    by the reference. Dual-GRPO: the same of both networks."""
    torch.manual_seed(0)
    task = parallel_run.grpo(dual)
    turn = task.batch(0)

    def explore() -> None:
        with torch.no_grad():
            task.turn = turn
            task.explore(turn.prompts, turn.seeds)

    written = spent(explore)
    learning: list[Any] = []
    forward = spent(lambda: learning.append(task.loss(turn)[0])) - written  # policy and reference, both once
    back = spent(lambda: learning[0].backward())
    assert back == pytest.approx(3 * forward / 2, rel=0.1)
    whole = spent(lambda: task.loss(task.batch(1))[0].backward())
    assert whole == pytest.approx(written + 5 * forward / 2, rel=0.15)


def test_the_command_tells_people_and_programs(folders: Path, capsys: Any) -> None:
    argv = ["plan", "--method", "parm", "--model", str(folders / "showo"), "-n", "4", "--device", "cpu",
            "--judge", str(folders / "janus"), "--judge-steps", "2"]  # fmt: skip
    assert main(argv) == 0
    said = capsys.readouterr().out
    assert "times as much as painting the prompt as it stands" in said
    assert "By what is seen and said on the way it is between" in said
    assert main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {part["part"] for part in found["parts"]} == {"paint", "show", "judge"}
    assert sum(part["flop"] for part in found["parts"]) == found["total"]["flop"] > found["direct"]["flop"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "give one of them"),
        (["recipes/atelier/tokenizer.yaml", "--method", "parm"], "give one of them"),
        (["--method", "twigg"], "did you mean twig?"),
        (["--method", "twig-grpo"], "plan its recipe"),
        (["--method", "parm", "--stopped", "1"], "from 0 to below 1"),
        (["--method", "orm", "-n", "0"], "between 1 and 1024"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], says: str, capsys: Any) -> None:
    assert main(["plan", *words]) == 2
    assert says in capsys.readouterr().err
