"""Seconds of a Dual-GRPO step: batched, and literally, as published scripts walk the tree.

    python speed/dual_grpo.py --model atelier-qwen

Literally: every thought is written alone, every image reads its own prompt and its own negative prompt, goes through
the transformer and the autoencoder alone, and is scored alone when it is learnt from. Both ways take the same seeds and
the same weights in one process; before anything is timed, their thoughts must be equal and their advantages must agree.
The last line is one line of JSON: seconds of a step by the wall clock and by the process's own, which a busy machine
disturbs less.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from reverie.training.dual_grpo import DualTree, FlowSampling, Question, Side, dual_task
from reverie.training.grpo import GrpoConfig
from reverie.training.picture_rewards import stacked
from reverie.training.rollout import Level, grow, judge
from reverie.training.tree import lessons

CLOCKS = (time.perf_counter, time.process_time)
PROMPTS = ("the animal that gives us wool", "what Newton saw fall", "two red cups", "a cat to the left of a green tree")


def bright(keys, pictures):
    """A reward that costs nothing: whoever judges would judge the same pictures in both ways."""
    pixels = stacked(pictures).float()
    return pixels.mean((1, 2, 3)).tolist()


def tasks(make_pipeline, wording, tree, flow, prompts, own):
    """(batched, literal) tasks over two copies of one model."""
    questions = [Question(text, text) for text in PROMPTS[:prompts]]
    found = []
    for literal in (False, True):
        alone = {"together": 1} if literal else {}
        thinker = Side({"bright": 1.0}, rank=8, inside="language_model", chunk=1 if literal else 64)
        painter = Side({"bright": 1.0}, rank=8, chunk=1 if literal else 64)
        torch.manual_seed(0)
        made = dual_task(
            make_pipeline(), wording, questions, {"bright": bright}, replace(tree, **alone),
            replace(flow, rows=1 if literal else 64), thinker, painter, GrpoConfig(prompts=prompts), own=own,
        )  # fmt: skip
        if literal:
            made.task.explore = walked(made, tree)
        found.append(made)
    return found


def walked(made, tree):
    """The roll-out of the same tree, path by path."""

    def one_by_one(write):
        return lambda paths: [written for path in paths for written in write([path])]

    def explore(prompts, seeds):
        levels = [
            Level(tree.thoughts, one_by_one(made.thinker.think)),
            Level(tree.images, one_by_one(made.painter.write)),
        ]
        trees = grow(prompts, seeds, levels)

        def finish(paths):
            from PIL import Image

            return [Image.fromarray(made.painter.pictures([path.segments[-1]])[0]) for path in paths]

        judge(trees, finish, {"bright": bright})
        return trees

    return explore


def step(made, optimiser, number):
    """One whole update."""
    loss, _ = made.task.loss(made.task.batch(number))
    loss.backward()
    optimiser.step()
    optimiser.zero_grad()


def agree(pair):
    """Thoughts equal, advantages near: 1e-3 of their deviation."""
    found = []
    for made in pair:
        turn = made.task.batch(0)
        with torch.no_grad():
            trees = made.task.explore(turn.prompts, turn.seeds)
        thoughts = [branch.segments[0].actions.tolist() for tree in trees for branch in tree.branches]
        credits = {learner.name: learner.credit for learner in made.task.learners}
        earned = {
            name: torch.tensor([lesson.advantage for lesson in part]) for name, part in lessons(trees, credits).items()
        }
        found.append((thoughts, earned))
    (thoughts, earned), (others, other_earned) = found
    if thoughts != others:
        raise SystemExit("the two ways wrote different thoughts")
    return {name: float((earned[name] - other_earned[name]).abs().max()) for name in earned}


def compare(make_pipeline, wording, tree, flow, prompts=4, steps=2, own=None, clocks=CLOCKS):
    pair = tasks(make_pipeline, wording, tree, flow, prompts, own)
    gaps = agree(pair)
    found = {"gaps": gaps}
    for name, made in zip(("batched", "literal"), pair, strict=True):
        optimiser = torch.optim.AdamW(made.task.model.parameters(), lr=1e-6)
        step(made, optimiser, 0)
        start = [clock() for clock in clocks]
        for number in range(1, steps + 1):
            step(made, optimiser, number)
        found[name] = [(clock() - since) / steps for clock, since in zip(clocks, start, strict=True)]
    found["ratio"] = [slow / fast for slow, fast in zip(found["literal"], found["batched"], strict=True)]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-qwen")
    parser.add_argument("--thoughts", type=int, default=5)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--steps", type=int, default=2, help="updates that are timed")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from reverie.generators.family import own_steps
    from reverie.models.diffusion_checkpoint import load_pipeline
    from reverie.models.registry import resolve

    source = resolve(given.model)
    tree = DualTree(thoughts=given.thoughts, images=given.images, limit=given.tokens)
    flow = FlowSampling(steps=10, window="random", size=2, low=0, high=5)
    own = {name: value for name, value in own_steps(source.config).items() if name != "steps"}

    def make():
        return load_pipeline(Path(source.folder), dtype=torch.float32)

    found = compare(make, source.thinker, tree, flow, given.prompts, given.steps, own)
    print(json.dumps(found))


if __name__ == "__main__":
    main()
