"""The alignment score of OneIG-Bench (Chang et al. 2025, arXiv:2506.07977; OneIG-Benchmark at 41b49831).

Yes-or-no questions about each of a prompt's images, as in DPG-Bench, but a question is lost only where a direct parent
was answered with no: what is zeroed that way does not reach further. The other dimensions of the benchmark need
evaluators that this package does not have.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


def image_score(answers: Mapping[int, str], parents: Mapping[int, Sequence[int]]) -> float:
    """Share of the questions that are answered with "Yes", so written, and whose parents are; parent 0 is none."""
    yes = {number: answer == "Yes" for number, answer in answers.items()}
    kept = [
        answer and all(not parent or yes.get(parent, True) for parent in parents.get(number, ()))
        for number, answer in yes.items()
    ]
    return sum(kept) / len(kept)


def prompt_score(answers: Mapping[int, Sequence[str]], parents: Mapping[int, Sequence[int]]) -> float:
    """Mean over a prompt's images; question to the answers for each of them."""
    images = len(next(iter(answers.values())))
    scores = [image_score({number: row[i] for number, row in answers.items()}, parents) for i in range(images)]
    return sum(scores) / images
