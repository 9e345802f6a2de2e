"""The planner's memory is that of a real run for every kind of trainer, on tiny models of the real classes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from diffusion_toy import qwen_image, save_thinker
from t5_toy import t5_words, tiny_t5
from test_atelier_grpo import needs_inspector
from test_plan import CPU, ROOT, real
from test_t2g_recipes import TREE
from test_verifier_training import reddest, showo
from tiny import tiny_folder
from vlm_toy import picture, save_toy

import reverie
from reverie.canvas import Conditions
from reverie.cli import main
from reverie.data.build_verifier import Build, PathBuild, build
from reverie.data.prompts import Prompt, Prompts
from reverie.judges.mixed import FunctionJudge
from reverie.judges.vlm import Wording
from reverie.reason import Plan
from reverie.training.plan import choose, survey
from reverie.training.recipes import read

PROMPTS = ["a cat", "a dog", "a fish", "a red box"]


def sft(folder: Path) -> list[str]:
    """A text encoder learns rewrites."""
    save_thinker(qwen_image(), folder / "toy")
    assert main(["data", "build", "rewrites", "--prompts", "atelier:12", "--out", str(folder / "data"), "-q"]) == 0
    return ["t2g/sft.yaml", f"model={folder / 'toy'}", f"data={folder / 'data'}", "mix.batch=8"]


def dpo(folder: Path) -> list[str]:
    """A Show-o, all weights, beside a frozen copy."""
    painter = reverie.load(showo(folder), device="cpu")
    first = painter.generator(Plan())
    usual = reddest([], first.preview(first.advance(first.start(Conditions(PROMPTS), range(4)))))
    judge = FunctionJudge(reddest, "red", threshold=float(np.median(usual)))
    wanted = Build("preference", PathBuild(8, 16), Wording.of("atelier"))
    build(wanted, painter, judge, Prompts(tuple(map(Prompt, PROMPTS))), folder / "pairs")
    return ["parm/dpo.yaml", f"model={folder / 'showo'}", f"data={folder / 'pairs'}", "reference=copy", "dpo.batch=4"]


def grpo(folder: Path) -> list[str]:
    """A Janus that thinks and paints, paid by the inspector."""
    place = tiny_folder(folder / "tiny")
    tree = ["tree.images=4", "tree.limit=8", "tree.guidance=1.0"]
    return ["atelier/reinforce.yaml", f"from={place}", "grpo.prompts=4", *tree]


def dual_grpo(folder: Path) -> list[str]:
    """The text encoder and the transformer of a Qwen-Image."""
    save_thinker(qwen_image(), folder / "toy")
    return ["t2g/dual-grpo.yaml", f"model={folder / 'toy'}", "adapters=[]", "data.prompts=atelier:6", *TREE]


def aligner(folder: Path) -> list[str]:
    """ThinkDiff's, through a frozen T5."""
    save_toy(folder / "vlm")
    (folder / "pictures").mkdir()
    for number in range(8):
        picture(number).save(folder / "pictures" / f"{number}.png")
    argv = [
        "--model",
        str(folder / "vlm"),
        "--images",
        str(folder / "pictures"),
        "--tokens",
        "6",
        "--device",
        "cpu",
        "--read",
    ]
    assert main(["data", "build", "features", *argv, "--out", str(folder / "features"), "-q"]) == 0
    tiny_t5().save_pretrained(folder / "t5")
    t5_words().save_pretrained(folder / "t5")
    return ["atelier/aligner.yaml", f"features={folder / 'features'}", f"t5={folder / 't5'}", "data.batch=4"]


@needs_inspector
@pytest.mark.parametrize("trainer", [sft, dpo, grpo, dual_grpo, aligner])
def test_memory_is_that_of_a_run(trainer: Callable[[Path], list[str]], tmp_path: Path) -> None:
    name, *overrides = trainer(tmp_path)
    made = read(ROOT / "recipes" / name, [*overrides, "loop.workers=0", f"out={tmp_path / 'out'}"])
    planned = choose(survey(made, CPU), 1 << 40).choices[0].total
    found = real(made, tmp_path / "run")
    print(f"{trainer.__name__}: {planned / 1e6:.2f} MB planned, {found / 1e6:.2f} MB taken, {planned / found - 1:+.1%}")
    assert planned == pytest.approx(found, rel=0.15)
