"""The inspector: a small network that says what a picture of the Atelier contains.

A U-shaped convolutional network reads 96 x 96 pixels, folded by 4, on a 24 x 24 grid. Things are found as peaks of
centre heatmaps (CenterNet, Zhou et al. 2019, arXiv 1904.07850): one map for things of usual size, one for containers
(scale above `BIG`), because a small thing may stand in the very middle of a big one. At each peak a small tower reads
offset, scale, kind, colour, texture, action and state; background and style come from the pooled picture. Left out on
purpose: anchors, a box regression (a thing's box follows from its kind and scale, as in `draw.box`) and masks.

    inspector = Inspector.load(folder)
    sightings = inspector.look(pictures)          # one Sighting a picture

Trained by `training/inspector.py`, measured by `inspect_report.py`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from ..files import write_atomically
from ..precision import multiplies_bf16
from .draw import SIDE, box
from .kinds import KINDS
from .scene import ACTIONS, BACKGROUNDS, COLOURS, STYLES, TEXTURES, Scene, Thing

KIND_NAMES = tuple(KINDS)
COLOUR_NAMES = tuple(COLOURS)
ACTION_NAMES: tuple[str | None, ...] = (None, *ACTIONS)
STATE_NAMES = tuple(dict.fromkeys(state for kind in KINDS.values() for state in kind.states))
BIG = 0.6
"""Things whose frame is wider than this share of the picture have a heatmap of their own."""
DETAIL = 3.0
COLOURLESS_STYLES = ("sketch", "futuristic", "old")
"""Styles that replace the colours of the picture."""
FIELDS = {
    "place": 3,  # offset x and y from the middle of the cell, in cells; log of scale / 0.33
    "kind": len(KIND_NAMES),
    "colour": len(COLOUR_NAMES),
    "texture": len(TEXTURES),
    "action": len(ACTION_NAMES),
    "state": len(STATE_NAMES),
}


@dataclass(frozen=True)
class InspectorSizes:
    """Sizes of the network: channels and residual blocks at 24 x 24 (before and after) and at 12 x 12."""

    side: int = SIDE
    fold: int = 4
    width: int = 96
    deep: int = 192
    early: int = 1
    middle: int = 4
    late: int = 2
    hidden: int = 384

    @property
    def grid(self) -> int:
        return self.side // self.fold


class Block(nn.Module):
    """x + conv(relu(conv(norm(x)))): one norm for two convolutions, since norms cost more than these."""

    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(16, width)
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.conv2.weight.mul_(0.3)  # a deep stack of sums starts calm

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.relu(self.conv1(self.norm(x)), inplace=True))


class InspectorNet(nn.Module):
    """Pixels to heatmaps and features; `read` turns features at chosen cells into attribute logits."""

    def __init__(self, sizes: InspectorSizes | None = None):
        super().__init__()
        self.sizes = s = sizes or InspectorSizes()
        self.stem = nn.Conv2d(3 * s.fold**2, s.width, 3, padding=1)
        self.early = nn.Sequential(*(Block(s.width) for _ in range(s.early)))
        self.down = nn.Conv2d(s.width, s.deep, 4, stride=2, padding=1)
        self.middle = nn.Sequential(*(Block(s.deep) for _ in range(s.middle)))
        self.middle_norm = nn.GroupNorm(16, s.deep)
        self.up = nn.Conv2d(s.deep, s.width, 1)
        self.late = nn.Sequential(*(Block(s.width) for _ in range(s.late)))
        self.late_norm = nn.GroupNorm(16, s.width)
        self.heat_head = nn.Sequential(nn.Conv2d(s.width, 48, 3, padding=1), nn.ReLU(), nn.Conv2d(48, 2, 1))
        last = self.heat_head[2]
        assert isinstance(last, nn.Conv2d)
        assert last.bias is not None
        nn.init.constant_(last.bias, -4.0)  # centres are rare: begin near "nothing here"
        self.towers = nn.ModuleList(_tower(s.width + s.deep, s.hidden, sum(FIELDS.values())) for _ in range(2))
        self.picture = _tower(2 * s.deep, 128, len(BACKGROUNDS) + len(STYLES))

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(B, 3, side, side) uint8 -> heat logits (B, 2, g, g), features (B, g, g, C), picture logits (B, 20)."""
        x = self.early(self.stem(self._folded(pixels)))
        deep = self.middle_norm(self.middle(self.down(x)))
        x = self.late_norm(self.late(x + F.interpolate(self.up(deep), scale_factor=2.0, mode="nearest")))
        pooled = torch.cat((deep.mean((2, 3)), deep.amax((2, 3))), 1)
        wide = F.interpolate(deep, scale_factor=2.0, mode="nearest")
        return self.heat_head(x), torch.cat((x, wide), 1).permute(0, 2, 3, 1), self.picture(pooled)

    def _folded(self, pixels: Tensor) -> Tensor:
        """(B, 3, side, side) uint8 -> (B, 3 * fold², g, g), details within a cell `DETAIL` times as strong as its mean.

        Details have a fiftieth of the variance of flat colour; unamplified, textures are still unlearnt when colours
        are perfect.
        """
        x = F.pixel_unshuffle(pixels.float() / 127.5 - 1, self.sizes.fold).unflatten(1, (3, -1))
        x = torch.lerp(x.mean(2, keepdim=True), x, DETAIL).flatten(1, 2)
        return x.contiguous(memory_format=torch.channels_last)

    def read(self, features: Tensor, big: Tensor) -> dict[str, Tensor]:
        """Features of M cells (M, C) and which of them are of the big map (M,) bool -> `FIELDS`, each (M, n) float."""
        usual, large = (tower(features).float() for tower in self.towers)
        return dict(zip(FIELDS, torch.where(big[:, None], large, usual).split(list(FIELDS.values()), 1), strict=True))


