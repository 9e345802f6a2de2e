"""Judges and painters learn from what `data build` made: tiny models, the recipes, references, guidance, rounds."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from janus_toy import toy_janus
from PIL import Image
from showo_toy import toy_showo

import reverie
from reverie.canvas import Canvas, Conditions
from reverie.data.paths import codes_of
from reverie.generators.showo import ShowoPainter
from reverie.judges.mixed import FunctionJudge
from reverie.judges.vlm import Wording
from reverie.models.janus_checkpoint import load_janus, save_janus
from reverie.models.registry import resolve
from reverie.models.showo_checkpoint import save_showo
from reverie.reason import Plan
from reverie.training import adapters, recipes
from reverie.training.code_scorers import CodePainter, janus_scorer, showo_scorer
from reverie.training.dpo import DpoConfig, DpoTask, Pair, adapters_off
from reverie.training.online_pairs import OnlineConfig, OnlinePairs
from reverie.vlms.janus import JanusEyes

PROMPTS = ("a red cat", "two blue dogs", "a fish", "an owl")


@pytest.fixture(scope="module")
def records(tmp_path_factory) -> Path:
    """Pictures that are right if they are red: what a judge can learn in a few steps."""
    folder = tmp_path_factory.mktemp("records")
    rng, rows = np.random.default_rng(0), []
    for number in range(48):
        right = number % 2 == 0
        shade = (rng.integers(170, 255), *rng.integers(0, 80, 2)) if right else (0, *rng.integers(90, 255, 2))
        Image.new("RGB", (32, 32), tuple(int(x) for x in shade)).save(folder / f"{number}.png")
        said = [("human", f"<image>\nDoes this picture show {PROMPTS[number % 4]}?"), ("gpt", "yes" if right else "no")]
        turns = [{"from": who, "value": text} for who, text in said]
        rows.append({"id": str(number), "image": f"{number}.png", "task": "orm", "conversations": turns})
    (folder / "records.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def recipe(folder: Path, task: str, **values) -> Path:
    loop = {"steps": 4, "lr": 1e-3, "precision": "no", "log_every": 1, "ema": 0.0, "weight_decay": 0.0}
    path = folder / f"{task}.yaml"
    values["loop"] = loop | values.get("loop", {})
    path.write_text(json.dumps({"task": task, "out": str(folder / "out"), **values}))
    return path


def answers_of(folder: Path, records: Path) -> list[str]:
    """What the trained judge writes about two red pictures and two that are not, asked as its checkpoint says. (The toy
    spells in bytes, so yes and no may begin alike, and probabilities of a first token say nothing.)"""
    source = resolve(folder, "judge")
    eyes = JanusEyes(*load_janus(folder))
    talks = [
        Wording.of(source.judge).conversation("orm", "a fish", Image.open(records / f"{number}.png"))
        for number in (0, 2, 1, 3)
    ]
    return [text.strip() for text in eyes.write_batch(talks, 4)]


def test_a_janus_learns_to_judge_and_still_paints_as_before(records, tmp_path):
    model, words = toy_janus()
    save_janus(model, words, tmp_path / "janus")
    made = recipe(
        tmp_path, "judge", model=str(tmp_path / "janus"), data=str(records), wording="atelier", judge={"batch": 8},
        loop={"steps": 24, "lr": 5e-3},
    )  # fmt: skip
    folder = recipes.run(made) / "checkpoint"
    assert answers_of(folder, records) == ["yes", "yes", "no", "no"]
    assert json.loads((folder / "config.json").read_text())["reverie"]["judge"] == "atelier"
    old, new = (load_janus(place)[0] for place in (tmp_path / "janus", folder))
    for name, tensor in old.state_dict().items():
        if name.startswith(("vqmodel", "generation_")):
            assert torch.equal(tensor, new.state_dict()[name])


def test_lora_learns_too_and_leaves_the_vision_tower(records, tmp_path):
    model, words = toy_janus()
    save_janus(model, words, tmp_path / "janus")
    made = recipe(
        tmp_path, "judge", model=str(tmp_path / "janus"), data={str(records): 0.5}, wording="atelier",
        judge={"batch": 8}, lora={"rank": 8, "inside": "language_model"}, loop={"steps": 24, "lr": 1e-2},
    )  # fmt: skip
    folder = recipes.run(made) / "checkpoint"
    old, new = (load_janus(place)[0] for place in (tmp_path / "janus", folder))
    changed = {
        name.split(".")[0]
        for name, tensor in old.state_dict().items()
        if not torch.equal(tensor, new.state_dict()[name])
    }
    assert changed == {"language_model"}
    assert answers_of(folder, records) == ["yes", "yes", "no", "no"]


# --- DPO


def showo(tmp_path: Path) -> Path:
    save_showo(*toy_showo(), tmp_path / "showo")
    path = tmp_path / "showo" / "config.json"
    config = json.loads(path.read_text())
    config["reverie"] = {"steps": 4, "guidance": 1.5}
    path.write_text(json.dumps(config))
    return tmp_path / "showo"


def reddest(prompts, pictures) -> list[float]:
    return [float(np.asarray(picture)[..., 0].mean()) / 255 for picture in pictures]


def fresh_pairs(model, words, count: int = 6) -> list[Pair]:
    generator = ShowoPainter(model, words, guidance=1.0, steps=4)
    canvas = generator.advance(generator.start(Conditions(PROMPTS[:1] * (2 * count)), range(2 * count)))
    reds = reddest([], generator.preview(canvas))
    order = sorted(range(2 * count), key=lambda i: reds[i])
    codes = codes_of(generator, canvas)
    return [Pair(PROMPTS[0], codes[order[-1 - i]], codes[order[i]]) for i in range(count)]


def test_dpo_with_adapters_starts_at_log_2_and_raises_the_better_images():
    model, words = toy_showo()
    pairs = fresh_pairs(model, words)
    learner = CodePainter(model, words, "showo")
    wrapped = adapters.add(learner.model, adapters.Lora(4))
    score = learner.scorer()
    task = DpoTask(wrapped, score, pairs, adapters_off(wrapped, score), DpoConfig(batch=6, draws=2, beta=0.5))
    loss, _ = task.loss(task.batch(0))
    assert loss.item() == pytest.approx(np.log(2), abs=1e-6)
    hidden = torch.ones(len(pairs), 16, dtype=torch.bool)

    def gap() -> float:
        rows = [torch.stack([getattr(pair, side) for pair in pairs]) for side in ("chosen", "rejected")]
        with torch.no_grad():
            return float(
                (
                    score([p.prompt for p in pairs], rows[0], hidden)
                    - score([p.prompt for p in pairs], rows[1], hidden)
                ).sum()
            )

    before = gap()
    optimizer = torch.optim.Adam([p for p in wrapped.parameters() if p.requires_grad], lr=1e-2)
    for step in range(12):
        optimizer.zero_grad()
        task.loss(task.batch(step))[0].backward()
        optimizer.step()
    assert gap() > before + 1
    with wrapped.disable_adapter():
        assert gap() == pytest.approx(before, abs=1e-3)
    merged = adapters.merged(wrapped)
    assert showo_scorer(merged, words)([PROMPTS[0]], pairs[0].chosen[None], hidden[:1]).shape == (1, 16)


def test_a_janus_is_scored_as_it_paints():
    """The scorer's numbers are the log-probabilities of the policy that samples them, code by code."""
    from reverie.generators.janus import JanusPainter
    from reverie.training.janus_policy import JanusPolicy
    from reverie.training.rollout import Path as Branch

    model, words = toy_janus()
    policy = JanusPolicy(JanusPainter(model, words, guidance=1.0), JanusEyes(model, words))
    ((segment,),) = policy.paint([Branch("a red cat", 3)])
    found = janus_scorer(model, words)(["a red cat"], segment.actions[None], torch.ones(1, len(segment.actions)))
    torch.testing.assert_close(found[0], segment.log_prob, atol=1e-4, rtol=0)


