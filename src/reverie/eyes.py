"""Eyes by name, hub id or folder, for painters that cannot look: who describes pictures, and perhaps writes about them.

A Janus, a Show-o, a LLaVA-OneVision, the Atelier's inspector, any chat model with eyes that transformers loads, a model
behind a server (openai:MODEL@URL), or any VLM in Python.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from reverie.loading import load_model
from reverie.models.prompt_length import check_length
from reverie.models.registry import Source, fetched, resolve
from reverie.reason import PYTHON
from reverie.relay import LOOK_TOKENS, WORDS, Relay, Words
from reverie.thinkers import Thinker

if TYPE_CHECKING:
    from PIL.Image import Image

    from reverie.canvas import Work
    from reverie.vlms import VLM

LOOKING = ("janus", "showo", "llava", "inspector")
"""Families of our own that look at pictures."""


@dataclass(frozen=True)
class Eyes:
    """What `Relay` needs of whoever looks."""

    name: str
    look: Callable[[Sequence[Image]], list[str]]
    vlm: VLM | None
    """Who writes; None for eyes that only look."""
    words: Words
    interleaved: bool = False


def name_of(eyes: Any) -> str | None:
    """What a plan calls these eyes; VLMs that exist in Python only are marked as such."""
    if eyes is None or isinstance(eyes, str):
        return eyes
    return str(eyes) if isinstance(eyes, Path) else PYTHON + getattr(eyes, "name", type(eyes).__name__)


def check_eyes(name: str | None) -> Source | None:
    """What the name stands for as eyes, None for none and for Python objects; ValueError for what cannot look."""
    if name is None or name.startswith(PYTHON):
        return None
    source = resolve(name, "judge")
    if source.family not in (None, "served", "chat", *LOOKING):
        raise ValueError(f"{name} cannot look at pictures; name a model that can with --eyes, such as atelier-janus.")
    return source


def open_eyes(eyes: Any, device: str) -> Callable[[Work], Eyes]:
    """Loads eyes by name, or takes a VLM as it is; what comes back makes them anew for a run, with the run's account.

    ValueError for what cannot look, or where files are missing."""
    if not isinstance(eyes, str | Path):
        if not hasattr(eyes, "write_batch"):
            raise ValueError("eyes are a name, a folder, or a VLM (reverie.vlms); this is none of them.")
        own = str(name_of(eyes)).removeprefix(PYTHON)
        return lambda work: asked(own, eyes, "instruct")
    source = check_eyes(str(eyes))
    if source is None:
        raise ValueError(f"the eyes {eyes!s} are a Python object and not here; pass them as eyes=.")
    if source.family == "inspector":
        return _inspector(source, device)
    if source.family == "showo":
        source = fetched(source)
        model, tokenizer = load_model(source, device)
        return lambda work: own_eyes(source, model, tokenizer, work)
    from reverie.vlms.named import load_vlm, open_vlm

    if source.family == "served":
        served = open_vlm(str(eyes), device)
        return lambda work: asked(str(eyes), served, "instruct")
    found, made = load_vlm(source, device)
    return lambda work: asked(found.name, made(work), "atelier" if found.thinker == "atelier" else "instruct")


def check_thinker(name: str | None) -> Source | None:
    """What the name stands for as one that reasons before another paints, None for none and for Python objects;
    ValueError for what does not write."""
    if name is None or name.startswith(PYTHON):
        return None
    source = resolve(name, "judge")
    if source.family not in (None, "served", "chat", "janus", "llava"):
        raise ValueError(f"{name} cannot think for another model; name one that writes, such as atelier-janus.")
    return source


def thinking(eyes: Any, device: str, check: Callable[[str], None], work: Work, wording: str = "instruct") -> Thinker:
    """Whoever thinks for a painter, before or while it paints: a VLM, or one by name, in its own wording, or in
    `wording` if it has none of its own. ValueError for those that cannot write."""
    if not isinstance(eyes, str | Path):
        if not hasattr(eyes, "write_batch"):
            raise ValueError("who thinks is a name, a folder, or a VLM (reverie.vlms); this is none of them.")
        return Thinker(eyes, wording, check, work)
    source = check_thinker(str(eyes))
    if source is None:
        raise ValueError(f"{eyes!s}, who thinks, is a Python object and not here; pass it as eyes= or thinker=.")
    if source.family == "served":
        from reverie.vlms.named import open_vlm

        return Thinker(open_vlm(str(eyes), device), wording, check, work)
    found, made = _loaded(str(eyes), device)
    own = wording if found.thinker in (None, "instruct") else found.thinker
    return Thinker(made(work), own, check, work, found.dialogue)


@lru_cache(maxsize=1)
def _loaded(name: str, device: str) -> tuple[Source, Callable[[Work | None], VLM]]:
    """Kept for the next batch of the same run."""
    from reverie.vlms.named import load_vlm

    return load_vlm(resolve(name, "judge"), device)


def own_eyes(source: Source, model: Any, tokenizer: Any, work: Work) -> Eyes:
    """The eyes of a painter that is loaded already."""
    wording = "atelier" if source.thinker == "atelier" else "instruct"
    if source.family == "showo":
        return _showo(source.name, model, tokenizer, wording)
    from reverie.vlms.janus import JanusEyes

    return asked(source.name, JanusEyes(model, tokenizer, work=work), wording)


def shut(name: Any) -> Eyes:
    """For pictures whose words are known: nobody looks, and nothing is loaded."""

    def look(pictures: Sequence[Image]) -> list[str]:
        raise AssertionError("the words of all pictures are known")

    return Eyes(str(name_of(name)), look, None, WORDS["instruct"])


def relay_of(painter: Source, eyes: Eyes, writer: VLM | None, work: Work) -> Relay:
    """A relay from these eyes to a painter. The eyes' own model writes if it can, else `writer`, the painter's."""
    reads = partial(check_length, painter)
    if eyes.vlm is not None:
        fits = reads if eyes.name == painter.name else _anything
        return Relay(eyes.name, eyes.look, eyes.vlm, eyes.words, eyes.interleaved, fits, reads, work)
    words = WORDS["atelier" if painter.thinker == "atelier" else "instruct"]
    return Relay(eyes.name, eyes.look, writer, replace(words, sees=False), False, reads, reads, work)


def _anything(text: str) -> None:
    """Nothing is known about what fits into a model of another kind."""


def asked(name: str, vlm: VLM, wording: str) -> Eyes:
    """Eyes of a model that writes: it is asked what it sees."""
    from reverie.vlms import Message

    words = WORDS[wording]

    def look(pictures: Sequence[Image]) -> list[str]:
        return vlm.write_batch([[Message("user", words.look, (picture,))] for picture in pictures], LOOK_TOKENS)

    return Eyes(name, look, vlm, words, getattr(vlm, "interleaves", False))


def _showo(name: str, model: Any, tokenizer: Any, wording: str) -> Eyes:
    """Eyes of a Show-o, which answers questions about one picture and writes nothing else."""
    from reverie.vlms.showo import ShowoEyes

    own, words = ShowoEyes(model, tokenizer), WORDS[wording]
    return Eyes(name, lambda pictures: [own.answer(picture, words.look) for picture in pictures], None, words)


def _inspector(source: Source, device: str) -> Callable[[Work], Eyes]:
    from reverie.atelier.inspector import Inspector
    from reverie.atelier.language import canonical, demand_of

    assert source.folder is not None
    inspector = Inspector.load(source.folder, device)

    def look(pictures: Sequence[Image]) -> list[str]:
        scenes = [sighting.to_scene() for sighting in inspector.look(list(pictures))]
        return [canonical(demand_of(scene)) if scene.things else "nothing" for scene in scenes]

    return lambda work: Eyes(source.name, look, None, WORDS["atelier"])
