"""What judges that read and write are asked in each benchmark, and how their answers enter the rules.

The questions are data files in `judge_prompts/`, in our own words: what is asked, in which order, with which pictures
and on which scale is the benchmark's, the wording is not, so scores may differ from published ones by the judge's taste
for words. A result should name the judge and `WORDING`. Each function asks what one image needs and returns what the
benchmark's module takes; `Answer.outcome` says what became of every question.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path

from PIL.Image import Image

from ..vlms import VLM, Message
from . import cobsat, geneval2, genevalpp, reasonbench, risebench, wise
from .asking import Answer, ask
from .protocol import Sample

WORDING = "reverie-1"
"""Changes whenever a question does."""
FOLDER = Path(__file__).with_name("judge_prompts")


@cache
def _template(name: str) -> str:
    return (FOLDER / f"{name}.md").read_text("utf-8").strip()


def prompt(name: str, **fields: str) -> str:
    """A question with its {fields} filled in; other braces stay as they are."""
    text = _template(name)
    marks = {f"{{{field}}}": value for field, value in fields.items()}
    if missing := [mark for mark in marks if mark not in text]:
        raise ValueError(f"The question {name} has no place {missing[0]}.")
    # split at the marks of the template only, so that a value that holds a mark stays as it is
    for mark in marks:
        text = text.replace(mark, f"\0{mark}\0")
    return "".join(marks.get(part, part) for part in text.split("\0"))


def judge_wise(
    judge: VLM, sample: Sample, image: Image, protocol: wise.Protocol, official: bool = False
) -> Answer[dict[str, float]]:
    """The scores of one image, by the protocol's own number of tries."""
    text = prompt(f"wise-{protocol}", prompt=sample.prompt, explanation=sample.record["Explanation"])

    def parse(answer: str) -> dict[str, float] | None:
        scores = wise.parse(answer, protocol, official)
        return scores if wise.complete(scores, protocol) else None

    longest = 2000 if protocol == "legacy" else 500
    return ask(judge, [Message("user", text, (image,))], parse, wise.TRIES, longest)


def judge_reasonbench(
    judge: VLM, sample: Sample, image: Image, official: bool = False
) -> tuple[reasonbench.Averages, list[Answer[list[float]]]]:
    """The averages of an image's question sets. Each set is asked after the description, and alone."""
    opening = Message("user", prompt("reasonbench-describe"), (image,))
    seen = ask(judge, [opening], lambda text: text, 1, 1000)
    sets = reasonbench.question_sets(sample)
    if seen.value is None:
        return [None] * len(sets), [Answer(None, seen.text, 1, seen.outcome)] * len(sets)
    answers = []
    for questions in sets:
        lines = [f"{n}. {question}\n   Criterion: {criterion}" for n, (question, criterion) in enumerate(questions, 1)]
        text = prompt("reasonbench-score", questions="\n".join(lines), number=str(len(questions)))
        turns = [opening, Message("assistant", seen.value), Message("user", text)]
        answers.append(ask(judge, turns, _scores_of(len(questions), official), 3, 1000))
    return [reasonbench.average(one.value) for one in answers], answers


def _scores_of(number: int, official: bool) -> Callable[[str], list[float] | None]:
    return lambda text: reasonbench.scores_in(text, number, official)


def judge_risebench(
    judge: VLM, sample: Sample, image: Image, pictures: Mapping[str, Image], official: bool = False
) -> dict[str, Answer[int]]:
    """The answers about one edited image, by the names that `risebench.judge` takes (their `text`).

    pictures: the sample's own, by path: `image`, and `reference_img` where it has one. official: the question about
    consistency then shows the reference in place of the original, as the official script does.
    """
    record, logical = sample.record, sample.tag == "logical_reasoning"
    source, reference = pictures[record["image"]], record.get("reference_img")
    target = record.get("reference_txt") or record.get("reference") or ""
    said = f"The right answer: {target}\n" if target else ""
    asked: dict[str, tuple[str, Sequence[Image]]] = {}
    if "ApprConsistency" in risebench.asked(record):
        first = pictures[reference] if reference and official else source
        name = "risebench-consistency"
        text = (
            prompt(f"{name}-logical", instruction=sample.prompt, reference=said)
            if logical
            else prompt(name, instruction=sample.prompt)
        )
        asked["judge1"] = (text, (first, image))
    asked["judge2"] = _reasoning(sample, image, source, pictures[reference] if reference else None, target)
    if not logical:
        asked["judge3"] = (prompt("risebench-plausibility"), (image,))
    return {
        name: ask(judge, [Message("user", text, tuple(shown))], risebench.score_of, risebench.TRIES, 4096)
        for name, (text, shown) in asked.items()
    }


