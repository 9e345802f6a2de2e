"""A model that reads pictures and writes, by its name on the command line.

openai:MODEL@URL      behind an OpenAI-compatible server; without @URL at http://localhost:8000/v1
a name                of `reverie models`: a Janus, LLaVA-OneVision
a folder or hub id    of one of these, or of a chat model of transformers, loaded here
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..models.judge_names import SERVED, is_chat, scorer, served, split
from ..models.pretrained import Found, find
from ..models.registry import Source, entries, fetched, resolve
from ..refusals import check_judges

if TYPE_CHECKING:
    from ..canvas import Work
    from . import VLM
    from .openai import Budget

__all__ = ["SERVED", "check", "load_vlm", "open_vlm", "split"]


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

    return Remembering(lambda: load_vlm(resolve(name, "judge"), device)[1](None), name, cache)


def check(name: str) -> Found | None:
    """What a name stands for, without loading it; None behind a server. ValueError for what cannot be meant."""
    if served(name):
        split(name)
        return None
    if scorer(name):
        raise ValueError(f"{name} gives scores and cannot answer questions: name a model that reads and writes.")
    listed = name in entries() or any(one.id and one.id.lower() == name.lower() for one in entries().values())
    if not listed and not (Path(name).is_dir() and not is_chat(Path(name))):
        return find(name, None, "judge")
    source = resolve(name, "judge")
    check_judges(source)
    if source.family == "inspector":
        raise ValueError(f"{name} cannot answer questions: name a model that reads and writes.")
    return Found(name, source.folder, source.config)


def load_vlm(source: Source, device: str, dtype: Any = None) -> tuple[Source, Callable[[Work | None], VLM]]:
    """A model that is loaded here, once, and a function that makes a `VLM` of it for an account of work. The source
    comes back with its folder. ValueError for files that are not complete."""
    if source.family == "chat" or (source.family is None and _chats(source)):
        return source, _load_chat(source.folder or source.name, device, dtype)
    source = fetched(source)
    check_judges(source)
    assert source.folder is not None
    if source.family == "llava":
        from ..models.llava_checkpoint import load_llava
        from .llava import LlavaEyes

        llava = load_llava(source.folder, dtype=dtype, device=device)
        view = (llava.raw.get("reverie") or {}).get("view", "pad")
        return source, lambda work: LlavaEyes(llava, view=view, work=work)
    from ..models.janus_checkpoint import load_janus
    from .janus import JanusEyes

    model, tokenizer = load_janus(source.folder, dtype=dtype, device=device)
    return source, lambda work: JanusEyes(model, tokenizer, work=work)


def _load_chat(name: str | Path, device: str, dtype: Any) -> Callable[[Work | None], VLM]:
    from .transformers import TransformersVLM

    loaded = TransformersVLM.load(name, device=device, dtype=dtype)
    return lambda work: TransformersVLM(loaded.model, loaded.processor, work=work)


def _chats(source: Source) -> bool:
    """Of a hub id that is not listed: fetches its configuration and looks."""
    from ..models.janus_checkpoint import resolve as fetch

    return is_chat(fetch(source.name, ("config.json",)))
