"""What a served judge will cost before it is paid: how often a benchmark asks, and how many tokens that takes.

Requests are counted from the benchmark's own files, without tries that repeat an answer that could not be read. Tokens
are those that the server reported for the questions about known pictures, so they are an estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..vlms.openai import Usage
from . import reasonbench, risebench
from .protocol import Benchmark, Sample


def _one(sample: Sample) -> int:
    return 1


ASKED: Mapping[str, Callable[[Sample], int]] = {
    "wise": _one,
    "geneval++": _one,
    "geneval2": lambda sample: len(sample.record["vqa_list"]),
    "cobsat": lambda sample: 2,
    "t2i-reasonbench": lambda sample: 1 + len(reasonbench.question_sets(sample)),
    "risebench": lambda sample: len(risebench.asked(sample.record)),
}
"""Questions about one image of a sample, by the beginning of a benchmark's name."""


@dataclass(frozen=True)
class Prices:
    """Of a million tokens, in whatever money."""

    question: float
    answer: float

    @classmethod
    def of(cls, text: str) -> Prices:
        """From "2.5/10", or "3" for both alike; ValueError for anything else."""
        try:
            first, _, second = text.partition("/")
            found = cls(float(first), float(second or first))
        except ValueError:
            found = cls(-1, -1)
        if min(found.question, found.answer) < 0:
            raise ValueError(f"--prices {text}: must be what a million tokens cost, of questions and answers: 2.5/10.")
        return found


def requests(benchmark: Benchmark, images: int, questions: Mapping[str, Sequence[Any]] | None = None) -> int:
    """How often the judge is asked about all images. questions: of DPG-Bench, by item."""
    if questions is not None:
        return images * sum(len(questions[sample.id]) for sample in benchmark.samples)
    count = next(how for name, how in ASKED.items() if benchmark.name.startswith(name))
    return images * sum(map(count, benchmark.samples))


def told(name: str, number: int, usage: Usage, prices: Prices | None) -> str:
    """The estimate in a sentence."""
    begin = f"{name} asks the judge {number:,} questions, at least"
    paid = usage.answers
    if not paid or not usage.question_tokens:
        return f"{begin}; the server told no tokens, so what they cost is unknown."
    question, answer = usage.question_tokens / paid, usage.answer_tokens / paid
    text = (
        f"{begin}; at {question:,.0f} tokens a question and {answer:,.0f} an answer, as measured here, "
        f"{number * (question + answer):,.0f} tokens"
    )
    if prices is None:
        return f"{text}. --prices tells what they cost."
    money = number * (question * prices.question + answer * prices.answer) / 1e6
    return f"{text}, {money:,.2f} in the money of the prices."
