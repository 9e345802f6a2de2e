"""What the name of a judge stands for, wherever one is given: `--judge` of any command, a plan, a recipe, Python.

openai:MODEL@URL             a model behind an OpenAI-compatible server; without @URL at http://localhost:8000/v1
clipscore:MODEL and so on    a reward model (see SCORERS); without MODEL the usual one, where there is one
2 NAME + 1 NAME              several of these, each with its weight (1 if it is left out)
anything else                a name of `reverie models`, or a folder or hub id: of a judge of ours, or of any chat
                             model of transformers that looks at pictures

Imports nothing heavy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SERVED, HERE = "openai:", "http://localhost:8000/v1"
SCORERS: Mapping[str, str | None] = {
    "clipscore": "openai/clip-vit-large-patch14",
    "pickscore": "yuvalkirstain/PickScore_v1",
    "hpsv2": None,  # its authors publish it for open_clip only; any copy in CLIP's layout will do
    "itmscore": "Salesforce/blip-itm-base-coco",
    "imagereward": "THUDM/ImageReward",
    "vqascore": None,
}
"""Kinds of reward models to the hub id of the usual one; None where one has to be named."""


@dataclass(frozen=True)
class Scorer:
    """A reward model by name."""

    kind: str
    model: str


def weighed(name: str) -> list[tuple[str, float]]:
    """Names and weights of the judges that a name stands for: of itself alone, unless it joins several by ` + `."""
    parts = [part.strip() for part in name.split(" + ")]
    if len(parts) == 1:
        return [(name, 1.0)]
    found = [re.fullmatch(r"(?:(\d+(?:\.\d+)?)\s+)?(\S.*)", part) for part in parts]
    if any(match is None for match in found):
        raise ValueError(f"{name!r} joins judges, and one of them has no name: write NAME + NAME, or 2 NAME + 1 NAME.")
    return [(match[2], float(match[1] or 1)) for match in found if match is not None]


def served(name: str) -> bool:
    """Whether a name stands for a model behind a server."""
    return name.startswith(SERVED)


def split(name: str) -> tuple[str, str]:
    """Model and address of a served model's name; ValueError for one without a model."""
    model, at, address = name.removeprefix(SERVED).rpartition("@")
    if not at:
        model, address = address, HERE
    if not model or not address.startswith(("http://", "https://")):
        raise ValueError(f"{name!r} names no served model: write openai:MODEL@URL, with http:// or https://.")
    return model, address


def scorer(name: str) -> Scorer | None:
    """The reward model that a name stands for, None if it stands for none; ValueError where it lacks the model."""
    kind, colon, model = name.partition(":")
    if not colon or kind not in SCORERS:
        return None
    model = model or SCORERS[kind] or ""
    if not model:
        raise ValueError(f"{name!r} names no model: write {kind}:MODEL, with a folder or hub id.")
    return Scorer(kind, model)


def family_of(name: str) -> str | None:
    """`served`, `reward` or `chat` (a folder of transformers), None for all other names; ValueError for a name that
    begins like one of these and says no model."""
    if served(name):
        split(name)
        return "served"
    if scorer(name):
        return "reward"
    return "chat" if Path(name).is_dir() and is_chat(Path(name)) else None


def is_chat(folder: Path) -> bool:
    """Whether a folder holds a chat model of transformers that is none of ours: one that writes and has a processor."""
    from reverie.models.registry import FAMILIES, JUDGES

    path = folder / "config.json"
    try:
        config = json.loads(path.read_text("utf-8")) if path.is_file() else {}
    except ValueError:
        return False  # whoever reads it next says so
    if not isinstance(config, dict):
        return False
    architecture = str((config.get("architectures") or [""])[0])
    ours = architecture in JUDGES or (config.get("model_type") or config.get("_class_name")) in FAMILIES
    return not ours and architecture.endswith("ForConditionalGeneration")
