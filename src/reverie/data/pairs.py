"""Pairs of images of one prompt as codes: what DPO learns from, and what a painter learns to correct itself from.

`preference`: a right image and a wrong one for each prompt that has both (arXiv 2501.13926, section 6: one random pair
a prompt; prompts whose images all agree drop out, which in an iterative round are the easy and the hopeless ones).
`correction`: a wrong image, what is wrong with it, and a right one (section 5: PARM++).

    pairs.json           kind, counts, and for each pair: prompt, reason, and of both images the shard, row and seed
    pairs.safetensors    better (P, L) and worse (P, L) int32

Codes and not pictures, since encoding a decoded picture does not give its codes back.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file

from ..choose import painted, without_cache
from ..files import write_atomically
from .paths import Label, Paths, codes_of
from .verifier import reasons_of

if TYPE_CHECKING:
    from torch import Tensor

    from ..canvas import Generator as GeneratorOfImages
    from ..judges import Judge

KINDS = ("preference", "correction")


@dataclass(frozen=True)
class PairData:
    """each: pairs of a prompt at most. pick: `random` as published, or `extreme`, the best against the worst score."""

    each: int = 1
    pick: str = "random"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.each < 1:
            raise ValueError(f"each={self.each}: at least one pair for a prompt.")
        if self.pick not in ("random", "extreme"):
            raise ValueError(f"pick={self.pick!r}: must be random or extreme.")


@dataclass(frozen=True)
class Place:
    """Where an image lies among the painted paths."""

    shard: int
    row: int
    label: Label


@dataclass(frozen=True)
class Pairs:
    """What a folder holds: `better` and `worse` are (P, L) codes."""

    kind: str
    prompts: tuple[str, ...]
    reasons: tuple[str, ...]
    better: Tensor
    worse: Tensor


def build_pairs(
    kind: str, paths: Paths, generator: GeneratorOfImages, judge: Judge, folder: str | Path, config: PairData
) -> dict[str, int]:
    """Writes the pairs of all paths; returns how many prompts there are, and why some have none."""
    prompts = _by_prompt(paths)
    chosen: list[tuple[Place, Place]] = []
    counts = {"prompts": len(prompts), "all right": 0, "all wrong": 0}
    for prompt, places in prompts.items():
        right = [place for place in places if place.label.right]
        wrong = [place for place in places if not place.label.right]
        if not right or not wrong:
            counts["all right" if right else "all wrong"] += 1
            continue
        chosen += _paired(right, wrong, config, random.Random(f"{kind}/{config.seed}/{prompt}"))
    if not chosen:
        raise ValueError(
            f"{paths.folder}: no prompt has both a right and a wrong image; paint more of each, or other prompts."
        )
    counts["pairs"] = len(chosen)
    codes, pictures = _codes(paths, generator, chosen, with_pictures=kind == "correction")
    reasons = [""] * len(chosen)
    if kind == "correction":
        reasons = reasons_of(judge, [worse.label for _, worse in chosen], [pictures[_at(w)] for _, w in chosen])
    _write(Path(folder), kind, counts, chosen, reasons, codes)
    return counts


def _by_prompt(paths: Paths) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for shard in paths.shards():
        for row, label in enumerate(shard.labels):
            found.setdefault(label.prompt, []).append(Place(shard.number, row, label))
    return found


def _paired(
    right: Sequence[Place], wrong: Sequence[Place], config: PairData, rng: random.Random
) -> list[tuple[Place, Place]]:
    count = min(config.each, len(right), len(wrong))
    if config.pick == "random":
        return list(zip(rng.sample(list(right), count), rng.sample(list(wrong), count), strict=True))
    best, worst = (sorted(some, key=lambda p: p.label.score or 0.0) for some in (right, wrong))
    return list(zip(best[::-1][:count], worst[:count], strict=True))


def _at(place: Place) -> tuple[int, int]:
    return place.shard, place.row


def _codes(
    paths: Paths, generator: GeneratorOfImages, chosen: Sequence[tuple[Place, Place]], with_pictures: bool
) -> tuple[dict[tuple[int, int], Tensor], dict[tuple[int, int], Any]]:
    """Codes of all images of the pairs, and pictures of the worse ones; each shard is opened once."""
    wanted: dict[int, set[int]] = {}
    for pair in chosen:
        for place in pair:
            wanted.setdefault(place.shard, set()).add(place.row)
    shown = {_at(worse) for _, worse in chosen} if with_pictures else set()
    codes: dict[tuple[int, int], Tensor] = {}
    pictures: dict[tuple[int, int], Any] = {}
    for number, rows in sorted(wanted.items()):
        canvas, order = paths.shard(number).canvas(), sorted(rows)
        for row, found in zip(order, codes_of(generator, without_cache(canvas).select(order)), strict=True):
            codes[number, row] = found
        looked = [row for row in order if (number, row) in shown]
        for row, picture in zip(looked, painted(generator, without_cache(canvas).select(looked)), strict=True):
            pictures[number, row] = picture
    return codes, pictures


def _write(
    folder: Path,
    kind: str,
    counts: dict[str, int],
    chosen: Sequence[tuple[Place, Place]],
    reasons: Sequence[str],
    codes: dict[tuple[int, int], Tensor],
) -> None:
    def told(place: Place) -> dict[str, int]:
        return {"shard": place.shard, "row": place.row, "seed": place.label.seed}

    rows = [
        {"prompt": b.label.prompt, "reason": reason, "better": told(b), "worse": told(w)}
        for (b, w), reason in zip(chosen, reasons, strict=True)
    ]
    text = json.dumps({"kind": kind, "counts": counts, "pairs": rows}, ensure_ascii=False, indent=1) + "\n"
    tensors = {
        name: torch.stack([codes[_at(pair[side])] for pair in chosen]).to(torch.int32)
        for side, name in enumerate(("better", "worse"))
    }
    write_atomically(folder / "pairs.safetensors", lambda part: save_file(tensors, part))
    write_atomically(folder / "pairs.json", lambda part: part.write_text(text, "utf-8"))


def read_pairs(folder: str | Path, kind: str = "preference") -> Pairs:
    """The pairs of a folder. ValueError where it holds none, or others."""
    path = Path(folder) / "pairs.json"
    if not path.is_file():
        raise ValueError(f"There are no pairs in {folder}; build them with `reverie data build {kind}`.")
    about = json.loads(path.read_text("utf-8"))
    if about["kind"] != kind:
        raise ValueError(f"{folder} holds data for {about['kind']}, not {kind}; give another folder.")
    codes = load_file(Path(folder) / "pairs.safetensors")
    rows = about["pairs"]
    return Pairs(
        kind,
        tuple(row["prompt"] for row in rows),
        tuple(row["reason"] for row in rows),
        codes["better"].long(),
        codes["worse"].long(),
    )
