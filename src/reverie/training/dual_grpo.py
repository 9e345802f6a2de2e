"""Dual-GRPO on diffusion (Think-then-Generate, arXiv 2601.10332), and what it contains.

    prompt -> J thoughts by the text encoder -> K images under each by the transformer

Thoughts are compared by the mean of their images, images with their siblings; each policy is paid by rewards of its
own, and a schedule says who learns when: `balanced` both always, `staged` the thinker first. `thinker` or `painter`
alone learn from the same tree; `thoughts: 0` leaves thinking out, which is Flow-GRPO (2505.05470). Which steps of the
painter are stochastic is the window's to say: all, some at random (Flow-GRPO-Fast), or a sliding few (MixGRPO,
2507.21802). `loss: forward` learns from finished images instead (DiffusionNFT, 2509.16117).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from PIL import Image

from .. import thinkers
from ..generators.diffusion import DiffusionPainter
from ..models.flow_sde import VARIANTS, SdeNoise, Window, random_window, sliding_window
from ..vlms import Message
from ..vlms.text_encoder import TextEncoderWriter
from .adapted import Adapted, Learning, adapters_off
from .adapters import Lora
from .advantage import Normalisation
from .alarms import Alarms
from .diffusion_policy import DiffusionPolicy, ForwardPolicy, diffusion_policy
from .encoder_policy import EncoderPolicy
from .forward_loss import ForwardLearner
from .grpo import GrpoConfig, GrpoTask, Schedule, Stage, staged
from .learner import Learner, PolicyLearner
from .policy_loss import PolicyRule
from .rollout import Level, Path, Reward, grow, judge
from .tree import Credit, Segment, Tree
from .word_rewards import Rewritten

LEARN = ("balanced", "staged", "thinker", "painter")
WINDOWS = ("all", "random", "sliding")
LOSSES = ("policy", "forward")
READERS = ("learning", "first")


@dataclass
class DualTree:
    """What grows, and who learns."""

    learn: str = "balanced"
    switch: int = 0
    """With `staged`: the iteration at which the painter takes over from the thinker."""
    thoughts: int = 5
    """Of a prompt; 0 paints from the prompt itself."""
    images: int = 16
    """Of a thought; 0 paints nothing: the thinker alone learns, from what its rewrites say."""
    limit: int = 256
    """Tokens of a thought at most."""
    temperature: float = 1.0
    together: int = 64
    """Conversations written at once."""
    reader: str = "learning"
    """Which encoder reads the prompts for the painter: the one that learns to think, as published, or the `first`, with
    its adapters off, so that the painter's prompts stay what they were."""
    rest: bool = False
    """With `painter`: the encoder waits on the CPU while nothing is read or thought, and leaves its memory."""
    recompute: bool = False
    """The transformer forgets the activations of its blocks and computes them again on the way back."""

    def __post_init__(self) -> None:
        if self.learn not in LEARN:
            raise ValueError(f"learn={self.learn!r}: must be one of {', '.join(LEARN)}")
        if self.reader not in READERS:
            raise ValueError(f"reader={self.reader!r}: must be one of {', '.join(READERS)}")
        if self.thoughts < 0 or self.images < 0:
            raise ValueError(f"thoughts={self.thoughts}, images={self.images}: at least 0")
        if not self.thoughts and self.learn != "painter":
            raise ValueError(f"thoughts=0 leaves nobody to learn but the painter; set learn: painter, not {self.learn}")
        if self.learn in ("balanced", "staged", "thinker") and self.thoughts < 2:
            raise ValueError(f"thoughts={self.thoughts}: thoughts are compared with each other; give at least 2")
        if self.learn != "thinker" and self.images < 2:
            raise ValueError(f"images={self.images}: images are compared with their siblings; give at least 2")
        if self.rest and self.learn != "painter":
            raise ValueError(f"rest: the encoder learns with learn={self.learn!r}, and cannot wait elsewhere")
        if (self.switch > 0) != (self.learn == "staged"):
            raise ValueError(f"switch={self.switch}: give an iteration above 0 with learn: staged, and only there")


