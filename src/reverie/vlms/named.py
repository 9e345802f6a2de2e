"""A model that reads pictures and writes, by its name on the command line.

openai:MODEL@URL      behind an OpenAI-compatible server; without @URL at http://localhost:8000/v1
a folder or hub id    a chat model of transformers, loaded here
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import VLM
    from .openai import Budget

SERVED, HERE = "openai:", "http://localhost:8000/v1"


def open_vlm(
    name: str,
    device: str = "cpu",
    *,
    cache: str | Path | None = None,
    budget: Budget | None = None,
    workers: int = 8,
    extra: Mapping[str, Any] | None = None,
) -> VLM:
    """The model; its answers are kept in `cache`. budget, workers, extra: of a served one, see `ServedVLM`."""
    from .openai import Budget, ServedVLM

    if name.startswith(SERVED):
        model, url = split(name)
        return ServedVLM(model, url, cache=cache, budget=budget or Budget(), workers=workers, extra=extra)
    from .remembering import Remembering
    from .transformers import TransformersVLM

    return Remembering(lambda: TransformersVLM.load(name, device=device), name, cache)


def split(name: str) -> tuple[str, str]:
    """Model and address of a served model's name; ValueError for one without a model."""
    model, at, address = name.removeprefix(SERVED).rpartition("@")
    if not at:
        model, address = address, HERE
    if not model or not address.startswith(("http://", "https://")):
        raise ValueError(f"{name!r} names no served model: write openai:MODEL@URL, with http:// or https://.")
    return model, address
