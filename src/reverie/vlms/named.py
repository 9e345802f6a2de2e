"""A model that reads pictures and writes, by its name on the command line.

openai:MODEL@URL      behind an OpenAI-compatible server; without @URL at http://localhost:8000/v1
a folder or hub id    a chat model of transformers, loaded here
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.judge_names import SERVED, served, split
from ..models.pretrained import Found, find

if TYPE_CHECKING:
    from . import VLM
    from .openai import Budget

__all__ = ["SERVED", "check", "open_vlm", "split"]


def open_vlm(
    name: str,
    device: str = "cpu",
    *,
    cache: str | Path | None = None,
    budget: Budget | None = None,
    workers: int = 8,
    extra: Mapping[str, Any] | None = None,
) -> VLM:
    """The model; its answers are kept in `cache`. budget, workers, extra: of a served one, see `ServedVLM`. ValueError,
    before anything is loaded, for what is none."""
    from .openai import Budget, ServedVLM

    check(name)
    if served(name):
        model, url = split(name)
        return ServedVLM(model, url, cache=cache, budget=budget or Budget(), workers=workers, extra=extra)
    from .remembering import Remembering
    from .transformers import TransformersVLM

    return Remembering(lambda: TransformersVLM.load(name, device=device), name, cache)


def check(name: str) -> Found | None:
    """What a name stands for, without loading it; None behind a server. ValueError for what cannot be meant."""
    if served(name):
        split(name)
        return None
    return find(name, None, "judge")
