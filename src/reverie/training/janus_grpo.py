"""Reinforcement of a Janus: any of the published trees, any rewards, all weights or adapters.

Four trees: `paint` (prompt -> images), `think` (T2I-R1, arXiv 2505.00703: a thought and its image, one reward for
both), `twig` (2511.16671: thoughts and regions in turn, one reward for all of them), `dual` (Dual-GRPO: thoughts, and
images under each). Roll-outs are made by the engines of inference; the training forward only scores (learner.py).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from .. import thinkers
from ..canvas import Canvas, Conditions
from ..generators.janus import JanusPainter
from ..models.janus import Janus
from ..models.janus_text import JanusTokenizer
from ..vlms import Message
from ..vlms.janus import JanusEyes
from .adapters import parts
from .advantage import Normalisation
from .alarms import Alarms
from .grpo import GrpoConfig, GrpoTask, balanced
from .janus_policy import JanusPolicy
from .learner import Learner, PolicyLearner
from .policy_loss import PolicyRule
from .rollout import Level, Path, Reward, grow, judge
from .story_tree import StoryWriter
from .tree import Credit, Segment, Tree
from .twin import Twin

TREES = ("paint", "think", "twig", "dual")


@dataclass
class JanusRl:
    """What grows, and how it learns."""

    tree: str = "think"
    images: int = 8
    """Images of a prompt; with `dual`, of a thought."""
    thoughts: int = 4
    """With `dual`: thoughts of a prompt."""
    limit: int = 64
    """Tokens of a thought at most."""
    regions: int = 3
    """With `twig`: regions of a picture, each with a thought."""
    rounds: int = 0
    """With `twig`: how often a region that its critique rejects is painted again; 0 writes no critiques."""
    rejected: bool = True
    """Whether what a critique threw away learns as well."""
    guidance: float | None = None
    """None: the painter's own."""
    temperature: float = 1.0
    """Of image codes in roll-outs."""
    keep_prompt: bool = False
    """With `think`: paint from the prompt and then the thought, as T2I-R1, not from what the thought arrives at."""
    rows: int = 32
    """Of every matrix product in roll-outs: about as many as texts and pictures (twice under guidance) are in one."""
    guided: bool = False
    """Score codes under guidance, as they were drawn; default as published, by the conditional branch."""
    rewards: dict[str, float] = field(default_factory=dict)
    """Weights of rewards by name."""
    ensemble: str = "sum"
    """`each`: every reward is normalised in its group before it is weighed (see `tree.Credit`)."""
    clip: float = 0.2
    beta: float = 0.01
    """Weight of the KL to the model as it was at the start."""
    text_weight: float = 1.0
    image_weight: float = 1.0
    joint: bool = False
    """One mean over all tokens of both, as T2I-R1; default a mean for each."""
    std: bool = True
    """Divide advantages by the std of their group."""
    chunk: int = 16
    """Segments scored at a time."""

    def __post_init__(self) -> None:
        if self.tree not in TREES:
            raise ValueError(f"tree={self.tree!r}: must be one of {', '.join(TREES)}")
        if self.images < 2 and (self.tree != "dual" or self.thoughts < 2):
            raise ValueError(f"images={self.images}: a group needs at least 2 to compare")

    def credits(self) -> tuple[dict[str, float], dict[str, float]]:
        """What thoughts are paid for, and what images are; the same but for `dual`."""
        return self.rewards, self.rewards


@dataclass
class Learning:
    """The network that learns, and how it is spoken to.

    wording: how it is asked to think (`thinkers.WORDINGS`); dialogue: how while it paints (dialogue.yaml), where that
    has another name. twin: what paints and writes, where that is not the model itself. adapters: peft's wrapping of the
    model, if only its adapters learn; with them off it is the reference, unless they had learnt before, in which case a
    copy is."""

    model: Janus
    words: JanusTokenizer
    wording: str
    dialogue: str = ""
    twin: Twin | None = None
    adapters: Any = None

    def reference(self) -> Janus | None:
        """A copy of the model as it is; None where the adapters, which have not learnt yet, can be switched off."""
        if self.adapters is None:
            return copy.deepcopy(self.model).requires_grad_(False)
        if any(part.any() for name, part in parts(self.adapters).items() if name.endswith("lora_B")):
            return Twin.of(self.model, self.adapters, self.model.dtype).model
        return None


