"""The Python interface: load a model, generate, stream, describe.

    painter = reverie.load("atelier-janus")
    result = painter.generate("three blue cats at night", think="before", seed=7)
    for event in painter.stream("three blue cats at night"): ...

Loading and painting are separate from the checks that need no weights (refusals.py), so that the command line can
refuse bad input at once.
"""

from __future__ import annotations

import platform
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.events import Event, Finished, Spent, Trace, without_pictures
from reverie.look_back import Bench
from reverie.models.diffusion_checkpoint import can_write
from reverie.models.registry import (
    Source,
    check_length,
    check_paints,
    check_prompt,
    fetched,
    fingerprint,
    resolve,
)
from reverie.reason import Plan, make_plan, run
from reverie.refusals import SILENT, check_canvas, check_judges, check_looks, check_place, check_request, check_writes
from reverie.thinkers import WORDINGS, Answer, Thinker

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image

    from reverie.benchmarks.protocol import Inputs, Painted
    from reverie.canvas import Generator as Canvases
    from reverie.canvas import Work
    from reverie.judges import Judge
    from reverie.judges.load import Anyone, Opened
    from reverie.vlms import VLM

OWN_SETTINGS = {
    "janus": ("guidance", "temperature"),
    "llamagen": ("guidance", "temperature", "top_k", "top_p"),
    "showo": ("guidance", "temperature", "steps"),
}
"""What a checkpoint of a family may say about its own painting in config.json."""


@dataclass(frozen=True)
class Result:
    """What `Painter.generate` returns; `image` is the first of the images."""

    images: tuple[Image, ...]
    seeds: tuple[int, ...]
    recipes: tuple[Mapping[str, Any], ...]
    """For each image, all that is needed to paint it again."""
    prompt: str
    """As it was typed."""
    thought: str | None = None
    rewritten: str | None = None
    """What was painted from, after a thought."""
    trace: tuple[Event, ...] = field(default=(), repr=False)
    """Every event of the run, without the pictures of its previews."""

    @property
    def image(self) -> Image:
        return self.images[0]


