"""Reinforcement in the Atelier: a Janus is paid by what the inspector sees in its pictures.

Four trees, the published ones in small: `paint` (prompt -> images), `think` (T2I-R1: a thought and its image, one
reward for both), `twig` (thoughts and regions in turn, one reward for all of them), `dual` (Dual-GRPO: thoughts, and
images under each; the thinker is paid by whether the right things are there, the painter by how well they are painted
as well). Both policies of `dual` are one network here.
"""

from __future__ import annotations

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from PIL import Image

from .. import thinkers
from ..atelier.exercises import exercise
from ..atelier.faults import faults, score
from ..atelier.inspector import Inspector, Sighting
from ..atelier.knowledge import riddle
from ..atelier.language import say
from ..atelier.language_parse import Demand
from ..atelier.sample import random_demand
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
class AtelierRl:
    """What grows, and who is paid for what."""

    tree: str = "think"
    images: int = 8
    """Images of a prompt; with `dual`, of a thought."""
    thoughts: int = 4
    """With `dual`: thoughts of a prompt."""
    prompts: int = 4000
    """Different prompts."""
    riddles: float = 0.5
    """Share of prompts that say what is meant only to those who know; the others name it. `paint` takes none."""
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
    exercises: float = 0.0
    """Share of prompts, riddles apart, that are as complex as those of `atelier-compbench` (atelier/exercises.py)."""
    keep_prompt: bool = False
    """With `think`: paint from the prompt and then the thought, as T2I-R1, not from what the thought arrives at."""
    rows: int = 32
    """Of every matrix product in roll-outs: about as many as texts and pictures (twice under guidance) are in one."""
    guided: bool = False
    """Score codes under guidance, as they were drawn; default as published, by the conditional branch."""
    faithful: float = 1.0
    """Weight of the reward that is trained on most: the share of what was asked that the inspector finds."""
    sure: float = 0.0
    """Weight of the painter's second reward: how sure the inspector is of what it sees."""
    rewards: dict[str, float] = field(default_factory=dict)
    """Weights of rewards by name, in place of the two above: faithful, exact, sure."""
    ensemble: str = "sum"
    """`each`: every reward is normalised in its group before it is weighed (see `tree.Credit`)."""
    clip: float = 0.2
    beta: float = 0.01
    """Weight of the KL to the model as it was at the start."""
    text_weight: float = 1.0
    image_weight: float = 1.0
    std: bool = True
    """Divide advantages by the std of their group."""
    chunk: int = 16
    """Segments scored at a time."""

    def __post_init__(self) -> None:
        if self.tree not in TREES:
            raise ValueError(f"tree={self.tree!r}: must be one of {', '.join(TREES)}")
        if self.images < 2 and (self.tree != "dual" or self.thoughts < 2):
            raise ValueError(f"images={self.images}: a group needs at least 2 to compare")


@dataclass
class Asked:
    """A prompt of the Atelier and what its picture must show."""

    prompt: str
    demand: Demand


def questions(config: AtelierRl, seed: int) -> list[Asked]:
    """Training prompts; nothing that the benchmarks hold out is among them."""
    rng = random.Random(f"reinforce/{seed}")
    found: dict[str, Asked] = {}
    while len(found) < config.prompts:
        if config.tree != "paint" and rng.random() < config.riddles:
            puzzle = riddle(rng, "train")
            asked = Asked(puzzle.prompt, Demand.from_record(puzzle.demand))
        else:
            demand = exercise(rng, config.exercises) if config.exercises else random_demand(rng)
            asked = Asked(say(demand, rng, split="train"), demand)
        found.setdefault(asked.prompt, asked)
    return list(found.values())