def _tower(inward: int, hidden: int, outward: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(inward), nn.Linear(inward, hidden), nn.GELU(), nn.Linear(hidden, outward))


# ----------------------------------------------------------------------------------------------- what was seen


@dataclass(frozen=True)
class Seen(Thing):
    """A thing that was found. score: height of the heatmap times probability of the kind, in [0, 1].

    The usual look of a kind has `state` None. `box` is (x0, y0, x1, y1) in fractions of the picture.
    """

    score: float = 0.0

    @property
    def box(self) -> tuple[float, float, float, float]:
        return box(self)


@dataclass(frozen=True)
class Sighting:
    """What one picture contains, best score first."""

    objects: tuple[Seen, ...]
    background: str
    style: str

    def to_scene(self) -> Scene:
        """The same as a scene: containers are drawn first, so that what stands inside them shows."""
        names = [field.name for field in fields(Thing)]
        drawn = sorted(self.objects, key=lambda seen: -seen.scale)
        things = (Thing(**{name: getattr(seen, name) for name in names}) for seen in drawn)
        return Scene(tuple(things), self.background, self.style)

    def to_detections(self, side: int = SIDE) -> tuple[dict[str, list[list[float]]], dict[str, list[str | None]]]:
        """GenEval's raw form, in pixels of a picture of `side`: {kind: [[x0, y0, x1, y1, score], ...]}, and the
        colours in the same order: {kind: [colour, ...]}."""
        boxes: dict[str, list[list[float]]] = {}
        colours: dict[str, list[str | None]] = {}
        for seen in self.objects:
            corners = [min(max(edge, 0.0), 1.0) * side for edge in seen.box]
            boxes.setdefault(seen.kind, []).append([*corners, seen.score])
            colours.setdefault(seen.kind, []).append(seen.colour)
        return boxes, colours


def colour_shows(thing: Thing, style: str = "plain") -> bool:
    """Whether a picture tells this thing's colour: not in `COLOURLESS_STYLES`, and national flags have their own."""
    return style not in COLOURLESS_STYLES and not (thing.kind == "flag" and thing.state not in (None, "plain"))


