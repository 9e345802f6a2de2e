"""How fast PARM chooses: ours beside the published procedure done literally, same weights, same choices.

    python speed/parm.py --model FOLDER_OF_A_SHOW_O --judge atelier-janus -n 20 --prompts 2
    python speed/parm.py --model atelier-showo --judge atelier-judge --benchmark atelier-compbench --prompts 12

The literal way is that of the authors' code (arXiv 2501.13926, parm.py and selector.py): one candidate after another,
each of its steps a forward of the whole padded sequence, head over every position and word; a picture decoded at
every step, and once more for a judge who has not seen it clear yet; a judge called for every question by itself, who
writes its answer and the end of its turn; no candidate is ever stopped. Ours is `choose.prune`, which decodes what is
judged, asks many questions at once, from the look on at which the judge may say yes, and reads what two questions about
a picture share once. Both take the same random numbers, so they must keep the same candidates, and the script stops if
they do not (in bfloat16, where the two ways round differently, it tells how often they do). They are timed in turns, in
CPU seconds of the process with one thread, else in wall seconds.

The published judge is five times as large as its painter, a question to it takes a third of what a picture takes to be
painted, and all its questions four fifths of everything; the Atelier's is smaller than its painter. `--published-judge`
puts a network of random weights in its place that is to the Atelier's painter about what the published one is to its
own; whose verdicts count is then for `--verdicts` to say.

How much there is to stop depends on how often the painter is right: `--benchmark` takes prompts from all over one of
the Atelier's benchmarks in place of a few easy ones, and the script tells how many candidates the literal way found
hopeful.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

import reverie
import reverie.reason
from reverie.benchmarks import registry
from reverie.canvas import Conditions
from reverie.choose import Search, Task, first_look, look_steps, painted, prune
from reverie.events import Preview
from reverie.generators.showo import ShowoPainter
from reverie.judges import Answer, Judge, View
from reverie.judges.load import judge_by_name
from reverie.judges.manner import Manner
from reverie.judges.rules import GREEDY, highest, lowest
from reverie.judges.vlm import VLMJudge
from reverie.models.showo import omni_mask
from reverie.vlms.transformers import TransformersVLM

PROMPTS = ("two red apples", "a blue cat left of a dog", "a green car and a yellow boat", "four white birds")
CLEAR = 11 / 18
Clock = Callable[[], float]


class LiteralShowo(ShowoPainter):
    """The same draws from logits that are computed as the published loop does: pads, text and all, at every step."""

    def _guided(self, codes: Tensor, masked: Tensor, cache, texts, weight: float) -> tuple[Tensor, int]:
        model, words = self.model, self.tokenizer
        inside = torch.where(masked, model.config.mask, codes + model.config.code_offset)
        rows = [words.padded([words.painting_ids(prompt)])[0] for prompt in (*self.prompts, *[""] * len(self.prompts))]
        frame = [torch.full((len(rows), 1), index) for index in (model.config.image_start, model.config.image_end)]
        ids = torch.cat([torch.tensor(rows), frame[0], inside.repeat(2, 1), frame[1]], 1)
        logits = model.logits(ids, omni_mask(ids, words)).float()
        conditional, blank = logits.chunk(2)
        guided = weight * conditional - (weight - 1) * blank
        codes_only = slice(model.config.code_offset, model.config.mask)
        return guided[:, -self.length - 1 : -1, codes_only][masked], len(rows)

    def _head(self, states: Tensor) -> Tensor:
        """They are logits already."""
        return states

    def start(self, conditions: Conditions, seeds, known=None):
        self.prompts = conditions.prompts
        return super().start(conditions, seeds, known)


class Meter:
    """Seconds by stage."""

    def __init__(self, clock: Clock):
        self.clock, self.spent, self.aside = clock, Counter[str](), False

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """What does not count is no part of the stage around it, and counts for nothing inside."""
        if self.aside:
            yield
            return
        begin, before, self.aside = self.clock(), self.spent["not counted"], stage == "not counted"
        yield
        self.aside = False
        self.spent[stage] += self.clock() - begin - (self.spent["not counted"] - before)


class Dubbed(VLMJudge):
    """A VLM's judge whose time counts and whose verdicts are another's, for networks that were not trained long enough
    to have any: a picture is clear from 11/18 on, as PARM's labels say, never before, and hopeful if the other finds it
    right."""

    def __init__(self, judge: VLMJudge, other: Judge, meter: Meter):
        super().__init__(judge.vlm, judge.wording, judge.name, manner=Manner(clear_from=CLEAR))
        self.other, self.meter = other, meter

    def ask(self, question: str, views: Sequence[View]) -> list[Answer]:
        super().ask(question, views)
        if question == "clarity":
            return [Answer(score=view.painted, passed=view.painted > CLEAR) for view in views]
        with self.meter("not counted"):
            return self.other.ask("orm", [View(view.prompt, view.picture) for view in views])


def in_proportion(judge: VLMJudge) -> VLMJudge:
    """A judge of random weights beside `atelier-showo` about as LLaVA-OneVision 7B beside Show-o: six times its weights
    (published: five), and for a question a third of the arithmetic of a picture's twelve steps."""
    torch.manual_seed(0)
    old, processor = judge.vlm.model, copy.deepcopy(judge.vlm.processor)
    config = copy.deepcopy(old.config)
    text, vision = config.text_config, config.vision_config
    text.hidden_size, text.intermediate_size = 512, 1408
    text.num_hidden_layers, text.layer_types = 8, ["full_attention"] * 8
    text.num_attention_heads = text.num_key_value_heads = 8
    text.rope_parameters["mrope_section"] = [8, 12, 12]
    vision.hidden_size, vision.patch_size, processor.image_processor.patch_size = 512, 3, 3
    model = type(old)._from_config(config)
    model.generation_config = old.generation_config
    return VLMJudge(TransformersVLM(model, processor), judge.wording, judge.name, manner=judge.manner)