@dataclass
class FlowSampling:
    """How the painter explores, and from which of its steps it learns."""

    steps: int = 10
    guidance: float | None = None
    """None: the pipeline's own; 1: none, which halves the work and is said to be more stable."""
    height: int | None = None
    width: int | None = None
    noise: str = "sde"
    level: float = 0.7
    window: str = "all"
    """`all` steps but the last; `size` steps at `random` between `low` and `high`, anew for each group; or `sliding`
    by `stride` every `every` iterations."""
    size: int = 2
    low: int = 0
    high: int = 5
    every: int = 25
    stride: int = 1
    same_start: bool = False
    """Images of a group begin with one noise (DanceGRPO)."""
    free_blank: bool = False
    """The gradient goes through the guiding branch too."""
    storage: str = "float32"
    rows: int = 64
    """Images that go through the transformer at once."""
    decoded: int = 16
    """Images that are decoded at once."""
    loss: str = "policy"
    mix: float = 1.0
    """With `forward`: m of the mixture of velocities."""
    good: float = 5.0
    """With `forward`: the advantage at which an image counts as surely good."""
    follow: float = 1.0
    """With `forward`: how far the copy that paints follows at each iteration."""

    def __post_init__(self) -> None:
        if self.noise not in VARIANTS:
            raise ValueError(f"noise={self.noise!r}: must be one of {', '.join(VARIANTS)}")
        if self.window not in WINDOWS:
            raise ValueError(f"window={self.window!r}: must be one of {', '.join(WINDOWS)}")
        if self.loss not in LOSSES:
            raise ValueError(f"loss={self.loss!r}: must be one of {', '.join(LOSSES)}")
        if self.storage not in ("float32", "bfloat16", "float16"):
            raise ValueError(f"storage={self.storage!r}: must be float32, bfloat16 or float16")
        if self.loss == "policy" and SdeNoise(self.noise, self.level).deterministic:
            raise ValueError(f"noise={self.noise!r}, level={self.level}: without noise there is no policy to learn")
        if self.steps < 2 or min(self.rows, self.decoded) < 1 or not 0 < self.follow <= 1:
            raise ValueError(f"steps={self.steps}, rows={self.rows}, follow={self.follow}: at least 2, 1, in (0, 1]")
        if self.window == "random" and not 0 < self.size <= self.high - self.low <= self.steps - self.low:
            raise ValueError(f"a window of {self.size} steps between {self.low} and {self.high} of {self.steps}: no")
        if self.window == "sliding" and not 0 < self.size <= self.steps:
            raise ValueError(f"a window of {self.size} steps does not fit into {self.steps} steps")

    def painting(self) -> dict[str, Any]:
        """What a painter is told of it."""
        told = {"steps": self.steps, "guidance": self.guidance, "height": self.height, "width": self.width}
        return {name: value for name, value in told.items() if value is not None}


@dataclass
class Side:
    """How one of the two is paid and learns. rank, alpha, inside: LoRA; rank 0 trains all weights."""

    rewards: Mapping[str, float] = field(default_factory=dict)
    rank: int = 0
    alpha: int = 16
    inside: str = ""
    weight: float = 1.0
    """Of its loss."""
    std: str = "group"
    """What centred rewards are divided by: the std of the `group`, of the `batch`, or `none`."""
    among: str = "siblings"
    ensemble: str = "sum"
    clip: float = 0.2
    clip_high: float | None = None
    beta: float = 0.0
    kl: str = "k3"
    guard: bool = False
    average: str = "tokens"
    entropy: float = 0.0
    limit: float = 5.0
    """Advantages are clamped to this."""
    truncated: bool = True
    """Whether thoughts that were cut off at the limit of length learn as well."""
    chunk: int = 64
    """Segments scored at a time."""

    @property
    def lora(self) -> Lora:
        return Lora(self.rank, self.alpha, self.inside)

    def rule(self) -> PolicyRule:
        high = self.clip if self.clip_high is None else self.clip_high
        return PolicyRule(
            self.clip, high, self.beta, self.kl, self.guard, self.average, advantage_limit=self.limit,
            entropy=self.entropy,
        )  # fmt: skip

    def credit(self) -> Credit:
        return Credit(self.rewards, Normalisation(self.std), self.among, self.ensemble, truncated=self.truncated)


