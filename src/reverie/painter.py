"""The Python interface: load a model, generate, stream, describe.

    painter = reverie.load("atelier-janus")
    result = painter.generate("three blue cats at night", think="before", seed=7)
    for event in painter.stream("three blue cats at night"): ...

Loading and painting are separate from the checks that need no weights (refusals.py), so that the command line can
refuse bad input at once.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, Spent, Trace
from reverie.fitting import Fitting
from reverie.inputs import NOTHING, Inputs, Part, request_of
from reverie.loading import here, load_model
from reverie.look_back import Bench
from reverie.models.diffusion_checkpoint import can_write
from reverie.models.prompt_length import check_length
from reverie.models.registry import (
    Source,
    check_paints,
    check_prompt,
    fetched,
    fingerprint,
    resolve,
)
from reverie.reason import Plan, make_plan, run
from reverie.refusals import (
    SILENT,
    check_canvas,
    check_inputs,
    check_looks,
    check_place,
    check_request,
    check_writes,
    in_words,
    may_be_silent,
    usual_judge,
)
from reverie.result import Result, reasoned, result_of
from reverie.thinkers import WORDINGS, Answer, Thinker

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from reverie.benchmarks.protocol import Inputs as Given
    from reverie.benchmarks.protocol import Painted
    from reverie.canvas import Generator as Canvases
    from reverie.canvas import Work
    from reverie.eyes import Eyes
    from reverie.judges import Judge
    from reverie.judges.load import Anyone, Opened
    from reverie.relay import Relay, Told
    from reverie.vlms import VLM


class Painter:
    """A loaded model that paints, thinks and looks. Make one with `reverie.load`."""

    def __init__(self, source: Source, model: Any, tokenizer: Any):
        self.source, self.model, self.tokenizer = source, model, tokenizer
        self.folder = source.folder
        self.about = _about(source, model)
        self.rows = 32
        """Of every matrix product of a Janus. More serve more images on a large GPU, and may round differently."""
        self._opened: dict[str, Opened] = {}
        self._looking: dict[str, Callable[[Work], Eyes]] = {}

    @property
    def name(self) -> str:
        return self.source.name

    def generate(
        self,
        prompt: str | Sequence[Any],
        preset: str | None = None,
        *,
        picture: Any = None,
        context: Sequence[Part] = (),
        think: str | None = None,
        seed: int | None = None,
        n: int = 1,
        trace: str | Path | None = None,
        judge: Anyone = None,
        eyes: Any = None,
        thinker: Any = None,
        **fields: Any,
    ) -> Result:
        """Paints `n` images of `prompt`, with the seeds seed, seed + 1, ...

        picture: a PIL image or path that is to be edited; the prompt is the instruction.
        context: PIL images, `Path`s of pictures, and strings that lead up to the prompt. A list of chat messages holds
            both the context and the prompt, and may be given as the prompt (`inputs.from_messages`).
        preset: `direct`, `t2g`, `t2i-r1`, `twig`, `parm` or `parm++`; `think` and other fields of `reverie.Plan`
            (guidance, regions, ...) overrule it.
        seed: drawn at random if None; it is in the result.
        trace: a new folder that receives every event and preview.
        judge: who chooses and looks back: a name or folder, a function (prompts, pictures) -> scores, a
            `reverie.judges.Judge`, or pairs of these with weights; None takes the model's own eyes.
        eyes: who looks at given pictures for a painter that only reads words: a name or folder, or a VLM; None takes
            the model's own.
        thinker: who reasons before painting in the place of the model itself: likewise.
        Raises ValueError, in one sentence, for what cannot be painted.
        """
        events = self.stream(
            prompt, preset, picture=picture, context=context, think=think, seed=seed, n=n, trace=trace, judge=judge,
            eyes=eyes, thinker=thinker, previews=trace is not None, **fields,
        )  # fmt: skip
        return result_of(list(events))

    def stream(
        self,
        prompt: str | Sequence[Any],
        preset: str | None = None,
        *,
        picture: Any = None,
        context: Sequence[Part] = (),
        think: str | None = None,
        seed: int | None = None,
        n: int = 1,
        trace: str | Path | None = None,
        pieces: int = 12,
        previews: bool = True,
        judge: Anyone = None,
        eyes: Any = None,
        thinker: Any = None,
        **fields: Any,
    ) -> Iterator[Event]:
        """The same as it happens: thoughts while they are written, `pieces` previews, finished images.

        The input is checked now, the painting happens as the events are taken.
        """
        from reverie import eyes as looking
        from reverie.judges.load import check_judge, name_of

        people = {"judge": name_of(judge), "eyes": looking.name_of(eyes), "thinker": looking.name_of(thinker)}
        plan = make_plan(preset, think=think, **people, **fields)
        looking.check_thinker(plan.thinker)
        check_canvas(self.source, plan)
        prompt, inputs = request_of(prompt, picture, context)
        seeds = check_request(self.source, prompt, seed, n, may_be_silent(self.source, inputs.context))
        check_inputs(self.source, plan, inputs)
        check_judge(plan, None if in_words(self.source, plan, inputs) else prompt)
        events = self.run(
            plan,
            [prompt] * n,
            seeds,
            inputs=[inputs] * n,
            pieces=pieces,
            previews=previews,
            judge=judge,
            eyes=eyes,
            thinker=thinker,
        )
        return events if trace is None else _traced(events, Trace(trace))

    def run(
        self,
        plan: Plan,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        inputs: Sequence[Inputs] = (),
        told: Mapping[int, Told] | None = None,
        thoughts: Mapping[str, Answer] | None = None,
        answers: Mapping[int, Sequence[str]] | None = None,
        pieces: int = 12,
        previews: bool = False,
        batch: int | None = None,
        judge: Anyone = None,
        eyes: Any = None,
        thinker: Any = None,
    ) -> Generator[Event, None, None]:
        """Any plan over any prompts, one seed for each: what all else stands on (see `reason.run`).

        inputs: what stands beside each prompt, or nothing at all.
        judge, eyes, thinker: for plans with Python objects in these places; others are loaded by their names, once."""
        silent = bool(inputs) and all(may_be_silent(self.source, one.context) for one in inputs)
        for prompt in dict.fromkeys(prompts):
            check_prompt(prompt, silent=silent)
            check_length(self.source, prompt)
        check_canvas(self.source, plan)
        given = dict.fromkeys(inputs or [NOTHING])
        for one in given:
            check_inputs(self.source, plan, one)
        ways = {in_words(self.source, plan, one) for one in given if one}
        if len(ways) > 1:
            raise ValueError(f"{self.name} takes some of these inputs and not others; paint them in runs of their own.")
        known = len(told or ()) == len(prompts)
        relay = self.relay(plan, eyes, known) if True in ways else None
        bench = self.bench(plan, judge) if plan.judges else None
        if bench is not None and (plan.think == "never" or plan.interleaved) and relay is None:
            for prompt in dict.fromkeys(prompts):
                bench.judge.check(prompt)
        return run(
            self.generator(plan), self.thinker(plan, eyes, thinker), plan, prompts, seeds, about=self.about,
            inputs=inputs, relay=relay, told=told, thoughts=thoughts, answers=answers, bench=bench, pieces=pieces,
            previews=previews, batch=batch,
        )  # fmt: skip

    def paint(
        self, prompts: Sequence[str], seeds: Sequence[int], plan: Plan | None = None, inputs: Sequence[Given] = ()
    ) -> list[Painted]:
        """One image for each prompt and seed, as benchmarks want them, with what stands beside each."""
        from reverie.benchmarks.protocol import Painted

        given = [Inputs.of(one.picture, tuple(one.context)) for one in inputs]
        events = list(self.run(plan or Plan(), prompts, seeds, inputs=given, pieces=1, batch=64))
        finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.image)
        spent = next(event for event in events if isinstance(event, Spent))
        painted = []
        for place, event in enumerate(finished):
            # What was spent together is shared out evenly; the first ones bear the remainder, so that the sum is right.
            share = {
                name: (count + len(finished) - 1 - place) // len(finished) for name, (count, _) in spent.work.items()
            }
            assert event.picture is not None
            thought, text = reasoned(event.recipe)
            painted.append(Painted(event.picture, text, thought, share))
        return painted

    def generator(self, plan: Plan) -> Canvases:
        """The model as one that paints, at the temperature of the plan."""
        from reverie.generators.family import generator_of

        return generator_of(self.source, self.model, self.tokenizer, plan, self.rows)

    def thinker(self, plan: Plan | None = None, eyes: Any = None, thinker: Any = None) -> Thinker | None:
        """The model as one that reasons about prompts, in the wording that suits it; None if it only paints. The eyes
        of a plan think while it paints, its thinker before."""
        from reverie.canvas import Work

        work, check = Work(), partial(check_length, self.source)
        if plan is not None and (other := plan.eyes if plan.interleaved else plan.thinker) is not None:
            from reverie.eyes import thinking

            who = (eyes if plan.interleaved else thinker) or other
            # Who reasons for another is asked as Think-then-Generate asks, which knows of edits too.
            return thinking(who, str(self.model.device), check, work, "instruct" if plan.interleaved else "t2g")
        if self.source.family in SILENT or (self.source.family == "diffusion" and not can_write(self.source.config)):
            return None
        return Thinker(self.vlm(work), self.source.thinker, check, work, self.source.dialogue)

    def bench(self, plan: Plan, judge: Anyone = None) -> Bench:
        """Who judges for a plan, and how this painter is told what was wrong."""
        from reverie.canvas import Work
        from reverie.judges.load import build, open_judge
        from reverie.judges.vlm import VLMJudge, Wording

        official = plan.rules == "official"
        wanted = plan.judge if judge is None else judge
        wanted = usual_judge(self.source) if wanted is None else wanted

        def own() -> Judge:
            work = Work()
            return VLMJudge(self.vlm(work), Wording.of(self.source.judge), self.name, official, work)

        def by_name(name: str) -> Judge:
            source = resolve(name, "judge")
            if source.folder is not None and source.folder == self.folder:
                return own()
            if name not in self._opened:
                self._opened[name] = open_judge(source, str(self.model.device))
            return self._opened[name](Work(), official)

        wording = Wording.of(self.source.judge)
        # Of a picture in a prompt: its vectors, start, end, line break.
        vectors = self.model.config.vision.num_image_tokens + 3 if self.source.family == "janus" else 0

        def check(prompt: str, seen: bool) -> None:
            check_length(self.source, prompt, vectors if seen else 0)

        chosen = own() if wanted is None else build(wanted, by_name)
        return Bench(chosen, wording.see, wording.words, wording.edit, check)

    def relay(self, plan: Plan, eyes: Any = None, known: bool = False) -> Relay:
        """Who puts given pictures into words for this painter. known: they were put into words before, and nobody looks
        again."""
        from reverie.canvas import Work
        from reverie.eyes import open_eyes, own_eyes, relay_of, shut

        work, wanted = Work(), plan.eyes if eyes is None else eyes
        if known:
            looking = shut(wanted)
        elif wanted is None or (isinstance(wanted, str) and wanted in (self.name, str(self.folder))):
            check_looks(self.source)
            looking = own_eyes(self.source, self.model, self.tokenizer, work)
        else:
            if str(wanted) not in self._looking or not isinstance(wanted, str | Path):
                self._looking[str(wanted)] = open_eyes(wanted, str(self.model.device))
            looking = self._looking[str(wanted)](work)
        writes = self.source.family != "diffusion" or can_write(self.source.config)
        own = self.vlm(work) if looking.vlm is None and writes and self.source.family not in SILENT else None
        return relay_of(self.source, looking, own, work)

    def vlm(self, work: Work | None = None) -> VLM:
        """The model as one that reads pictures and writes; ValueError if it does not write."""
        check_writes(self.source)
        if self.source.family == "diffusion":
            from reverie.vlms.text_encoder import TextEncoderWriter

            return TextEncoderWriter(self.model, work=work)
        from reverie.vlms.janus import JanusEyes

        return JanusEyes(self.model, self.tokenizer, rows=self.rows, work=work)

    def describe(self, image: Image | str | Path, question: str | None = None) -> str:
        """What the model's own eyes see in a picture, or its answer to a question about it."""
        from reverie.png import open_picture
        from reverie.vlms import Message

        picture = open_picture(image) if isinstance(image, str | Path) else image
        check_looks(self.source)
        if self.source.family == "showo":
            from reverie.vlms.showo import ShowoEyes

            looked = question or WORDINGS[self.source.thinker].look
            return ShowoEyes(self.model, self.tokenizer).answer(picture, looked)
        asked = Message("user", question or WORDINGS[self.source.thinker].look, (picture.convert("RGB"),))
        return self.vlm().write([asked], 256).strip()