def inspector_rewards(inspector: Inspector, demands: dict[str, Demand]) -> dict[str, Reward]:
    """`faithful`: share of checks passed, `exact`: nothing to object, `sure`: the inspector's mean score. The pictures
    of a roll-out are looked at once for all three."""
    latest: tuple[Sequence[Any], list[Sighting]] = ((), [])

    def look(images: Sequence[Any]) -> list[Sighting]:
        nonlocal latest
        if latest[0] is not images:
            latest = images, inspector.look([Image.fromarray(image) for image in images])
        return latest[1]

    def each(rule: Callable[[Demand, Sighting], float]) -> Reward:
        return lambda prompts, images: [
            rule(demands[prompt], sighting) for prompt, sighting in zip(prompts, look(images), strict=True)
        ]

    return {
        "faithful": each(lambda demand, sighting: score(demand, sighting.to_scene()) / 100),
        "exact": each(lambda demand, sighting: float(not faults(demand, sighting.to_scene()))),
        "sure": each(lambda _, sighting: float(np.mean([thing.score for thing in sighting.objects] or [0.0]))),
    }


def atelier_task(
    model: Janus,
    words: JanusTokenizer,
    wording: str,
    inspector: Inspector,
    config: AtelierRl,
    grpo: GrpoConfig,
    alarms: Alarms | None = None,
    twin: Twin | None = None,
    adapters: Any = None,
    dialogue: str = "",
) -> GrpoTask:
    """The task; `wording` is how this model is asked to think (`thinkers.WORDINGS`), `dialogue` how while it paints
    (dialogue.yaml), where that has another name.

    twin: what paints and writes, where that is not the model itself. adapters: peft's wrapping of the model, if only
    its adapters learn; with them off it is the reference, unless they had learnt before, in which case a copy is."""
    asked = questions(config, grpo.seed)
    writer = twin.model if twin else model
    own = model.config.raw.get("reverie", {}).get("guidance", 5.0)
    painter = JanusPainter(writer, words, guidance=own, temperature=config.temperature, rows=config.rows)
    eyes = JanusEyes(writer, words, rows=config.rows, remember=4096)
    off = adapters is not None and not any(part.any() for n, part in parts(adapters).items() if n.endswith("lora_B"))
    frozen = None
    if config.beta and not off:
        frozen = Twin.of(model, adapters, model.dtype).model if adapters is not None else copy.deepcopy(model)
        frozen.requires_grad_(False)
    policy = partial(
        JanusPolicy, painter, eyes, limit=config.limit, guidance=config.guidance, guided=config.guided, frozen=frozen,
        learns=model, adapters=adapters if off else None,
    )  # fmt: skip
    names = ("thinker", "painter") if config.tree == "dual" else ("janus", "janus")
    thinker = policy(name=names[0], question=lambda path: [Message("user", thinkers.request(wording, path.prompt))])
    thinks_first = config.tree in ("think", "dual")
    rewritten = partial(_rewritten, thinker, wording, config.keep_prompt) if thinks_first else _raw
    artist = policy(name=names[1], prompt=rewritten)
    levels = _levels(config, thinker, artist, dialogue or wording)
    rewards = inspector_rewards(inspector, {one.prompt: one.demand for one in asked})

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
    return GrpoTask(
        adapters or model, [one.prompt for one in asked], explore, learners, schedule, grpo, alarms or Alarms()
    )


def _raw(path: Path) -> str:
    return path.prompt


def _rewritten(thinker: JanusPolicy, wording: str, keep: bool, path: Path) -> str:
    """The prompt that the last thought arrives at; the typed one where it arrives at none. keep: both."""
    return (thinkers.enriched if keep else thinkers.parse)(wording, thinker.thoughts(path)[-1], path.prompt).prompt


def _levels(config: AtelierRl, thinker: JanusPolicy, artist: JanusPolicy, wording: str) -> list[Level]:
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


def _learners(config: AtelierRl, thinker: JanusPolicy, artist: JanusPolicy) -> list[Learner]:
    normal = Normalisation("group" if config.std else "none")
    faithful, all_of_it = {"faithful": config.faithful}, {"faithful": config.faithful, "sure": config.sure}
    if config.rewards:
        faithful = all_of_it = config.rewards
    rules = {kind: PolicyRule(config.clip, config.clip, config.beta) for kind in ("text", "image")}
    weights = {"text": config.text_weight, "image": config.image_weight}

    def learner(policy: JanusPolicy, rewards: dict[str, float]) -> Learner:
        return PolicyLearner(
            policy, Credit(rewards, normal, ensemble=config.ensemble, rejected=config.rejected), rules, weights,
            rescore=True, chunk=config.chunk,
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