class Literal:
    """Asks one question at a time, as the published selector does: the judge writes its answer and ends its turn. What
    it says is read off the usual logits, whose time does not count."""

    def __init__(self, judge: Judge, meter: Meter, written: int):
        self.judge, self.meter, self.written = judge, meter, written

    def __call__(self, question: str, view: View) -> Answer:
        if isinstance(self.judge, VLMJudge) and self.written:
            with self.meter("judging"):
                talk = self.judge.wording.conversation(question, view.prompt, view.picture)
                self.judge.vlm.write(talk, self.written)
            with self.meter("not counted"):
                return self.judge.ask(question, [view])[0]
        with self.meter("judging"):
            return self.judge.ask(question, [view])[0]


class Choice(NamedTuple):
    """Which candidate is kept, of how many hopeful ones, where that is counted."""

    kept: int
    hopeful: int | None = None


def literal(painter: LiteralShowo, judge: Judge, prompt: str, seed: int, n: int, meter: Meter, how: Settings) -> Choice:
    """The published procedure for one image."""
    ask = Literal(judge, meter, how.written)
    first = first_look(look_steps(painter.steps, painter.steps), how.first, judge)
    seeds = painter.start(Conditions((prompt,)), [seed]).fork(n).seeds
    kept, numbers, finals = [], [], []
    for one in seeds:
        canvas, clear = painter.start(Conditions((prompt,)), [one]), False
        potential, number = False, 1.0
        for step in range(1, painter.steps + 1):
            with meter("painting"):
                canvas = painter.advance(canvas, to=step)
            with meter("decoding"):
                picture = painted(painter, canvas)[0]
            if clear:
                continue
            with meter("decoding"):
                picture = painted(painter, canvas)[0]
            said = GREEDY.clear(ask("clarity", View(prompt, picture, step / painter.steps)))
            # What it says of pictures that are earlier than any it has learnt from is no answer; ours does not ask.
            clear = said and step >= first
            if clear:
                potential, number = GREEDY.potential(ask("potential", View(prompt, picture, step / painter.steps)))
        kept.append(potential)
        numbers.append(number)
        finals.append(picture)
    survivors = [i for i, good in enumerate(kept) if good]
    if not survivors:
        return Choice(lowest(numbers), 0)
    if len(survivors) == 1:
        return Choice(survivors[0], 1)
    scores = [GREEDY.score(ask("orm", View(prompt, finals[i]))) for i in survivors]
    return Choice(survivors[highest(scores)], len(survivors))


def ours(painter: ShowoPainter, judge: Judge, prompt: str, seed: int, n: int, meter: Meter, how: Settings) -> Choice:
    """The same by `choose.prune`; stages are told by wrapping what is called."""
    looks = look_steps(painter.steps, painter.steps)
    search = Search(
        Timed(painter, meter), TimedJudge(judge, meter), GREEDY, n, looks,
        first_look=first_look(looks, how.first, judge), batch=n,
    )  # fmt: skip
    program = prune(search, Task(Conditions((prompt,)), (seed,), (prompt,), (0,)), lambda done, shown: Preview(0, 1))
    while True:
        try:
            next(program)
        except StopIteration as end:
            return Choice(end.value[0][0].candidate)


class Timed:
    """A painter whose work is metered."""

    def __init__(self, painter: ShowoPainter, meter: Meter):
        self.painter, self.meter, self.steps = painter, meter, painter.steps

    def __getattr__(self, name: str):
        return getattr(self.painter, name)

    def advance(self, canvas, to=None):
        with self.meter("painting"):
            return self.painter.advance(canvas, to)

    def preview(self, canvas):
        with self.meter("decoding"):
            return self.painter.preview(canvas)


