"""Which parts of a picture are near: a depth estimator of transformers, officially DPT-hybrid MiDaS (2103.13413)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL.Image import Image

from reverie.benchmarks.evaluators.boxes import frame
from reverie.benchmarks.evaluators.roles import DEPTH
from reverie.models.pretrained import eyes, fetch, find, load


class Depth:
    """A loaded depth estimator."""

    def __init__(self, model: Any, processor: Any, *, name: str = "", batch: int = 4):
        self.model, self.processor, self.name, self.batch = model, processor, name, batch
        config = model.config
        metric = getattr(config, "depth_estimation_type", "relative") == "metric"
        # Distances grow with depth; MiDaS and relative models predict its inverse, which grows towards us.
        self.sign = -1 if config.model_type in ("glpn", "zoedepth") or metric else 1

    @classmethod
    def load(cls, source: str | Path, device: str | torch.device = "cpu") -> Depth:
        found = fetch(find(source, DEPTH, "depth"), DEPTH, "depth")
        return cls(load(found, "AutoModelForDepthEstimation", device), eyes(found), name=str(source))

    @torch.no_grad()
    def maps(self, pictures: Sequence[Image]) -> list[np.ndarray]:
        """(H, W) float32 from 0 to 1 in the frame of the boxes, larger is nearer; 0 where all is alike."""
        found = []
        for picture in pictures:  # one by one: processors may keep the shape of each
            pixels = self.processor([picture.convert("RGB")], return_tensors="pt")["pixel_values"]
            depth = self.model(pixel_values=pixels.to(self.model.device)).predicted_depth.float()
            wide, high = frame(picture.size)
            depth = self.sign * F.interpolate(depth[:, None], (high, wide), mode="bicubic", align_corners=False)[0, 0]
            low, range_ = depth.min(), depth.max() - depth.min()
            found.append(((depth - low) / range_ if range_ > 0 else torch.zeros_like(depth)).cpu().numpy())
        return found