def janus_task(
    learning: Learning,
    prompts: Sequence[str],
    rewards: Mapping[str, Reward],
    config: JanusRl,
    grpo: GrpoConfig,
    alarms: Alarms | None = None,
) -> GrpoTask:
    """The task of `training.grpo`; `config` says which of the rewards pay, and all are logged."""
    model, words, twin = learning.model, learning.words, learning.twin
    writer = twin.model if twin else model
    own = model.config.raw.get("reverie", {}).get("guidance", 5.0)
    painter = JanusPainter(writer, words, guidance=own, temperature=config.temperature, rows=config.rows)
    eyes = JanusEyes(writer, words, rows=config.rows, remember=4096)
    frozen = learning.reference() if config.beta else None
    off = learning.adapters if frozen is None else None
    policy = partial(
        JanusPolicy, painter, eyes, limit=config.limit, guidance=config.guidance, guided=config.guided, frozen=frozen,
        learns=model, adapters=off,
    )  # fmt: skip
    names = ("thinker", "painter") if config.tree == "dual" else ("janus", "janus")
    ask = partial(thinkers.request, learning.wording, keep=config.keep_prompt)
    thinker = policy(name=names[0], question=lambda path: [Message("user", ask(path.prompt))])
    thinks_first = config.tree in ("think", "dual")
    rewritten = partial(_rewritten, thinker, learning.wording, config.keep_prompt) if thinks_first else _raw
    artist = policy(name=names[1], prompt=rewritten)
    levels = _levels(config, thinker, artist, learning.dialogue or learning.wording)

    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        if twin:
            twin.refresh()
        trees = grow(prompts, seeds, levels)
        judge(trees, lambda paths: _pictures(painter, artist, paths), rewards)
        return trees

    for part in (model.vision_model, model.aligner, model.vqmodel):
        part.requires_grad_(False)
    learners = _learners(config, thinker, artist)
    schedule = balanced(*(learner.name for learner in learners))
    return GrpoTask(learning.adapters or model, prompts, explore, learners, schedule, grpo, alarms or Alarms())


def _raw(path: Path) -> str:
    return path.prompt


def _rewritten(thinker: JanusPolicy, wording: str, keep: bool, path: Path) -> str:
    """The prompt that the last thought arrives at; the typed one where it arrives at none. keep: both."""
    return (thinkers.enriched if keep else thinkers.parse)(wording, thinker.thoughts(path)[-1], path.prompt).prompt


def _levels(config: JanusRl, thinker: JanusPolicy, artist: JanusPolicy, wording: str) -> list[Level]:
    if config.tree == "paint":
        return [Level(config.images, artist.paint)]
    if config.tree == "twig":
        return [Level(config.images, StoryWriter(artist, wording, config.regions, config.rounds))]
    if config.tree == "dual":
        return [Level(config.thoughts, thinker.think), Level(config.images, artist.paint)]

    def both(paths: Sequence[Path]) -> list[list[Segment]]:
        thoughts = thinker.think(paths)
        after = [Path(p.prompt, p.seed, (*p.segments, *s), p.group) for p, s in zip(paths, thoughts, strict=True)]
        return [t + i for t, i in zip(thoughts, artist.paint(after), strict=True)]

    return [Level(config.images, both)]


def _learners(config: JanusRl, thinker: JanusPolicy, artist: JanusPolicy) -> list[Learner]:
    normal = Normalisation("group" if config.std else "none")
    faithful, all_of_it = config.credits()
    rules = {kind: PolicyRule(config.clip, config.clip, config.beta) for kind in ("text", "image")}
    weights = {"text": config.text_weight, "image": config.image_weight}

    def learner(policy: JanusPolicy, rewards: dict[str, float]) -> Learner:
        return PolicyLearner(
            policy, Credit(rewards, normal, ensemble=config.ensemble, rejected=config.rejected), rules, weights,
            joint=config.joint, rescore=True, chunk=config.chunk,
        )  # fmt: skip

    if config.tree == "dual":
        return [learner(thinker, faithful), learner(artist, all_of_it)]
    return [learner(artist, all_of_it)]


def _pictures(painter: JanusPainter, artist: JanusPolicy, paths: Sequence[Path]) -> list[np.ndarray]:
    """uint8 (H, W, 3) each."""
    canvas = Canvas.blank(Conditions(("",) * len(paths)), [path.seed for path in paths], painter.steps, painter.fill)
    for row, path in zip(canvas.tokens, paths, strict=True):
        row.copy_(artist.codes(path))
    return painter.preview(canvas)
