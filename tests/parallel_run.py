"""Trainers in miniature for one process or several: `parallel_run.py OUT NAME,NAME,... key=value ... [-- OUT ...]`
runs each of them in OUT/NAME, with these settings of the loop; with dies=N, the last one is killed when it asks for
batch N. What they learn depends on the batches of an update, not on who computes them."""

from __future__ import annotations

import copy
import os
import signal
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import nn

from reverie.training.loop import LoopConfig, train
from reverie.training.processes import leave

LOOP: dict[str, Any] = {
    "steps": 20, "lr": 3e-3, "precision": "no", "warmup": 0.0, "decay": 0.0, "ema": 0.9, "log_every": 1, "save_every": 5
}  # fmt: skip


def sft() -> Any:
    """A Janus on its three tasks."""
    from reverie.models.janus_text import ImageRules, JanusTokenizer
    from reverie.training.janus import JanusSizes, JanusTask, JanusTraining, atelier_texts, build_janus
    from reverie.training.tokenizer import TokenizerConfig, build_vq
    from reverie.training.words import train_words

    vq = TokenizerConfig(codes=32, base=32, latent=32, batch=4)
    sizes = JanusSizes(
        width=32, layers=2, heads=2, ffn=48, vision_width=32, vision_layers=2, vision_heads=2, vocabulary=600
    )
    words = JanusTokenizer(train_words(atelier_texts(100), sizes.vocabulary), ImageRules(96))
    return JanusTask(build_janus(sizes, vq, build_vq(vq)), words, JanusTraining(paint=1, think=1, look=1))


def dpo(lora: int = 0) -> Any:
    """A Show-o on pairs of codes; with adapters, its reference is what it is without them."""
    from showo_toy import toy_showo

    from reverie.training.adapters import Lora, add
    from reverie.training.code_scorers import CodePainter
    from reverie.training.dpo import DpoConfig, DpoTask, Pair, adapters_off

    model, words = toy_showo()
    painter = CodePainter(model, words, "showo")
    generator = torch.Generator().manual_seed(1)
    pairs = [Pair(f"p {n}", *torch.randint(0, 8, (2, 16), generator=generator)) for n in range(12)]
    learner = add(model, Lora(lora)) if lora else model
    score = painter.scorer()
    reference = adapters_off(learner, score) if lora else painter.frozen()
    return DpoTask(learner, score, pairs, reference, DpoConfig(batch=2))


def grpo(dual: bool = False, **values: Any) -> Any:
    """Thoughts and pictures of a Janus, paid for low codes; `dual`: by two networks, with a tree of two levels."""
    from janus_toy import toy_janus

    from reverie.generators.janus import JanusPainter
    from reverie.training.alarms import Alarms
    from reverie.training.grpo import GrpoConfig, GrpoTask, balanced
    from reverie.training.janus_policy import JanusPolicy
    from reverie.training.learner import PolicyLearner
    from reverie.training.policy_loss import PolicyRule
    from reverie.training.rollout import Level, Path, grow, judge
    from reverie.training.tree import Credit, Segment
    from reverie.vlms.janus import JanusEyes

    def policy(name: str) -> JanusPolicy:
        model, words = toy_janus()
        for part in (model.vision_model, model.aligner, model.vqmodel):
            part.requires_grad_(False)
        frozen = copy.deepcopy(model).requires_grad_(False)
        painter = JanusPainter(model, words, rows=16, chunk=16)
        return JanusPolicy(painter, JanusEyes(model, words, rows=16, chunk=16), guidance=1.0, limit=5, frozen=frozen,
                           name=name)  # fmt: skip

    thinker = policy("llm")
    artist = policy("dit") if dual else thinker
    artist.prompt = lambda path: " ".join([path.prompt, *thinker.thoughts(path)])

    def both(start: Sequence[Path]) -> list[list[Segment]]:
        thoughts = thinker.think(start)
        after = [Path(p.prompt, p.seed, (*p.segments, *s)) for p, s in zip(start, thoughts, strict=True)]
        return [t + i for t, i in zip(thoughts, artist.paint(after), strict=True)]

    levels = [Level(3, thinker.think), Level(2, artist.paint)] if dual else [Level(4, both)]

    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> Any:
        trees = grow(prompts, seeds, levels)
        paid = {"low": lambda prompts, images: [float((image < 24).float().mean()) for image in images]}
        judge(trees, lambda found: [artist.codes(path) for path in found], paid)
        return trees

    rules = {kind: PolicyRule(beta=0.01) for kind in ("text", "image")}
    own = [thinker, artist] if dual else [thinker]
    learners = [PolicyLearner(one, Credit({"low": 1.0}), rules, rescore=True, chunk=3) for one in own]
    model = nn.ModuleDict({one.name: one.painter.model for one in own})
    config = GrpoConfig(prompts=2, **values)
    quiet = Alarms(identical=None, entropy=None)
    return GrpoTask(model, ["a cat", "dogs", "sea"], explore, learners, balanced(*model), config, quiet)