@dataclass(frozen=True)
class Question:
    """A prompt of the task under a key of its own (two edits may say the same of two pictures), its pictures, and what
    judges know of the right answer."""

    key: str
    text: str
    pictures: tuple[Any, ...] = ()
    truth: Any = None


@dataclass
class DualTask:
    """What `dual_task` makes: the task for `grpo.reinforce`, and its parts."""

    task: GrpoTask
    thinker: EncoderPolicy | None
    painter: DiffusionPolicy
    thinking: Adapted
    painting: Adapted
    questions: Mapping[str, Question]
    clock: dict[str, int]


def dual_task(
    pipeline: Any,
    wording: str,
    questions: Sequence[Question],
    rewards: Mapping[str, Reward],
    tree: DualTree,
    flow: FlowSampling,
    thinker: Side,
    painter: Side,
    config: GrpoConfig,
    alarms: Alarms | None = None,
    own: Mapping[str, Any] | None = None,
) -> DualTask:
    """The task over a loaded pipeline. `rewards`: by name; they judge pictures (PIL) for keys of questions. A picture's
    `info` holds the `prompt` that it was painted from, and whether the thought before it was `readable`. own: how the
    model paints where `flow` does not say (see `family.own_steps`)."""
    table = {question.key: question for question in questions}
    clock = {"iteration": 0}
    thinks, paints = tree.learn != "painter", tree.learn != "thinker"
    if tree.reader == "first" and thinks and not thinker.rank:
        raise ValueError("reader='first' reads with the thinker's adapters off; give thinker.rank above 0")
    for name in ("transformer", "text_encoder", "vae"):
        getattr(pipeline, name).requires_grad_(False).eval()
    thinking = _adapted(pipeline.text_encoder, thinker, thinks)
    painting = _adapted(pipeline.transformer, painter, paints)
    if tree.recompute:
        pipeline.transformer.enable_gradient_checkpointing()
    canvas = DiffusionPainter(pipeline, **{**(own or {}), **flow.painting()})
    canvas.size = canvas.size or (canvas.family.side, canvas.family.side)
    writes = _thinker(pipeline, wording, table, tree, thinking) if tree.thoughts else None
    read = _reader(writes, wording, table)
    policy = diffusion_policy(
        canvas,
        painting,
        noise=SdeNoise("ode") if flow.loss == "forward" else SdeNoise(flow.noise, flow.level),
        window=_window(flow, clock, config.seed),
        asked=lambda path: (read(path).prompt, table[path.prompt].pictures),
        rows=flow.rows,
        free_blank=flow.free_blank,
        same_start=flow.same_start,
        storage=getattr(torch, flow.storage),
    )
    learners: list[Learner] = []
    if thinks and writes is not None:
        learners.append(
            PolicyLearner(writes, thinker.credit(), {"text": thinker.rule()}, rescore=True, chunk=thinker.chunk)
        )
    forward = ForwardPolicy(policy, flow.follow) if paints and flow.loss == "forward" else None
    if forward is not None:
        learners.append(ForwardLearner(forward, painter.credit(), flow.mix, flow.good, painter.beta))
    elif paints:
        learners.append(
            PolicyLearner(policy, painter.credit(), {"image": painter.rule()}, rescore=True, chunk=painter.chunk)
        )
    reads = adapters_off if tree.reader == "first" and thinks and thinker.rank else (lambda network: nullcontext())
    policy.reading = partial(_reading, pipeline.text_encoder, reads, canvas.family.device if tree.rest else None)
    explore = _explore(pipeline, tree, writes, policy, rewards, read, flow.decoded)
    networks = {"thinker": pipeline.text_encoder} if thinks else {}
    networks |= {"painter": pipeline.transformer} if paints else {}
    model = Learning(**networks)
    if policy.slow is not None:
        model.keep("slow", policy.slow)

    def begin(iteration: int) -> None:
        clock["iteration"] = iteration
        if forward is not None and iteration:
            forward.follow()

    weights = {"thinker": thinker.weight, "painter": painter.weight}
    # Where thoughts are judged by their words, equal ones are the aim.
    alarms = (alarms or Alarms()) if tree.images else replace(alarms or Alarms(), identical=None)
    task = GrpoTask(model, list(table), explore, learners, _schedule(tree, weights), config, alarms, begin)
    return DualTask(task, writes, policy, thinking, painting, table, clock)