def _reasoning(
    sample: Sample, image: Image, source: Image, reference: Image | None, target: str
) -> tuple[str, Sequence[Image]]:
    """The question about reasoning, and the pictures that go with it."""
    if sample.tag == "logical_reasoning":
        shown = "The first picture shows the right answer.\n" if reference else f"The right answer: {target}\n"
        text = prompt("risebench-reasoning-logical", instruction=sample.prompt, reference=shown)
        return text, (reference, image) if reference else (image,)
    if sample.tag == "spatial_reasoning" and reference:
        return prompt("risebench-reasoning-image", instruction=sample.prompt), (reference, image)
    text = prompt("risebench-reasoning", instruction=sample.prompt, reference=target)
    return text, (source, image) if sample.record.get("reasoning_img") else (image,)


def judge_cobsat(
    judge: VLM, episode: cobsat.Episode, image: Image | None, description: str = "", official: bool = False
) -> tuple[cobsat.Check, list[Answer[int]]]:
    """What an image, or without one its description, got right. An answer that names no option is no option."""
    answers = []
    for theme in cobsat.sorted_themes(episode.task):
        words = [cobsat.SHOWN.get(word, word) for word in cobsat.OPTIONS[theme]]
        options = "\n".join(f"{number}. {word}" for number, word in enumerate(words, 1))
        thing = theme in ("object", "animal")
        text = prompt(
            "cobsat",
            shown="" if image else f"A picture was described like this: {description}\n",
            theme=f"main {theme}" if thing else theme,
            subject="the picture" if thing or theme == "background" else "the main thing in the picture",
            options=options,
        )[:2047]
        shown = (image,) if image else ()
        answers.append(ask(judge, [Message("user", text, shown)], lambda said: cobsat.parse(said, official), 1, 512))
    detail, thing_option = (-1 if one.value is None else one.value for one in answers)
    return cobsat.check(episode, detail, thing_option), answers


def judge_genevalpp(judge: VLM, sample: Sample, image: Image | None) -> tuple[int, Answer[int] | None]:
    """1 or 0; 0 for a missing image, and `genevalpp.FAILED` where the judge gives no readable answer."""
    if image is None:
        return genevalpp.MISSING, None
    checklist = "\n".join(f"- {line}" for line in genevalpp.checklist(sample.record))
    text = prompt("genevalpp", prompt=sample.prompt, checklist=checklist)
    answer = ask(judge, [Message("user", text, (image,))], genevalpp.parse, genevalpp.TRIES, 200)
    return genevalpp.FAILED if answer.value is None else answer.value, answer


def judge_geneval2(judge: VLM, sample: Sample, image: Image) -> list[float]:
    """The soft score of every question about an image. The judge must name the probabilities of its first tokens."""
    if not hasattr(judge, "first_tokens"):
        raise ValueError("GenEval 2 needs a judge that names the probabilities of its first tokens: give another one.")
    scores = []
    for question, answer in sample.record["vqa_list"]:
        tokens = judge.first_tokens([Message("user", geneval2.question(question), (image,))])
        scores.append(geneval2.soft_score(tokens, answer))
    return scores


def judge_dpg(judge: VLM, question: str, image: Image) -> Answer[str]:
    """ "yes" or "no" to a question about one of a prompt's images."""
    text = prompt("dpg", question=question)
    return ask(judge, [Message("user", text, (image,))], _yes_or_no, 3, 16)


def _yes_or_no(text: str) -> str | None:
    words = re.findall(r"[a-z]+", text.lower())
    return words[0] if words and words[0] in ("yes", "no") else None
