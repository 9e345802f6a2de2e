"""Janus as a policy: what it wrote is what it scores, with guidance or without, region by region; and it learns."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path as File
from typing import Any

import pytest
import torch
from janus_toy import toy_janus
from PIL import Image
from torch import Tensor

from reverie.canvas import pick
from reverie.generators.janus import JanusPainter
from reverie.training.alarms import Alarms
from reverie.training.grpo import GrpoConfig, GrpoTask, balanced, reinforce
from reverie.training.janus_policy import JanusPolicy, _seeds
from reverie.training.learner import PolicyLearner
from reverie.training.loop import LoopConfig
from reverie.training.policy_loss import PolicyRule
from reverie.training.rollout import Level, Path, grow, judge
from reverie.training.tree import Credit, Segment, Tree
from reverie.vlms import Message
from reverie.vlms.janus import JanusEyes


def policy(**values: Any) -> JanusPolicy:
    model, tokenizer = toy_janus()
    painter = JanusPainter(model, tokenizer, rows=16, chunk=16)
    return JanusPolicy(painter, JanusEyes(model, tokenizer, rows=16, chunk=16), **{"limit": 12, **values})


def paths(*prompts: str) -> list[Path]:
    return [Path(prompt, seed) for seed, prompt in enumerate(prompts)]


@pytest.mark.parametrize("guidance", [1.0, 5.0])
def test_scores_are_those_of_the_draw(guidance: float) -> None:
    """Whole sequences without a cache against the logits from which each code was drawn."""
    one = policy(guidance=guidance, guided=True)
    drawn = []

    def picker(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
        codes = pick(logits, uniforms, temperature)
        drawn.append((logits / temperature).log_softmax(-1).gather(1, codes[:, None])[:, 0])
        return codes

    one.painter.picker = picker
    written = one.paint(paths("a cat", "a much longer prompt"))
    scores = torch.stack([segments[0].log_prob for segments in written])
    assert torch.allclose(scores, torch.stack(drawn, 1), atol=1e-4)
    conditional = policy(guidance=guidance).log_prob([segments[0] for segments in written]).log_prob
    assert torch.allclose(conditional, scores, atol=1e-4) == (guidance == 1)


def test_thoughts_are_scored_with_their_end_and_from_the_first_token_on() -> None:
    one = policy(limit=40)
    written = [segments[0] for segments in one.think(paths(*"abcdefghijkl"))]
    eos = one.eyes.tokenizer.eos
    assert all((int(s.actions[-1]) == eos) != s.truncated for s in written)
    for seed, segment in zip(_seeds(paths(*"abcd")), written, strict=False):
        told = one.eyes.tokenizer.decode(segment.actions.tolist())
        answer = one.eyes.write(segment.context.messages, 40, 1.0, seed)
        assert told == answer
        question = len(one.eyes.ids(segment.context.messages))
        embeds = torch.cat(
            [one.eyes.embeddings(segment.context.messages), one.painter.model.embed_text(segment.actions)]
        )
        logits = one.painter.model.text_logits(one.painter.model.hidden(embeds[None]))[0, question - 1 : -1]
        want = logits.log_softmax(-1).gather(1, segment.actions[:, None])[:, 0]
        assert torch.allclose(segment.log_prob, want, atol=1e-4)


def test_pictures_in_the_question_are_read() -> None:
    grey, red = Image.new("RGB", (32, 32), "grey"), Image.new("RGB", (32, 32), "red")
    one = policy()
    (segment,) = policy(question=lambda path: [Message("user", "What?", [grey])]).think(paths("a"))[0]
    with torch.no_grad():
        same = one.log_prob([segment]).log_prob
        redder = replace(segment, context=replace(segment.context, seen=one.eyes.seen([Message("user", "", [red])])))
        other = one.log_prob([redder]).log_prob
    assert torch.allclose(same[0], segment.log_prob, atol=1e-5)
    assert not torch.allclose(same, other, atol=1e-3)


def test_a_region_after_a_thought_is_scored_behind_it_and_what_was_painted() -> None:
    one = policy(guidance=1.0, guided=True)
    one.prompt = lambda path: " ".join([path.prompt, *one.thoughts(path)])
    start = paths("a cat", "a dog in the rain")
    first = one.paint(start, 6)
    after = [Path(p.prompt, p.seed, tuple(s)) for p, s in zip(start, first, strict=True)]
    thoughts = one.think(after)
    later = [Path(p.prompt, p.seed, (*p.segments, *s)) for p, s in zip(after, thoughts, strict=True)]
    rest = one.paint(later)
    assert [len(s[0]) for s in rest] == [one.painter.steps - 6] * 2
    for path, thought, (segment,) in zip(later, thoughts, rest, strict=True):
        assert torch.equal(segment.context.painted, path.segments[0].actions)
        words = one.eyes.tokenizer.decode(thought[0].actions.tolist()).strip()
        assert segment.context.ids == tuple(one.painter.tokenizer.painting_ids(f"{path.prompt} {words}"))
        model = one.painter.model
        codes = torch.cat([segment.context.painted, segment.actions])
        embeds = torch.cat([model.embed_text(torch.tensor(segment.context.ids)), model.embed_codes(codes)])
        logits = model.code_logits(model.hidden(embeds[None]))[0, len(segment.context.ids) + 5 : -1]
        want = logits.log_softmax(-1).gather(1, segment.actions[:, None])[:, 0]
        assert torch.allclose(segment.log_prob, want, atol=1e-4)
    later[0].segments[0].rejected = True
    assert len(one.codes(later[0])) == 0
    with pytest.raises(ValueError, match="painted to different steps"):
        one.paint(later)


def test_padding_and_company_change_no_score() -> None:
    one = policy()
    written = [s[0] for s in one.think(paths("a", "a longer question than the first", "b"))]
    together = one.log_prob(written).log_prob
    for row, segment in zip(together, written, strict=True):
        alone = one.log_prob([segment]).log_prob[0]
        assert torch.allclose(alone, row[: len(segment)], atol=1e-5)


def test_text_and_image_learn_together_from_one_reward(tmp_path: File) -> None:
    """T2I-R1 in miniature: a thought, then the image behind it; paid for codes of the lower half."""
    one = policy(guidance=1.0, limit=4)
    one.prompt = lambda path: " ".join([path.prompt, *one.thoughts(path)])

    def write(start: Sequence[Path]) -> list[list[Segment]]:
        thoughts = one.think(start)
        after = [Path(p.prompt, p.seed, (*p.segments, *s)) for p, s in zip(start, thoughts, strict=True)]
        return [t + i for t, i in zip(thoughts, one.paint(after), strict=True)]

    def explore(prompts: Sequence[str], seeds: Sequence[int]) -> list[Tree]:
        trees = grow(prompts, seeds, [Level(8, write)])
        low = {"low": lambda prompts, images: [float((image < 24).float().mean()) for image in images]}
        judge(trees, lambda found: [one.codes(path) for path in found], low)
        return trees

    model = one.painter.model
    for part in (model.vision_model, model.aligner, model.vqmodel):
        part.requires_grad_(False)
    rules = {"text": PolicyRule(), "image": PolicyRule()}
    learner = PolicyLearner(one, Credit({"low": 1.0}), rules, rescore=True, chunk=5)
    task = GrpoTask(
        model, ["a cat", "dogs"], explore, [learner], balanced("janus"), GrpoConfig(prompts=2), Alarms(identical=None)
    )
    loop = LoopConfig(steps=14, lr=0.03, ema=0.0, precision="no", warmup=0.0, decay=0.0, save_every=14, log_every=1)
    frozen = [p.clone() for p in model.vqmodel.parameters()]
    reinforce(task, loop, tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert rows[-1]["reward/low"] > rows[0]["reward/low"] + 0.2
    assert all(row["janus/image/ratio_gap"] == row["janus/text/ratio_gap"] == 0 for row in rows)
    assert max(row["janus/image/drift"] for row in rows) < 1e-4
    assert all(torch.equal(a, b) for a, b in zip(frozen, model.vqmodel.parameters(), strict=True))