class TimedJudge:
    """A judge whose work is metered."""

    def __init__(self, judge: Judge, meter: Meter):
        self.judge, self.meter, self.name, self.work = judge, meter, judge.name, judge.work

    def ask(self, question, views):
        with self.meter("judging"):
            return self.judge.ask(question, views)


@dataclass(frozen=True)
class Settings:
    """first: the look from which on ours asks about clarity, None to leave it to the judge. written: tokens that the
    literal judge writes."""

    first: int | None
    written: int
    verdicts: str | None = None
    """A judge whose verdicts count in place of the timed one's, see `Dubbed`."""
    dtype: str = "float32"
    large: bool = False
    """Whether the judge gives way to one of the published proportion."""


def measure(model: str, judge: str, n: int, prompts: Sequence[str], repeats: int, clock: Clock, how: Settings) -> dict:
    """Seconds of both ways for each prompt, and where they went. Stops where the choices differ."""
    loaded = reverie.load(model, device="cpu", dtype=how.dtype)
    fast = loaded.generator(reverie.reason.Plan())
    slow = LiteralShowo(
        loaded.model, loaded.tokenizer, guidance=fast.guidance, temperature=fast.temperature, steps=fast.steps
    )
    eyes = judge_by_name(judge, "cpu")
    if how.large:
        if not isinstance(eyes, VLMJudge):
            raise SystemExit(f"--published-judge takes the place of a VLM, which {judge} is not.")
        eyes = in_proportion(eyes)
    other = judge_by_name(how.verdicts, "cpu") if how.verdicts else None
    ways = {"literal": (literal, slow, Meter(clock)), "ours": (ours, fast, Meter(clock))}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    equal, hopeful = 0, list[float]()
    for _ in range(repeats):
        for number, prompt in enumerate(prompts):
            chosen = dict[str, Choice]()
            for name, (way, painter, meter) in ways.items():
                begin, before = clock(), meter.spent["not counted"]
                asked = eyes if other is None else Dubbed(eyes, other, meter)
                chosen[name] = way(painter, asked, prompt, 100 + number, n, meter, how)
                seconds[name].append(clock() - begin - (meter.spent["not counted"] - before))
            same = len({choice.kept for choice in chosen.values()}) == 1
            equal += same
            hopeful.append((chosen["literal"].hopeful or 0) / n)
            # In bfloat16 the two ways round differently, and a code in a hundred is another one.
            if how.dtype == "float32" and not same:
                raise SystemExit(f"the two ways keep different candidates: {chosen}")
    stages = {
        name: {k: v for k, v in meter.spent.items() if k != "not counted"} for name, (_, _, meter) in ways.items()
    }
    means = {name: statistics.mean(values) for name, values in seconds.items()}
    return {
        "seconds": means,
        "stages": stages,
        "equal choices": f"{equal} of {len(hopeful)}",
        "hopeful": statistics.mean(hopeful),
    }


def spread(benchmark: str | None, count: int) -> list[str]:
    """So many prompts: from all over a benchmark, or a few easy ones in turn."""
    if benchmark is None:
        return [PROMPTS[i % len(PROMPTS)] for i in range(count)]
    samples = registry.load(benchmark).samples
    return [samples[(2 * i + 1) * len(samples) // (2 * count)].prompt for i in range(count)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="atelier-showo")
    parser.add_argument("--judge", default="atelier-janus")
    parser.add_argument("-n", type=int, default=20)
    parser.add_argument("--prompts", type=int, default=2)
    parser.add_argument("--benchmark", help="of the Atelier, whose prompts are taken")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--from", dest="first", type=int, help="the look from which on ours asks (default: the judge's)"
    )
    parser.add_argument("--written", type=int, default=2, help="tokens that the literal judge writes; 0: one forward")
    parser.add_argument("--dtype", default="float32", help="of the painter")
    parser.add_argument("--verdicts", help="a judge whose verdicts count instead, its time does not")
    parser.add_argument("--published-judge", action="store_true", help="a judge as large beside the painter, see above")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.process_time if options.threads == 1 else time.perf_counter
    how = Settings(options.first, options.written, options.verdicts, options.dtype, options.published_judge)
    prompts = spread(options.benchmark, options.prompts)
    found = measure(options.model, options.judge, options.n, prompts, options.repeats, clock, how)
    for name, spent in found["stages"].items():
        whole = sum(spent.values())
        told = ", ".join(f"{stage} {value / whole:.0%}" for stage, value in sorted(spent.items()))
        print(f"{name}: {found['seconds'][name]:.1f} s an image ({told})", file=sys.stderr)
    found["ratio"] = found["seconds"]["literal"] / found["seconds"]["ours"]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
