"""Thinking before painting from the command line: data, fine-tuning, Dual-GRPO, painting, scores; on a tiny model."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import torch
from diffusion_toy import qwen_image, save_thinker, stable_diffusion_3

from reverie import load
from reverie.atelier.draw import draw
from reverie.atelier.inspector import Inspector
from reverie.atelier.sample import compose
from reverie.benchmarks.registry import load as load_benchmark
from reverie.cli import main
from reverie.models.diffusion_adapters import add_adapters
from reverie.models.diffusion_checkpoint import load_pipeline
from reverie.models.registry import entries, resolve
from reverie.training import picture_rewards, think_report
from reverie.training.questions import Asks, questions

RECIPES = Path(__file__).parent.parent / "recipes" / "t2g"
WEIGHTS = entries()["atelier-inspector"].folder
needs_inspector = pytest.mark.skipif(WEIGHTS is None or not WEIGHTS.is_dir(), reason="no inspector weights installed")
SMALL = ["loop.precision=no", "loop.log_every=1", "loop.save_every=1"]
TREE = [
    "tree.thoughts=2",
    "tree.images=2",
    "tree.limit=6",
    "grpo.prompts=2",
    "flow.steps=3",
    "flow.high=2",
    "flow.size=1",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_thinker(qwen_image(), tmp_path_factory.mktemp("models") / "toy")


def train(recipe: str, *overrides: str) -> int:
    return main(["train", str(RECIPES / recipe), *overrides])


@needs_inspector
def test_from_data_to_pictures(model: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "build", "rewrites", "--prompts", "atelier:12", "--out", "rewrites", "-q"]) == 0
    assert "rewrites: 12" in capsys.readouterr().out
    common = [f"model={model}", *SMALL]
    assert train("sft.yaml", *common, "data=rewrites", "out=sft", "loop.steps=2", "mix.batch=2") == 0
    space = json.loads(Path("sft/adapters/encoder_space.json").read_text())
    assert 0.5 < space["cosine"] <= 1
    prompts = ["adapters=[sft/adapters]", "data.prompts=atelier:6"]
    assert train("dual-grpo.yaml", *common, *prompts, *TREE, "out=dual", "loop.steps=1") == 0
    row = json.loads(Path("dual/log.jsonl").read_text().splitlines()[-1])
    assert {"reward/faithful", "reward/exact", "reward/sure", "reward/readable"} <= set(row)
    assert train("dual-grpo.yaml", *common, *prompts, *TREE, "out=dual", "loop.steps=2") == 0  # goes on
    steps = [json.loads(line)["step"] for line in Path("dual/log.jsonl").read_text().splitlines()]
    assert steps == [1, 2]

    # What came out is a model: the base with both adapters, from anywhere.
    capsys.readouterr()
    monkeypatch.chdir(model.parent)
    source = resolve(tmp_path / "dual" / "adapters")
    assert [folder.parent.name for folder in source.adapters] == ["sft", "dual"]
    painter = load(tmp_path / "dual" / "adapters", device="cpu")
    plain = load_pipeline(model)
    for folder in ("sft", "dual"):
        add_adapters(plain, tmp_path / folder / "adapters")
    for name in ("text_encoder", "transformer"):
        pairs = zip(getattr(painter.model, name).parameters(), getattr(plain, name).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    assert painter.about["fingerprint"] != load(model, device="cpu").about["fingerprint"]
    result = painter.generate("the animal that gives us wool", think="before", seed=1)
    assert result.image.size == (32, 32)
    out = tmp_path / "picture.png"
    assert (
        main(["generate", "a cat", "--model", str(tmp_path / "dual" / "adapters"), "--out", str(out), "--quiet"]) == 0
    )
    assert main(["replay", str(out)]) == 0


@needs_inspector
@pytest.mark.parametrize(
    "overrides",
    [
        ["flow.loss=forward", "flow.follow=0.5", "painter.beta=0.1"],
        ["flow.window=sliding", "flow.size=1", "painter.beta=0.1", "painter.kl=velocity", "painter.guard=true"],
        ["flow.guidance=1", "flow.noise=cps", "painter.rank=0", "flow.same_start=true", "flow.storage=bfloat16"],
    ],
    ids=["nft", "mix-guard", "full-cps"],
)
def test_flow_grpo_in_its_forms(overrides: list[str], model: Path, tmp_path: Path) -> None:
    common = [f"model={model}", *SMALL, "data.prompts=atelier:6", f"out={tmp_path}", "loop.steps=2", "tree.images=2"]
    assert train("flow-grpo.yaml", *common, "grpo.prompts=2", "flow.steps=3", *overrides) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert row.get("painter/image/ratio_gap", 0.0) == 0
    if "painter.rank=0" in overrides:
        assert (tmp_path / "pipeline" / "model_index.json").is_file()
        assert resolve(tmp_path / "pipeline").thinker == "atelier"
    else:
        assert (tmp_path / "adapters" / "transformer" / "adapter_model.safetensors").stat().st_size < 200_000


@needs_inspector
@pytest.mark.parametrize("overrides", [[], ["tree.learn=staged", "tree.switch=1"]], ids=["balanced", "staged"])
def test_dual_grpo_whose_painter_learns_on_the_forward_process(
    overrides: list[str], model: Path, tmp_path: Path
) -> None:
    common = [f"model={model}", *SMALL, "adapters=[]", "data.prompts=atelier:6", f"out={tmp_path}", "loop.steps=2"]
    assert train("dual-nft.yaml", *common, *TREE[:5], "grpo.updates=1", *overrides) == 0
    first, second = (json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines())
    assert "painter/good" in second
    assert ("painter/good" in first) == ("thinker/text/kl" in second) == (not overrides)
    assert {part.name for part in (tmp_path / "adapters").iterdir() if part.is_dir()} == {"text_encoder", "transformer"}


def test_a_thinker_learns_from_words_alone(model: Path, tmp_path: Path) -> None:
    common = [f"model={model}", *SMALL, "adapters=[]", "data={prompts: 'atelier:6', mixed: 0.5}", f"out={tmp_path}"]
    words = ["tree.learn=thinker", "tree.images=0", "thinker.rewards={near: 1.0, readable: 0.5}", "loop.steps=2"]
    assert train("dual-grpo.yaml", *common, *TREE, *words) == 0
    row = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[0])
    assert {"reward/told", "reward/near", "reward/readable"} <= set(row)
    assert "reward/exact" not in row
    assert [part.name for part in (tmp_path / "adapters").iterdir() if part.is_dir()] == ["text_encoder"]


@needs_inspector
def test_other_families_paint_and_learn_without_thoughts(tmp_path: Path) -> None:
    model = save_thinker(stable_diffusion_3(), tmp_path / "sd3")
    common = [f"model={model}", *SMALL, "data.prompts=atelier:4", f"out={tmp_path / 'out'}", "loop.steps=1"]
    assert train("flow-grpo.yaml", *common, "tree.images=2", "grpo.prompts=2", "flow.steps=3") == 0
    row = json.loads((tmp_path / "out" / "log.jsonl").read_text().splitlines()[0])
    assert row["painter/image/ratio_gap"] == 0


@needs_inspector
def test_rewards_know_true_pictures_and_edits_from_false_ones() -> None:
    inspector = Inspector.load(WEIGHTS)
    rng = random.Random(0)
    asked = questions(Asks("atelier:16", 0.7), 0)
    table = {one.key: one for one in asked}
    right = [draw(compose(one.truth, rng)) for one in asked]
    rewards = picture_rewards.atelier_rewards(inspector, table)
    for name in ("faithful", "exact"):
        true, false = (rewards[name](list(table), pictures) for pictures in (right, right[1:] + right[:1]))
        assert sum(true) / 16 > 0.85 > 0.6 > sum(false) / 16, name
    edits = questions(Asks("atelier-edits:16"), 0)
    table = {one.key: one for one in edits}
    rewards = picture_rewards.atelier_edit_rewards(inspector, table)
    done, left = [draw(one.truth[1]) for one in edits], [draw(one.truth[0]) for one in edits]
    assert sum(rewards["reasoning"](list(table), done)) > sum(rewards["reasoning"](list(table), left)) + 3
    assert min(rewards["consistency"](list(table), done)) > 0.9
    # Others' pictures keep nothing.
    assert sum(rewards["consistency"](list(table), done[1:] + done[:1])) < 10
    same = picture_rewards.similarity(table)
    assert same(list(table), left) == [1.0] * 16


@needs_inspector
def test_scores_of_whole_benchmarks(model: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "think.json"
    think_report.main(
        [str(model), "--ways", "raw", "think", "oracle", "--limit", "6", "--tokens", "6", "--rows", "4",
         "--out", str(out), "--sheet", str(tmp_path / "sheet")]
    )  # fmt: skip
    found = json.loads(out.read_text())
    for way in think_report.WAYS:
        told = found[f"atelier-wise/{way}"]
        assert len(told["rows"]) == 6
        assert 0 <= told["scores"]["all"]["mean"] <= 1
        assert (tmp_path / f"sheet-atelier-wise-{way}.png").is_file()
    assert [row["text"] for row in found["atelier-wise/oracle"]["rows"]] != [
        row["text"] for row in found["atelier-wise/raw"]["rows"]
    ]
    assert "atelier-wise oracle" in capsys.readouterr().out


def test_rewrites_are_scored_in_words(model: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "words.json"
    think_report.main([str(model), "--words", "--limit", "5", "--tokens", "6", "--out", str(out)])
    found = json.loads(out.read_text())["atelier-wise/words"]
    assert [row["score"] for row in found["rows"]] == [0.0] * 5
    (sample, *_) = [case.sample for case in think_report.cases(load_benchmark("atelier-wise"), None, 1)]
    case = think_report.Case(sample, 0, (sample.record["rewritten"], ()))
    assert think_report.in_words([case])[0]["score"] == 1.0
    case.asked = ("a sheep beside a boat", ())
    assert think_report.in_words([case])[0]["score"] == 0.0
    assert "in words" in capsys.readouterr().out


@needs_inspector
def test_pictures_of_the_report_are_those_of_the_painter(model: Path) -> None:
    import numpy as np

    from reverie.benchmarks.protocol import image_seed
    from reverie.canvas import Conditions
    from reverie.generators.diffusion import DiffusionPainter

    painter = DiffusionPainter(load_pipeline(model), steps=3, guidance=2.0, height=32, width=32)
    found = list(think_report.cases(load_benchmark("atelier-wise"), 3, 1))
    pictures = think_report.paint(painter, found, 3)
    seeds = [image_seed(0, case.sample.prompt, 0) for case in found]
    canvas = painter.start(Conditions(tuple(case.sample.prompt for case in found)), seeds)
    for mine, theirs in zip(pictures, painter.preview(painter.advance(canvas)), strict=True):
        assert np.abs(np.asarray(mine, int) - theirs.astype(int)).max() <= 2


@pytest.mark.parametrize(
    ("recipe", "overrides", "said"),
    [
        ("sft.yaml", ["data=nowhere"], "holds no rewrites"),
        ("sft.yaml", ["model=atelier-janus"], "no diffusion model"),
        ("sft.yaml", ["mix.keep=-1"], "keep=-1"),
        ("sft.yaml", ["wording=loud"], "must be one of"),
        ("sft.yaml", ["adapters=[nowhere]"], "holds no adapters"),
        ("sft.yaml", ["dtype=int8"], "dtype='int8'"),
        ("sft.yaml", ["lora.inside=nothing"], "no linear layer"),
        ("dual-grpo.yaml", ["data.prompts="], "data.prompts"),
        ("dual-grpo.yaml", ["data.prompts=atelier:some"], "how many"),
        ("dual-grpo.yaml", ["data.prompts=nowhere.txt"], "no prompts at"),
        ("dual-grpo.yaml", ["painter.rewards={beauty: 1}"], "no reward 'beauty'"),
        ("dual-grpo.yaml", ["thinker.rewards={}"], "at least one reward"),
        ("dual-grpo.yaml", ["tree.images=0", "tree.learn=thinker"], "no reward 'exact'; there are told, near"),
        ("dual-grpo.yaml", ["data.composed=2"], "from 0 to 1"),
        ("dual-grpo.yaml", ["judges={aes: {of: me}}"], "give a judge"),
        ("dual-grpo.yaml", ["judges={aes: no-such-judge}"], "no-such-judge"),
        ("dual-grpo.yaml", ["tree.learn=staged"], "switch=0"),
        ("dual-grpo.yaml", ["painter.kl=l2"], "kl='l2'"),
        ("dual-grpo.yaml", ["flow.size=9"], "window of 9 steps"),
        ("dual-grpo.yaml", ["loop.workers=2"], "set loop.workers to 0"),
        ("dual-grpo.yaml", ["tree.branches=2"], "no key 'branches'"),
    ],
)
def test_bad_recipes_are_refused_in_a_sentence(
    recipe: str, overrides: list[str], said: str, model: Path, tmp_path: Path, capsys
) -> None:
    (tmp_path / "one.jsonl").write_text(
        '{"id": "1", "prompt": "wool", "cot": "A sheep.", "refined_prompt": "a sheep"}\n'
    )
    given = [f"model={model}", f"out={tmp_path / 'out'}", *SMALL]
    given += [f"data={tmp_path / 'one.jsonl'}"] if recipe == "sft.yaml" else ["adapters=[]", "data.prompts=atelier:4"]
    assert train(recipe, *given, *overrides) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out" / "log.jsonl").exists()


def test_an_encoder_that_cannot_write_is_refused(tmp_path: Path, capsys) -> None:
    model = save_thinker(stable_diffusion_3(), tmp_path / "sd3")
    assert (
        train("dual-grpo.yaml", f"model={model}", "adapters=[]", "data.prompts=atelier:4", f"out={tmp_path / 'o'}") == 2
    )
    assert "cannot write" in capsys.readouterr().err


def test_the_shipped_thinker_reasons_and_rewrites() -> None:
    folder, base = entries()["atelier-qwen-think"].folder, entries()["atelier-qwen"].folder
    if folder is None or base is None or not (folder / "adapters.json").is_file() or not base.is_dir():
        pytest.skip("the weights of atelier-qwen-think are not in this installation")
    source = resolve("atelier-qwen-think")
    assert source.count() == resolve("atelier-qwen").count()
    assert max(file.stat().st_size for file in folder.rglob("*.safetensors")) < 1.5 * 2**20
    pipeline = load_pipeline(source.folder)
    add_adapters(pipeline, folder)
    told = think_report.words(pipeline, source.thinker, 60, 56, 60)
    assert told["scores"]["all"]["mean"] > 0.25  # of held-out wordings; the base rewrites none


def test_adapters_of_another_model_are_refused(tmp_path: Path) -> None:
    (tmp_path / "adapters.json").write_text("[]")
    with pytest.raises(ValueError, match="must name the `base`"):
        resolve(tmp_path)
    (tmp_path / "adapters.json").write_text('{"base": "atelier-qwen"}')
    with pytest.raises(ValueError, match="holds no adapters"):
        resolve(tmp_path)
