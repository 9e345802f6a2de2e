"""The models that look at images for GenEval and T2I-CompBench, put together for each benchmark.

    from reverie.benchmarks import evaluators

    evaluator = evaluators.for_benchmark("geneval", {"detector": "folder/of/a/mask2former"}, "cuda")
    found = evaluator.evaluate(files, prompts, images)          # an `evaluations.Evaluation` for each image

Roles and who plays them are in `roles.py`; each role has a file of its own. Benchmarks that a chat model judges (WISE,
GenEval 2 and others) have none of these: their judge comes from `judges/names.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.benchmarks.evaluators.roles import cast, cast_all, category_of, choices_of, roles

if TYPE_CHECKING:
    from reverie.benchmarks.evaluations import Evaluator
    from reverie.benchmarks.evaluators.roles import Part

__all__ = ["cast", "cast_all", "choices_of", "for_benchmark", "load_part", "roles", "versions"]


def for_benchmark(
    name: str,
    choices: Mapping[str, str | Path] | None = None,
    device: str = "cpu",
    nouns: Mapping[str, str] | None = None,
) -> Evaluator:
    """The evaluator of a benchmark: geneval, geneval-long, or t2i-compbench-CATEGORY.

    choices: role to the name, hub id or folder of the model that plays it; `roles(name)` lists them, with defaults.
    nouns: `compbench_rules.noun_table`, so that a detector that looks for what it is told knows what numeracy counts.
    ValueError, in one sentence and before any weights are read, for what cannot be. Models are loaded once, however
    many categories use them.
    """
    parts = cast(name, choices)
    category = category_of(name)
    if category is None:
        from reverie.benchmarks.evaluators.geneval import GenevalEvaluator

        clip, detector = (load_part(part, device) for part in sorted(parts, key=lambda part: part.role))
        return GenevalEvaluator(detector, clip, versions(parts), always=name == "geneval-long")
    from reverie.benchmarks.evaluators.compbench import CompbenchEvaluator

    return CompbenchEvaluator(
        category, {part.role: load_part(part, device) for part in parts}, versions(parts), nouns or {}
    )


def versions(parts: Sequence[Part]) -> str:
    """Which models look, and the library that runs them, for the record."""
    from importlib.metadata import version

    names = ", ".join(f"{part.role} {part.name}" for part in parts)
    return f"{names} (transformers {version('transformers')}, torch {version('torch')})"


def load_part(part: Part, device: str = "cpu") -> Any:
    """Who plays a role, loaded once. ValueError for files that are damaged."""
    return _load(part.about.what, part.role, part.name, device)


@lru_cache(maxsize=8)
def _load(what: str, role: str, name: str, device: str) -> Any:
    """The model that plays a role; `what` tells roles of one name apart."""
    from reverie.benchmarks.evaluators.roles import INSTANCES

    if role == "clip":
        from reverie.models.image_text import ImageText

        return ImageText.load(name, device)
    if role == "tagger":
        from reverie.benchmarks.evaluators.tagger import Tagger

        return Tagger.load(name)
    if role == "vqa":
        from reverie.benchmarks.evaluators.vqa import BlipVQA

        return BlipVQA.load(name, device)
    if role == "depth":
        from reverie.benchmarks.evaluators.depth import Depth

        return Depth.load(name, device)
    if what == INSTANCES.what:
        from reverie.benchmarks.evaluators.detector import InstanceDetector

        return InstanceDetector.load(name, device)
    from reverie.benchmarks.evaluators.boxes import BoxDetector

    return BoxDetector.load(name, device)
