"""Room in memory: what is free, how many fit, what is refused before it is loaded; and that chunks change nothing."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from showo_toy import toy_showo

import reverie
from reverie import room
from reverie.canvas import Conditions
from reverie.cli import main
from reverie.events import Chosen
from reverie.generators.showo import ShowoPainter
from reverie.judges.mixed import FunctionJudge
from reverie.models.registry import entries, resolve
from reverie.models.showo_checkpoint import save_showo

GIB = 1 << 30


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_showo(*toy_showo(), tmp_path / "showo")
    path = tmp_path / "showo" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"reverie": {"steps": 4, "guidance": 1.5}}))
    return tmp_path / "showo"


def having(monkeypatch, left: int | None) -> None:
    monkeypatch.setattr(room, "free", lambda device="cpu": left)


def test_this_machine_says_what_it_has():
    left = room.free()
    if left is None:
        pytest.skip("this system does not say how much memory is free")
    assert 0 < left < 1 << 45
    assert room.free("xpu") is None


@pytest.mark.parametrize(("left", "count"), [(None, 40), (0, 1), (100, 1), (200, 1), (2000, 10), (10**9, 40)])
def test_as_many_as_fit_and_always_one(monkeypatch, left, count):
    having(monkeypatch, left)
    assert room.at_once(100, "cpu", 40) == count


def test_rows_are_counted_by_what_a_painter_holds(monkeypatch):
    model, words = toy_showo()
    generator = ShowoPainter(model, words, guidance=2.0, steps=4)
    guided, plain = (generator.row_bytes(Conditions(("a red cat",), weight)) for weight in (2.0, 1.0))
    assert guided > plain > 0
    having(monkeypatch, 6 * guided)
    assert room.rows_at_once(generator, Conditions(("a red cat",), 2.0)) == 3
    assert room.rows_at_once(object(), Conditions(("a",))) == room.USUAL


def test_any_room_chooses_the_same(folder, monkeypatch):
    def redness(prompts, pictures):
        return [sum(picture.resize((1, 1)).getpixel((0, 0))[:1]) / 255 for picture in pictures]

    found = {}
    for left in (10 * GIB, 200_000, 0):
        having(monkeypatch, 10 * GIB)
        painter = reverie.load(folder, device="cpu")
        having(monkeypatch, left)
        judge = FunctionJudge(redness, "red", threshold=0.5)
        events = list(painter.stream("a red cat", choose="parm", candidates=20, judge=judge, judge_steps=4, seed=3))
        chosen = next(event for event in events if isinstance(event, Chosen))
        found[left] = (chosen.candidate, events[-2].picture.tobytes())
    assert len(set(found.values())) == 1


def test_what_cannot_fit_is_refused_before_it_is_loaded(folder, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    having(monkeypatch, 100_000)
    assert main(["generate", "a red cat", "--model", str(folder), "-q"]) == 2
    said = capsys.readouterr().err
    assert "KiB" in said or "MiB" in said
    assert "float32" in said
    need = room.needed(resolve(folder), "float32", "cpu")
    having(monkeypatch, need - 1)
    with pytest.raises(ValueError, match="--dtype bfloat16"):
        reverie.load(folder, device="cpu")


def test_a_judge_of_seven_billion(monkeypatch):
    """30 GiB in float32, 15 in bfloat16: on 24 it comes in the smaller type beside a Show-o; on 12 it is refused."""
    source = resolve("llava-onevision-7b", "judge")
    assert room.needed(source, "float32", "cpu") / GIB == pytest.approx(29.9, abs=0.1)
    assert room.needed(source, "bfloat16", "cpu") / GIB == pytest.approx(15.0, abs=0.1)
    painter = 2 * entries()["show-o"].count()
    having(monkeypatch, 24 * GIB - painter)
    assert room.judge_dtype(source, "cpu") == "bfloat16"
    having(monkeypatch, 40 * GIB)
    assert room.judge_dtype(source, "cpu") is None
    having(monkeypatch, 12 * GIB)
    with pytest.raises(ValueError, match=r"15\.0 GiB in bfloat16, and 12\.0 GiB are free"):
        room.judge_dtype(source, "cpu")
    unknown = replace(source, id="nobody/knows", name="nobody/knows")
    assert room.judge_dtype(unknown, "cpu") is None