class Bandit(torch.nn.Module):
    """A masked-token painter whose every slot has logits of its own; code 3 is the brightest."""

    steps = 1

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(4, 4))

    def start(self, conditions, seeds):
        return Canvas.blank(conditions, seeds, 4, 0)

    def advance(self, canvas, to=None):
        chances = self.logits.softmax(-1).cumsum(-1).double()
        tokens = torch.searchsorted(chances, canvas.uniforms.T.contiguous()).T.clamp(max=3)
        return replace(canvas, tokens=tokens, step=1)

    def preview(self, canvas):
        return [np.full((1, 1, 3), int(row.sum()) * 20, np.uint8) for row in canvas.tokens]

    def score(self, prompts, codes, hidden):
        return self.logits.log_softmax(-1).expand(len(codes), -1, -1).gather(-1, codes[..., None])[..., 0]


def test_guidance_has_a_gradient_of_the_right_sign():
    bandit = Bandit()
    start = Bandit()
    online = OnlinePairs(
        bandit, bandit.score, start.score, lambda: bandit, FunctionJudge(reddest, "bright"), PROMPTS,
        OnlineConfig(prompts=4, images=8), DpoConfig(drop_text=0.0, beta=0.5),
    )  # fmt: skip
    resting = OnlinePairs(**{**vars(online), "config": OnlineConfig(every=2)})
    assert resting.loss(resting.batch(1))[0] == 0
    assert resting.batch(2).prompts
    optimizer = torch.optim.Adam(bandit.parameters(), lr=0.1)
    for step in range(40):
        optimizer.zero_grad()
        loss, told = online.loss(online.batch(step))
        loss.backward()
        optimizer.step()
        assert told["pairs"] <= 4
    assert (bandit.logits.argmax(-1) == 3).all()
    assert bandit.logits.softmax(-1)[:, 3].min() > 0.5
    blind = OnlinePairs(**{**vars(online), "judge": FunctionJudge(lambda p, v: [0.5] * len(v), "blind")})
    assert blind.loss(blind.batch(0))[0] == 0  # what nobody tells apart teaches nothing