def _adapted(network: Any, side: Side, learns: bool) -> Adapted:
    if not learns:
        return Adapted.still(network)
    return Adapted(network, side.lora, frozen=side.beta > 0)


def _thinker(
    pipeline: Any, wording: str, table: Mapping[str, Question], tree: DualTree, adapted: Adapted
) -> EncoderPolicy:
    def asked(path: Path) -> list[Message]:
        question = table[path.prompt]
        sees = bool(question.pictures)
        return [Message("user", thinkers.request(wording, question.text, edit=sees), question.pictures)]

    writer = TextEncoderWriter(pipeline, together=tree.together)
    return EncoderPolicy(writer, adapted, asked, tree.limit, tree.temperature)


def _reader(
    writes: EncoderPolicy | None, wording: str, table: Mapping[str, Question]
) -> Callable[[Path], thinkers.Answer]:
    """What the thought of a path arrives at: the prompt that it is painted from; the typed one where there is none."""

    def read(path: Path) -> thinkers.Answer:
        typed = table[path.prompt].text
        if writes is None:
            return thinkers.Answer("", typed)
        thought = next(s for s in path.segments if s.policy == writes.name)
        return thinkers.parse(wording, writes.text(thought), typed)

    return read


def _window(flow: FlowSampling, clock: Mapping[str, int], seed: int) -> Callable[[Path], Window] | None:
    if flow.loss == "forward":
        return lambda path: Window(0, 0)
    if flow.window == "random":
        return lambda path: random_window(
            flow.size, flow.low, flow.high, seed=seed, epoch=clock["iteration"], group=path.group
        )
    if flow.window == "sliding":
        return lambda path: sliding_window(
            flow.size, flow.steps, clock["iteration"], every=flow.every, stride=flow.stride, wrap=True
        )
    return None


@contextmanager
def _reading(encoder: Any, reads: Callable[[Any], Any], device: Any) -> Iterator[None]:
    """While the encoder reads prompts: with or without what it has learnt, and on `device` if it rests elsewhere."""
    if device is not None:
        encoder.to(device)
    try:
        with reads(encoder):
            yield
    finally:
        if device is not None:
            encoder.to("cpu")


def _explore(
    pipeline: Any,
    tree: DualTree,
    writes: EncoderPolicy | None,
    policy: DiffusionPolicy,
    rewards: Mapping[str, Reward],
    read: Callable[[Path], thinkers.Answer],
    together: int,
) -> Callable[[Sequence[str], Sequence[int]], list[Tree]]:
    def think(paths: Sequence[Path]) -> list[list[Segment]]:
        assert writes is not None
        if not tree.rest:
            return writes.think(paths)
        with _reading(pipeline.text_encoder, lambda encoder: nullcontext(), policy.painter.family.device):
            return writes.think(paths)

    levels = [Level(tree.thoughts, think)] if writes is not None else []
    if tree.images:
        levels.append(Level(tree.images, policy.write))

    def finish(paths: Sequence[Path]) -> list[Any]:
        """Pictures that know what they were painted from, or that alone."""
        answers = [read(path) for path in paths]
        infos: list[dict[Any, Any]] = [{"prompt": answer.prompt, "readable": answer.note is None} for answer in answers]
        if not tree.images:
            return [Rewritten(info) for info in infos]
        pictures = []
        decoded = policy.pictures([path.segments[-1] for path in paths], together)
        for info, painted in zip(infos, decoded, strict=True):
            pictures.append(Image.fromarray(painted))
            pictures[-1].info |= info
        return pictures

    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        trees = grow(prompts, seeds, levels)
        judge(trees, finish, rewards)
        return trees

    return explore


def _schedule(tree: DualTree, weights: Mapping[str, float]) -> Schedule:
    if tree.learn == "staged":
        return staged(("thinker", "painter"), (tree.switch,))
    names = ("thinker", "painter") if tree.learn == "balanced" else (tree.learn,)
    return Schedule((Stage(0, {name: weights[name] for name in names}),))
