"""GenEval's detector: Mask2Former of transformers, with the pipeline and the post-processing of MMDetection's.

The official one is MMDetection's mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco. The network of transformers is the same
(Cheng et al. 2022, arXiv:2112.01527), its weights are Meta's own; what stands around it differs, so it is written here:
pictures of any shape keep it and are padded, a score is the class probability times the mean probability inside the
mask, and a box is that of the mask. transformers' own post-processing looks at a square of 384 pixels instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image
from torch import Tensor

from reverie.benchmarks.evaluators.coco import check_classes
from reverie.models.pretrained import fetch, find, load

KINDS = ("mask2former",)
MOST = 100
"""Detections of a picture, by MMDetection's max_per_image."""
SIDES = (800, 1333)
"""Pixels of the short side of a picture, and the most that its long one may have, by MMDetection's test pipeline."""
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Instance:
    """One thing that was found: its class, box (x1, y1, x2, y2; the far edges one past the last pixel), score, mask."""

    label: str
    box: tuple[float, float, float, float]
    score: float
    mask: np.ndarray
    """(H, W) bool, of the whole picture."""


class InstanceDetector:
    """A loaded Mask2Former. `look` finds the things in pictures."""

    def __init__(
        self,
        model: Any,
        labels: Mapping[int, str],
        *,
        name: str = "",
        short: int = SIDES[0],
        long: int = SIDES[1],
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        batch: int = 4,
    ):
        """labels: name of each class that counts. short, long: pixels of the sides that a picture is scaled to."""
        self.model, self.labels, self.name, self.batch = model, dict(labels), name, batch
        self.short, self.long = short, long
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> InstanceDetector:
        """From a folder or hub id. ValueError for a model that is no Mask2Former or lacks classes of COCO. Its
        config.json may name other sides to scale pictures to, as `"reverie": {"sides": [384, 640]}`."""
        found = fetch(find(source, KINDS, "detector"), KINDS, "detector")
        labels = check_classes(found)
        short, long = (found.config.get("reverie") or {}).get("sides", SIDES)
        model = load(found, "Mask2FormerForUniversalSegmentation", device)
        return cls(model, labels, name=str(source), short=short, long=long)

    @torch.no_grad()
    def look(self, pictures: Sequence[Image], threshold: float = 0.3) -> list[list[Instance]]:
        """What each picture holds with a score above `threshold` (compared in float32)."""
        prepared = [self.prepare(picture) for picture in pictures]
        found: list[list[Instance]] = [[] for _ in pictures]
        for group in _alike(prepared, self.batch):
            pixels = torch.stack([prepared[place][0] for place in group]).to(self.model.device)
            out = self.model(pixel_values=pixels.to(self.model.dtype))
            for row, place in enumerate(group):
                wide, high = pictures[place].size
                found[place] = self._instances(
                    out.class_queries_logits[row].float(), out.masks_queries_logits[row].float(),
                    pixels.shape[-2:], prepared[place][1], (high, wide), threshold,
                )  # fmt: skip
        return found

    def prepare(self, picture: Image) -> tuple[Tensor, tuple[int, int]]:
        """(3, H', W') as the network takes it, its sides multiples of 32, and the height and width of the picture in
        it: scaled without smoothing, as OpenCV does, rounded, normalised, padded with 0 on the right and below."""
        pixels = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
        high, wide = pixels.shape[1:]
        factor = min(self.long / max(high, wide), self.short / min(high, wide))
        size = (max(1, int(high * factor + 0.5)), max(1, int(wide * factor + 0.5)))
        pixels = F.interpolate(pixels[None], size, mode="bilinear", align_corners=False)[0].round() / 255
        normal = (pixels - self.mean) / self.std
        return F.pad(normal, (0, -size[1] % 32, 0, -size[0] % 32)), size

    def _instances(
        self,
        classes: Tensor,
        masks: Tensor,
        padded: Sequence[int],
        inside: tuple[int, int],
        size: tuple[int, int],
        threshold: float,
    ) -> list[Instance]:
        """classes: (Q, C + 1) logits; masks: (Q, h, w) logits over the padded picture."""
        chances = classes.softmax(-1)[:, :-1]
        scores, flat = chances.flatten().topk(min(MOST, chances.numel()))
        queries, kinds = flat // chances.shape[1], flat % chances.shape[1]
        # A mask's share is at most 1, so whoever is not above the threshold here never will be: no need to unfold it.
        likely = (scores > threshold) & torch.tensor([int(kind) in self.labels for kind in kinds], device=scores.device)
        found = []
        for score, query, kind in zip(scores[likely], queries[likely], kinds[likely], strict=True):
            logits = F.interpolate(masks[query][None, None], tuple(padded), mode="bilinear", align_corners=False)
            logits = logits[..., : inside[0], : inside[1]]
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0, 0]
            shape = logits > 0
            total = float(score * (logits.sigmoid() * shape).sum() / (shape.sum() + 1e-6))
            if np.float32(total) > np.float32(threshold) and shape.any():
                mask = shape.cpu().numpy()
                found.append(Instance(self.labels[int(kind)], box_of(mask), total, mask))
        return found


def _alike(prepared: Sequence[tuple[Tensor, tuple[int, int]]], batch: int) -> list[list[int]]:
    """Places of pictures of one shape, at most `batch` together: nothing is padded for the sake of its neighbours."""
    shapes: dict[tuple[int, ...], list[int]] = {}
    for place, (pixels, _) in enumerate(prepared):
        shapes.setdefault(tuple(pixels.shape), []).append(place)
    return [row[start : start + batch] for row in shapes.values() for start in range(0, len(row), batch)]


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """The box of an (H, W) mask that is not empty; its far edges lie one past the last pixel."""
    columns, rows = np.nonzero(mask.any(0))[0], np.nonzero(mask.any(1))[0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