def relation_between(thing: Thing, other: Thing) -> str | None:
    """One of `scene.RELATIONS` for two placed things, or None where their centres coincide.

    "inside": a smaller thing with its centre near the middle of the other's box; "on": feet at the other's top edge, or
    up to 0.12 below it, and centres at most 0.1 apart across; else the axis along which the centres lie further apart.
    """
    right, down = thing.x - other.x, thing.y - other.y
    if thing.scale < 0.7 * other.scale and math.hypot(right, down) < 0.2 * other.scale:
        return "inside"
    gap = box(other)[1] - box(thing)[3]
    # Drawn things overlap by 0.02, and a box is found to within 0.05 or so; "above" leaves 0.04 or more.
    if -0.12 < gap < 0.015 and abs(right) < 0.1 and down < 0:
        return "on"
    if right == down == 0:
        return None
    if abs(right) >= abs(down):
        return "right of" if right > 0 else "left of"
    return "below" if down > 0 else "above"


# ------------------------------------------------------------------------------------------------- the inspector


class Inspector:
    """A trained network with what it takes to look at pictures."""

    def __init__(self, net: InspectorNet, device: str | torch.device = "cpu", fast: bool = False):
        """`fast` computes in bf16 where the device multiplies it: several times quicker on GPUs and CPUs with AMX."""
        self.net = net.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        self.device, self.fast = torch.device(device), fast and multiplies_bf16(device)

    @classmethod
    def load(cls, folder: str | Path, device: str | torch.device = "cpu", fast: bool = False) -> Inspector:
        """The inspector that `save` wrote into `folder`. ValueError if there is none, or one of other kinds."""
        from safetensors import safe_open
        from safetensors.torch import load_file

        path = Path(folder) / "inspector.safetensors"
        if not path.is_file():
            raise ValueError(f"There is no {path}: give the folder that an inspector was saved into.")
        with safe_open(path, "pt") as file:
            header = json.loads((file.metadata() or {}).get("config", "{}"))
        if header.get("words") != _words():
            raise ValueError(f"{path} knows other kinds or words than this version draws: train it again.")
        net = InspectorNet(InspectorSizes(**header["sizes"]))
        net.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
        return cls(net, device, fast)

    def save(self, folder: str | Path) -> None:
        """Write the weights, in bf16 and with the configuration in the header, to `folder`."""
        from safetensors.torch import save_file

        state = self.net.state_dict()
        tensors = {name: tensor.to("cpu", torch.bfloat16).contiguous() for name, tensor in state.items()}
        config = json.dumps({"sizes": asdict(self.net.sizes), "words": _words()})

        def write(partial: Path) -> None:
            save_file(tensors, partial, metadata={"config": config})
            partial.chmod(0o644)  # safetensors lets only the owner read

        write_atomically(Path(folder) / "inspector.safetensors", write)

    @torch.inference_mode()
    def look(self, images: Sequence[Image.Image] | Tensor, threshold: float = 0.3, batch: int = 64) -> list[Sighting]:
        """What the pictures contain: PIL images of any size, or a uint8 tensor (B, 3, H, W).

        Things with a score below `threshold` are left out; at most 12 are reported a picture.
        """
        found: list[Sighting] = []
        for pixels in self._batches(images, batch):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.fast):
                heat, features, picture = self.net(pixels.to(self.device))
                peaks = find_peaks(heat.float().sigmoid(), threshold)
                image, level, row, column = peaks.where.unbind(1)
                logits = self.net.read(features[image, row, column], level == 1)
            found += decode(peaks, logits, picture.float(), self.net.sizes.grid, threshold)
        return found

    def _batches(self, images: Sequence[Image.Image] | Tensor, batch: int) -> Iterator[Tensor]:
        side = self.net.sizes.side
        for start in range(0, len(images), batch):
            part = images[start : start + batch]
            if isinstance(part, Tensor):
                if part.dtype != torch.uint8 or part.ndim != 4 or part.shape[1] != 3:
                    raise ValueError(f"Pictures must be uint8 (B, 3, H, W); got {part.dtype}, {tuple(part.shape)}.")
                if part.shape[2:] != (side, side):
                    part = F.interpolate(part.float(), (side, side), mode="bilinear", antialias=True).round().byte()
                yield part
            else:
                fitted = (image.convert("RGB").resize((side, side), Image.Resampling.BICUBIC) for image in part)
                yield torch.from_numpy(np.stack([np.asarray(image) for image in fitted])).permute(0, 3, 1, 2)


