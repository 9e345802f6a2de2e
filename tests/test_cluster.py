"""Work on a local Ray is what it is without: row by row, whoever is killed."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path

import pytest
from cluster_toys import Mortal, Picky, Square, hunt
from showo_toy import toy_showo
from test_atelier_grpo import needs_inspector
from test_harness_kills import lines, same
from tiny import tiny_folder
from toy_run import NAME, Dabs, Glance, run, write_prompts
from vlm_toy import picture, save_toy

from reverie.benchmarks.harness import evaluate
from reverie.cli import main
from reverie.cluster.pool import Cluster, Pool, connect, library
from reverie.models.showo_checkpoint import save_showo
from reverie.training import recipes

try:
    ray = library()
except ValueError as error:
    pytest.skip(str(error), allow_module_level=True)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    """One for all tests here, since it takes seconds to start."""
    connect(Cluster(actors=4))
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_prompts(folder)
    return folder


def test_pieces_come_once_each_and_in_order_if_wanted():
    with Pool(Cluster(actors=2), Square()) as pool:
        assert sorted(pool.each(range(40))) == [(n, n * n) for n in range(40)]
        assert list(pool.each(range(9, 40), ordered=True)) == [(n, (n + 9) ** 2) for n in range(31)]
        assert list(pool.each([])) == []
        assert pool.fill(60) == len(set(pool.pids())) == 2
        with pytest.raises(ValueError, match=r"^-1 is below 0$"):
            list(pool.each([1, -1]))


def test_results_wait_for_their_reader():
    """No more is begun than two pieces an actor and what is read."""
    with Pool(Cluster(actors=2, ahead=2), Square()) as pool:
        taken = []

        class Watched(list):
            def __getitem__(self, number):
                taken.append(number)
                return list.__getitem__(self, number)

        results = pool.each(Watched(range(50)))
        for count in range(1, 11):
            next(results)
            assert len(taken) <= count + 2 * 2


@pytest.mark.parametrize(("actors", "painter"), [(2, Mortal(os.getpid())), (4, Dabs()), (2, Picky())])
def test_rows_are_those_of_a_run_without_a_cluster(tmp_path, data, actors, painter):
    """Painted and judged in actors; the first ones are killed again and again while they paint."""

    def go(out, on):
        return evaluate(NAME, painter, out, data=data, limit=40, images_per_prompt=2, batch=4, judge=Glance(), on=on)

    scores = go(tmp_path / "spread", Cluster(actors=actors))
    go(tmp_path / "whole", None)
    same(tmp_path / "spread", tmp_path / "whole")
    assert scores["images_scored"] == (78 if isinstance(painter, Picky) else 80)
    keys = [(row["id"], row["index"]) for row in lines(tmp_path / "spread", "rows")]
    assert len(keys) == len(set(keys)) == 80


def test_what_was_painted_before_is_not_painted_again(tmp_path, data):
    out = tmp_path / "out"
    run(data, out, 40)
    kept = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    (out / "rows.jsonl").write_text("".join(kept[:10]))
    for row in kept[-8:]:
        (out / json.loads(row)["file"]).unlink()
    again = run(data, out, 40, on=Cluster(actors=2))
    assert again["images_scored"] == 80
    assert len(lines(out, "painted")) == 80 + 8
    assert sorted((out / "rows.jsonl").read_text().splitlines(keepends=True)) == sorted(kept)


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@needs_inspector
@pytest.mark.parametrize(("actors", "every", "most"), [(2, 0.2, 1), (4, 1.5, 6)])
def test_data_is_that_of_a_build_without_a_cluster(tmp_path, capsys, actors, every, most):
    """Actors are killed on the way: one at once, or one after another as long as it lasts."""
    save_showo(*toy_showo(), tmp_path / "tiny")
    argv = ["data", "build", "ranking", "--model", str(tmp_path / "tiny"), "--prompts", "atelier:8", "--per-prompt",
            "2", "--batch", "2", "--device", "cpu", "-q"]  # fmt: skip
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    expected = capsys.readouterr().out
    killed: list[int] = []
    stop = threading.Event()
    hunter = threading.Thread(target=hunt, args=(stop, every, killed, most))
    hunter.start()
    try:
        assert main([*argv, "--out", str(tmp_path / "spread"), "--on", "ray", "--actors", str(actors)]) == 0
    finally:
        stop.set()
        hunter.join()
    assert 1 <= len(killed) <= most
    assert capsys.readouterr().out == expected
    assert {name: data for name, data in files(tmp_path / "spread").items() if not name.endswith(".partial")} == files(
        tmp_path / "whole"
    )


def test_features_are_those_of_a_build_without_a_cluster(tmp_path, capsys):
    save_toy(tmp_path / "vlm")
    (tmp_path / "pictures").mkdir()
    for number in range(7):
        picture(number).save(tmp_path / "pictures" / f"{number}.png")
    (tmp_path / "pictures" / "9.png").write_bytes(b"no picture")
    argv = ["data", "build", "features", "--model", str(tmp_path / "vlm"), "--images", str(tmp_path / "pictures"),
            "--tokens", "4", "--batch", "2", "--device", "cpu", "-q"]  # fmt: skip
    assert main([*argv, "--out", str(tmp_path / "whole")]) == 0
    assert main([*argv, "--out", str(tmp_path / "spread"), "--on", "ray", "--actors", "2"]) == 0
    assert capsys.readouterr().err.count("1 pictures could not be opened; the first is 9.png") == 2
    assert files(tmp_path / "spread") == files(tmp_path / "whole")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--actors", "2"], "give --on, too"),
        (["--on", "ray", "--actors", "0"], "at least 1"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, capsys, words, says):
    assert main(["evaluate", "atelier-geneval", "--out", str(tmp_path / "out"), *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def reinforced(folder: Path, out: Path, *more: str) -> list[dict]:
    root = Path(__file__).resolve().parent.parent
    words = [f"from={folder}", f"out={out}", "tree.images=2", "tree.limit=5", "grpo.prompts=2", "loop.steps=3",
             "loop.save_every=3", "tree.guidance=1.0", *more]  # fmt: skip
    recipes.run(root / "recipes" / "atelier" / "reinforce.yaml", words)
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@needs_inspector
def test_reinforcement_is_that_without_a_cluster_and_age_is_bounded(tmp_path):
    folder = tiny_folder(tmp_path / "tiny")
    alone = reinforced(folder, tmp_path / "alone")
    spread = reinforced(folder, tmp_path / "spread", "rollouts.actors=2")
    assert all(row["staleness"] == 0 for row in spread)
    for ours, theirs in zip(alone, spread, strict=True):
        assert theirs["loss"] == pytest.approx(ours["loss"], abs=1e-5)
        assert theirs["reward/faithful"] == pytest.approx(ours["reward/faithful"], abs=1e-5)
    ahead = reinforced(folder, tmp_path / "ahead", "rollouts.actors=1", "rollouts.ahead=1")
    assert [row["staleness"] for row in ahead] == [0, 1, 1]


@needs_inspector
def test_a_file_of_prompts_is_painted_as_without_a_cluster(tmp_path, capsys):
    folder = tiny_folder(tmp_path / "tiny")
    (tmp_path / "prompts.txt").write_text("a red cat\ntwo dogs\n\na red cat\n")
    argv = ["generate", "--prompts", str(tmp_path / "prompts.txt"), "--model", str(folder), "-n", "2", "--batch", "2",
            "--seed", "3", "-q", "--out"]  # fmt: skip
    assert main([*argv, str(tmp_path / "whole")]) == 0
    names = [Path(line).name for line in capsys.readouterr().out.split()]
    assert names[:3] == ["1-a-red-cat-1.png", "1-a-red-cat-2.png", "2-two-dogs-1.png"]
    (tmp_path / "spread").mkdir()
    for name in ("run.json", names[3]):
        (tmp_path / "spread" / name).write_bytes((tmp_path / "whole" / name).read_bytes())
    assert main([*argv, str(tmp_path / "spread"), "--on", "ray", "--actors", "2"]) == 0
    assert [Path(line).name for line in capsys.readouterr().out.split()] == names
    assert files(tmp_path / "spread") == files(tmp_path / "whole")
    assert len(set(files(tmp_path / "whole").values())) == 7
    assert main(["generate", "a cat", "--on", "ray"]) == 2
    assert main(["generate", "a cat", *argv[1:], str(tmp_path / "whole")]) == 2
    assert main([*argv[:-1], "--seed", "4", "--out", str(tmp_path / "whole")]) == 2
    assert capsys.readouterr().err.count("\n") == 3