def qwen(learn: str = "balanced") -> Any:
    """The task of the recipe `dual-grpo`, on a Qwen-Image; `staged`: first thoughts learn, then pictures."""
    from dual_toy import WORDING, toy

    from reverie.thinkers import WORDINGS
    from reverie.training.dual_grpo import DualTree

    WORDINGS["toy"] = WORDING
    return toy(DualTree(learn=learn, switch=6 if learn == "staged" else 0, thoughts=3, images=2, limit=4)).task


def align() -> Any:
    """ThinkDiff's aligner on made-up answers."""
    from t5_toy import sample, t5_words, tiny_t5
    from vlm_toy import WIDTH, toy_tokenizer

    from reverie.models.aligner import Aligner, AlignerConfig
    from reverie.training.align import AlignConfig, AlignTask, Masking
    from reverie.vlms.states import LAST

    class Answers:
        kind, width, states, shards = "generated", WIDTH, LAST, (12,)

        def __getitem__(self, number: int) -> Any:
            return sample(number)

        def tokens(self, number: int) -> int:
            return len(sample(number).ids)

    t5 = tiny_t5()
    aligner = Aligner(AlignerConfig(WIDTH, WIDTH)).initialise(t5.encoder.final_layer_norm.weight)
    config = AlignConfig(batch=4, text=16, dropout=False)
    return AlignTask(aligner, t5, t5_words(), Answers(), toy_tokenizer(), config, Masking(), seed=3)


TASKS = {
    "sft": sft,
    "dpo": dpo,
    "lora": partial(dpo, lora=2),
    "grpo": grpo,
    "often": partial(grpo, updates=2),
    "dual": partial(grpo, dual=True),
    "qwen": qwen,
    "staged": partial(qwen, "staged"),
    "align": align,
}


class Dies:
    """A task whose process is killed at one step."""

    def __init__(self, task: Any, at: int) -> None:
        self.task, self.at = task, at

    def __getattr__(self, name: str) -> Any:
        return getattr(self.task, name)

    def batch(self, number: int) -> Any:
        if number >= self.at:
            os.kill(os.getpid(), signal.SIGKILL)
        return self.task.batch(number)


def run(out: str, names: str, *words: str) -> None:
    given = {key: yaml.safe_load(value) for key, value in (word.split("=") for word in words)}
    dies = given.pop("dies", None)
    for name in names.split(","):
        torch.manual_seed(0)
        task = TASKS[name]()
        loop = {**LOOP, **given, "recompute": given.get("recompute", False) and name != "align"}
        last = name == names.split(",")[-1]
        train(Dies(task, dies) if last and dies is not None else task, LoopConfig(**loop), Path(out) / name)


if __name__ == "__main__":
    words = sys.argv[1:]
    while words:
        end = words.index("--") if "--" in words else len(words)
        run(*words[:end])
        words = words[end + 1 :]
    leave()