def load(
    name: str | Path = "atelier-janus",
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    device_map: str | dict[str, Any] | None = None,
    *,
    offload: str | None = None,
    quantise: str | None = None,
    lora: str | Path | None = None,
    compiled: bool = False,
) -> Painter:
    """A model by name (`reverie models` lists them), hub id, or folder.

    device: `cpu`, `cuda`, `mps`, ...; a GPU is taken if there is one and None is given.
    dtype: of the weights, such as `float32` or `bfloat16`; by default float32 on the CPU and bfloat16 on others.
    device_map: places parts on several devices, as in transformers (`auto`, or a dictionary).
    offload, quantise, lora, compiled: of a pipeline of diffusers, see `fitting.Fitting`.
    Raises ValueError, in one sentence, if there is no such model or its files are not complete.
    """
    check_place(device, dtype)
    fitting = Fitting(offload, quantise, None if lora is None else str(lora), compiled)
    source = resolve(name)
    fitting.check(source)
    source = check_paints(fetched(source))
    if fitting.said():
        fitting.check(source, here(device))
    painter = Painter(source, *load_model(source, device, dtype, device_map, fitting))
    if fitting.said():
        painter.about["fitting"] = fitting.said()
    return painter


def _traced(events: Iterator[Event], trace: Trace) -> Iterator[Event]:
    with trace:
        for event in events:
            yield trace.write(event)


def _about(source: Source, model: Any) -> dict[str, Any]:
    """The part of a recipe that all images of this painter share."""
    import torch

    from reverie import __version__

    versions = {"reverie": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "model": source.name,
        "fingerprint": None if source.folder is None else fingerprint(source.folder, source.adapters),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": versions | {"platform": platform.platform()},
    }