class Painter:
    """A loaded model that paints, thinks and looks. Make one with `reverie.load`."""

    def __init__(self, source: Source, model: Any, tokenizer: Any):
        self.source, self.model, self.tokenizer = source, model, tokenizer
        self.folder = source.folder
        self.about = _about(source, model)
        self._opened: dict[str, Opened] = {}

    @property
    def name(self) -> str:
        return self.source.name

    def generate(
        self,
        prompt: str,
        preset: str | None = None,
        *,
        think: str | None = None,
        seed: int | None = None,
        n: int = 1,
        trace: str | Path | None = None,
        judge: Anyone = None,
        **fields: Any,
    ) -> Result:
        """Paints `n` images of `prompt`, with the seeds seed, seed + 1, ...

        preset: `direct`, `t2g`, `t2i-r1`, `twig`, `parm` or `parm++`; `think` and other fields of `reverie.Plan`
            (guidance, regions, ...) overrule it.
        seed: drawn at random if None; it is in the result.
        trace: a new folder that receives every event and preview.
        judge: who chooses and looks back: a name or folder, a function (prompts, pictures) -> scores, a
            `reverie.judges.Judge`, or pairs of these with weights; None takes the model's own eyes.
        Raises ValueError, in one sentence, for what cannot be painted.
        """
        shown = trace is not None
        events = self.stream(
            prompt, preset, think=think, seed=seed, n=n, trace=trace, judge=judge, previews=shown, **fields
        )
        return result_of(prompt, list(events))

    def stream(
        self,
        prompt: str,
        preset: str | None = None,
        *,
        think: str | None = None,
        seed: int | None = None,
        n: int = 1,
        trace: str | Path | None = None,
        pieces: int = 12,
        previews: bool = True,
        judge: Anyone = None,
        **fields: Any,
    ) -> Iterator[Event]:
        """The same as it happens: thoughts while they are written, `pieces` previews, finished images.

        The input is checked now, the painting happens as the events are taken.
        """
        from reverie.judges.load import check_judge, name_of

        plan = make_plan(preset, think=think, judge=name_of(judge), **fields)
        check_canvas(self.source, plan)
        seeds = check_request(self.source, prompt, seed, n)
        check_judge(plan, prompt)
        events = self.run(plan, [prompt] * n, seeds, pieces=pieces, previews=previews, judge=judge)
        return events if trace is None else _traced(events, Trace(trace))

    def run(
        self,
        plan: Plan,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        thoughts: Mapping[str, Answer] | None = None,
        answers: Mapping[int, Sequence[str]] | None = None,
        pieces: int = 12,
        previews: bool = False,
        batch: int = 16,
        judge: Anyone = None,
    ) -> Generator[Event, None, None]:
        """Any plan over any prompts, one seed for each: what all else stands on (see `reason.run`).

        judge: for plans whose judge is a Python object; others are loaded by their names, once."""
        for prompt in dict.fromkeys(prompts):
            check_prompt(prompt)
            check_length(self.source, prompt)
        check_canvas(self.source, plan)
        bench = self.bench(plan, judge) if plan.judges else None
        if bench is not None and plan.think == "never":
            for prompt in dict.fromkeys(prompts):
                bench.judge.check(prompt)
        return run(
            self.generator(plan), self.thinker(), plan, prompts, seeds, about=self.about, thoughts=thoughts,
            answers=answers, bench=bench, pieces=pieces, previews=previews, batch=batch,
        )  # fmt: skip

    def paint(
        self, prompts: Sequence[str], seeds: Sequence[int], plan: Plan | None = None, inputs: Sequence[Inputs] = ()
    ) -> list[Painted]:
        """One image for each prompt and seed, as benchmarks want them; with `inputs`, which this painter refuses."""
        from reverie.benchmarks.protocol import Painted

        if inputs:
            raise ValueError(f"{self.name} paints from words only, and this benchmark gives pictures.")
        events = list(self.run(plan or Plan(), prompts, seeds, pieces=1, batch=64))
        finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.image)
        spent = next(event for event in events if isinstance(event, Spent))
        painted = []
        for place, event in enumerate(finished):
            # What was spent together is shared out evenly; the first ones bear the remainder, so that the sum is right.
            share = {
                name: (count + len(finished) - 1 - place) // len(finished) for name, (count, _) in spent.work.items()
            }
            assert event.picture is not None
            painted.append(Painted(event.picture, event.recipe.get("rewritten"), event.recipe.get("thought"), share))
        return painted

    def generator(self, plan: Plan) -> Canvases:
        """The model as one that paints, at the temperature of the plan. A checkpoint may name its own guidance weight
        and temperature in config.json, as `"reverie": {"guidance": ..., "temperature": ...}`; LlamaGen also `top_k` and
        `top_p`."""
        if self.source.family == "diffusion":
            return self._diffusion(plan)
        said = self.model.config.raw.get("reverie", {})
        own = {name: said[name] for name in OWN_SETTINGS.get(self.source.family or "", ()) if name in said}
        if plan.temperature is not None:
            own["temperature"] = plan.temperature
        if self.source.family == "llamagen":
            from reverie.generators.llamagen import LlamagenPainter

            return LlamagenPainter(self.model, self.tokenizer, **own)
        if self.source.family == "showo":
            from reverie.generators.showo import ShowoPainter

            return ShowoPainter(self.model, self.tokenizer, **own)
        from reverie.generators.janus import JanusPainter

        words = self.tokenizer.as_published_for_painting() if plan.official else self.tokenizer
        return JanusPainter(self.model, words, **own)

    def _diffusion(self, plan: Plan) -> Canvases:
        """A pipeline of diffusers; its model_index.json may name steps and so on, as `"_reverie": {"steps": ...}`."""
        from reverie.generators.diffusion import DiffusionPainter

        if plan.temperature is not None:
            raise ValueError(f"{self.name} is a diffusion model and has no temperature; leave it out.")
        own = self.source.config.get("_reverie", {})
        names = ("guidance", "steps", "negative", "height", "width", "limit")
        return DiffusionPainter(self.model, **{name: own[name] for name in names if name in own})

    def thinker(self) -> Thinker | None:
        """The model as one that reasons about prompts, in the wording that suits it; None if it only paints."""
        if self.source.family == "diffusion" and not can_write(self.source.config):
            return None
        from reverie.canvas import Work

        if self.source.family in SILENT:
            return None
        work = Work()
        return Thinker(self.vlm(work), self.source.thinker, partial(check_length, self.source), work)

    def bench(self, plan: Plan, judge: Anyone = None) -> Bench:
        """Who judges for a plan, and how this painter is told what was wrong."""
        from reverie.canvas import Work
        from reverie.judges.load import build, open_judge
        from reverie.judges.vlm import VLMJudge, Wording

        official = plan.rules == "official"
        if plan.judge is None and judge is None:
            check_judges(self.source)

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

        wanted = plan.judge if judge is None else judge
        wording = Wording.of(self.source.judge)
        # Of a picture in a prompt: its vectors, start, end, line break.
        vectors = self.model.config.vision.num_image_tokens + 3 if self.source.family == "janus" else 0

        def check(prompt: str, seen: bool) -> None:
            check_length(self.source, prompt, vectors if seen else 0)

        return Bench(own() if wanted is None else build(wanted, by_name), wording.see, wording.words, check)

    def vlm(self, work: Work | None = None) -> VLM:
        """The model as one that reads pictures and writes; ValueError if it does not write."""
        check_writes(self.source)
        if self.source.family == "diffusion":
            from reverie.vlms.text_encoder import TextEncoderWriter

            return TextEncoderWriter(self.model, work=work)
        from reverie.vlms.janus import JanusEyes

        return JanusEyes(self.model, self.tokenizer, work=work)

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
) -> Painter:
    """A model by name (`reverie models` lists them), hub id, or folder.

    device: `cpu`, `cuda`, `mps`, ...; a GPU is taken if there is one and None is given.
    dtype: of the weights, such as `float32` or `bfloat16`; by default float32 on the CPU and bfloat16 on others.
    device_map: places parts on several devices, as in transformers (`auto`, or a dictionary).
    Raises ValueError, in one sentence, if there is no such model or its files are not complete.
    """
    check_place(device, dtype)
    source = check_paints(fetched(resolve(name)))
    import torch

    kind = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    assert source.folder is not None
    if source.family == "llamagen":
        from reverie.models.llamagen_checkpoint import load_llamagen

        if device_map is not None:
            raise ValueError(f"{source.name} stays on one device, as every LlamaGen; give device, not device_map.")
        where, words = _device(device), source.text_encoder
        return Painter(source, *load_llamagen(source.folder, text_encoder=words, dtype=kind, device=where))
    if source.family == "diffusion":
        from reverie.models.diffusion_checkpoint import load_pipeline

        if device_map is not None:
            raise ValueError("a pipeline is not spread over devices by device_map; see load_pipeline for offloading.")
        return Painter(source, load_pipeline(source.folder, dtype=kind, device=_device(device)), None)
    if source.family == "showo":
        from reverie.models.showo_checkpoint import load_showo

        if device_map is not None:
            raise ValueError("a Show-o is not spread over devices; leave device_map out.")
        return Painter(source, *load_showo(source.folder, dtype=kind, device=_device(device)))
    from reverie.models.janus_checkpoint import load_janus

    model, tokenizer = load_janus(source.folder, dtype=kind, device=_device(device), device_map=device_map)
    return Painter(source, model, tokenizer)