@pytest.mark.parametrize("reference", ["copy", "table", "adapters"])
def test_the_recipe_of_dpo_runs_with_every_reference(tmp_path, reference):
    from reverie.data.build_verifier import Build, PathBuild, build
    from reverie.data.prompts import Prompt, Prompts

    place = showo(tmp_path)
    painter = reverie.load(place, device="cpu")
    first = painter.generator(Plan())
    usual = reddest([], first.preview(first.advance(first.start(Conditions(PROMPTS), range(4)))))
    judge = FunctionJudge(reddest, "red", threshold=float(np.median(usual)))
    wanted = Build("preference", PathBuild(8, 16), Wording.of("atelier"))
    build(wanted, painter, judge, Prompts(tuple(map(Prompt, PROMPTS))), tmp_path / "pairs")
    extra = {"lora": {"rank": 2}} if reference == "adapters" else {}
    made = recipe(tmp_path, "dpo", model=str(place), data=str(tmp_path / "pairs"), reference=reference, **extra)
    out = recipes.run(made)
    first = json.loads((out / "log.jsonl").read_text().splitlines()[0])
    assert first["dpo"] == pytest.approx(np.log(2), abs=1e-4)
    assert (out / "reference.safetensors").exists() == (reference == "table")
    assert reverie.load(out / "checkpoint", device="cpu").generate("a fish", seed=1).images
    with pytest.raises(ValueError, match="lora a rank"):
        recipes.run(made, [f"out={tmp_path / 'no'}", "reference=adapters", "lora.rank=0"])
    with pytest.raises(ValueError, match="give `judge`"):
        recipes.run(made, [f"out={tmp_path / 'no'}", "reference=copy", "lora.rank=0", "dpo.online=1"])


def test_rounds_begin_with_the_weights_of_the_last(tmp_path):
    place = showo(tmp_path)
    made = recipe(
        tmp_path, "dpo-iterative", model=str(place), prompts="atelier:3", judge="atelier-inspector",
        rounds={"rounds": 2, "per_prompt": 4, "batch": 12}, loop={"steps": 2},
    )  # fmt: skip
    with pytest.raises(ValueError, match="no prompt has both"):
        recipes.run(made)  # nothing that a random painter paints is right