def _words() -> dict[str, list[str | None]]:
    """What the outputs mean, in order."""
    names = {"kind": KIND_NAMES, "colour": COLOUR_NAMES, "texture": TEXTURES, "action": ACTION_NAMES}
    names |= {"state": STATE_NAMES, "background": BACKGROUNDS, "style": STYLES}
    return {field: list(words) for field, words in names.items()}


@dataclass(frozen=True)
class Peaks:
    """where: (M, 4) picture, map (0 usual, 1 big), row and column; height: (M,) in [0, 1]; pictures: how many."""

    where: Tensor
    height: Tensor
    pictures: int


def find_peaks(heat: Tensor, threshold: float) -> Peaks:
    """Cells of (B, 2, g, g) that are the highest of their 3 x 3 neighbours and reach `threshold`."""
    top = (heat == F.max_pool2d(heat, 3, 1, 1)) & (heat >= threshold)
    where = top.nonzero()
    return Peaks(where, heat[top], len(heat))


def decode(peaks: Peaks, logits: dict[str, Tensor], picture: Tensor, grid: int, threshold: float) -> list[Sighting]:
    """Sightings from the peaks, the attribute logits at them (each (M, n)) and the picture logits (B, 20)."""
    sure, kind = logits["kind"].softmax(1).max(1)
    score = (peaks.height * sure).tolist()
    choice = {name: logits[name].argmax(1).tolist() for name in ("colour", "texture", "action")}
    places, states, kinds = logits["place"].tolist(), logits["state"].cpu(), kind.tolist()
    seen: list[list[Seen]] = [[] for _ in range(peaks.pictures)]
    for i, (image, _, row, column) in enumerate(peaks.where.tolist()):
        if score[i] < threshold:
            continue
        name, (dx, dy, log_scale) = KIND_NAMES[kinds[i]], places[i]
        seen[image].append(
            Seen(
                kind=name,
                colour=COLOUR_NAMES[choice["colour"][i]],
                x=round((column + 0.5 + dx) / grid, 4),
                y=round((row + 0.5 + dy) / grid, 4),
                scale=round(0.33 * math.exp(min(log_scale, 2.0)), 4),
                texture=TEXTURES[choice["texture"][i]],
                action=ACTION_NAMES[choice["action"][i]],
                state=_state_of(name, states[i]),
                score=round(score[i], 4),
            )
        )
    ground, style = picture.split([len(BACKGROUNDS), len(STYLES)], 1)
    pairs = zip(ground.argmax(1).tolist(), style.argmax(1).tolist(), strict=True)
    return [Sighting(_distinct(s), BACKGROUNDS[g], STYLES[t]) for s, (g, t) in zip(seen, pairs, strict=True)]


def _state_of(kind: str, logits: Tensor) -> str | None:
    """The likeliest of the kind's own states; None for the usual look, which comes first."""
    states = KINDS[kind].states
    if not states:
        return None
    best = max(states, key=lambda state: float(logits[STATE_NAMES.index(state)]))
    return None if best == states[0] else best


def _distinct(seen: list[Seen], most: int = 12) -> tuple[Seen, ...]:
    """Best first, without things seen twice: centres nearer than a fifth of the smaller frame, and of like size."""
    kept: list[Seen] = []
    for one in sorted(seen, key=lambda s: -s.score):
        twice = any(
            math.hypot(one.x - other.x, one.y - other.y) < 0.2 * min(one.scale, other.scale)
            and 0.67 < one.scale / other.scale < 1.5
            for other in kept
        )
        if not twice:
            kept.append(one)
    return tuple(kept[:most])
