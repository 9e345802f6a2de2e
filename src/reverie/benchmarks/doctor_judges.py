"""Known pictures through the very questions that a benchmark asks its judge: wording, parsing and rule included."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from PIL.Image import Image

from ..vlms import VLM
from ..vlms.meeting import each
from ..vlms.openai import NoAnswer, Unusable
from . import cobsat, geneval2, judging, reasonbench
from .doctor import Finding, broken, compared
from .known import Known, single_things
from .protocol import Sample

Ask = Callable[[VLM, Known, Image], float | None]
"""How well a picture shows what is known of another one, in [0, 1], by a benchmark's questions; None for an answer that
cannot be read."""


def _sample(known: Known, **record: Any) -> Sample:
    return Sample("0", known.words, record.get("category", "known"), record, "0")


def _wise(protocol: Any) -> Ask:
    def ask(vlm: VLM, known: Known, picture: Image) -> float | None:
        sample = _sample(known, Explanation=f"The picture must show {known.words}.")
        value = judging.judge_wise(vlm, sample, picture, protocol).value
        if value is None:
            return None
        return value["consistency"] / 2 if protocol == "legacy" else value["score"]

    return ask


def _reasonbench(vlm: VLM, known: Known, picture: Image) -> float | None:
    questions = {
        "q1": f"Does the picture show a {known.kind}?", "c1": "1: yes; 0.5: something like it; 0: no",
        "q2": f"Is its colour {known.colour}?", "c2": "1: yes; 0.5: partly; 0: no",
    }  # fmt: skip
    names = reasonbench.DIMENSIONS["idiom"].questions
    sample = reasonbench.sample({"id": 1, "prompt": known.words}, dict.fromkeys(names, questions), "idiom")
    averages, _ = judging.judge_reasonbench(vlm, sample, picture)
    return averages[0]


def _risebench(vlm: VLM, known: Known, picture: Image) -> float | None:
    instruction = f"Replace what is there by {known.words}."
    record = {
        "index": "known_1", "category": "causal_reasoning", "instruction": instruction, "image": "source",
        "reference": f"The picture shows {known.words}.",
    }  # fmt: skip
    sample = Sample("known_1", instruction, "causal_reasoning", record, "known_1")
    source = next(one for one in single_things(4, known.side) if one.kind != known.kind and one.colour != known.colour)
    value = judging.judge_risebench(vlm, sample, picture, {"source": source.picture})["judge2"].value
    return None if value is None else (value - 1) / 4


def _genevalpp(vlm: VLM, known: Known, picture: Image) -> float | None:
    clause = {"class": known.kind, "count": 1, "color": known.colour}
    _, answer = judging.judge_genevalpp(vlm, _sample(known, include=[clause]), picture)
    return None if answer is None or answer.value is None else float(answer.value)


def _geneval2(vlm: VLM, known: Known, picture: Image) -> float | None:
    asked = [(f"Is there a {known.kind} in the image?", "yes"), (f"Is the {known.kind} {known.colour}?", "yes")]
    return geneval2.arithmetic(judging.judge_geneval2(vlm, _sample(known, vqa_list=asked), picture))


def _dpg(vlm: VLM, known: Known, picture: Image) -> float | None:
    value = judging.judge_dpg(vlm, f"Is there {known.words}?", picture).value
    return None if value is None else float(value == "yes")


def _cobsat(vlm: VLM, known: Known, picture: Image) -> float | None:
    episode = cobsat.Episode(1, 1, 0, ("", ""), (known.colour, known.colour), known.kind, ())
    check, answers = judging.judge_cobsat(vlm, episode, picture)
    if any(one.value in (None, -1) for one in answers):
        return None
    return (check.detail + check.thing) / 2


ASKS: dict[str, Ask] = {
    "wise-legacy": _wise("legacy"), "wise-verified": _wise("verified"), "t2i-reasonbench": _reasonbench,
    "risebench": _risebench, "geneval++": _genevalpp, "geneval2": _geneval2, "dpg-bench": _dpg, "cobsat": _cobsat,
}  # fmt: skip
"""By the beginning of a benchmark's name."""


def ask_of(benchmark: str) -> Ask:
    return ASKS[max((name for name in ASKS if benchmark.startswith(name)), key=len)]


def pictures_of(benchmark: str, number: int, side: int) -> list[Known]:
    """The known pictures of a benchmark: of things that its judge can name."""
    if benchmark.startswith("cobsat"):
        objects = ("car", "chair", "book", "ball", "cup", "apple", "hat", "bag", "box")
        return single_things(number, side, objects)
    return single_things(number, side)


def judge(benchmark: str, vlm: VLM, known: Sequence[Known], workers: int = 1) -> Finding:
    """Whether a judge tells right pictures from wrong ones when it is asked as the benchmark asks."""
    ask = ask_of(benchmark)
    pairs = list(zip(known, [*known[1:], known[0]], strict=True))
    shown = [(one, picture.picture) for one, other in pairs for picture in (one, other)]
    who = getattr(vlm, "name", type(vlm).__name__)

    def one(vlm: VLM, case: tuple[Known, Image]) -> float | None:
        try:
            return ask(vlm, *case)
        except Unusable:
            raise
        except NoAnswer:
            return None

    try:
        scores = each(shown, one, vlm, workers)
    except Unusable as error:
        return broken("judge", who, error)
    return compared("judge", who, list(zip(scores[::2], scores[1::2], strict=True)))