def _device(device: str | None) -> str:
    import torch

    here = {"cpu": 1, "cuda": torch.cuda.device_count(), "xpu": torch.xpu.device_count()}
    here["mps"] = int(torch.backends.mps.is_available())
    if device is None:
        return next((name for name in ("cuda", "xpu", "mps") if here[name]), "cpu")
    name, _, number = device.partition(":")
    if int(number or 0) >= here[name]:
        raise ValueError(f"device={device!r} is not on this machine; leave it out, or use cpu.")
    return device


def result_of(prompt: str, events: Sequence[Event]) -> Result:
    """A finished run as one value."""
    finished = sorted((event for event in events if isinstance(event, Finished)), key=lambda event: event.image)
    recipe = finished[0].recipe if finished else {}
    return Result(
        images=tuple(event.picture for event in finished if event.picture is not None),
        seeds=tuple(event.seed for event in finished),
        recipes=tuple(event.recipe for event in finished),
        prompt=prompt,
        thought=recipe.get("thought"),
        rewritten=recipe.get("rewritten"),
        trace=tuple(without_pictures(event) for event in events),
    )


def _traced(events: Iterator[Event], trace: Trace) -> Iterator[Event]:
    with trace:
        for event in events:
            yield trace.write(event)


def _about(source: Source, model: Any) -> dict[str, Any]:
    """The part of a recipe that all images of this painter share."""
    import torch

    from reverie import __version__

    assert source.folder is not None
    versions = {"reverie": __version__, "torch": torch.__version__, "python": platform.python_version()}
    return {
        "model": source.name,
        "fingerprint": fingerprint(source.folder),
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "versions": versions | {"platform": platform.platform()},
    }
