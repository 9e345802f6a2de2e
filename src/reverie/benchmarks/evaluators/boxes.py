"""A detector in UniDet's role in T2I-CompBench: which things a picture holds and where. No library has UniDet, so a
score by another detector is not comparable with published ones.

Detectors of two kinds: those that look for the names they are told (OWLv2, arXiv:2306.09683), and those that know the
classes of their training (DETR and its kin). Boxes come in UniDet's frame, whose short side is 479 pixels, best first.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL.Image import Image

from reverie.benchmarks.compbench_rules import iou
from reverie.benchmarks.evaluators.roles import CLOSED, OPEN
from reverie.models.pretrained import eyes, fetch, find, load, part

KINDS = CLOSED + OPEN
SHORT = 479
THRESHOLD = {True: 0.2, False: 0.5}
"""The least score, for detectors that are told what to look for, whose scores are lower, and for others (as UniDet)."""
SAME = 0.5
"""Of one name, boxes that overlap by more than this (IoU) are one thing."""

Detection = tuple[str, list[float], float]


class BoxDetector:
    """A loaded detector."""

    def __init__(
        self,
        model: Any,
        processor: Any,
        tokenizer: Any = None,
        *,
        name: str = "",
        threshold: float | None = None,
        batch: int = 4,
    ):
        """tokenizer: of a detector that is told names; others have none."""
        self.model, self.processor, self.tokenizer, self.name, self.batch = model, processor, tokenizer, name, batch
        self.threshold = THRESHOLD[self.told] if threshold is None else threshold

    @property
    def told(self) -> bool:
        """Whether it looks for the names that it is told."""
        return self.tokenizer is not None

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> BoxDetector:
        """From a folder or hub id. A config.json may name another threshold, as `"reverie": {"threshold": 0.3}`."""
        found = fetch(find(source, KINDS, "detector"), KINDS, "detector")
        told = found.config["model_type"] in OPEN
        kind = "AutoModelForZeroShotObjectDetection" if told else "AutoModelForObjectDetection"
        words = part(found, "AutoTokenizer") if told else None
        threshold = (found.config.get("reverie") or {}).get("threshold")
        return cls(load(found, kind, device), eyes(found), words, name=str(source), threshold=threshold)

    @torch.no_grad()
    def look(self, pictures: Sequence[Image], names: Sequence[Sequence[str]]) -> list[list[Detection]]:
        """Label, box (x1, y1, x2, y2) and score of what each picture holds, best first. names: what to look for in
        each; detectors with classes of their own say all that they see."""
        found: list[list[Detection]] = [[] for _ in pictures]
        for group in self._alike(pictures):
            shown = [pictures[place].convert("RGB") for place in group]
            asked = [list(dict.fromkeys(names[place])) for place in group]
            seen = self._told(shown, asked) if self.told else self._known(shown)
            for place, row in zip(group, seen, strict=True):
                found[place] = row
        return found

    def _alike(self, pictures: Sequence[Image]) -> list[list[int]]:
        """Places of pictures of one size, at most a batch together: none is padded for the sake of its neighbours."""
        sizes: dict[tuple[int, int], list[int]] = {}
        for place, picture in enumerate(pictures):
            sizes.setdefault(picture.size, []).append(place)
        return [row[start : start + self.batch] for row in sizes.values() for start in range(0, len(row), self.batch)]

    def _known(self, pictures: list[Image]) -> list[list[Detection]]:
        inputs = self.processor(pictures, return_tensors="pt")
        taken = {name: inputs[name].to(self.model.device) for name in ("pixel_values", "pixel_mask") if name in inputs}
        labels = self.model.config.id2label
        return [
            [(labels[kind].lower(), box, score) for kind, box, score in row]
            for row in self._boxes(self.model(**taken), pictures)
        ]

    def _told(self, pictures: list[Image], names: list[list[str]]) -> list[list[Detection]]:
        most = max(map(len, names), default=0)
        if not most:
            return [[] for _ in pictures]
        # Pictures with fewer names are filled up with empty ones, which begin with 0: the model looks for none of them.
        texts = [f"a photo of a {name}" for row in names for name in row]
        length = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
        ids = torch.zeros(len(pictures), most, length, dtype=torch.long)
        mask = torch.zeros_like(ids)
        mask[..., 0] = 1
        places = [(row, column) for row, some in enumerate(names) for column in range(len(some))]
        for (row, column), one, seen in zip(places, words["input_ids"], words["attention_mask"], strict=True):
            ids[row, column], mask[row, column] = one, seen
        pixels = self.processor(pictures, return_tensors="pt")["pixel_values"]
        out = self.model(
            input_ids=ids.flatten(0, 1).to(self.model.device),
            pixel_values=pixels.to(self.model.device),
            attention_mask=mask.flatten(0, 1).to(self.model.device),
        )
        rows = [
            [(row[kind], box, score) for kind, box, score in seen if kind < len(row)]
            for row, seen in zip(names, self._boxes(out, pictures), strict=True)
        ]
        return [distinct(row) for row in rows]

    def _boxes(self, out: Any, pictures: Sequence[Image]) -> list[list[tuple[int, list[float], float]]]:
        """Class, box in UniDet's frame, score; best first."""
        sizes = [frame(picture.size)[::-1] for picture in pictures]
        found = self.processor.post_process_object_detection(out, threshold=self.threshold, target_sizes=sizes)
        rows = []
        for one in found:
            order = one["scores"].argsort(descending=True, stable=True)
            rows.append(list(zip(*(one[key][order].tolist() for key in ("labels", "boxes", "scores")), strict=True)))
        return rows


def frame(size: tuple[int, int]) -> tuple[int, int]:
    """Width and height of a picture whose short side has 479 pixels."""
    factor = SHORT / min(size)
    return round(size[0] * factor), round(size[1] * factor)


def distinct(found: Sequence[Detection]) -> list[Detection]:
    """The best of the boxes that lie on one thing (greedy suppression by name), in the same order."""
    kept: list[Detection] = []
    for one in found:
        if all(one[0] != other[0] or iou(one[1], other[1]) <= SAME for other in kept):
            kept.append(one)
    return kept
