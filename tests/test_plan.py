"""The planner's memory is that of a real run, and what it chooses fits."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from reverie.cli import main
from reverie.commands.plan import lines, size_of
from reverie.training.look import look
from reverie.training.loop import train
from reverie.training.memory import alive, bytes_of, most_added
from reverie.training.plan import ROWS, SPARE, Survey, choose, survey
from reverie.training.recipes import TASKS, Elsewhere, read

ROOT = Path(__file__).resolve().parent.parent
CPU = torch.device("cpu")
TOKENIZER = ("recipes/atelier/tokenizer.yaml", ["model.batch=8", "model.base=32", "model.latent=32", "model.codes=64"])
CLIP = (
    "recipes/atelier/clip.yaml",
    ["mix.batch=16", "model.vision_width=64", "model.text_width=64", "model.vision_layers=3", "loop.muon_lr=null"],
)


def recipe(of: tuple[str, list[str]]) -> dict:
    return read(ROOT / of[0], [*of[1], "loop.workers=0"])


def real(made: dict, out: Path) -> int:
    """The most bytes that three steps of the real loop have."""
    before = alive(CPU)
    found = look(made)
    loop = replace(found.loop, steps=3, minutes=None, save_every=10**6, sample_every=0)
    held = sum(size for place, size in alive(CPU).items() if place not in before)
    return held + most_added(lambda: train(found.task, loop, out), CPU)


@pytest.fixture(scope="module")
def surveys() -> dict[str, Survey]:
    return {"tokenizer": survey(recipe(TOKENIZER), CPU), "clip": survey(recipe(CLIP), CPU)}


@pytest.mark.parametrize(("name", "of"), [("tokenizer", TOKENIZER), ("clip", CLIP)])
def test_memory_is_that_of_a_run(surveys: dict[str, Survey], name: str, of: tuple, tmp_path: Path) -> None:
    """As it is, and cut as the planner proposes for less memory."""
    whole = choose(surveys[name], 1 << 40)
    assert whole.chosen is whole.choices[0]
    assert whole.overrides == {}
    assert whole.chosen.total == pytest.approx(real(recipe(of), tmp_path / "whole"), rel=0.15)
    assert whole.chosen.flop > 0 < whole.chosen.seconds
    tight = choose(surveys[name], int(whole.chosen.total * 0.9 / SPARE))
    assert tight.chosen is not None
    assert tight.overrides["loop.accumulate"] == tight.chosen.parts > 1
    cut = read(ROOT / of[0], [*of[1], "loop.workers=0", *(f"{k}={v}" for k, v in tight.overrides.items())])
    found = real(cut, tmp_path / "cut")
    assert tight.chosen.total == pytest.approx(found, rel=0.15)
    assert found < whole.chosen.total
    nothing = choose(surveys[name], 1 << 10)
    assert nothing.chosen is None
    assert "does not fit" in lines(nothing, 1 << 10, 1)[0]


def test_the_line_through_small_batches_foretells_the_whole(surveys: dict[str, Survey]) -> None:
    way = surveys["tokenizer"].ways[False]
    assert [work.rows for work in way.works] == [0.25, 0.5, 1.0]
    guess = replace(way, works=way.works[:2]).at(1.0)
    assert guess.first == pytest.approx(way.at(1.0).first, rel=0.15)
    assert guess.flop == pytest.approx(way.at(1.0).flop, rel=0.05)


def test_sharding_divides_what_belongs_to_blocks(surveys: dict[str, Survey]) -> None:
    found = choose(surveys["clip"], 1 << 40, devices=4)
    alone, shared = (next(c for c in found.choices if c.shard == s and c.parts == 1) for s in (False, True))
    for name in ("gradients", "optimizer", "average"):
        assert alone.memory[name] / 4 < shared.memory[name] < 0.8 * alone.memory[name]
    assert shared.memory["weights that do not"] == alone.memory["weights that do not"]


def test_views_count_once_and_peaks_are_seen() -> None:
    x = torch.zeros(1000)
    assert bytes_of(x, x[:10], x.view(10, 100)) == 4000
    before = alive(CPU)
    y = torch.zeros(500)
    circle: list = [torch.zeros(700)]
    circle.append(circle)
    lost = circle[0].untyped_storage().data_ptr()
    assert lost in alive(CPU)
    del circle
    assert lost not in alive(CPU)  # nobody has it any more, and who is given its place next is new
    with FakeTensorMode():  # what torch.compile traces with has no memory
        traced = torch.zeros(300)
    assert traced.shape == (300,)
    assert [size for place, size in alive(CPU).items() if place not in before] == [2000]
    assert most_added(lambda: (y + 1).sum(), CPU) in range(2000, 2200)


def test_only_tasks_say_where_their_rows_are() -> None:
    assert ROWS.keys() <= TASKS.keys() - {"dpo-iterative"}


def test_recipes_say_only_what_their_tasks_know() -> None:
    recipes = [path for path in (ROOT / "recipes").rglob("*.yaml") if path.name != "tables.yaml"]
    tasks = [(read(path), TASKS[read(path)["task"]]) for path in recipes]
    elsewhere = [(given, task) for given, task in tasks if isinstance(task, Elsewhere)]
    assert len(elsewhere) > 20
    for given, task in elsewhere:
        task.check(given | dict.fromkeys(task.needs.split(), "given"))


def test_the_command_tells_and_train_follows(tmp_path: Path, capsys) -> None:
    argv = [str(ROOT / TOKENIZER[0]), *TOKENIZER[1], "model.batch=2", f"out={tmp_path / 'out'}", "loop.workers=0"]
    argv += ["loop.precision=bf16"]  # `auto` takes as much memory as the processor makes it
    assert main(["plan", *argv, "--fit", "11MiB", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["overrides"] == {"model.batch": 1, "loop.accumulate": 2}
    assert not (tmp_path / "out").exists()
    assert main(["train", *argv, "loop.steps=1", "--fit", "11MiB"]) == 0
    assert "Run it with: model.batch=1 loop.accumulate=2" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "recipe.json").read_text())["loop"]["accumulate"] == 2


def test_sizes() -> None:
    assert size_of("24GB") == 24 * 10**9
    assert size_of("1.5 GiB") == 3 << 29
    assert size_of("H100") == 80 * 10**9
    with pytest.raises(ValueError, match="is no size of memory"):
        size_of("much")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["nowhere.yaml"], "there is no recipe"),
        ([str(ROOT / TOKENIZER[0]), "--fit", "7"], "no size of memory"),
        ([str(ROOT / TOKENIZER[0]), "--gpus", "0"], "at least 1"),
        ([str(ROOT / "recipes/parm/dpo-iterative.yaml"), "model=x"], "one round"),
    ],
)
def test_what_cannot_be_is_refused(words: list[str], says: str, capsys) -> None:
    assert main(["plan", *words]) == 2
    assert says in capsys.readouterr().err
