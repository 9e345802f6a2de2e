"""How well the Atelier's VLM reads pictures and episodes, in its own words: the ceiling of what ThinkDiff can draw.

Episodes are those of `atelier-cobsat`, which training never drew from: the pictures are fresh, and held-out colours of
kinds appear. Answers are greedy; `atelier.episode_answers` reads them.

    python -m reverie.training.vlm_report --vlm CHECKPOINT --out runs/vlm-report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..atelier.draw import draw
from ..atelier.episode_answers import said
from ..atelier.episodes import Episode, benchmark
from ..benchmarks.stats import wilson
from ..models.thinkdiff import in_context
from ..vlms import Message, Messages
from ..vlms.transformers import TransformersVLM
from .vlm_build import INSTRUCTION

TASKS = range(1, 11)
Results = dict[int, list[tuple[bool, bool]]]
"""For each task, (object right, detail right) of its episodes."""


def question(episode: Episode, side: int = 96, instruction: str = INSTRUCTION) -> Messages:
    """An episode as the VLM is asked, its pictures drawn."""
    pairs = [(draw(scene, side), word) for word, scene in episode.examples]
    return in_context(pairs, episode.query, instruction)


def answers(vlm: TransformersVLM, conversations: Sequence[Messages], batch: int = 20, limit: int = 40) -> list[str]:
    """Greedy answers, so many conversations at a time."""
    found: list[str] = []
    for first in range(0, len(conversations), batch):
        found += vlm.write_batch(conversations[first : first + batch], limit)
    return found


def measure(vlm: TransformersVLM, shots: int, count: int) -> Results:
    """So many episodes of each task, answered."""
    episodes = [one for task in TASKS for one in benchmark(task, shots, count)]
    return _read(episodes, answers(vlm, [question(one) for one in episodes]))


def measure_eyes(vlm: TransformersVLM, count: int) -> Results:
    """The same for captions of single pictures, those that the episodes' answers would be."""
    episodes = [one for task in TASKS for one in benchmark(task, 2, count)]
    asked = [[Message("user", "Describe this picture in a few words.", (draw(e.answer, 96),))] for e in episodes]
    return _read(episodes, answers(vlm, asked))


def _read(episodes: Sequence[Episode], written: Sequence[str]) -> Results:
    found: Results = {task: [] for task in TASKS}
    for one, text in zip(episodes, written, strict=True):
        found[one.task].append(said(text, one))
    return found


def share(results: Sequence[tuple[bool, bool]]) -> dict[str, Any]:
    """Object, detail, and both with its 95 % interval."""
    both = sum(thing and detail for thing, detail in results)
    n = len(results)
    return {
        "object": sum(thing for thing, _ in results) / n,
        "detail": sum(detail for _, detail in results) / n,
        "both": both / n,
        "interval": wilson(both, n),
        "n": n,
    }


def glimpse(model: Any, processor: Any, step: int, out: Path, count: int = 6) -> None:
    """Appends to `out`/episodes.jsonl how a few captions and 2-shot episodes went, while a run goes on."""
    vlm = TransformersVLM(model, processor)
    rows = {"captions": measure_eyes(vlm, count), "2-shot": measure(vlm, 2, count)}
    model.train()
    told = {name: share(_all(found)) | _by_task(found) for name, found in rows.items()}
    with (out / "episodes.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps({"step": step} | told) + "\n")


def _all(found: Results) -> list[tuple[bool, bool]]:
    return [result for results in found.values() for result in results]


def _by_task(found: Results) -> dict[str, Any]:
    return {"tasks": [round(share(results)["both"], 3) for results in found.values()]}


def report(vlm: TransformersVLM, out: Path, count: int, shots: Sequence[int] = (2, 4)) -> dict[str, Any]:
    """Writes `out`/report.json: captions, and episodes of each number of shots, by task and all together."""
    sets = {"captions": measure_eyes(vlm, count)} | {f"{n}-shot": measure(vlm, n, count) for n in shots}
    result = {
        name: {str(task): share(results) for task, results in found.items()} | {"all": share(_all(found))}
        for name, found in sets.items()
    }
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").write_text(json.dumps(result, indent=1), "utf-8")
    return result


def main() -> None:
    """`python -m reverie.training.vlm_report`."""
    parser = argparse.ArgumentParser(description="Measure the Atelier's VLM on held-out captions and episodes.")
    parser.add_argument("--vlm", required=True, help="folder of the checkpoint")
    parser.add_argument("--out", default="runs/vlm-report", help="folder for report.json")
    parser.add_argument("-n", type=int, default=100, help="episodes of each task and number of shots")
    given = parser.parse_args()
    result = report(TransformersVLM.load(given.vlm), Path(given.out), given.n)
    for name, found in result.items():
        each = " ".join(f"{100 * found[str(task)]['both']:.0f}" for task in TASKS)
        print(f"{name}: both {100 * found['all']['both']:.1f} %; tasks 1 to 10: {each}")


if __name__ == "__main__":
    main()
